"""Reads a table, view or query through SQLAlchemy by one statement, its rows streamed in bounded memory.

The driver's own values are taken: SQLAlchemy would round a decimal where a database has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
import sqlalchemy as sa
from sqlalchemy import exc

from databrokkr_assets.core.errors import DatabrokkrError, DataError
from databrokkr_assets.core.ports import Batch, Cursor, RelationRead, Stream
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.cursor import Incremental
from resources.support.database_source import DatabaseSource
from resources.support.row_feed import MOST_ROWS, Row, RowFeed, in_lists
from resources.support.sqlalchemy_database import Database, columns_of, no_table, told
from resources.support.sqlalchemy_types import Field, field, seen

if TYPE_CHECKING:
    from resources.connectors.sqlalchemy import SqlAlchemySourceSettings

_FIRST_ROWS = 1000


class SqlAlchemySource(DatabaseSource[Field]):
    """Reads one table, view or query, by one statement."""

    def __init__(self, settings: SqlAlchemySourceSettings, database: Database) -> None:
        super().__init__(settings, settings.name())
        self._as_text, self._types = settings.as_text, settings.types
        self._database = database

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        """The rows as a query over `duck`, pulled from the database while it runs."""
        (found, keys), value = self._described, self._resumes_at(after)
        read = RowFeed(partial(self._rows, value), found, _position(found, keys)).relation(duck)
        explain = read.explain
        read = replace(read, explain=lambda error: self._explained(explain(error)))
        if self._incremental and value is not None:
            # Exactly: the database was asked for a few more.
            read = replace(read, query=f"SELECT * FROM ({read.query}) WHERE {self._incremental.at_least(value)}")
        return self._resuming(read, after)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows as batches; those that were set aside come with the last, which is empty."""
        with open_duck() as duck:
            yield from self._batches(duck, self.relation(duck, stream, after), after)

    def _rows(self, value: str | None) -> Iterator[list[Any]]:
        found, _ = self._described
        listed = [
            sa.cast(sa.column(one.name), sa.Text()).label(one.name) if one.cast else sa.column(one.name)
            for one in found
        ]
        statement = sa.select(*listed).select_from(self._from)
        if value is not None and self._incremental is not None:
            statement = statement.where(_narrowed(self._incremental, value))
        with self._database.connected() as connection:
            # A driver that cannot stream holds all rows; the others fetch what is asked for.
            options = {"stream_results": True, "max_row_buffer": MOST_ROWS}
            yield from in_lists(connection.execute(statement, execution_options=options).fetchmany)

    @property
    def _told(self) -> str:
        return told(self._name) if self._name else "query"

    @property
    def _from(self) -> Any:
        if self._name:
            return sa.table(self._name.table, schema=self._name.schema or None)
        # A colon would begin a parameter. The line break ends a comment that the author's query may end with.
        query = (self._settings.query or "").rstrip().rstrip(";").replace(":", "\\:")
        return sa.text(f"({query}\n) databrokkr_query")

    def _refuse_cursor(self, column: Field) -> None:
        if column.cast or column.number:
            what = f'"{column.name}" cannot be a cursor: it arrives as text, which has another order'
            raise self._spec_error(what, "choose another column, or cast it in a `query`")

    def _look(self) -> tuple[Sequence[Field], Sequence[str]]:
        with self._database.connected() as connection:
            found, keys = self._reflected(connection) if self._name else (self._seen(connection), ())
        return self._chosen(found, (*self._as_text, *self._types)), keys

    def _reflected(self, connection: sa.Connection) -> tuple[list[Field], tuple[str, ...]]:
        assert self._name is not None
        look, schema = sa.inspect(connection), self._name.schema or None
        try:
            columns = columns_of(look, self._name)
        except exc.NoSuchTableError as error:
            raise no_table(connection, self._name) from error
        found = [field(one["name"], one["type"], as_text=one["name"] in self._as_text) for one in columns]
        with suppress(exc.NoSuchTableError, NotImplementedError):  # a view
            return found, tuple(look.get_pk_constraint(self._name.table, schema)["constrained_columns"])
        return found, ()

    def _seen(self, connection: sa.Connection) -> list[Field]:
        """The columns of a query, typed by its first rows where the settings do not say more."""
        statement = sa.select(sa.text("*")).select_from(self._from)
        result = connection.execute(statement, execution_options={"stream_results": True})
        told_by_driver = result.cursor.description if result.cursor else []
        names, rows = list(result.keys()), result.fetchmany(_FIRST_ROWS)
        result.close()
        by_column = list(zip(*rows, strict=True)) or [()] * len(names)
        return [
            self._declared(name) or seen(name, values, about[4], about[5])
            for name, values, about in zip(names, by_column, told_by_driver, strict=True)
        ]

    def _declared(self, name: str) -> Field | None:
        if name in self._as_text:
            return Field(name, "VARCHAR", "any", cast=True)
        own = self._types.get(name)
        return Field(name, own, f"declared {own}") if own else None

    def _explained(self, error: Exception | None) -> DatabrokkrError | None:
        if error is None or isinstance(error, DatabrokkrError):
            return error
        mend = "read the column as text with `as_text`"
        return DataError(f"the driver could not read a value: {error}", mend=mend, where=self._told)


def _position(found: Sequence[Field], keys: Sequence[str]) -> Any:
    places = [(name, [one.name for one in found].index(name)) for name in keys]

    def position(row: Row, number: int) -> str:
        return ", ".join(f"{name} {row[at]}" for name, at in places) or f"row {number + 1}"

    return position


def _narrowed(incremental: Incremental, value: str) -> sa.ColumnElement[bool]:
    """A condition that all rows from `value` on meet; some more do, where databases round or order in other ways."""
    column: sa.ColumnClause[Any] = sa.column(incremental.column)
    bound = _bound(incremental.type, value)
    if bound is None:
        return sa.true()
    condition = column >= sa.literal(bound)
    return sa.or_(condition, column.is_(None)) if incremental.nulls else condition


def _bound(kind: str, value: str) -> Any:
    """The value for the driver; `None` where it has none, or where the database's order may be another than ours."""
    with suppress(ValueError, OverflowError):
        match kind:
            case "BIGINT":
                return int(value)
            case "DOUBLE":
                return float(value)
            case "DATE":
                return date.fromisoformat(value)
            case "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE":
                return datetime.fromisoformat(value) - timedelta(seconds=1)
            case _ if kind.startswith("DECIMAL"):
                return Decimal(value)
    return None

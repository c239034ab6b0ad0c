"""Reading a table or query of a database, whatever the database: its columns, its key, and where to resume."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Generic, Protocol, TypeVar

import duckdb

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import columns
from databrokkr_assets.core.ports import Batch, Cursor, ReadsAsRelation, RelationRead, Source, Stream
from resources.support.columns import arrow_schema, batches
from resources.support.cursor import Incremental
from resources.support.database_nodes import DatabaseSourceSettings
from resources.support.tables import TableName


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name."""


class ReadColumn(Named, Protocol):
    """A column that is read."""

    @property
    def own(self) -> str:
        """The DuckDB type in which it arrives."""


Found = TypeVar("Found", bound=Named)
Column = TypeVar("Column", bound=ReadColumn)


class DatabaseSource(Source, ReadsAsRelation, Generic[Column]):
    """Reads one table or query. A connector says what there is to read, and gives the rows as a relation."""

    def __init__(self, settings: DatabaseSourceSettings, name: TableName | None) -> None:
        self._settings = settings
        self._name = name

    @abstractmethod
    def _look(self) -> tuple[Sequence[Column], Sequence[str]]:
        """The columns that are read, which `_chosen` chooses, and the primary key; none for a query.

        Asked once. Raises SpecError for a table or column that is not there, AccessError, or Unavailable.
        """

    def _refuse_cursor(self, column: Column) -> None:
        """Raise SpecError for a column that arrives in another order than the database's; none does, unless said."""

    def streams(self) -> Iterator[Stream]:
        """The one stream that the settings ask for, with its columns as they arrive and its primary key.

        Raises SpecError for a table or column that is not there, AccessError, or Unavailable.
        """
        found, keys = self._described
        yield Stream(self._told, arrow_schema((one.name, one.own) for one in found), keys)

    @property
    def _told(self) -> str:
        """What errors call the table or query."""
        return str(self._name) if self._name else "query"

    @property
    def _from(self) -> str:
        """The table or query, as it stands behind FROM."""
        return self._settings.rows_in_sql(self._name)

    @cached_property
    def _described(self) -> tuple[tuple[Column, ...], tuple[str, ...]]:
        """The columns that are read, and the primary key where there is one and it is among them."""
        found, keys = self._look()
        return tuple(found), tuple(keys) if set(keys) <= {one.name for one in found} else ()

    @cached_property
    def _incremental(self) -> Incremental | None:
        found, keys = self._described
        for column in found:
            if column.name == self._settings.cursor:
                self._refuse_cursor(column)
                return self._settings.incremental(column.own, tuple(one.name for one in found), keys)
        return None

    def _resumes_at(self, after: Cursor | None) -> str | None:
        """The value from which to read, as text; `None` to read all rows."""
        return self._incremental.resumes_at(after) if self._incremental else None

    def _resuming(self, read: RelationRead, after: Cursor | None) -> RelationRead:
        """The rows of a relation (those from `_resumes_at` on), read by the cursor where the settings name one."""
        if self._incremental is None:
            return read
        fresh = partial(self._incremental.fresh, after=after)
        return replace(read, fresh=fresh, advance=self._incremental.advance(after))

    def _batches(self, duck: duckdb.DuckDBPyConnection, read: RelationRead, after: Cursor | None) -> Iterator[Batch]:
        """The rows of a relation as batches; those that were set aside come with one more, which is empty."""
        last = None
        try:
            for last in batches(duck, read.fresh(read.query), self._incremental, after):
                yield last
        except duckdb.Error as error:
            raise read.explain(error) or error from error
        rejects = tuple(read.rejects())
        if last is not None and rejects:
            yield Batch(last.records.slice(0, 0), last.cursor, rejects)

    def _chosen(self, found: Sequence[Found], also: Sequence[str] = ()) -> tuple[Found, ...]:
        """The columns to read among those found. Raises SpecError for one, or for one named in `also`, that is not."""
        names, cursor = [one.name for one in found], self._settings.cursor
        wanted = self._settings.columns or tuple(names)
        for word in (*wanted, *also):
            if word not in names:
                raise self._spec_error(f'there is no column "{word}"', did_you_mean(word, names))
        if cursor is not None and cursor not in wanted:
            raise self._spec_error(f'the cursor "{cursor}" is not read', did_you_mean(cursor, wanted))
        if not wanted:
            raise self._spec_error("it has no columns", "read a table that has some")
        folded = [name.casefold() for name in wanted]
        doubles = [name for name in wanted if folded.count(name.casefold()) > 1]
        if doubles:
            what = f"the columns {columns(doubles)} have one name but for its case"
            raise self._spec_error(what, "rename them in a `query`")
        return tuple(found[names.index(name)] for name in wanted)

    def _no_table(self, missing: str, tables: Sequence[str]) -> SpecError:
        """The error for a table that is not there (`missing` for one in a query), with what may have been meant."""
        word = self._told if self._name else missing
        near = difflib.get_close_matches(word, tables, n=20, cutoff=0.3) or tables[:20]
        return self._spec_error(f'there is no table "{word}"', did_you_mean(word, near))

    def _spec_error(self, what: str, mend: str) -> SpecError:
        return SpecError(what, mend=mend, where=self._told)

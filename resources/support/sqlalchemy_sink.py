"""Writes a table through SQLAlchemy: rows into a staging table, read back and compared, then one transaction.

What a database makes of a value is not known for every dialect: it may round a timestamp, pad a text, or take an empty
text for NULL. So what was staged is read back, and a load whose rows came out otherwise is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import duckdb
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.schema import CreateColumn

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import DataError, SpecError, Unavailable
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import LoadMark, Receipt, Target
from databrokkr_assets.engine.shaping import PROVENANCE
from resources.support import ledger
from resources.support.fitting import Place, fitted, refusals
from resources.support.row_feed import RowFeed, in_lists
from resources.support.sqlalchemy_database import Database, columns_of, told
from resources.support.sqlalchemy_types import Field, made, sent
from resources.support.table_sink import HeldLoad, TableSink
from resources.support.tables import TableName

_AT_ONCE = 5_000
_MOMENT = "TIMESTAMP WITH TIME ZONE"

WITHOUT_TRANSACTIONS = frozenset(
    {"awsathena", "bigquery", "clickhouse", "clickhousedb", "databricks", "druid", "hive", "impala", "presto", "trino"}
)
"""Dialects whose databases cannot apply rows and ledger together, so that a load could come twice: refused."""


class SqlAlchemySink(TableSink):
    """Writes one table, with its ledger and its staging tables in the same schema."""

    def __init__(self, table: TableName, create: bool, database: Database) -> None:
        self.table = table
        self.create = create
        self.database = database

    @property
    def schema(self) -> str | None:
        """The table's schema; `None` for the usual one."""
        return self.table.schema or None

    @property
    def book(self) -> sa.Table:
        """The ledger."""
        name, word = sa.String(250), sa.String(250)
        return sa.Table(
            ledger.TABLE,
            sa.MetaData(),
            sa.Column("node", name, primary_key=True),
            sa.Column("dataset", word, nullable=False),
            sa.Column("version", sa.BigInteger, nullable=False),
            sa.Column("load_id", word, nullable=False),
            sa.Column("run_id", word, nullable=True),
            sa.Column("rows", sa.BigInteger, nullable=False),
            sa.Column("loaded_at", made(_MOMENT), nullable=False),
            schema=self.schema,
        )

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first.

        Raises SpecError for a database without transactions, AccessError, or Unavailable.
        """
        self._require_transactions()
        with self.database.connected() as connection:
            if not sa.inspect(connection).has_table(ledger.TABLE, self.schema):
                return None
            return self.held(connection, target.node)

    def held(self, connection: sa.Connection, node: str) -> LoadMark | None:
        """The newest load of a node in the ledger."""
        book = self.book.c
        found = sa.select(book.load_id, book.dataset, book.version, book.run_id).where(book.node == node)
        row = connection.execute(found).fetchone()
        return LoadMark(row[0], row[1], row[2], run_id=row[3] or "") if row else None

    @property
    def told(self) -> str:
        """What errors call the table."""
        return told(self.table)

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> SqlAlchemyLoad:
        return SqlAlchemyLoad(self, target, how, load)

    def _prepare(self, target: Target) -> None:
        self._require_transactions()

    def _require_transactions(self) -> None:
        dialect = self.database.engine().dialect.name
        if dialect in WITHOUT_TRANSACTIONS:
            raise SpecError(
                f"{dialect} has no transactions over several statements, so a load could come twice",
                mend="write files for it to load, with the connector `files`",
                where=self.told,
            )


@dataclass(frozen=True)
class _Taken:
    """A column of the rows (`name`, DuckDB type `own`), and the column of the target that takes it."""

    name: str
    own: str
    column: sa.Column[Any]


class SqlAlchemyLoad(HeldLoad):
    """One load, staged in a table and applied by one transaction."""

    def __init__(self, sink: SqlAlchemySink, target: Target, how: Disposition, load: LoadMark) -> None:
        super().__init__(target, how, load)
        self._sink = sink

    def commit(self) -> Receipt:
        """Stage the rows, compare them, then apply them and write the ledger in one transaction.

        Raises DataError for a value that the database would change, SpecError, AccessError, or Unavailable, also when
        another load came first.
        """
        held = self._held
        rows, gone = held.last_of_each(self._keys), held.deleted()
        with self._sink.database.connected() as connection, ExitStack() as until_applied:
            self._sweep(connection)
            target, taken = self._made(connection, _types(held.duck, rows))
            stage = self._stage(connection, "r", rows, taken, self._keys, until_applied)
            removed = None
            if gone is not None:
                own = {name.casefold() for name in held.duck.sql(gone).columns}
                keys = [one for one in taken if one.name.casefold() in own]
                removed = self._stage(connection, "d", gone, keys, (), until_applied)
            return self._applied(connection, target, stage, removed)

    # ---------------------------------------------------------------------------------------------- tables

    def _made(self, connection: sa.Connection, own: Mapping[str, str]) -> tuple[sa.Table, list[_Taken]]:
        """The table, which takes the rows now, and which of its columns takes which of theirs."""
        sink = self._sink
        look = sa.inspect(connection)
        there = look.has_table(sink.table.table, sink.schema)
        present = {
            one["name"].casefold(): sa.Column(one["name"], one["type"])
            for one in (columns_of(look, sink.table) if there else ())
        }
        folded = {key.casefold() for key in self._keys}
        wanted = {name: sa.Column(name, made(kind, key=name.casefold() in folded)) for name, kind in own.items()}
        if isinstance(self._how, History):
            wanted |= {name: sa.Column(name, made(_MOMENT)) for name in (VALID_FROM, VALID_TO)}
        lacking = [column for name, column in wanted.items() if name.casefold() not in present]
        self._create(connection, lacking, there=there)
        columns = present | {column.name.casefold(): column for column in lacking}
        listed = [sa.Column(column.name, column.type) for column in columns.values()]
        target = sa.Table(sink.table.table, sa.MetaData(), *listed, schema=sink.schema)
        by_name = {column.name.casefold(): column for column in target.columns}
        return target, [_Taken(name, kind, by_name[name.casefold()]) for name, kind in own.items()]

    def _create(self, connection: sa.Connection, lacking: Sequence[sa.Column[Any]], *, there: bool) -> None:
        """Make the ledger, and the table or columns that are lacking; many databases commit that by themselves."""
        sink = self._sink
        if lacking and not sink.create:
            names = ", ".join(f'"{column.name}"' for column in lacking)
            what = f"has no column {names}" if there else "does not exist"
            mend = "create it, or set `create: true`"
            raise SpecError(f"{told(sink.table)} {what}", mend=mend, where=told(sink.table))
        sink.book.create(connection, checkfirst=True)
        table = sa.Table(sink.table.table, sa.MetaData(), *lacking, schema=sink.schema)
        if not there:
            table.create(connection)
        else:
            name = connection.dialect.identifier_preparer.format_table(table)
            for column in lacking:
                added = CreateColumn(table.c[column.name]).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD {added}")
        connection.commit()

    def _stage_names(self) -> tuple[str, str]:
        """How the staging tables of the node begin, and of this load go on."""
        return f"_databrokkr_{_short(self._target.node)}_", _short(self._load.load_id)

    def _sweep(self, connection: sa.Connection) -> None:
        """Drop what loads of this node have left that died."""
        prefix, _ = self._stage_names()
        for name in sa.inspect(connection).get_table_names(self._sink.schema):
            if name.startswith(prefix):
                sa.Table(name, sa.MetaData(), schema=self._sink.schema).drop(connection, checkfirst=True)
        connection.commit()

    def _stage(
        self,
        connection: sa.Connection,
        part: str,
        query: str,
        taken: Sequence[_Taken],
        keys: Sequence[str],
        until_applied: ExitStack,
    ) -> sa.Table:
        """The rows of a query in a table of the target's types, dropped at the end."""
        listed = [sa.Column(one.column.name, one.column.type) for one in taken]
        name = "".join(self._stage_names()) + part
        stage = sa.Table(name, sa.MetaData(), *listed, schema=self._sink.schema)
        stage.create(connection)
        connection.commit()
        until_applied.callback(self._drop, connection, stage)
        carried = self._carried(connection, query, taken, keys)
        with refusals(self._sink.told):
            self._fill(connection, stage, carried)
            self._compare(connection, stage, carried, taken)
        return stage

    def _drop(self, connection: sa.Connection, stage: sa.Table) -> None:
        with suppress(exc.SQLAlchemyError):
            connection.rollback()
            stage.drop(connection)
            connection.commit()

    def _carried(self, connection: sa.Connection, query: str, taken: Sequence[_Taken], keys: Sequence[str]) -> str:
        """The rows as the driver is given them."""
        folded = {key.casefold() for key in keys}
        own = {one.name: one.own for one in taken}
        fit = fitted(own, [Place(one.name, one.own, required=one.name.casefold() in folded) for one in taken])
        listed = ", ".join(sent(one.name, one.own, one.column.type, connection.dialect) for one in taken)
        return f"SELECT {listed} FROM (SELECT {fit} FROM ({query}))"

    def _fill(self, connection: sa.Connection, stage: sa.Table, carried: str) -> None:
        names = [column.name for column in stage.columns]
        for records in self._held.duck.execute(carried).to_arrow_reader(_AT_ONCE):
            rows = zip(*(column.to_pylist() for column in records.columns), strict=True)
            if records.num_rows:
                connection.execute(stage.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        connection.commit()

    def _compare(self, connection: sa.Connection, stage: sa.Table, carried: str, taken: Sequence[_Taken]) -> None:
        """Read back what was staged. Raises DataError when a column's values are others."""
        found = [_read_back(one) for one in taken]
        own = ", ".join(f"CAST({quoted(one.name)} AS {one.own}) AS {quoted(one.name)}" for one in found)
        given = self._held.duck.execute(f"SELECT {_sums(found)} FROM (SELECT {own} FROM ({carried}))").fetchone()
        came, misfit = self._staged(connection, stage, found)
        # A row that is set aside is missing in the sums of all columns.
        pairs = zip(taken, given or (), came, strict=True)
        wrong = next((one for one, left, right in pairs if (misfit == one.name if misfit else left != right)), None)
        if wrong is not None:
            raise DataError(
                f'the column "{wrong.column.name}" is {wrong.column.type}, which would change some of its values',
                mend="give the table's column a wider type, or cast the column in a transform",
                where=self._sink.told,
            )

    def _staged(
        self, connection: sa.Connection, stage: sa.Table, found: Sequence[Field]
    ) -> tuple[Sequence[Any], str | None]:
        """Sums over the values of the staged columns, and the name of one that has a value of another type."""
        # Without a type, so that the values come as the driver reads them.
        statement = sa.select(*(sa.type_coerce(column, sa.types.NullType()) for column in stage.columns))

        def rows() -> Iterator[list[Any]]:
            options = {"stream_results": True, "max_row_buffer": _AT_ONCE}
            yield from in_lists(connection.execute(statement, execution_options=options).fetchmany)

        with self._held.duck.cursor() as duck:
            duck.execute("SET TimeZone = 'UTC'")
            read = RowFeed(rows, found, lambda row, number: "").relation(duck)
            try:
                came = duck.execute(f"SELECT {_sums(found)} FROM ({read.query})").fetchone()
            except duckdb.Error as error:
                raise read.explain(error) or error from error
            misfit = next(read.rejects(), None)
        connection.rollback()
        return came or (), misfit.rule.removeprefix("type.") if misfit else None

    # -------------------------------------------------------------------------------------------- applying

    def _applied(
        self, connection: sa.Connection, target: sa.Table, stage: sa.Table, removed: sa.Table | None
    ) -> Receipt:
        sink, node, book = self._sink, self._target.node, self._sink.book
        place = f"{sink.database.name}:{told(sink.table)}"
        with connection.begin():
            # Changing the node's row locks it until the end, in every database that has transactions.
            connection.execute(book.update().where(book.c.node == node).values(node=node))
            held = sink.held(connection, node)
            if ledger.already(held, self._load, place):
                return Receipt(0, place, already=True)
            rows, facts = self._brought(connection, target, stage, removed)
            self._write_ledger(connection, rows, new=held is None)
        return Receipt(rows, place, facts=facts)

    def _write_ledger(self, connection: sa.Connection, rows: int, *, new: bool) -> None:
        book, load = self._sink.book, self._load
        at = self._moment(connection, book.c.loaded_at)
        values = {"dataset": load.dataset, "version": load.version, "load_id": load.load_id, "run_id": load.run_id}
        values |= {"rows": rows, "loaded_at": at}
        try:
            if new:
                connection.execute(book.insert().values(node=self._target.node, **values))
            else:
                connection.execute(book.update().where(book.c.node == self._target.node).values(**values))
        except exc.IntegrityError as error:
            what = f"{self._sink.told} was written by another run in the meantime"
            raise Unavailable(what, mend="nothing is lost: run it again", where=self._sink.told) from error

    def _brought(
        self, connection: sa.Connection, target: sa.Table, stage: sa.Table, removed: sa.Table | None
    ) -> tuple[int, dict[str, int]]:
        """Bring the staged rows into the table; gives how many were written, and what else happened."""

        def run(statement: sa.Executable) -> int:
            return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount

        facts: dict[str, int] = {}
        if removed is not None:
            facts["rows_deleted"] = run(_deleting(target, removed, [column.name for column in removed.columns]))
        match self._how:
            case History():
                at = self._moment(connection, target.c[_cased(target, VALID_FROM)])
                facts["rows_closed"] = run(_closing(target, stage, self._how.keys, at))
                return run(_opening(target, stage, self._how.keys, at)), facts
            case Merge():
                run(_deleting(target, stage, self._how.keys))
            case Replace():
                run(target.delete())
        names = [column.name for column in stage.columns]
        return run(target.insert().from_select(names, sa.select(stage))), facts

    def _moment(self, connection: sa.Connection, column: sa.Column[Any]) -> Any:
        """The load's time, as the column takes it."""
        is_text = isinstance(column.type.dialect_impl(connection.dialect), sa.String)
        return self._load.at.isoformat(" ") if is_text else self._load.at


def _types(duck: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    found = duck.sql(query)
    return dict(zip(found.columns, map(str, found.types), strict=True))


def _short(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()[:8]


def _read_back(one: _Taken) -> Field:
    """How a staged column is read to be compared: in the type of the rows where that can be, else as text."""
    integers = {"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"}
    same = {"TIMESTAMP_S": "TIMESTAMP", "TIMESTAMP_MS": "TIMESTAMP", "FLOAT": "DOUBLE"}
    plain = {"BOOLEAN", "BIGINT", "DOUBLE", "BLOB", "DATE", "TIME", "TIMESTAMP", _MOMENT, "UUID"}
    own = "BIGINT" if one.own in integers else same.get(one.own, one.own)
    if own in plain or own.startswith("DECIMAL"):
        return Field(one.name, own, str(one.column.type))
    return Field(one.name, "VARCHAR", str(one.column.type), number=one.own in ("UBIGINT", "HUGEINT", "UHUGEINT"))


def _sums(found: Sequence[Field]) -> str:
    return ", ".join(f"sum(hash({quoted(one.name)})::HUGEINT)" for one in found)


def _cased(table: sa.Table, name: str) -> str:
    return next(column.name for column in table.columns if column.name.casefold() == name.casefold())


def _met(target: sa.Table, stage: sa.Table, keys: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(stage.c[_cased(stage, key)] == target.c[_cased(target, key)] for key in keys))


def _deleting(target: sa.Table, stage: sa.Table, keys: Sequence[str]) -> sa.Delete:
    found = sa.select(sa.literal(1)).select_from(stage).where(_met(target, stage, keys)).correlate(target)
    return target.delete().where(found.exists())


def _closing(target: sa.Table, stage: sa.Table, keys: Sequence[str], at: Any) -> sa.Update:
    until = target.c[_cased(target, VALID_TO)]
    # Where a row came from makes no new version of it.
    content = [column.name for column in stage.columns if column.name not in PROVENANCE]
    alike = [_same(stage.c[name], target.c[_cased(target, name)]) for name in content]
    met = _met(target, stage, keys)
    found = sa.select(sa.literal(1)).select_from(stage).where(met, *alike).correlate(target)
    return target.update().where(until.is_(None), ~found.exists()).values({until: at})


def _opening(target: sa.Table, stage: sa.Table, keys: Sequence[str], at: Any) -> sa.Insert:
    names = [column.name for column in stage.columns]
    since, until = (target.c[_cased(target, name)] for name in (VALID_FROM, VALID_TO))
    past = target.alias("past")
    met = sa.and_(*(stage.c[_cased(stage, key)] == past.c[_cased(target, key)] for key in keys))
    current = sa.select(sa.literal(1)).select_from(past).where(past.c[until.name].is_(None), met).correlate(stage)
    rows = sa.select(*stage.columns, sa.literal(at, since.type), sa.cast(sa.null(), until.type)).where(
        ~current.exists()
    )
    return target.insert().from_select([*names, since.name, until.name], rows)


def _same(left: sa.ColumnElement[Any], right: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether two values are the same, NULLs too, in words that every database knows."""
    return sa.or_(left == right, sa.and_(left.is_(None), right.is_(None)))

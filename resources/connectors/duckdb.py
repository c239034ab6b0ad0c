"""DuckDB files: reads tables and queries, and writes tables exactly once.

The file is attached to the DuckDB that does the load's work, so rows go straight from Parquet into it and back. One
process at a time may write a file; whoever comes second waits for it, and says for whom.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import duckdb
from pydantic import Field

from databrokkr_assets.core.disposition import Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, Unavailable
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.core.ports import Batch, Cursor, LoadMark, Receipt, RelationRead, Stream, Target
from databrokkr_assets.core.spec import ConnectionSettings, Finding, Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.base import Connector
from resources.support import duckdb_survey, ledger
from resources.support.connections import connected
from resources.support.database_nodes import DatabaseConnection, DatabaseSinkSettings, DatabaseSourceSettings
from resources.support.database_source import DatabaseSource
from resources.support.duckdb_table import FileTable
from resources.support.table_sink import HeldLoad, TableSink
from resources.support.tables import TableName

log = logging.getLogger("databrokkr")

_HELD = re.compile(r"lock on file|Unique file handle conflict")
_HOLDER = re.compile(r"\(PID (\d+)\)")

# What DuckDB says when COMMIT cannot write; it gives no code for it.
_FULL = re.compile("No space left|File too large|Could not write|quota")

_PATIENCE = 2
"""Seconds that a test of a connection waits for the file."""


class DuckDBConnection(DatabaseConnection):
    """A DuckDB file."""

    type: Literal["duckdb"]
    path: str
    """The file; relative paths start at the project. A sink creates it."""
    wait: float = Field(default=60, ge=0)
    """Seconds to wait while another process holds the file."""

    def file(self, name: str, place: Place) -> DuckDBFile:
        """The file, whose connection is called `name` in errors."""
        return DuckDBFile(name, place.resolve(self.path), self.wait)

    def uri(self) -> str:
        """The file, as the UI names it."""
        return f"duckdb://{self.path}"

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the file can be opened, what it holds, and whether it may be written."""
        file = replace(self.file(name, place), wait=min(self.wait, _PATIENCE))
        path = Path(file.path)
        if not path.exists():
            yield Finding("exists", False, f"there is no file {path}", "a sink creates it; else correct `path`")
            yield duckdb_survey.may_write(path)
            return
        began = time.monotonic()
        try:
            with duckdb.connect() as duck, file.attached(duck, read_only=True) as alias:
                yield Finding("reachable", True, f"{path} in {(time.monotonic() - began) * 1000:.0f} ms")
                yield Finding("server", True, f"DuckDB {duckdb.__version__}, within this process")
                yield Finding("may read", True, f"{sum(1 for _ in duckdb_survey.held(duck, alias))} tables and views")
        except (AccessError, Unavailable) as error:
            yield Finding("reachable", False, error.what, error.mend)
            return
        yield duckdb_survey.may_write(path)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables and views of the file, rows estimated by DuckDB. Raises AccessError or Unavailable."""
        file = self.file(name, place)
        with duckdb.connect() as duck, file.attached(duck, read_only=True) as alias:
            yield from duckdb_survey.held(duck, alias)


@dataclass(frozen=True)
class DuckDBFile:
    """A file, and how long to wait for it."""

    name: str
    path: str
    wait: float

    @contextmanager
    def attached(self, duck: duckdb.DuckDBPyConnection, *, read_only: bool) -> Iterator[str]:
        """Attach the file for the block, and give its name in `duck`."""
        alias = self.attach(duck, read_only=read_only)
        try:
            yield alias
        finally:
            duck.execute(f"DETACH {alias}")

    def attach(self, duck: duckdb.DuckDBPyConnection, *, read_only: bool) -> str:
        """Attach the file, waiting for whoever holds it, and give its name in `duck`.

        Raises AccessError for a file that cannot be opened, Unavailable when the wait is over.
        """
        alias = f"databrokkr_file_{secrets.token_hex(4)}"
        begun, told, pause = time.monotonic(), False, 0.05
        while True:
            try:
                duck.execute(f"ATTACH {literal(self.path)} AS {alias} ({'READ_ONLY' if read_only else 'READ_WRITE'})")
                return alias
            except duckdb.Error as error:
                if not _HELD.search(str(error)):
                    raise self._unopened(error) from error
                if time.monotonic() - begun >= self.wait:
                    raise self._held(error) from error
                if not told:
                    log.info("waiting for %s, held by %s", self.path, _holder(error))
                    told = True
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def make_folder(self) -> None:
        """Make the folder that the file is to stand in. Raises AccessError."""
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unopened(error) from error

    def _held(self, error: duckdb.Error) -> Unavailable:
        return Unavailable(
            f"{self.path} is held by {_holder(error)}; waited {self.wait:g} s for it",
            mend=f"end that process, or raise `wait` of the connection {self.name}",
            where=f"connection {self.name}",
        )

    def _unopened(self, error: Exception) -> AccessError:
        text, mend = str(error).strip(), "check the path and its permissions"
        if "does not exist" in text and "read-only" in text:
            text, mend = f"there is no file {self.path}", f"correct `path` of the connection {self.name}"
        elif "not a valid DuckDB" in text or "serializ" in text or "storage version" in text or "orrupt" in text:
            mend = f"point `path` of the connection {self.name} at a file of this version of DuckDB, or restore it"
        return AccessError(text, mend=mend, where=f"connection {self.name}")


def _holder(error: duckdb.Error) -> str:
    found = _HOLDER.search(str(error))
    return f"PID {found[1]}" if found else "this process"


# ------------------------------------------------------------------------------------------------- reading


class DuckDBSourceSettings(DatabaseSourceSettings):
    """Reads a table, a view or the rows of a query."""

    connects: ClassVar[type[DatabaseConnection]] = DuckDBConnection
    dialect: ClassVar[str] = "duckdb"
    home: ClassVar[str] = "main"
    type: Literal["duckdb"]

    def open(self, connection: ConnectionSettings | None, place: Place) -> DuckDBSource:
        """A reader of the table or query."""
        return DuckDBSource(self, connected(connection, DuckDBConnection).file(self.connection, place))


@dataclass(frozen=True)
class Column:
    """A column that is read: its name, and its type."""

    name: str
    own: str


class DuckDBSource(DatabaseSource[Column]):
    """Reads one table or query of a file, all its rows in one snapshot."""

    def __init__(self, settings: DuckDBSourceSettings, file: DuckDBFile) -> None:
        super().__init__(settings, settings.name())
        self._file = file

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        """The rows as a query over `duck`, to which the file stays attached until it is closed."""
        found, value = self._described[0], self._resumes_at(after)
        alias = self._file.attach(duck, read_only=True)
        _look_into(duck, alias)
        query = f"SELECT {columns([one.name for one in found])} FROM {self._in(alias)}"
        if self._incremental and value is not None:
            query += f" WHERE {self._incremental.at_least(value)}"
        return self._resuming(RelationRead(query), after)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows as batches."""
        with open_duck() as duck:
            yield from self._batches(duck, self.relation(duck, stream, after), after)

    def _in(self, alias: str) -> str:
        """The table of the attached file, or the query, as it stands behind FROM."""
        return f"{alias}.{self._from}" if self._name else self._from

    def _look(self) -> tuple[Sequence[Column], Sequence[str]]:
        with duckdb.connect() as duck:
            alias = self._file.attach(duck, read_only=True)
            duck.execute(f"USE {alias}")
            try:
                rows = duck.sql(f"SELECT * FROM {self._in(alias)}")
            except duckdb.CatalogException as error:
                missing = re.search(r"name (\S+) does not exist", str(error))
                raise self._no_table(f"main.{missing[1]}" if missing else "", _known_tables(duck, alias)) from error
            except duckdb.Error as error:
                raise self._spec_error(str(error), "correct the query of this node") from error
            found = [Column(name, str(own)) for name, own in zip(rows.columns, rows.types, strict=True)]
            return self._chosen(found), self._primary_key(duck, alias)

    def _primary_key(self, duck: duckdb.DuckDBPyConnection, alias: str) -> tuple[str, ...]:
        if self._name is None:
            return ()
        row = duck.execute(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = ? AND schema_name = ? "
            "AND table_name = ? AND constraint_type = 'PRIMARY KEY'",
            [alias, self._name.schema, self._name.table],
        ).fetchone()
        return tuple(row[0]) if row else ()


def _known_tables(duck: duckdb.DuckDBPyConnection, alias: str) -> list[str]:
    """The tables and views of the file, `schema.table`, for suggestions."""
    rows = duck.execute(
        "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = $1 UNION ALL "
        "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal",
        [alias],
    ).fetchall()
    return [name for (name,) in rows if "_databrokkr_" not in name]


def _look_into(duck: duckdb.DuckDBPyConnection, alias: str) -> None:
    """Let queries, and the views of the file, find its tables by the names they have in the file.

    What `duck` has itself comes first, so nothing changes for its owner.
    """
    rows = duck.execute(
        "SELECT current_setting('search_path'), current_catalog(), current_schema(), list(schema_name ORDER BY "
        "schema_name <> 'main') FROM duckdb_schemas() WHERE database_name = ? AND NOT internal OR "
        "(database_name = ? AND schema_name = 'main')",
        [alias, alias],
    ).fetchone()
    assert rows is not None
    path, catalog, schema, schemas = rows
    found = ",".join(f"{quoted(alias)}.{quoted(name)}" for name in dict.fromkeys(schemas))
    before = path or f"{quoted(catalog)}.{quoted(schema)}"
    duck.execute(f"SET search_path = {literal(f'{before},{found}')}")


# ------------------------------------------------------------------------------------------------- writing


class DuckDBSinkSettings(DatabaseSinkSettings):
    """Writes a table, exactly once."""

    connects: ClassVar[type[DatabaseConnection]] = DuckDBConnection
    dialect: ClassVar[str] = "duckdb"
    home: ClassVar[str] = "main"
    type: Literal["duckdb"]

    def open(self, connection: ConnectionSettings | None, place: Place) -> DuckDBSink:
        """A writer to the table."""
        file = connected(connection, DuckDBConnection).file(self.connection, place)
        return DuckDBSink(self.name(), self.create, file)

    def pool(self, connection: ConnectionSettings | None) -> str:
        """One writer at a time, for one process only may hold the file."""
        path = connected(connection, DuckDBConnection).path
        stem = re.sub(r"\W", "_", Path(path).stem)
        return f"duckdb_{stem}_{hashlib.md5(path.encode()).hexdigest()[:8]}"


class DuckDBSink(TableSink):
    """Writes one table, with its ledger in the same schema. The file is held while a load commits, only."""

    def __init__(self, table: TableName, create: bool, file: DuckDBFile) -> None:
        self.table = table
        self.create = create
        self.file = file

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError or Unavailable."""
        if not Path(self.file.path).exists():
            return None
        with duckdb.connect() as duck, self.file.attached(duck, read_only=True) as alias:
            book = FileTable(duck, alias, TableName(self.table.schema, ledger.TABLE))
            if not book.columns():
                return None
            return ledger.mark(duck.execute(ledger.select(book.sql, target.node)).fetchone())

    @property
    def told(self) -> str:
        """What errors call the table."""
        return str(self.table)

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> DuckDBLoad:
        return DuckDBLoad(self, target, how, load)


class DuckDBLoad(HeldLoad):
    """One load, applied by one transaction."""

    def __init__(self, sink: DuckDBSink, target: Target, how: Disposition, load: LoadMark) -> None:
        super().__init__(target, how, load)
        self._sink = sink

    def commit(self) -> Receipt:
        """Apply the rows and write the ledger in one transaction.

        Raises DataError for a value that the table's type would change or a key that is NULL, SpecError, AccessError,
        or Unavailable, also when another load came first.
        """
        rows, gone, duck = self._held.last_of_each(self._keys), self._held.deleted(), self._held.duck
        self._sink.file.make_folder()
        with self._sink.file.attached(duck, read_only=False) as alias, self._told_plainly():
            duck.execute("BEGIN")
            try:
                receipt = self._applied(FileTable(duck, alias, self._sink.table), rows, gone)
                duck.execute("ROLLBACK" if receipt.already else "COMMIT")
            except BaseException:
                with suppress(duckdb.Error):
                    duck.execute("ROLLBACK")
                raise
        return receipt

    def _applied(self, table: FileTable, rows: str, gone: str | None) -> Receipt:
        sink, node, duck = self._sink, self._target.node, table.duck
        book = f"{table.alias}.{TableName(sink.table.schema, ledger.TABLE).sql}"
        place = f"{sink.file.path}:{sink.table}"
        duck.execute(f"CREATE SCHEMA IF NOT EXISTS {table.alias}.{quoted(sink.table.schema)}")
        duck.execute(f"CREATE TABLE IF NOT EXISTS {book} ({ledger.COLUMNS})")
        held = ledger.mark(duck.execute(ledger.select(book, node)).fetchone())
        if ledger.already(held, self._load, place):
            return Receipt(0, place, already=True)
        written, facts = self._apply(table, rows, gone)
        duck.execute(ledger.upsert(book, node, self._load, written))
        return Receipt(written, place, facts=facts)

    def _apply(self, table: FileTable, rows: str, gone: str | None) -> tuple[int, dict[str, int]]:
        """Bring the rows into the table; gives how many were written, and what else happened."""
        how = self._how
        table.fit(rows, how, create=self._sink.create)
        given = table.applying(rows, self._keys)
        facts = {}
        if gone is not None:
            facts["rows_deleted"] = table.run(table.applying(gone, tuple(table.duck.sql(gone).columns)).delete())
        match how:
            case History():
                at = f"CAST({literal(self._load.at.isoformat())} AS TIMESTAMPTZ)"
                facts["rows_closed"] = table.run(given.close(at))
                return table.run(given.open(at)), facts
            case Merge():
                # Not MERGE INTO: it keeps all that it changes in memory.
                table.run(given.delete())
            case Replace():
                table.run(f"DELETE FROM {table.sql}")
        return table.run(given.insert()), facts

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except duckdb.ConstraintException as error:
            mend = "clean the rows in a transform, or choose another disposition"
            raise DataError(str(error), mend=mend, where=str(self._sink.table)) from error
        except (duckdb.TransactionException, duckdb.SerializationException) as error:
            if _FULL.search(str(error)):
                mend = f"free space on the disk of {self._sink.file.path}, then run again: nothing was written"
                raise AccessError(str(error), mend=mend, where=f"connection {self._sink.file.name}") from error
            raise Unavailable(str(error), mend="run it again", where=str(self._sink.table)) from error


connector = Connector(
    name="duckdb",
    summary="DuckDB files: reads tables and queries, also only what is new, and writes tables exactly once.",
    kind="duckdb",
    connection=DuckDBConnection,
    source=DuckDBSourceSettings,
    sink=DuckDBSinkSettings,
)

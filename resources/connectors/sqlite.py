"""SQLite files: reads tables, views and queries, each value as it is stored, and writes tables exactly once.

Reading. A table whose values all fit their declared types goes through DuckDB's scanner; anything else through Python's
own driver, which sets aside rows that hold something else than their column declares.

Writing. Rows are staged in a SQLite file of their own, so that the target is locked only while it takes them over, in
one transaction with the ledger.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import duckdb
from pydantic import Field, model_validator

from databrokkr_assets.core.disposition import Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import columns, quoted
from databrokkr_assets.core.ports import Batch, Cursor, LoadMark, Receipt, Reject, RelationRead, Stream, Target
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ConnectionSettings, Finding, Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.base import Connector
from resources.support import ledger
from resources.support.applying import Applying
from resources.support.connections import connected
from resources.support.database_nodes import DatabaseConnection, DatabaseSinkSettings, DatabaseSourceSettings
from resources.support.database_source import DatabaseSource
from resources.support.fitting import refusals
from resources.support.row_feed import Row, RowFeed, in_lists
from resources.support.sqlite_cursor import narrowed
from resources.support.sqlite_file import EXTRA, Column, SqliteFile, columns_of, primary_key, rowid_name, tables_of_file
from resources.support.sqlite_rows import Reading, checks
from resources.support.sqlite_scan import has_misfits, is_misfit, scan, scannable
from resources.support.sqlite_stage import KEYS, ROWS, fill, own_types
from resources.support.sqlite_survey import readings
from resources.support.sqlite_table import SqliteTable, moment, same
from resources.support.sqlite_types import Wire
from resources.support.table_sink import HeldLoad, TableSink
from resources.support.tables import TableName

HOME = "main"
_TESTING_SECONDS = 2.0


class SqliteConnection(DatabaseConnection):
    """A SQLite file."""

    type: Literal["sqlite"]
    path: str
    """The file; relative paths start at the project. A sink creates it."""
    wait: float = Field(default=60, ge=0)
    """Seconds to wait while another process writes the file."""
    wal: bool = True
    """Whether a file that a sink makes is in WAL mode, in which readers and a writer do not wait for each other;
    `false` for a file on a network share. A file that is there keeps its mode."""

    def file(self, name: str, place: Place) -> SqliteFile:
        """The file, whose connection is called `name` in errors."""
        return SqliteFile(name, place.resolve(self.path), self.wait, self.wal)

    def uri(self) -> str:
        """The file, as the UI names it."""
        return f"sqlite://{self.path}"

    def alone(self, place: Place) -> str:
        """The file: of its two libraries in a process, one breaks what the other does with it."""
        return os.path.realpath(place.resolve(self.path))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the file is there, is one of SQLite, and may be written."""
        file = SqliteFile(name, place.resolve(self.path), min(self.wait, _TESTING_SECONDS))
        if not Path(file.path).exists():
            yield Finding("open", False, f"there is no file {file.path}", "correct `path`; a sink creates the file")
            return
        try:
            with file.reading() as database:
                mode = database.execute("PRAGMA journal_mode").fetchone()[0]
                held = sum(1 for _ in tables_of_file(database))
            yield Finding("open", True, f"{file.path}: {held} tables and views, journal mode {mode}")
        except DatabrokkrError as error:
            yield Finding("open", False, error.what, error.mend)
            return
        try:
            with file.writing() as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            yield Finding("write", True, "rows may be written")
        except DatabrokkrError as error:
            yield Finding("write", False, error.what, error.mend)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables and views. Raises AccessError or Unavailable."""
        with self.file(name, place).reading() as database:
            yield from list(tables_of_file(database))


# ------------------------------------------------------------------------------------------------- reading


class SqliteSourceSettings(DatabaseSourceSettings):
    """Reads a table, a view or the rows of a query."""

    connects: ClassVar[type[DatabaseConnection]] = SqliteConnection
    dialect: ClassVar[str] = "sqlite"
    home: ClassVar[str] = HOME
    type: Literal["sqlite"]
    as_text: Names = ()
    """Columns to read as text, whatever their values are: numbers as SQLite prints them, blobs as `X'00FF'`."""

    @model_validator(mode="after")
    def _in_main(self) -> SqliteSourceSettings:
        _require_main(self.name())
        return self

    def open(self, connection: ConnectionSettings | None, place: Place) -> SqliteSource:
        """A reader of the table or query."""
        return SqliteSource(self, connected(connection, SqliteConnection).file(self.connection, place))


def _require_main(name: TableName | None) -> None:
    if name is not None and name.schema != HOME:
        raise ValueError(f"a SQLite file has one schema, `main`, and none called `{name.schema}`")


class SqliteSource(DatabaseSource[Reading]):
    """Reads one table, view or query of a file, all its rows in one snapshot."""

    def __init__(self, settings: SqliteSourceSettings, file: SqliteFile) -> None:
        super().__init__(settings, settings.name())
        self._as_text = settings.as_text
        self._file = file

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        """The rows as a query over `duck`: DuckDB's scan of the file, or the rows that Python's driver reads."""
        value = self._resumes_at(after)
        read = self._scanned(duck) if value is None else None
        return self._resuming(read or self._fed(duck, value), after)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows as batches; those that were set aside come with the last, which is empty."""
        with open_duck() as duck:
            yield from self._batches(duck, self.relation(duck, stream, after), after)

    def _scanned(self, duck: duckdb.DuckDBPyConnection) -> RelationRead | None:
        """DuckDB's scan; `None` for what it would not read right, or where its extension is not installed."""
        if self._name is None or self._as_text:
            return None
        table, found = self._name.table, self._described[0]
        before = self._stamp()
        with self._file.reading() as database:
            if has_misfits(database, table, found):
                return None
        try:
            alias = self._file.attach(duck)
        except SpecError:
            return None
        if not scannable(duck, alias, table, found):
            duck.execute(f"DETACH {alias}")
            return None
        # Several threads would read several snapshots.
        duck.execute("SET sqlite_disable_multithreaded_scans = true")
        checked = partial(self._still_fits, duck, alias, before)
        return RelationRead(scan(alias, table, found), rejects=checked, explain=self._scan_explained)

    def _fed(self, duck: duckdb.DuckDBPyConnection, value: str | None) -> RelationRead:
        """The rows through Python's driver."""
        found, rowid = self._described[0], self._rowid

        def position(row: Row, number: int) -> str:
            return f"rowid {row[-1]}" if rowid else f"row {number + 1}"

        read = RowFeed(partial(self._rows, value), found, position, checks(found)).relation(duck)
        if value is None or self._incremental is None:
            return read
        return replace(read, query=f"SELECT * FROM ({read.query}) WHERE {self._incremental.at_least(value)}")

    def _rows(self, value: str | None) -> Iterator[list[Any]]:
        """What SQLite is asked for."""
        listed = [quoted(one.name) for one in self._described[0]] + ([self._rowid] if self._rowid else [])
        statement = f"SELECT {', '.join(listed)} FROM {self._from}"
        if value is not None and self._incremental is not None:
            statement += f" WHERE {narrowed(self._incremental, value)}"
        with self._file.reading() as database:
            yield from in_lists(database.execute(statement).fetchmany)

    @property
    def _told(self) -> str:
        return self._name.table if self._name else "query"

    def _look(self) -> tuple[Sequence[Reading], Sequence[str]]:
        with self._file.reading() as database:
            if self._name is None:
                database.execute(f"CREATE TEMP VIEW databrokkr_query AS SELECT * FROM {self._from}")
            found = columns_of(database, self._name.table if self._name else "databrokkr_query")
            if not found:
                raise self._no_table(self._told, [one.name for one in tables_of_file(database)])
            chosen = self._chosen(found, self._as_text)
            read = readings(database, self._from, chosen, self._as_text, computed=self._name is None)
        return read, primary_key(found)

    @cached_property
    def _rowid(self) -> str | None:
        """The name of the row number; `None` where there is none."""
        if self._name is None:
            return None
        with self._file.reading() as database:
            return rowid_name(database, self._name.table)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """What changes when the file does: a writer writes to it, or to its log."""
        paths = [Path(self._file.path), Path(self._file.path + "-wal")]
        return tuple((found.st_size, found.st_mtime_ns) for path in paths if path.exists() for found in [path.stat()])

    def _still_fits(
        self, duck: duckdb.DuckDBPyConnection, alias: str, before: tuple[tuple[int, int], ...]
    ) -> Iterator[Reject]:
        """No reject; raises Unavailable when the file got a value meanwhile that the scan may not have read right."""
        if self._stamp() != before and self._name is not None:
            duck.execute(f"DETACH {alias}")
            with self._file.reading() as database:
                if has_misfits(database, self._name.table, self._described[0]):
                    raise self._changed()
        yield from ()

    def _scan_explained(self, error: Exception) -> DatabrokkrError | None:
        if "Failure in decode" in str(error):
            texts = [one.name for one in self._described[0] if one.own == "VARCHAR"]
            return DataError(
                f"one of the columns {columns(texts)} holds a text that is not UTF-8",
                mend="mend the rows, or name the column in `as_text`, which reads such a text as X'…'",
                where=self._told,
            )
        if "locked" in str(error) or "busy" in str(error):
            return Unavailable(str(error), mend="another process writes the file; run it again", where=self._told)
        return self._changed() if is_misfit(error) else None

    def _changed(self) -> Unavailable:
        what = f"{self._file.path} was changed while it was read"
        return Unavailable(what, mend="nothing is lost: run it again", where=self._told)


# ------------------------------------------------------------------------------------------------- writing


class SqliteSinkSettings(DatabaseSinkSettings):
    """Writes a table, exactly once."""

    connects: ClassVar[type[DatabaseConnection]] = SqliteConnection
    dialect: ClassVar[str] = "sqlite"
    home: ClassVar[str] = HOME
    type: Literal["sqlite"]

    @model_validator(mode="after")
    def _in_main(self) -> SqliteSinkSettings:
        _require_main(self.name())
        return self

    def open(self, connection: ConnectionSettings | None, place: Place) -> SqliteSink:
        """A writer to the table."""
        file = connected(connection, SqliteConnection).file(self.connection, place)
        return SqliteSink(self.name().table, self.create, file)

    def pool(self, connection: ConnectionSettings | None) -> str:
        """One writer at a time, for SQLite lets no other in."""
        path = connected(connection, SqliteConnection).path
        stem = re.sub(r"\W", "_", Path(path).stem)
        return f"sqlite_{stem}_{hashlib.md5(path.encode()).hexdigest()[:8]}"


class SqliteSink(TableSink):
    """Writes one table, with its ledger in the same file, which is locked during the last part of `commit` only."""

    def __init__(self, table: str, create: bool, file: SqliteFile) -> None:
        self.table = table
        self.create = create
        self.file = file

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError or Unavailable."""
        if not Path(self.file.path).exists():
            return None
        with self.file.reading() as database:
            if not columns_of(database, ledger.TABLE):
                return None
            return ledger.mark(database.execute(ledger.select(ledger.TABLE, target.node)).fetchone())

    def columns(self) -> tuple[Column, ...]:
        """The columns of the table; none when there is no such table."""
        if not Path(self.file.path).exists():
            return ()
        with self.file.reading() as database:
            return tuple(columns_of(database, self.table))

    @property
    def told(self) -> str:
        """What errors call the table."""
        return self.table

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> SqliteLoad:
        return SqliteLoad(self, target, how, load)


class SqliteLoad(HeldLoad):
    """One load, staged in a file and applied by one transaction."""

    def __init__(self, sink: SqliteSink, target: Target, how: Disposition, load: LoadMark) -> None:
        super().__init__(target, how, load)
        self._sink = sink

    def commit(self) -> Receipt:
        """Stage the rows, then apply them and write the ledger in one transaction.

        Raises DataError for a value that SQLite or the table's type would change, SpecError, AccessError, or
        Unavailable, also when another load came first.
        """
        held = self._held
        rows, gone = held.last_of_each(self._keys), held.deleted()
        table = SqliteTable(self._sink.table, self._sink.columns())
        wires = table.wires(own_types(held.duck, rows))
        table.missing(wires, self._how, create=self._sink.create)
        with tempfile.TemporaryDirectory(prefix="databrokkr-") as folder:
            path = Path(folder) / "stage.sqlite"
            with refusals(table.name):
                fill(held.duck, path, ROWS, rows, wires, self._keys)
                if gone is not None:
                    fill(held.duck, path, KEYS, gone, table.wires(own_types(held.duck, gone)), ())
            return self._taken_over(table, path, wires, deletes=gone is not None)

    def _taken_over(self, table: SqliteTable, stage: Path, wires: Sequence[Wire], *, deletes: bool) -> Receipt:
        sink = self._sink
        place = f"{sink.file.path}:{sink.table}"
        with sink.file.writing() as database:
            database.execute("ATTACH ? AS databrokkr_stage", (str(stage),))
            database.create_function("now", 0, lambda: datetime.now(UTC).isoformat(" "))  # the ledger's word
            # Leaving without COMMIT closes the file, and so rolls back.
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"CREATE TABLE IF NOT EXISTS {ledger.TABLE} ({ledger.COLUMNS})")
            held = ledger.mark(database.execute(ledger.select(ledger.TABLE, self._target.node)).fetchone())
            if ledger.already(held, self._load, place):
                return Receipt(0, place, already=True)
            if tuple(columns_of(database, table.name)) != table.present:
                what = f"the columns of {table.name} were changed while the rows came"
                raise Unavailable(what, mend="run it again", where=table.name)
            table.add(database, table.missing(wires, self._how, create=sink.create), self._how)
            written, facts = self._applied(database, table, wires, deletes=deletes)
            database.execute(ledger.upsert(ledger.TABLE, self._target.node, self._load, written))
            database.execute("COMMIT")
        return Receipt(written, place, facts=facts)

    def _applied(
        self, database: sqlite3.Connection, table: SqliteTable, wires: Sequence[Wire], *, deletes: bool
    ) -> tuple[int, dict[str, int]]:
        """Bring the staged rows into the table; gives how many were written, and what else happened."""

        def run(statement: str) -> int:
            return database.execute(statement).rowcount

        def applying(staged: str, names: Sequence[str], keys: Sequence[str]) -> Applying:
            query = f"SELECT * FROM databrokkr_stage.{staged}"
            return Applying(table.sql, query, tuple(names), tuple(keys), same=same)

        names, facts = [one.name for one in wires], dict[str, int]()
        if deletes:
            gone = [one.name for one in columns_of(database, KEYS)]
            facts["rows_deleted"] = run(applying(KEYS, gone, gone).delete())
        match self._how:
            case History() as how:
                database.execute(f"CREATE INDEX databrokkr_stage.by_key ON {ROWS} ({columns(how.keys)})")
                given, at = applying(ROWS, names, how.keys), moment(self._load.at)
                facts["rows_closed"] = run(given.close(at))
                return run(given.open(at)), facts
            case Merge() as how:
                run(applying(ROWS, names, how.keys).delete())
            case Replace():
                run(f"DELETE FROM {table.sql}")
        return run(applying(ROWS, names, ()).insert()), facts


connector = Connector(
    name="sqlite",
    summary="SQLite files: reads tables and queries, also only what is new, and writes tables exactly once.",
    kind="sqlite",
    connection=SqliteConnection,
    source=SqliteSourceSettings,
    sink=SqliteSinkSettings,
    extra=EXTRA,
)

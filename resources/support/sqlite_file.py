"""A SQLite file: opened for reading or writing by Python's own driver, or attached to DuckDB, with errors in our words.

The two bring a SQLite library each, and two libraries in one process break each other's locks on a file when one of
them closes it (sqlite.org/howtocorrupt.html, 2.2.1). So a file is not open in one while the other one works with it,
and only Python's writes.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.engine.duckdb import load_extension
from resources.support import ledger
from resources.support.sqlite_types import ANY, kind

EXTRA = "sqlite"
_CACHE_KIB = 65_536
_HIDDEN = 1
_DENIED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


@dataclass(frozen=True)
class Column:
    """A column of a table, view or query: its name, its declared type, and its place in the primary key, 0 for none."""

    name: str
    declared: str
    key: int = 0


@dataclass(frozen=True)
class SqliteFile:
    """A file, and how many seconds to wait while others write it. `wal` is for a file that is made anew."""

    name: str
    path: str
    wait: float
    wal: bool = True

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file for the block, read-only. Raises our errors, for the block too."""
        with self._opened("ro") as database:
            yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The file for the block, which is made when it is not there. Raises our errors, for the block too.

        Nothing is committed but by the block's own words.
        """
        fresh = not Path(self.path).exists()
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unopened(str(error)) from error
        with self._opened("rwc") as database:
            if fresh and self.wal:
                database.execute("PRAGMA journal_mode = wal")
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            yield database

    @contextmanager
    def _opened(self, mode: str) -> Iterator[sqlite3.Connection]:
        database = None
        try:
            # Whoever pulls the rows may be another thread than the one that opened the file, but never beside it.
            address = f"{Path(self.path).absolute().as_uri()}?mode={mode}"
            database = sqlite3.connect(
                address, uri=True, timeout=self.wait, isolation_level=None, check_same_thread=False
            )
            # Text that is not UTF-8 is then seen as such, and ends not the whole read.
            database.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            database.execute("PRAGMA trusted_schema = false")
            database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            yield database
        except sqlite3.Error as error:
            raise self.explained(error) from error
        finally:
            if database:
                database.close()

    def attach(self, duck: duckdb.DuckDBPyConnection) -> str:
        """Attach the file to DuckDB, read-only, and give its name there.

        Raises SpecError where the extension is not installed, AccessError, or Unavailable.
        """
        load_extension(duck, "sqlite_scanner", extra=EXTRA)
        alias = f"databrokkr_sqlite_{secrets.token_hex(4)}"
        options = f"TYPE sqlite, READ_ONLY, busy_timeout {int(self.wait * 1000)}"
        try:
            duck.execute(f"ATTACH {literal(self.path)} AS {alias} ({options})")
        except (duckdb.Error, RuntimeError) as error:
            raise self._unopened(str(error)) from error
        return alias

    def explained(self, error: sqlite3.Error) -> DatabrokkrError:
        """Our error for one of the driver's."""
        text, where = str(error), f"connection {self.name}"
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = f"{self.path} is locked by another writer; waited {self.wait:g} s for it"
            return Unavailable(what, mend=f"end it, or raise `wait` of the connection {self.name}", where=where)
        if code in _DAMAGED:
            what = f"{self.path}: {text}"
            return AccessError(what, mend=f"point `path` of the connection {self.name} at a SQLite file", where=where)
        if code in _DENIED:
            return AccessError(f"{self.path}: {text}", mend="grant the right to write the file", where=where)
        if code in _FULL:
            return AccessError(f"{self.path}: {text}", mend="free disk space, or check the disk", where=where)
        if code == sqlite3.SQLITE_CANTOPEN:
            return self._unopened(text)
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
            return DataError(text, mend="clean the rows in a transform, or choose another disposition", where=where)
        return SpecError(text, mend="correct the table, the columns or the query of this node", where=where)

    def _unopened(self, text: str) -> AccessError:
        what, mend = f"{self.path}: {text.strip()}", "check the path and its permissions"
        if not Path(self.path).exists() and Path(self.path).parent.is_dir():
            what, mend = f"there is no file {self.path}", f"correct `path` of the connection {self.name}"
        return AccessError(what, mend=mend, where=f"connection {self.name}")


def columns_of(database: sqlite3.Connection, table: str) -> list[Column]:
    """The columns of a table or view, generated ones included; none when there is no such table."""
    rows = database.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    return [Column(name, declared, key) for _, name, declared, _, _, key, hidden in rows if hidden != _HIDDEN]


def primary_key(found: list[Column]) -> tuple[str, ...]:
    """The names of the columns of the primary key, in its order."""
    return tuple(one.name for one in sorted(found, key=lambda one: one.key) if one.key)


def tables_of_file(database: sqlite3.Connection) -> Iterator[Stream]:
    """The tables and views, by name, with about how many rows `ANALYZE` has found, and the columns' declared types."""
    from resources.support.columns import arrow_schema

    rows = dict.fromkeys([""], 0)
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
        counted = "SELECT tbl, max(CAST(stat AS INTEGER)) FROM sqlite_stat1 GROUP BY tbl"
        rows = dict(database.execute(counted).fetchall())
    listed = database.execute(
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_' "
        f"AND name <> {literal(ledger.TABLE)} ORDER BY name"
    ).fetchall()
    for name, sort in listed:
        found = columns_of(database, name)
        kinds = [(one.name, kind(one.declared)) for one in found]
        known = bool(kinds) and all(own != ANY for _, own in kinds)
        yield Stream(name, arrow_schema(kinds) if known else None, primary_key(found), "main", sort, rows.get(name))


def rowid_name(database: sqlite3.Connection, table: str) -> str | None:
    """What the hidden row number of a table is called; `None` where it has none."""
    found = database.execute("SELECT type FROM sqlite_master WHERE name = ? COLLATE NOCASE", (table,)).fetchone()
    if not found or found[0] != "table":
        return None
    taken = {one.name.casefold() for one in columns_of(database, table)}
    for free in ("rowid", "_rowid_", "oid"):
        if free not in taken:
            try:
                database.execute(f"SELECT {free} FROM {quoted(table)} LIMIT 0")
            except sqlite3.OperationalError:
                return None
            return free
    return None

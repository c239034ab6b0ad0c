"""A table beside a PostgreSQL target that holds rows until they are applied.

It is unlogged: a crash of the server empties it, which is noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import duckdb

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import columns, literal, quoted
from resources.support import pgtable
from resources.support.libpq import FROM_SERVER, Server, driver
from resources.support.pgtypes import Wire, by_name, wire
from resources.support.tables import TableName

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]


# A disk that fills up may show as a write that was cut short.
_FULL = re.compile("No space left|Check free disk space|could not extend file")


class Stage:
    """The staging table `name`, made when the first rows come; `target` is what errors call the target."""

    def __init__(self, server: Server, name: TableName, target: str) -> None:
        self.name = name
        self.wires: list[Wire] = []
        self._server = server
        self._target = target
        self._rows = 0

    def create(self, wires: list[Wire]) -> None:
        """Make the table, unless it is there."""
        if self.wires:
            return
        listed = ", ".join(f"{quoted(one.name)} {one.staged}" for one in wires)
        with self._server.session() as session:
            session.execute(f"CREATE UNLOGGED TABLE {self.name.sql} ({listed}) WITH (autovacuum_enabled = false)")
        self.wires = wires

    def drop(self) -> None:
        """Drop the table, if it was made."""
        if self.wires:
            with self._server.session() as session:
                drop(session, self.name)
            self.wires, self._rows = [], 0

    def copy(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Bring the rows of `query` in through DuckDB's scanner, or through ADBC where that is not installed.

        When it is broken off, it begins anew. Raises DataError, AccessError or Unavailable.
        """
        self._server.again(lambda: self._copied(duck, query))

    def ingest(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Add the rows of `query` through ADBC. Raises DataError, AccessError or Unavailable."""
        self.create(_wires(duck, query, adbc=True))
        listed = ", ".join(f"{one.cast} AS {quoted(one.name)}" for one in self.wires)
        try:
            with self._server.adbc() as connection, connection.cursor() as cursor:
                reader = duck.execute(f"SELECT {listed} FROM ({query})").to_arrow_reader(50_000)
                names = {"db_schema_name": self.name.schema}
                self._rows += cursor.adbc_ingest(self.name.table, reader, mode="append", **names)
        except DatabrokkrError:
            raise
        except Exception as error:
            ours = self._explained(error, duck, query)
            if ours is None:
                raise
            raise ours from error

    def require(self, session: Session, keys: Sequence[str]) -> None:
        """Raise Unavailable when rows are gone, after a crash of the server or because a newer load swept the table,
        and DataError when one of `keys` is NULL."""
        if not pgtable.exists(session, self.name):
            raise self._swept()
        named = [by_name([one.name for one in self.wires], key) or key for key in keys]
        nulls = "".join(f", count(*) - count({quoted(name)})" for name in named)
        found = session.execute(f"SELECT count(*){nulls} FROM {self.name.sql}".encode()).fetchone()
        if found is None or found[0] != self._rows:
            raise self._swept()
        for key, missing in zip(keys, found[1:], strict=True):
            if missing:
                raise DataError(
                    f'the key "{key}" is NULL in {missing} rows, which could not be found again by it',
                    mend="leave such rows out in a transform, or choose other `keys`",
                    where=self._target,
                )

    def _copied(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        self.drop()
        try:
            alias = self._server.attach(duck, read_only=False, schema=self.name.schema)
        except SpecError:
            self.ingest(duck, query)
            return
        try:
            self.create(_wires(duck, query, adbc=False))
            row = duck.execute(
                f"INSERT INTO {alias}.{self.name.sql} ({columns([one.name for one in self.wires])}) "
                f"SELECT {', '.join(one.cast for one in self.wires)} FROM ({query})"
            ).fetchone()
            self._rows += row[0] if row else 0
        except duckdb.Error as error:
            ours = self._explained(error, duck, query)
            if ours is None:
                raise
            raise ours from error
        finally:
            duck.execute(f"DETACH {alias}")

    def _swept(self) -> Unavailable:
        return Unavailable(
            f"the rows that were staged for {self._target} are not there any more",
            mend="the server was restarted, or another load of this node has begun: run it again",
            where=self._target,
        )

    def _explained(self, error: Exception, duck: duckdb.DuckDBPyConnection, query: str) -> DatabrokkrError | None:
        """Our error for one that came up while staging; `None` for one of reading the rows."""
        server, text = self._server, str(error)
        ours = server.explained(error)
        if ours is not None:
            return ours
        if self.name.table in text and "does not exist" in text:
            return self._swept()
        bad = _with_nul(duck, query) if "NULL-byte" in text or "invalid byte sequence" in text else ""
        if bad:
            return DataError(
                f"the column {bad} holds a text with a NUL character, which PostgreSQL cannot hold",
                mend="remove it in a transform: replace(column, chr(0), '')",
                where=self._target,
            )
        remote = FROM_SERVER.search(text) is not None
        if _FULL.search(text) and remote:
            mend = "free disk space on the server"
            return AccessError(server.scrubbed(text), mend=mend, where=f"connection {server.name}")
        if isinstance(error, duckdb.IOException | duckdb.OutOfMemoryException) and not remote:
            return None
        mend = "clean the values in a transform; the message names the column"
        return DataError(server.scrubbed(text), mend=mend, where=self._target)


def _wires(duck: duckdb.DuckDBPyConnection, query: str, *, adbc: bool) -> list[Wire]:
    rows = duck.sql(query)
    return [wire(name, own, adbc=adbc) for name, own in zip(rows.columns, rows.types, strict=True)]


def _with_nul(duck: duckdb.DuckDBPyConnection, query: str) -> str:
    """The names of the columns that hold a NUL."""
    names = duck.sql(query).columns
    tests = ", ".join(f"bool_or(contains(CAST({quoted(name)} AS VARCHAR), chr(0)))" for name in names)
    found = duck.execute(f"SELECT {tests} FROM ({query})").fetchone() or ()
    return ", ".join(f'"{name}"' for name, bad in zip(names, found, strict=False) if bad)


def drop(session: Session, stage: TableName) -> None:
    """Drop a staging table, unless a load that is still at work holds it."""
    session.execute("SET lock_timeout = '2s'")
    with suppress(driver().errors.LockNotAvailable):
        session.execute(f"DROP TABLE IF EXISTS {stage.sql}")
    session.execute("RESET lock_timeout")


def stage_like(node: str) -> str:
    """How the staging tables of a node's loads begin; a load's own name follows."""
    return f"_databrokkr_stage_{hashlib.md5(node.encode()).hexdigest()[:8]}_"


def leftovers(session: Session, schema: str, prefix: str) -> list[TableName]:
    """Staging tables whose names begin with `prefix`."""
    rows = session.execute(
        "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        f"WHERE relkind = 'r' AND nspname = {literal(schema)} AND starts_with(relname::text, {literal(prefix)})"
    )
    return [TableName(schema, name) for (name,) in rows.fetchall()]

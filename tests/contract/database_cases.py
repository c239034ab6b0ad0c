"""The cases of databases."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from tests import services

from .case import (
    Busy,
    CanBeReadOnly,
    Case,
    ChecksPasswords,
    GrantsRights,
    HoldsTypes,
    Merges,
    ReadsByCursor,
    Rows,
    RunsFull,
    Settings,
    Stops,
)
from .places import SMALL, unwritable
from .values import FLAT, keys_of

Service = TypeVar("Service")


@contextmanager
def or_skip(service: AbstractContextManager[Service]) -> Iterator[Service]:
    """The service, or a skip that says what is missing on this machine."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(service)
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield started


class DatabaseCase(Case, ReadsByCursor, HoldsTypes, Merges):
    """A database with a driver of Python's own interface, PEP 249."""

    dispositions = (Append, Replace, Merge, History)
    kinds: ClassVar[Mapping[str, str]]
    """The database's types for those that tests put into tables, by Arrow's names."""
    place: ClassVar[str] = "%s"
    """How the driver marks a value in a statement."""

    @abstractmethod
    def session(self) -> AbstractContextManager[Any]:
        """A connection in autocommit mode."""

    def quoted(self, name: str) -> str:
        """A name as the database quotes it."""
        return '"' + name.replace('"', '""') + '"'

    def source(self, table: str) -> Settings:
        return {"table": table}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table}

    def put(self, table: str, rows: pa.Table) -> None:
        listed = [f"{self.quoted(field.name)} {self._kind(field.type)}" for field in rows.schema]
        if keys := keys_of(rows):
            listed.append(f"PRIMARY KEY ({', '.join(map(self.quoted, keys))})")
        with self.session() as session, closing(session.cursor()) as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {self.quoted(table)}")
            cursor.execute(f"CREATE TABLE {self.quoted(table)} ({', '.join(listed)})")
            self._insert(cursor, table, rows)

    def add(self, table: str, rows: pa.Table) -> None:
        with self.session() as session, closing(session.cursor()) as cursor:
            self._insert(cursor, table, rows)

    def get(self, table: str) -> Rows:
        with self.session() as session, closing(session.cursor()) as cursor:
            try:
                cursor.execute(f"SELECT * FROM {self.quoted(table)}")
            except Exception as error:
                if not self.is_missing(error):
                    raise
                return []
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @abstractmethod
    def is_missing(self, error: Exception) -> bool:
        """Whether an error of the driver says that there is no such table."""

    def _kind(self, kind: pa.DataType) -> str:
        if pa.types.is_decimal(kind):
            return f"numeric({kind.precision}, {kind.scale})"
        return self.kinds[str(kind)]

    def _insert(self, cursor: Any, table: str, rows: pa.Table) -> None:
        places = ", ".join([self.place] * rows.num_columns)
        values = [tuple(row.values()) for row in rows.to_pylist()]
        if values:
            into = f"{self.quoted(table)} ({', '.join(map(self.quoted, rows.column_names))})"
            if self.place == "%s":
                into = into.replace("%", "%%")
            cursor.executemany(f"INSERT INTO {into} VALUES ({places})", values)


class PostgresCase(DatabaseCase, Stops, ChecksPasswords, GrantsRights, CanBeReadOnly, RunsFull):
    title = "PostgreSQL"
    connector = "postgres"
    longest_name = 63
    holds = FLAT | {"list", "list of texts"}
    kinds: ClassVar = {
        "bool": "boolean",
        "int32": "integer",
        "int64": "bigint",
        "double": "double precision",
        "string": "text",
        "binary": "bytea",
        "date32[day]": "date",
        "timestamp[us]": "timestamp",
        "timestamp[us, tz=UTC]": "timestamptz",
    }

    def __init__(self, server: services.Postgres, database: str) -> None:
        self.server = server
        self.database = database

    @classmethod
    def system(cls) -> AbstractContextManager[services.Postgres]:
        return or_skip(services.postgres())

    @classmethod
    @contextmanager
    def fresh(cls, system: services.Postgres, folder: Path) -> Iterator[Self]:
        system.start()
        name = f"contract_{uuid.uuid4().hex[:12]}"
        system.create_database(name)
        try:
            yield cls(system, name)
        finally:
            system.start()
            system.drop_database(name)

    def connection(self) -> Settings:
        return {"url": self.server.dsn(self.database)}

    @contextmanager
    def session(self) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(self.server.dsn(self.database), autocommit=True) as session:
            yield session

    def source(self, table: str) -> Settings:
        return {"table": table, "schema": "public"}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table, "schema": "public"}

    def is_missing(self, error: Exception) -> bool:
        return getattr(error, "sqlstate", None) == "42P01"

    def stop(self) -> None:
        self.server.stop(crash=True)

    def start(self) -> None:
        self.server.start()

    def wrong_password(self) -> Settings:
        return {"url": self.server.dsn(self.database).replace(self.server.password, "hush-hush")}

    def without_rights(self) -> Settings:
        return self._as_user("poor", "")

    @contextmanager
    def read_only(self) -> Iterator[Settings]:
        yield self._as_user("reader", "ALTER ROLE reader SET default_transaction_read_only = on")

    def _as_user(self, user: str, more: str) -> Settings:
        with self.session() as session:
            if session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (user,)).fetchone() is None:
                session.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{user}'")
            session.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {user}; {more}")
        return {
            "url": self.server.dsn(self.database).replace(
                f"{self.server.user}:{self.server.password}", f"{user}:{user}"
            )
        }

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        # Larger than a segment of the log, which is made whole, and no multiple of a page: so a page is cut short.
        with self.server.daemon.files_up_to(17_000_001):
            yield None

    def _insert(self, cursor: Any, table: str, rows: pa.Table) -> None:
        named = ", ".join(map(self.quoted, rows.column_names))
        with cursor.copy(f"COPY {self.quoted(table)} ({named}) FROM STDIN") as copy:
            for row in rows.to_pylist():
                copy.write_row(tuple(row.values()))


class DuckDBCase(DatabaseCase, CanBeReadOnly, RunsFull):
    title = "DuckDB"
    connector = "duckdb"
    place = "?"
    kinds: ClassVar = {
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "double": "DOUBLE",
        "string": "VARCHAR",
        "binary": "BLOB",
        "date32[day]": "DATE",
        "timestamp[us]": "TIMESTAMP",
        "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
    }

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[Self]:
        (folder / "base").mkdir()
        yield cls(folder / "base" / "shop.duckdb")

    def connection(self) -> Settings:
        return {"path": str(self.file), "wait": 1}

    @contextmanager
    def session(self) -> Iterator[Any]:
        import duckdb

        try:
            session = duckdb.connect(str(self.file))
        except (duckdb.IOException, duckdb.ConnectionException, duckdb.BinderException) as error:
            raise Busy from error
        with session:
            session.execute("SET TimeZone = 'UTC'")
            yield session

    def source(self, table: str) -> Settings:
        return {"table": table, "schema": "main"}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table, "schema": "main"}

    def is_missing(self, error: Exception) -> bool:
        return "does not exist" in str(error)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.file.parent):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL

    def _kind(self, kind: pa.DataType) -> str:
        return super()._kind(kind).upper()

    def _insert(self, cursor: Any, table: str, rows: pa.Table) -> None:
        cursor.register("given", rows)
        cursor.execute(
            f"INSERT INTO {self.quoted(table)} ({', '.join(map(self.quoted, rows.column_names))}) FROM given"
        )
        cursor.unregister("given")


class SqliteCase(DatabaseCase, CanBeReadOnly, RunsFull):
    title = "SQLite"
    connector = "sqlite"
    holds = FLAT
    bounded: ClassVar = {"float32": "no NaN", "float64": "no NaN"}
    place = "?"
    kinds: ClassVar = {
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "double": "DOUBLE",
        "string": "TEXT",
        "binary": "BLOB",
        "date32[day]": "DATE",
        "timestamp[us]": "TIMESTAMP",
        "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
    }

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[Self]:
        (folder / "base").mkdir()
        yield cls(folder / "base" / "shop.sqlite")

    def connection(self) -> Settings:
        return {"path": str(self.file), "wait": 1}

    def source(self, table: str) -> Settings:
        return {"table": table, "schema": "main"}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table, "schema": "main"}

    @contextmanager
    def session(self) -> Iterator[Any]:
        import sqlite3

        with closing(sqlite3.connect(self.file, isolation_level=None)) as session:
            session.execute("BEGIN")
            yield session
            session.execute("COMMIT")

    def is_missing(self, error: Exception) -> bool:
        return "no such table" in str(error)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.file.parent):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL

    def _insert(self, cursor: Any, table: str, rows: pa.Table) -> None:
        texts = {field.name: pa.string() for field in rows.schema if _has_no_own(field.type)}
        kinds = [field.with_type(texts.get(field.name, field.type)) for field in rows.schema]
        super()._insert(cursor, table, rows.cast(pa.schema(kinds)))


def _has_no_own(kind: pa.DataType) -> bool:
    """Whether SQLite keeps values of a type as text."""
    return bool(pa.types.is_decimal(kind) or pa.types.is_temporal(kind))


class MySQLCase(DatabaseCase, Stops, ChecksPasswords, GrantsRights, CanBeReadOnly):
    # Not RunsFull: MariaDB itself falls when a limit stops its files from growing.
    title = "MySQL (MariaDB)"
    connector = "mysql"
    longest_name = 64
    unnameable = frozenset({"🎉"})
    holds = FLAT
    bounded: ClassVar = {
        "float32": "finite",
        "float64": "finite",
        "timestamp with zone": "1970 to 2038",
    }
    kinds: ClassVar = {
        "bool": "BOOLEAN",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "double": "DOUBLE",
        "string": "LONGTEXT",
        "binary": "LONGBLOB",
        "date32[day]": "DATE",
        "timestamp[us]": "DATETIME(6)",
        "timestamp[us, tz=UTC]": "TIMESTAMP(6) NULL",
    }

    def __init__(self, server: services.MariaDB, database: str) -> None:
        self.server = server
        self.database = database

    @classmethod
    def system(cls) -> AbstractContextManager[services.MariaDB]:
        return or_skip(services.mariadb())

    @classmethod
    @contextmanager
    def fresh(cls, system: services.MariaDB, folder: Path) -> Iterator[Self]:
        system.start()
        name = f"contract_{uuid.uuid4().hex[:12]}"
        system.create_database(name)
        try:
            yield cls(system, name)
        finally:
            system.start()
            system.drop_database(name)

    def connection(self) -> Settings:
        return {"url": self.server.url(self.database), "retries": 4}

    def source(self, table: str) -> Settings:
        return {"table": table, "schema": self.database}

    def sink(self, table: str, how: Disposition) -> Settings:
        return {"table": table, "schema": self.database}

    @contextmanager
    def session(self) -> Iterator[Any]:
        with self.server.connect(self.database) as session:
            with session.cursor() as cursor:
                cursor.execute("SET time_zone = '+00:00'")
            yield session

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def is_missing(self, error: Exception) -> bool:
        return bool(error.args[0] == 1146)

    def stop(self) -> None:
        self.server.stop(crash=True)

    def start(self) -> None:
        self.server.start()

    def wrong_password(self) -> Settings:
        return {"url": self.server.url(self.database).replace(self.server.password, "hush-hush")}

    def without_rights(self) -> Settings:
        return self._as_user("poor", "CREATE")

    @contextmanager
    def read_only(self) -> Iterator[Settings]:
        yield self._as_user("reader", "SELECT")

    def _as_user(self, user: str, rights: str) -> Settings:
        with self.session() as session, session.cursor() as cursor:
            cursor.execute(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{user}'")
            cursor.execute(f"GRANT {rights} ON {self.quoted(self.database)}.* TO {user}")
        own = f"{self.server.user}:{self.server.password}"
        return {"url": self.server.url(self.database).replace(own, f"{user}:{user}")}

"""PostgreSQL: reads tables and queries as one stream from one snapshot, and writes tables exactly once.

Reading. The server runs one `COPY (SELECT …) TO STDOUT (FORMAT binary)` in a repeatable-read transaction, and DuckDB's
scanner takes the rows as they come: bounded memory for any table, analyzed or not, and no row passes through Python.
Splitting a table into page ranges, the scanner's own way, is hardly faster on two cores, and can neither guard values
nor use an index.

Writing. Rows are staged in an unlogged table beside the target, outside of any long transaction. `commit` then applies
them and writes the ledger in one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import duckdb
from pydantic import Field, SecretStr, model_validator

from databrokkr_assets.core.disposition import Disposition
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Batch, Cursor, LoadMark, RelationRead, Stream, Target
from databrokkr_assets.core.settings import Names, Settings
from databrokkr_assets.core.spec import ConnectionSettings, Finding, Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.base import Connector
from resources.support import ledger, pgstage, pgsurvey, pgtable
from resources.support.connections import connected
from resources.support.database_nodes import DatabaseConnection, DatabaseSinkSettings, DatabaseSourceSettings
from resources.support.database_source import DatabaseSource
from resources.support.libpq import EXTRA, FROM_SERVER, Server, driver
from resources.support.pgload import PostgresLoad
from resources.support.pgtypes import Column, bad_value
from resources.support.table_sink import TableSink
from resources.support.tables import TableName

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class PostgresConnection(DatabaseConnection):
    """A PostgreSQL database: `url`, or `host`, `database` and `user`."""

    # A mistake is shown with what was given; here that would be the password.
    model_config = Settings.model_config | {"hide_input_in_errors": True}

    type: Literal["postgres"]
    url: SecretStr | None = None
    """`postgresql://user:password@host:port/database`, with libpq's parameters behind a `?`."""
    host: str | None = None
    """The server's name or address."""
    port: int = Field(default=5432, ge=1, le=65535)
    """The server's port."""
    database: str | None = None
    """The database's name."""
    user: str | None = None
    """Who connects."""
    password: SecretStr | None = None
    """Their password; best as `{{ env.NAME }}`."""
    sslmode: SslMode | None = None
    """libpq's own word; `verify-full` where the network is not trusted."""
    connect_timeout: int = Field(default=10, ge=1)
    """Seconds until a try to connect is given up."""
    retries: int = Field(default=3, ge=1)
    """How often connecting, or a step that can be done over, is tried before the server counts as unavailable; three
    tries take about two seconds."""

    @model_validator(mode="after")
    def _one_way(self) -> PostgresConnection:
        apart = [
            name for name in ("host", "database", "user", "password", "sslmode") if getattr(self, name) is not None
        ]
        if self.url is None and not {"host", "database", "user"} <= set(apart):
            raise ValueError("give `url`, or `host`, `database` and `user`")
        if self.url is not None:
            if apart:
                raise ValueError(f"give `url` or `{apart[0]}`, not both")
            if not self.url.get_secret_value().startswith(("postgresql://", "postgres://")):
                raise ValueError("`url` must begin with postgresql://")
        return self

    def server(self, name: str) -> Server:
        """The database, called `name` in errors. Raises SpecError for a `url` that libpq cannot read."""
        return Server(name, self._parameters(name) | {"connect_timeout": str(self.connect_timeout)}, self.retries)

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the server answers, as whom, and what may be read and created."""
        return pgsurvey.findings(self.server(name))

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables and views that may be read; partitions stand for nothing of their own."""
        return pgsurvey.streams(self.server(name))

    def uri(self) -> str:
        """Where the database is, without user and secrets."""
        if self.url is None:
            return f"postgres://{self.host}:{self.port}/{self.database}"
        parts = urlsplit(self.url.get_secret_value())
        return f"postgres://{parts.netloc.rpartition('@')[2] or 'localhost'}{parts.path}"

    def _parameters(self, name: str) -> dict[str, str]:
        if self.url is None:
            given = {
                "host": self.host,
                "port": str(self.port),
                "dbname": self.database,
                "user": self.user,
                "password": self.password.get_secret_value() if self.password else None,
                "sslmode": self.sslmode,
            }
            return {key: value for key, value in given.items() if value is not None}
        psycopg = driver()
        try:
            return {
                key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(self.url.get_secret_value()).items()
            }
        except psycopg.ProgrammingError:
            # The driver's own words quote the part that it could not read, which may be the password.
            raise SpecError(
                f"the `url` of the connection {name} is no PostgreSQL URL",
                mend="write postgresql://user:password@host:port/database, with special characters percent-encoded",
                where=f"connection {name}",
            ) from None


# ------------------------------------------------------------------------------------------------- reading


class PostgresSourceSettings(DatabaseSourceSettings):
    """Reads a table, a view or the rows of a query."""

    connects: ClassVar[type[DatabaseConnection]] = PostgresConnection
    dialect: ClassVar[str] = "postgres"
    home: ClassVar[str] = "public"
    type: Literal["postgres"]
    as_text: Names = ()
    """Columns to read as PostgreSQL prints them, for values that no other type holds, such as a numeric NaN."""

    def open(self, connection: ConnectionSettings | None, place: Place) -> PostgresSource:
        """A reader of the table or query."""
        return PostgresSource(self, connected(connection, PostgresConnection).server(self.connection))


class PostgresSource(DatabaseSource[Column]):
    """Reads one table or query, all its rows in one snapshot."""

    def __init__(self, settings: PostgresSourceSettings, server: Server) -> None:
        super().__init__(settings, settings.name())
        self._as_text = settings.as_text
        self._server = server

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead | None:
        """The rows as a query over `duck`; `None` where DuckDB's extension for PostgreSQL is not installed.

        The database stays attached until `duck` is closed.
        """
        remote = self._remote(after, adbc=False)
        try:
            alias = self._server.attach(duck, read_only=True)
        except SpecError:
            return None
        return self._local(f"postgres_query({literal(alias)}, {literal(remote)})", after)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows through ADBC. Infinite dates and timestamps, which Arrow cannot hold, are DataErrors here."""
        remote = self._remote(after, adbc=True)
        with open_duck() as duck, self._adbc() as cursor:
            cursor.execute(remote)
            duck.register("databrokkr_adbc", cursor.fetch_record_batch())
            yield from self._batches(duck, self._local("databrokkr_adbc", after), after)

    def _remote(self, after: Cursor | None, *, adbc: bool) -> str:
        """What the server is asked for."""
        found, _ = self._described
        asked = ", ".join(column.server(index, adbc=adbc) for index, column in enumerate(found))
        value = self._resumes_at(after)
        if value is None:
            return f"SELECT {asked} FROM {self._from}"
        cursor = next(column for column in found if column.name == self._settings.cursor)
        nulls = f" OR {quoted(cursor.name)} IS NULL" if self._incremental and self._incremental.nulls else ""
        return f"SELECT {asked} FROM {self._from} WHERE {cursor.at_least(value)}{nulls}"

    def _local(self, feed: str, after: Cursor | None) -> RelationRead:
        """What DuckDB makes of what comes."""
        query = f"SELECT {', '.join(column.local() for column in self._described[0])} FROM {feed}"
        return self._resuming(RelationRead(query, explain=self._explained), after)

    def _refuse_cursor(self, column: Column) -> None:
        if not column.resumable:
            raise self._spec_error(
                f'"{column.name}" cannot be a cursor: it arrives as text, which has another order',
                "choose another column, or cast it in a `query`, e.g. to numeric(38,0) or timestamptz",
            )

    def _look(self) -> tuple[Sequence[Column], Sequence[str]]:
        found, keys = self._server.again(self._asked)
        return self._chosen(found, self._as_text), keys

    def _asked(self) -> tuple[list[Column], tuple[str, ...]]:
        with self._server.session() as session:
            return self._columns(session), self._primary_key(session)

    def _columns(self, session: Session) -> list[Column]:
        errors = driver().errors
        try:
            # No row is asked for, but names and grants are checked, and domains give their base types.
            cursor = session.execute(f"SELECT * FROM {self._from} LIMIT 0")
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            missing = re.search(r'"([^"]+)" does not exist', str(error))
            raise self._no_table(missing[1] if missing else "", pgtable.known_tables(session)) from error
        except errors.InsufficientPrivilege as error:
            grant = f"GRANT SELECT ON {self._name.sql if self._name else '…'} TO {quoted(session.info.user)}"
            raise AccessError(str(error), mend=f"as its owner: {grant}", where=self._told) from error
        assert cursor.description is not None and cursor.pgresult is not None
        described, result, as_text = cursor.description, cursor.pgresult, self._as_text
        declared = self._dimensions(session)
        return [
            Column(found.name, found.type_code, result.fmod(index), found.name in as_text, declared.get(found.name, 0))
            for index, found in enumerate(described)
        ]

    def _dimensions(self, session: Session) -> dict[str, int]:
        """How many dimensions the arrays of the table were declared with."""
        if self._name is None:
            return {}
        rows = session.execute(
            "SELECT attname, attndims FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
            "AND attndims > 1 AND NOT attisdropped",
            (self._name.sql,),
        )
        return dict(rows.fetchall())

    def _primary_key(self, session: Session) -> tuple[str, ...]:
        if self._name is None:
            return ()
        rows = session.execute(
            "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
            "WHERE indisprimary AND indrelid = to_regclass(%s) ORDER BY array_position(indkey::int2[], attnum)",
            (self._name.sql,),
        )
        return tuple(name for (name,) in rows.fetchall())

    def _explained(self, error: Exception) -> DatabrokkrError | None:
        """Our error for one that came up while the rows did; `None` for one that has nothing to do with the server."""
        bad, text = bad_value(error), str(error)
        if bad is not None:
            column = self._described[0][bad[0]]
            return DataError(
                f'the column "{column.name}" holds {bad[1]}, which {column.own} cannot hold',
                mend=f"mend the rows, or read the column as text with `as_text: [{column.name}]`",
                where=self._told,
            )
        if "Malformed JSON" in text:
            mend = "read the column as text with `as_text`"
            return DataError(self._server.scrubbed(text), mend=mend, where=self._told)
        ours = self._server.explained(error)
        if ours is not None:
            return ours
        if "Failed to prepare" in text:
            mend = "correct the query; the table may have changed meanwhile"
            return self._spec_error(self._server.scrubbed(text), mend)
        if FROM_SERVER.search(text):
            mend = "see the message; it comes from PostgreSQL"
            return DataError(self._server.scrubbed(text), mend=mend, where=self._told)
        return None

    @contextmanager
    def _adbc(self) -> Iterator[Any]:
        with self._server.adbc() as connection:
            try:
                with connection.cursor() as cursor:
                    yield cursor
            except DatabrokkrError:
                raise
            except Exception as error:
                raise self._explained(error) or error from error


# ------------------------------------------------------------------------------------------------- writing


class PostgresSinkSettings(DatabaseSinkSettings):
    """Writes a table, exactly once."""

    connects: ClassVar[type[DatabaseConnection]] = PostgresConnection
    dialect: ClassVar[str] = "postgres"
    home: ClassVar[str] = "public"
    type: Literal["postgres"]

    def open(self, connection: ConnectionSettings | None, place: Place) -> PostgresSink:
        """A writer to the table."""
        server = connected(connection, PostgresConnection).server(self.connection)
        return PostgresSink(self.name(), self.create, server)


class PostgresSink(TableSink):
    """Writes one table, with its ledger and its staging tables in the same schema."""

    def __init__(self, table: TableName, create: bool, server: Server) -> None:
        self.table = table
        self.create = create
        self.server = server
        self.ledger = TableName(table.schema, ledger.TABLE)

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError or Unavailable."""
        return self.server.again(lambda: self._last_load(target.node))

    @property
    def told(self) -> str:
        """What errors call the table."""
        return str(self.table)

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> PostgresLoad:
        return PostgresLoad(self.server, self.table, self.ledger, target, how, load, create=self.create)

    def _last_load(self, node: str) -> LoadMark | None:
        with self.server.session() as session:
            if not pgtable.exists(session, self.ledger):
                return None
            return ledger.mark(session.execute(ledger.select(self.ledger.sql, node)).fetchone())

    def _prepare(self, target: Target) -> None:
        self.server.again(lambda: self._made_ready(target))

    def _made_ready(self, target: Target) -> None:
        """Refuse early what cannot be written, make the ledger, and sweep what loads that died have left."""
        with self.server.session() as session:
            schema = session.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self.table.schema,)).fetchone()
            if schema is None:
                mend = f"create it: CREATE SCHEMA {quoted(self.table.schema)}"
                raise SpecError(f'there is no schema "{self.table.schema}"', mend=mend, where=str(self.table))
            if not self.create and not pgtable.exists(session, self.table):
                near = did_you_mean(str(self.table), pgtable.known_tables(session)[:20])
                mend = f"create it, or set `create: true`; {near}"
                raise SpecError(f"there is no table {self.table}", mend=mend, where=str(self.table))
            if not pgtable.exists(session, self.ledger):
                with session.transaction():
                    pgtable.lock_for(session, str(self.ledger))
                    session.execute(f"CREATE TABLE IF NOT EXISTS {self.ledger.sql} ({ledger.COLUMNS})")
            for stage in pgstage.leftovers(session, self.table.schema, pgstage.stage_like(target.node)):
                pgstage.drop(session, stage)


connector = Connector(
    name="postgres",
    summary="PostgreSQL: reads tables and queries, also only what is new, and writes tables exactly once.",
    kind="postgres",
    connection=PostgresConnection,
    source=PostgresSourceSettings,
    sink=PostgresSinkSettings,
    extra=EXTRA,
)

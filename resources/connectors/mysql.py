"""MySQL and MariaDB: reads tables and queries as one stream from one snapshot, and writes tables exactly once.

Reading. DuckDB's scanner runs one SELECT and takes the rows as the server sends them: one statement is one snapshot,
memory is bounded for any table, and no row passes through Python. Where the extension is not installed, pymysql does
the same, more slowly.

Writing. Rows go into a temporary table of the session, which is in no binary log and ends with the session. Then one
transaction applies them and writes the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import duckdb
import pyarrow as pa
from pydantic import Field, SecretStr, model_validator

from databrokkr_assets.core.disposition import Disposition
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.ports import Batch, Cursor, LoadMark, RelationRead, Stream, Target
from databrokkr_assets.core.settings import Names, Settings
from databrokkr_assets.core.spec import ConnectionSettings, Finding, Origin, Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.base import Connector
from resources.support import mysql_survey, mysql_table
from resources.support.connections import connected
from resources.support.database_nodes import DatabaseConnection, DatabaseSinkSettings, DatabaseSourceSettings
from resources.support.database_source import DatabaseSource
from resources.support.mysql_ledger import Ledger
from resources.support.mysql_load import MySQLLoad
from resources.support.mysql_server import EXTRA, Server, SslMode, described, driver, refuse_name, streamed, ticked
from resources.support.mysql_stage import sql
from resources.support.mysql_types import Column, bad_value
from resources.support.table_sink import TableSink
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.mysql_server import Session

_ROWS = 10_000
_PARAMETERS = ("ssl_mode", "ssl_ca", "ssl_cert", "ssl_key", "socket")


class MySQLConnection(DatabaseConnection):
    """A MySQL or MariaDB server: `url`, or `host` (or `socket`), `user` and `database`."""

    # A mistake is shown with what was given; here that would be the password.
    model_config = Settings.model_config | {"hide_input_in_errors": True}

    type: Literal["mysql"]
    url: SecretStr | None = None
    """`mysql://user:password@host:port/database`, with `ssl_mode`, `ssl_ca` and so on behind a `?`."""
    host: str | None = None
    """The server's name or address."""
    port: int = Field(default=3306, ge=1, le=65535)
    """The server's port."""
    socket: str | None = None
    """The path of the server's Unix socket, in place of `host`."""
    database: str = ""
    """The database of tables that name none; without it each table names its own, `shop.orders`."""
    user: str | None = None
    """Who connects."""
    password: SecretStr | None = None
    """Their password; best as `{{ env.NAME }}`."""
    ssl_mode: SslMode = "preferred"
    """MySQL's own word; `verify_identity` where the network is not trusted."""
    ssl_ca: str | None = None
    """The file of the certificate authorities that `verify_ca` and `verify_identity` trust."""
    ssl_cert: str | None = None
    """The file of our certificate, where the server asks for one."""
    ssl_key: str | None = None
    """The file of its key."""
    local_infile: bool = False
    """Whether rows are written with `LOAD DATA LOCAL`, which stages faster, where the server allows it. Its
    protocol lets a server ask for any file of this machine, so set it for servers that you trust only."""
    connect_timeout: int = Field(default=10, ge=1)
    """Seconds until a try to connect is given up."""
    retries: int = Field(default=3, ge=1)
    """How often connecting is tried before the server counts as unavailable; three tries take about two seconds."""

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, given: Any) -> Any:
        """What a URL says, as the settings that say the same."""
        if not isinstance(given, dict) or given.get("url") is None:
            return given
        apart = [name for name in ("host", "database", "user", "password", "socket") if given.get(name) is not None]
        if apart:
            raise ValueError(f"give `url` or `{apart[0]}`, not both")
        url = given["url"]
        return given | _parts(url.get_secret_value() if isinstance(url, SecretStr) else str(url))

    @model_validator(mode="after")
    def _one_way(self) -> MySQLConnection:
        if self.user is None or (self.host is None) == (self.socket is None):
            raise ValueError("give `url`, or `user` and either `host` or `socket`")
        if self.ssl_mode.startswith("verify") and self.ssl_ca is None:
            raise ValueError(f"`ssl_mode: {self.ssl_mode}` needs `ssl_ca`, the file of the authorities to trust")
        return self

    def server(self, name: str) -> Server:
        """The server, called `name` in errors."""
        ssl = {"ca": self.ssl_ca, "cert": self.ssl_cert, "key": self.ssl_key}
        return Server(
            name,
            host=self.host or "localhost",
            port=self.port,
            user=self.user or "",
            database=self.database,
            password=self.password.get_secret_value() if self.password else "",
            socket=self.socket,
            ssl_mode=self.ssl_mode,
            ssl={key: value for key, value in ssl.items() if value is not None},
            connect_timeout=self.connect_timeout,
            retries=self.retries,
            local_infile=self.local_infile,
        )

    def uri(self) -> str:
        """Where the database is, without user and secrets."""
        return f"mysql://{self.server('').place}"

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the server can be reached, as whom, and which rights they have."""
        yield from mysql_survey.findings(self.server(name))

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables and views of the connection's database, or of all; rows as the server estimates them."""
        yield from mysql_survey.streams(self.server(name))


def _parts(url: str) -> dict[str, Any]:
    """The settings that a URL stands for. Raises ValueError, which shows nothing of it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("`url` cannot be read; percent-encode special characters of the password") from None
    if parts.scheme not in ("mysql", "mariadb"):
        raise ValueError("`url` must begin with mysql:// or mariadb://")
    more = dict(parse_qsl(parts.query))
    unknown = [name for name in more if name not in _PARAMETERS]
    if unknown:
        raise ValueError(f"`url` has the parameter `{unknown[0]}`; {did_you_mean(unknown[0], _PARAMETERS)}")
    given = {
        "host": None if "socket" in more else parts.hostname or "localhost",
        "port": port,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.removeprefix("/")),
        "url": None,
    }
    return {name: value for name, value in (given | more).items() if value is not None or name == "url"}


def _placed(table: TableName, database: str) -> TableName:
    """A table with its database, which is the connection's where the author names none. Raises SpecError."""
    if not (table.schema or database):
        raise SpecError(
            f"nothing says in which database {table.table} is",
            mend=f"write `table: <database>.{table.table}`, or set `database` in the connection",
        )
    placed = TableName(table.schema or database, table.table)
    refuse_name(placed.schema)
    refuse_name(placed.table)
    return placed


# ------------------------------------------------------------------------------------------------- reading


class MySQLSourceSettings(DatabaseSourceSettings):
    """Reads a table, a view or the rows of a query."""

    connects: ClassVar[type[DatabaseConnection]] = MySQLConnection
    dialect: ClassVar[str] = "mysql"
    home: ClassVar[str] = ""  # the connection's database
    type: Literal["mysql"]
    as_text: Names = ()
    """Columns to read as the server prints them (bytes in hexadecimal), for values that no other type holds, such as a
    `time` of more than a day."""
    zero_dates: Literal["refuse", "as_null"] = "refuse"
    """What becomes of dates that are no day, such as 0000-00-00 or 2024-02-00: an error that names the column, or NULL.
    To keep them as they are, name the column in `as_text`."""

    @classmethod
    def quoted_in_sql(cls, name: str) -> str:
        """A name in backticks."""
        return ticked(name)

    @classmethod
    def literal_in_sql(cls, text: str) -> str:
        """A text in quotes, in which a backslash is an escape."""
        return literal(text.replace("\\", "\\\\"))

    @classmethod
    def named_in_sql(cls, table: TableName) -> str:
        """A table in backticks, with its database where it names one."""
        return sql(table) if table.schema else ticked(table.table)

    def open(self, connection: ConnectionSettings | None, place: Place) -> MySQLSource:
        """A reader of the table or query."""
        return MySQLSource(self, connected(connection, MySQLConnection).server(self.connection))

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return super()._origin(name, _placed(table, connected(connection, MySQLConnection).database), connection)


class MySQLSource(DatabaseSource[Column]):
    """Reads one table or query, all its rows in one snapshot."""

    def __init__(self, settings: MySQLSourceSettings, server: Server) -> None:
        name = settings.name()
        super().__init__(settings, _placed(name, server.database) if name else None)
        self._as_text = settings.as_text
        self._as_null = settings.zero_dates == "as_null"
        self._server = server

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead | None:
        """The rows as a query over `duck`; `None` where DuckDB's extension for MySQL is not installed.

        The database stays attached until `duck` is closed.
        """
        remote = self._remote(after)
        try:
            alias = self._server.attach(duck)
        except SpecError:
            return None
        # Streamed, because the scanner would else keep all rows before it gives the first.
        return self._local(f"mysql_query({literal(alias)}, {literal(remote)}, stream_results = true)", after)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows through pymysql."""
        remote = self._remote(after)
        # Without converters, values stay the server's text.
        with self._server.session(conv={}) as session, open_duck() as duck, streamed(session, remote) as cursor:
            duck.register("databrokkr_rows", self._arrow(cursor))
            yield from self._batches(duck, self._local("databrokkr_rows", after), after)

    def _remote(self, after: Cursor | None) -> str:
        """What the server is asked for."""
        found, _ = self._described
        asked = ", ".join(column.server() for column in found)
        value = self._resumes_at(after)
        if value is None:
            return f"SELECT {asked} FROM {self._from}"
        cursor = next(column for column in found if column.name == self._settings.cursor)
        nulls = f" OR {ticked(cursor.name)} IS NULL" if self._incremental and self._incremental.nulls else ""
        return f"SELECT {asked} FROM {self._from} WHERE {cursor.at_least(value)}{nulls}"

    def _local(self, feed: str, after: Cursor | None) -> RelationRead:
        """What DuckDB makes of what comes."""
        query = f"SELECT {', '.join(one.local(index) for index, one in enumerate(self._described[0]))} FROM {feed}"
        return self._resuming(RelationRead(query, explain=self._explained), after)

    def _arrow(self, cursor: Any) -> pa.RecordBatchReader:
        """The rows of a cursor as text, or as bytes where they are bytes."""
        found = self._described[0]
        schema = pa.schema([(one.name, pa.binary() if one.arrives_as_bytes else pa.string()) for one in found])

        def pieces() -> Iterator[pa.RecordBatch]:
            while rows := cursor.fetchmany(_ROWS):
                values = zip(*rows, strict=True)
                yield pa.record_batch(
                    [pa.array(one, kind) for one, kind in zip(values, schema.types, strict=True)], schema
                )

        return pa.RecordBatchReader.from_batches(schema, pieces())

    def _refuse_cursor(self, column: Column) -> None:
        if not column.resumable:
            raise self._spec_error(
                f'"{column.name}" cannot be a cursor: it arrives as {column.own}, which has another order',
                "choose another column, or cast it in a `query`, e.g. to decimal(38,0) or datetime(6)",
            )

    def _look(self) -> tuple[Sequence[Column], Sequence[str]]:
        with self._server.session() as session:
            found = self._columns(session)
            keys = mysql_survey.primary_key(session, self._name) if self._name else ()
        return self._chosen(found, self._as_text), keys

    def _columns(self, session: Session) -> list[Column]:
        try:
            found = described(session, self._from)
        except driver().err.MySQLError as error:
            raise self._not_described(session, error) from error
        as_text, as_null = self._as_text, self._as_null
        return [
            Column(
                one.name, one.type_code, one.length, one.scale, one.charsetnr, one.flags, one.name in as_text, as_null
            )
            for one in found
        ]

    def _not_described(self, session: Session, error: Exception) -> DatabrokkrError:
        number, text = error.args[0], str(error.args[-1])
        if number in (1146, 1049):
            missing = re.search(r"(?:Table|database) '([^']+)'", text)
            return self._no_table(missing[1] if missing else "", mysql_survey.known_tables(session))
        if number in (1142, 1143):
            grant = f"GRANT SELECT ON {sql(self._name) if self._name else '…'} TO {self._server.user}"
            return AccessError(text, mend=f"as an administrator: {grant}", where=self._told)
        return self._server.translated(error)

    def _explained(self, error: Exception) -> DatabrokkrError | None:
        """Our error for one that came up while the rows did; `None` for one that has nothing to do with the server."""
        bad, text = bad_value(error), self._server.scrubbed(str(error))
        if bad is not None:
            column = self._described[0][bad[0]]
            mend = f"mend the rows, or read the column as text with `as_text: [{column.name}]`"
            if column.own != "TIME":
                mend += ", or as NULL with `zero_dates: as_null`"
            return DataError(
                f'the column "{column.name}" holds {bad[1]}, which {column.own} cannot hold',
                mend=mend,
                where=self._told,
            )
        ours = self._server.explained(error)
        if ours is not None:
            return ours
        if "PREPARE error" in text:
            return self._spec_error(text, "correct the query; the table may have changed meanwhile")
        if "MySQL query" in text:
            return DataError(text, mend="see the message; it comes from the server", where=self._told)
        return None


# ------------------------------------------------------------------------------------------------- writing


class MySQLSinkSettings(DatabaseSinkSettings):
    """Writes a table, exactly once."""

    connects: ClassVar[type[DatabaseConnection]] = MySQLConnection
    dialect: ClassVar[str] = "mysql"
    home: ClassVar[str] = ""  # the connection's database
    type: Literal["mysql"]

    def open(self, connection: ConnectionSettings | None, place: Place) -> MySQLSink:
        """A writer to the table."""
        server = connected(connection, MySQLConnection).server(self.connection)
        return MySQLSink(_placed(self.name(), server.database), self.create, server)

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return super()._origin(name, _placed(table, connected(connection, MySQLConnection).database), connection)


class MySQLSink(TableSink):
    """Writes one table, with its ledger in the same database. The server is used while a load commits."""

    def __init__(self, table: TableName, create: bool, server: Server) -> None:
        self.table = table
        self.create = create
        self.server = server
        self.ledger = Ledger(table.schema)

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError or Unavailable."""
        with self.server.session() as session:
            return self.ledger.last(session, target.node) if self.ledger.is_there(session) else None

    @property
    def told(self) -> str:
        """What errors call the table."""
        return str(self.table)

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> MySQLLoad:
        return MySQLLoad(self.server, self.table, self.ledger, target, how, load, create=self.create)

    def _prepare(self, target: Target) -> None:
        """Refuse early what cannot be written, and make the ledger."""
        with self.server.session() as session:
            if not mysql_survey.has_database(session, self.table.schema):
                mend = f"create it: CREATE DATABASE {ticked(self.table.schema)}"
                raise SpecError(f'there is no database "{self.table.schema}"', mend=mend, where=str(self.table))
            if not self.create and not mysql_table.existing(session, self.table):
                near = did_you_mean(str(self.table), mysql_survey.known_tables(session)[:20])
                mend = f"create it, or set `create: true`; {near}"
                raise SpecError(f"there is no table {self.table}", mend=mend, where=str(self.table))
            mysql_table.refuse_without_transactions(session, self.table)
            self.ledger.create(session)


connector = Connector(
    name="mysql",
    summary="MySQL and MariaDB: reads tables and queries, also only what is new, and writes tables exactly once.",
    kind="mysql",
    connection=MySQLConnection,
    source=MySQLSourceSettings,
    sink=MySQLSinkSettings,
    extra=EXTRA,
)

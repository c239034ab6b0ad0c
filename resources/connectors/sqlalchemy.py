"""Any database that SQLAlchemy has a dialect for: reads tables and queries, and writes tables exactly once.

Generic: rows pass through Python, and what a dialect makes of a value is checked, not known. Where there is a connector
for the system itself, it is many times faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.settings import Names, Settings, SqlType
from databrokkr_assets.core.spec import ConnectionSettings, Finding, Origin, Place
from resources.base import Connector
from resources.support.connections import connected
from resources.support.database_nodes import DatabaseConnection, DatabaseSinkSettings, DatabaseSourceSettings
from resources.support.tables import TableName

if TYPE_CHECKING:
    from resources.support.sqlalchemy_database import Database
    from resources.support.sqlalchemy_sink import SqlAlchemySink
    from resources.support.sqlalchemy_source import SqlAlchemySource

KIND = "sqlalchemy"
_READ = ("BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR", "BLOB", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "UUID", "JSON")


class SqlAlchemyConnection(DatabaseConnection):
    """A database by its SQLAlchemy URL. Its driver must be installed; extras bring the common ones."""

    # A mistake is shown with what was given; here that would be the password.
    model_config = Settings.model_config | {"hide_input_in_errors": True}

    type: Literal["sqlalchemy"]
    url: SecretStr
    """`dialect+driver://user:password@host:port/database`, as the dialect documents it."""
    options: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    """What the driver is given beside the URL, by its own names: `{connect_timeout: 10}`."""
    retries: int = Field(default=3, ge=1)
    """How often connecting is tried before the database counts as unavailable; three tries take about two seconds."""

    def database(self, name: str) -> Database:
        """The database, called `name` in errors."""
        from resources.support.sqlalchemy_database import Database

        return Database(name, self.url.get_secret_value(), self.options, self.retries)

    def uri(self) -> str:
        """Where the database is, without user and secrets."""
        scheme, _, rest = self.url.get_secret_value().partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the driver is installed, the database answers, and what it is."""
        import sqlalchemy as sa

        database = self.database(name)
        try:
            with database.connected() as connection:
                version = ".".join(map(str, connection.dialect.server_version_info or ()))
                yield Finding("connect", True, f"{connection.dialect.name} {version}".strip())
                names = sa.inspect(connection).get_table_names()
                yield Finding("read", True, f"{len(names)} tables in the usual schema")
        except DatabrokkrError as error:
            yield Finding("connect", False, error.what, error.mend)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The tables and views. Raises SpecError, AccessError or Unavailable."""
        from resources.support.sqlalchemy_database import tables

        with self.database(name).connected() as connection:
            found = tables(connection)
        yield from found


def _origin(name: str, table: TableName, uri: str) -> Origin:
    return Origin(tuple(filter(None, (name, table.schema, table.table))), KIND, uri)


class SqlAlchemySourceSettings(DatabaseSourceSettings):
    """Reads a table, a view or the rows of a query."""

    connects: ClassVar[type[DatabaseConnection]] = SqlAlchemyConnection
    dialect: ClassVar[str] = ""
    home: ClassVar[str] = ""
    type: Literal["sqlalchemy"]
    as_text: Names = ()
    """Columns to read as the database prints them, for values that no other type holds."""
    types: Mapping[str, SqlType] = Field(default_factory=dict)
    """The types of a query's columns, such as `DECIMAL(12,2)`, where its first 1000 rows do not tell; for a `query`."""

    @field_validator("types")
    @classmethod
    def _readable(cls, given: Mapping[str, str]) -> Mapping[str, str]:
        for name, kind in given.items():
            if kind not in _READ and not kind.startswith("DECIMAL("):
                raise ValueError(f"the type of `{name}` is one of {', '.join(_READ)}, DECIMAL(p,s)")
        return {name: kind.replace("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE") for name, kind in given.items()}

    def open(self, connection: ConnectionSettings | None, place: Place) -> SqlAlchemySource:
        """A reader of the table or query."""
        from resources.support.sqlalchemy_source import SqlAlchemySource

        return SqlAlchemySource(self, connected(connection, SqlAlchemyConnection).database(self.connection))

    @classmethod
    def quoted_in_sql(cls, name: str) -> str:
        """A name as standard SQL quotes it, where it needs it: a quoted name has another case in some databases."""
        from sqlalchemy.engine.default import DefaultDialect

        return str(DefaultDialect().identifier_preparer.quote(name))

    @classmethod
    def named_in_sql(cls, table: TableName) -> str:
        """A table as the database's own SQL names it."""
        return ".".join(cls.quoted_in_sql(part) for part in (table.schema, table.table) if part)

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return _origin(name, table, self.uri(connection))


class SqlAlchemySinkSettings(DatabaseSinkSettings):
    """Writes a table, exactly once; a database without transactions is refused."""

    connects: ClassVar[type[DatabaseConnection]] = SqlAlchemyConnection
    dialect: ClassVar[str] = ""
    home: ClassVar[str] = ""
    type: Literal["sqlalchemy"]

    def open(self, connection: ConnectionSettings | None, place: Place) -> SqlAlchemySink:
        """A writer to the table."""
        from resources.support.sqlalchemy_sink import SqlAlchemySink

        database = connected(connection, SqlAlchemyConnection).database(self.connection)
        return SqlAlchemySink(self.name(), self.create, database)

    def _origin(self, name: str, table: TableName, connection: ConnectionSettings | None) -> Origin:
        return _origin(name, table, self.uri(connection))


connector = Connector(
    name="sqlalchemy",
    summary="Any SQLAlchemy dialect, generic: reads tables and queries, also only what is new, and writes tables.",
    kind=KIND,
    connection=SqlAlchemyConnection,
    source=SqlAlchemySourceSettings,
    sink=SqlAlchemySinkSettings,
)

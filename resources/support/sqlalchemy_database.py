"""A database behind an SQLAlchemy URL: opened, looked into, with errors in our words."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine.interfaces import ReflectedColumn

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable, did_you_mean
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import Stream
from resources.support import ledger
from resources.support.columns import arrow_schema
from resources.support.retry import retried
from resources.support.sqlalchemy_types import field as read_field
from resources.support.tables import TableName

EXTRAS = {
    "oracle": "oracle",
    "mssql": "mssql",
    "snowflake": "snowflake",
    "bigquery": "bigquery",
    "redshift": "redshift",
    "clickhousedb": "clickhouse",
    "trino": "trino",
    "db2": "db2",
    "ibm_db_sa": "db2",
    "databricks": "databricks",
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""By dialect: the extra that brings its driver."""

_DENIED = re.compile(
    r"password|authenti|denied|logon|login|permission|privilege|not authorized|readonly|read-only", re.I
)
_OURS = "_databrokkr_"
_SYSTEM = re.compile(r"information_schema|pg_.*|sys.*|performance_schema|mysql", re.I)


@dataclass(frozen=True)
class Database:
    """A database, its connection's name, its URL with its secrets, what the driver is given beside it, and retries."""

    name: str
    url: str = field(repr=False)
    options: Mapping[str, Any]
    retries: int

    def engine(self) -> sa.Engine:
        """An engine without a pool: each connection is opened anew. Raises SpecError for a URL without a driver."""
        try:
            return sa.create_engine(self.url, poolclass=sa.NullPool, connect_args=dict(self.options))
        except (exc.NoSuchModuleError, ImportError) as error:
            raise self._without_driver(error) from error
        except exc.ArgumentError:
            what = f"the `url` of the connection {self.name} is no URL of SQLAlchemy"
            mend = "write dialect+driver://user:password@host:port/database, special characters percent-encoded"
            # The library's own words quote what it could not read, which may be the password.
            raise SpecError(what, mend=mend, where=self._where) from None

    @contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """A connection for the block, which rolls back what was not committed. Raises our errors, for the block too."""
        engine = self.engine()
        try:
            connection = retried(engine.connect, tries=self.retries, passing=_is_passing)
        except exc.DBAPIError as error:
            raise self._unreached(error) from error
        except ImportError as error:
            raise self._without_driver(error) from error
        try:
            with connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise self.explained(error) from error

    def explained(self, error: exc.SQLAlchemyError) -> DatabrokkrError:
        """Our error for one of SQLAlchemy's."""
        text = self.scrubbed(str(getattr(error, "orig", None) or error).strip())
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return Unavailable(text, mend="run it again once the database is well", where=self._where)
        match error:
            case exc.DBAPIError() if _DENIED.search(text):
                return AccessError(text, mend=f"grant it to the user of the connection {self.name}", where=self._where)
            case exc.IntegrityError() | exc.DataError():
                return DataError(text, mend="see the message; it comes from the database", where=self._where)
            case exc.OperationalError() | exc.InterfaceError() if _is_syntax(text):
                return SpecError(text, mend="correct the table, the columns or the query", where=self._where)
            case exc.OperationalError() | exc.InterfaceError() | exc.InternalError():
                return Unavailable(text, mend="run it again once the database is well", where=self._where)
            case exc.StatementError() if not isinstance(error, exc.DBAPIError):
                return DataError(text, mend="clean the values in a transform", where=self._where)
            case _:
                return SpecError(text, mend="correct the table, the columns or the query", where=self._where)

    def scrubbed(self, text: str) -> str:
        """`text` without the password."""
        password = sa.make_url(self.url).password
        return text.replace(str(password), "***") if password else text

    @property
    def _where(self) -> str:
        return f"connection {self.name}"

    def _unreached(self, error: exc.DBAPIError) -> DatabrokkrError:
        text = self.scrubbed(str(error.orig).strip())
        if _DENIED.search(text):
            return AccessError(text, mend=f"correct the `url` of the connection {self.name}", where=self._where)
        return Unavailable(text, mend="start the database, or correct the `url`", where=self._where)

    def _without_driver(self, error: Exception) -> SpecError:
        dialect = re.split(r"[+:]", self.url, maxsplit=1)[0]
        if dialect in EXTRAS:
            return missing_extra(EXTRAS[dialect], f"SQLAlchemy's dialect {dialect}")
        mend = f"install the package that brings the dialect {dialect}, or correct the `url`"
        return SpecError(str(error), mend=mend, where=self._where)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, exc.OperationalError | exc.InterfaceError) and not _DENIED.search(str(error.orig))


def _is_syntax(text: str) -> bool:
    """SQLite calls a mistake in a statement operational."""
    return re.search(r"no such|syntax error|incomplete input|has no column", text) is not None


def told(name: TableName) -> str:
    """A table as an author writes it."""
    return f"{name.schema}.{name.table}" if name.schema else name.table


def tables(connection: sa.Connection) -> list[Stream]:
    """The tables and views that the user may see; those of the usual schema have no namespace."""
    look = sa.inspect(connection)
    usual = look.default_schema_name
    found = []
    for schema in [None, *(one for one in look.get_schema_names() if one != usual and not _SYSTEM.fullmatch(one))]:
        for kind, names in (("table", look.get_table_names(schema)), ("view", look.get_view_names(schema))):
            own = [name for name in names if not name.startswith(_OURS)]
            found += [_stream(look, TableName(schema or "", name), kind) for name in sorted(own)]
    return found


def columns_of(look: sa.Inspector, name: TableName) -> list[ReflectedColumn]:
    """The columns of a table or view; one of a type that SQLAlchemy does not know has none. Raises NoSuchTableError."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Did not recognize type", exc.SAWarning)
        return look.get_columns(name.table, name.schema or None)


def _stream(look: sa.Inspector, name: TableName, kind: str) -> Stream:
    fields = [read_field(one["name"], one["type"]) for one in columns_of(look, name)]
    keys = tuple(look.get_pk_constraint(name.table, name.schema or None)["constrained_columns"])
    return Stream(name.table, arrow_schema((one.name, one.own) for one in fields), keys, name.schema, kind)


def no_table(connection: sa.Connection, name: TableName) -> SpecError:
    """The error for a table that is not there, with what may have been meant."""
    look = sa.inspect(connection)
    names = [*look.get_table_names(name.schema or None), *look.get_view_names(name.schema or None)]
    names = [one for one in names if one != ledger.TABLE]
    near = difflib.get_close_matches(name.table, names, n=20, cutoff=0.3) or sorted(names)[:20]
    return SpecError(f'there is no table "{told(name)}"', mend=did_you_mean(name.table, near), where=told(name))

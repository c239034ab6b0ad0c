"""Sessions with a PostgreSQL server, for psycopg, DuckDB's scanner and ADBC: tried again, and failing in our words.

The password goes to the drivers only: to DuckDB as a secret, and never into an error, which may quote a driver.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.engine.duckdb import load_extension
from resources.support.retry import retried

if TYPE_CHECKING:
    from types import ModuleType

    from psycopg import Connection, Error

Result = TypeVar("Result")

EXTRA = "postgres"

# The text of a value must not depend on how a server or role is set up.
_SETTINGS = "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 -c bytea_output=hex"

# A peer that vanished without a word is noticed after two minutes, not two hours.
_ALIVE = {"keepalives_idle": "60", "keepalives_interval": "15", "keepalives_count": "4"}

# What a server says when it is there and refuses us; libpq gives no code for it.
_REFUSED = re.compile(
    "authentication failed|no password supplied|pg_hba.conf|does not exist|permission denied|not permitted|"
    "support SSL|certificate|requires? a valid client|too weak|unrecognized configuration|unsupported startup",
    re.IGNORECASE,
)
_LOST = re.compile(
    "unable to connect|server closed the connection|terminating connection|could not receive data|could not send data|"
    "connection (?:to server|refused|reset|timed out|not open)|broken pipe|ssl (?:error|connection|syscall)|"
    "no connection to the server|shutting down|starting up|recovery mode|too many (?:clients|connections)|"
    "lost synchronization|conflict with recovery",
    re.IGNORECASE,
)


FROM_SERVER = re.compile(r"COPY data from Postgres|header for COPY|Failed to (?:execute|copy|prepare)|libpq|CONTEXT:")
"""How DuckDB's scanner and ADBC begin what they pass on from the server while rows come or go."""


class Interrupted(Unavailable):
    """A transaction was broken off, by a lost connection, a deadlock or the like: whether it happened is not known."""


def driver() -> ModuleType:
    """psycopg. Raises SpecError with the install command when it is not there."""
    try:
        import psycopg
    except ImportError as error:
        raise missing_extra(EXTRA, "the connector postgres") from error
    return psycopg


@dataclass(frozen=True)
class Server:
    """How to reach a database: libpq's parameters, and the name that errors give the connection."""

    name: str
    parameters: Mapping[str, str] = field(repr=False)
    retries: int = 3

    @property
    def place(self) -> str:
        """`host:port/database`, without user and secrets."""
        host, port = self.parameters.get("host", "localhost"), self.parameters.get("port", "5432")
        return f"{host}:{port}/{self.parameters.get('dbname') or self.parameters.get('user', '')}"

    @contextmanager
    def session(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """A psycopg connection in autocommit mode; within the block its errors become ours."""
        psycopg = driver()
        try:
            connection = retried(
                lambda: psycopg.connect(**self._all(), autocommit=True),
                tries=self.retries,
                passing=lambda error: isinstance(error, psycopg.OperationalError) and not _refused(error),
            )
        except psycopg.Error as error:
            raise self.translated(error) from error
        try:
            with connection:
                yield connection
        except psycopg.Error as error:
            ours = self.translated(error)
            lost = not error.sqlstate or error.sqlstate[:2] in ("08", "40") or error.sqlstate[:3] == "57P"
            if lost and isinstance(ours, Unavailable):
                raise Interrupted(ours.what, mend=ours.mend, where=ours.where) from error
            raise ours from error

    def again(self, call: Callable[[], Result]) -> Result:
        """The result of `call`, which is called anew when it is interrupted, and so must do no harm a second time."""
        return retried(call, tries=self.retries, passing=lambda error: isinstance(error, Interrupted))

    def attach(self, duck: duckdb.DuckDBPyConnection, *, read_only: bool, schema: str | None = None) -> str:
        """Attach the database to DuckDB and give its name there.

        Raises SpecError when DuckDB's extension is not installed.
        """
        load_extension(duck, "postgres_scanner", extra=EXTRA)
        alias = f"databrokkr_pg_{secrets.token_hex(4)}"
        options = ["TYPE postgres", f"SECRET {alias}"]
        options += ["READ_ONLY"] if read_only else []
        options += [f"SCHEMA {literal(schema)}"] if schema else []
        given = ", ".join(f"{name} {literal(value)}" for name, value in self._all().items())
        try:
            duck.execute(f"CREATE TEMPORARY SECRET {alias} (TYPE postgres, {given})")
            try:
                self.again(lambda: self._attached(duck, f"ATTACH '' AS {alias} ({', '.join(options)})"))
            finally:
                duck.execute(f"DROP SECRET {alias}")
        except duckdb.Error as error:
            raise DataError(self.scrubbed(str(error)), mend="see the message") from None
        return alias

    def _attached(self, duck: duckdb.DuckDBPyConnection, statement: str) -> None:
        try:
            duck.execute(statement)
        except duckdb.Error as error:
            ours = self.explained(error)
            if ours is None:
                raise
            # Without its cause, which may quote the password.
            raise ours from None

    @contextmanager
    def adbc(self) -> Iterator[Any]:
        """An ADBC connection in autocommit mode. Raises SpecError where ADBC is not installed."""
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise missing_extra(EXTRA, "the connector postgres") from error
        with self.session():
            pass  # Tries again, and fails in words that tell apart a wrong password and a server that is down.
        with dbapi.connect(self.uri(), autocommit=True) as connection:
            yield connection

    def uri(self) -> str:
        """What libpq connects by, secrets included; for drivers that take nothing else."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(**self._all())

    def translated(self, error: Error) -> DatabrokkrError:
        """Our error for one of psycopg's."""
        code, text = error.sqlstate or "", self.scrubbed(str(error).strip())
        where = f"connection {self.name}"
        match code:
            case "" if isinstance(error, driver().ProgrammingError):
                mend = f"correct the settings of the connection {self.name}"
                return SpecError(text, mend=mend, where=where)
            case "":
                return self._unreached(str(error))
            case "25006":
                mend = f"point the connection {self.name} at the primary: this server, or this user, may only read"
                return AccessError(text, mend=mend, where=where)
            case "42501":
                return AccessError(text, mend=f"grant it to the user of the connection {self.name}", where=where)
            case "53100" | "53400" | "54023":
                return AccessError(text, mend="free disk space on the server, or raise its limit", where=where)
            case "55P03" | "57014":
                return Unavailable(text, mend="somebody else holds the table; run it again", where=where)
            case _ if code[:2] in ("28", "3D"):
                return self._unreached(str(error))
            case _ if code[:2] in ("08", "53", "57", "40", "58", "XX"):
                return Unavailable(text, mend="run it again once the server is well", where=where)
            case _ if code[:2] in ("42", "0A", "3F", "2B"):
                return SpecError(text, mend="correct the table, the columns or the query of this node", where=where)
            case _:
                return DataError(text, mend="see the message; it comes from PostgreSQL", where=where)

    def explained(self, error: Exception) -> DatabrokkrError | None:
        """Our error for one that DuckDB or ADBC passed on from the server; `None` when it is not the server's."""
        text = str(error)
        if _LOST.search(text):
            ours = self._unreached(text)
            lost = isinstance(ours, Unavailable)
            return Interrupted(ours.what, mend=ours.mend, where=ours.where) if lost else ours
        if "permission denied" in text:
            mend = f"grant it to the user of the connection {self.name}"
            return AccessError(self.scrubbed(text.strip()), mend=mend, where=f"connection {self.name}")
        return None

    def scrubbed(self, text: str) -> str:
        """`text` without this connection's secrets."""
        for name in ("password", "sslpassword"):
            for secret in _spellings(self.parameters.get(name, "")):
                text = text.replace(secret, "***")
        return text

    def _all(self) -> dict[str, str]:
        given = dict(self.parameters)
        given["options"] = f"{given.get('options', '')} {_SETTINGS}".strip()
        return {"application_name": "databrokkr", "client_encoding": "UTF8", **_ALIVE, **given}

    def _unreached(self, text: str) -> DatabrokkrError:
        what, where = self.scrubbed(text.strip()), f"connection {self.name}"
        if "startup parameter" in text:
            mend = f"point the connection {self.name} past the pooler, or let the pooler pass the parameter"
            return AccessError(what, mend=mend, where=where)
        if _refused(text):
            mend = f"correct user, password, database or SSL of the connection {self.name}"
            return AccessError(what, mend=mend, where=where)
        mend = f"start the server at {self.place}, or correct host and port of the connection {self.name}"
        return Unavailable(what, mend=mend, where=where)


def _refused(error: object) -> bool:
    return _REFUSED.search(str(error)) is not None


def _spellings(secret: str) -> list[str]:
    """A secret as it is, as SQL and libpq escape it, and as a URL does; longest first."""
    from urllib.parse import quote

    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    found = {secret, secret.replace("'", "''"), escaped, quote(secret, safe=""), quote(secret)}
    return sorted(filter(None, found), key=len, reverse=True)

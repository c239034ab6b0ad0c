"""Sessions with a MySQL or MariaDB server, for pymysql and DuckDB's scanner: tried again, and failing in our words.

The password goes to the drivers only: to DuckDB as a secret, and never into an error, which may quote a driver.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import duckdb

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.engine.duckdb import load_extension
from resources.support.retry import retried

if TYPE_CHECKING:
    from types import ModuleType

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

    Session: TypeAlias = Connection

EXTRA = "mysql"

SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]

# What a value becomes must not depend on how a server is set up. Without NO_AUTO_VALUE_ON_ZERO, a 0 that is written to
# an AUTO_INCREMENT column becomes the next number. Zero dates stay allowed: a column may hold them already.
_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO'"
    ", time_zone = '+00:00', net_read_timeout = 600, net_write_timeout = 600, wait_timeout = 28800"
    ", lock_wait_timeout = 60, innodb_lock_wait_timeout = 60"
)
# The scanner would read TINYINT(1) and BIT(1) as booleans, whatever they hold, and timestamps in the server's zone.
_SCANNER = (
    "SET mysql_tinyint1_as_boolean = false; SET mysql_bit1_as_boolean = false; SET mysql_session_time_zone = '+00:00'"
)

_REFUSED = {1044, 1045, 1049, 1130, 1227, 1251, 1698, 1820, 1862, 3118, 3159}
_DENIED = {1142, 1143, 1290, 1370, 1410, 1792, 1836, 3032}
_FULL = {3, 28, 1021, 1026, 1030, 1037, 1041, 1114}
_LOST = {0, 1040, 1053, 1077, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031}
_HELD = {1205, 1206, 1213, 1317, 1907, 1969, 3024, 3572}
_WRONG = {
    1051,
    1052,
    1054,
    1055,
    1059,
    1060,
    1061,
    1064,
    1069,
    1070,
    1071,
    1072,
    1103,
    1109,
    1118,
    1140,
    1146,
    1149,
    1166,
}
_WRONG |= {1170, 1235, 1248, 1305, 1347, 1356, 1364, 1582, 1583, 1630, 1906, 3105, 4078}

_CERTIFICATE = re.compile("certificate|TLS/SSL error|SSL is required|doesn't support SSL|does not support SSL", re.I)
_GONE = re.compile(
    "lost connection|gone away|can't connect|server shutdown|connection (?:was killed|refused|reset)|"
    "too many connections",
    re.IGNORECASE,
)


def driver() -> ModuleType:
    """pymysql. Raises SpecError with the install command when it is not there."""
    try:
        import pymysql
    except ImportError as error:
        raise missing_extra(EXTRA, "the connector mysql") from error
    module: ModuleType = pymysql
    return module


@dataclass(frozen=True)
class Server:
    """How to reach a database: where it is, who we are, and the name that errors give the connection.

    `database` may be empty: then each table names its own.
    """

    name: str
    host: str
    port: int
    user: str
    database: str = ""
    password: str = field(default="", repr=False)
    socket: str | None = None
    ssl_mode: SslMode = "preferred"
    ssl: Mapping[str, str] = field(default_factory=dict)
    connect_timeout: int = 10
    retries: int = 3
    local_infile: bool = False

    @property
    def place(self) -> str:
        """Where it is, without user and secrets: `host:port/database`, or the socket's path in place of the host."""
        return f"{self.socket or f'{self.host}:{self.port}'}/{self.database}"

    @contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        """A pymysql connection in autocommit mode, strict and in UTC; within the block its errors become ours.

        `options` are pymysql's own.
        """
        with self.explaining():
            connection = retried(
                lambda: self._connected(**options), tries=self.retries, passing=lambda error: self._passing(error)
            )
            with connection:
                yield connection

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Within the block, the driver's errors become ours."""
        errors = driver().err
        try:
            yield
        except errors.MySQLError as error:
            raise self.translated(error) from error

    def attach(self, duck: duckdb.DuckDBPyConnection) -> str:
        """Attach the database to DuckDB, to be read, and give its name there.

        Raises SpecError when DuckDB's extension is not installed.
        """
        load_extension(duck, "mysql_scanner", extra=EXTRA)
        alias = f"databrokkr_my_{secrets.token_hex(4)}"
        given = ", ".join(f"{name} {literal(value)}" for name, value in self._secret().items())
        try:
            duck.execute(_SCANNER)
            duck.execute(f"CREATE TEMPORARY SECRET {alias} (TYPE mysql, {given})")
            try:
                duck.execute(f"ATTACH '' AS {alias} (TYPE mysql, SECRET {alias}, READ_ONLY)")
            finally:
                duck.execute(f"DROP SECRET {alias}")
        except duckdb.Error as error:
            raise self.explained(error) or DataError(self.scrubbed(str(error)), mend="see the message") from None
        return alias

    def translated(self, error: Exception) -> DatabrokkrError:
        """Our error for one of the driver's."""
        number, text = self._told(error)
        where = f"connection {self.name}"
        if number in _REFUSED or _CERTIFICATE.search(text):
            mend = f"correct user, password, database or SSL of the connection {self.name}"
            return AccessError(text, mend=mend, where=where)
        if number in _DENIED:
            return AccessError(text, mend=f"grant it to the user of the connection {self.name}", where=where)
        if number in _FULL:
            return AccessError(text, mend="free disk space on the server, or raise its limit", where=where)
        if number in _LOST:
            mend = f"start the server at {self.place}, or correct host and port of the connection {self.name}"
            return Unavailable(text, mend=mend, where=where)
        if number in _HELD:
            return Unavailable(text, mend="somebody else holds the table; run it again", where=where)
        if number in _WRONG:
            return SpecError(text, mend="correct the table, the columns or the query of this node", where=where)
        if number == 1153:
            return AccessError(text, mend="raise max_allowed_packet on the server", where=where)
        return DataError(text, mend="see the message; it comes from the server", where=where)

    def explained(self, error: Exception) -> DatabrokkrError | None:
        """Our error for one that DuckDB passed on from the server; `None` when it is not about reaching it."""
        text, where = self.scrubbed(str(error).strip()), f"connection {self.name}"
        if _CERTIFICATE.search(text) or "Access denied" in text:
            mend = f"correct user, password, database or SSL of the connection {self.name}"
            return AccessError(text, mend=mend, where=where)
        if "command denied" in text:
            return AccessError(text, mend=f"grant it to the user of the connection {self.name}", where=where)
        # The scanner has no words for a server that went away while rows came.
        if _GONE.search(text) or ("Failed to fetch" in text and text.endswith(":")):
            mend = f"start the server at {self.place}, or correct host and port of the connection {self.name}"
            return Unavailable(text, mend=mend, where=where)
        return None

    def scrubbed(self, text: str) -> str:
        """`text` without this connection's password."""
        for secret in _spellings(self.password):
            text = text.replace(secret, "***")
        return text

    def _connected(self, **options: Any) -> Session:
        # pymysql would encode a password as latin1.
        given: dict[str, Any] = {"user": self.user, "password": self.password.encode(), "charset": "utf8mb4"}
        given |= {"unix_socket": self.socket} if self.socket else {"host": self.host, "port": self.port}
        given |= {"database": self.database or None, "connect_timeout": self.connect_timeout, "autocommit": True}
        session: Session = driver().connect(**given, **self._tls(), **options)
        with session.cursor() as cursor:
            cursor.execute(_SETTINGS)
        return session

    def _tls(self) -> dict[str, Any]:
        if self.ssl_mode == "disabled":
            return {"ssl_disabled": True}
        if self.ssl_mode == "preferred" and not self.ssl:
            return {}
        verified = self.ssl_mode.startswith("verify")
        asked: dict[str, Any] = {"verify_mode": verified, "check_hostname": self.ssl_mode == "verify_identity"}
        return {"ssl": asked | dict(self.ssl)}

    def _secret(self) -> dict[str, str]:
        given = {"user": self.user, "password": self.password, "database": self.database, "ssl_mode": self.ssl_mode}
        # By this name the client library would look for a socket of its own.
        host = "127.0.0.1" if self.host == "localhost" and self.ssl_mode != "verify_identity" else self.host
        given |= {"socket": self.socket, "host": "localhost"} if self.socket else {"host": host, "port": str(self.port)}
        return given | {f"ssl_{name}": value for name, value in self.ssl.items()}

    def _told(self, error: Exception) -> tuple[int, str]:
        """The server's or the driver's number and words; 0 for a session that was closed."""
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        words = " ".join(str(one) for one in error.args[1:] if one) or str(error)
        return number, self.scrubbed(f"{words} (error {number})" if number else "the connection was closed")

    def _passing(self, error: Exception) -> bool:
        if not isinstance(error, driver().err.MySQLError):
            return False
        number, text = self._told(error)
        return number in _LOST and not _CERTIFICATE.search(text)


def rows(session: Session, statement: str, given: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
    """The rows of a statement; its `%s` are filled with `given`."""
    with session.cursor() as cursor:
        cursor.execute(statement, given)
        return list(cursor.fetchall())


@contextmanager
def streamed(session: Session, statement: str) -> Iterator[Cursor]:
    """A cursor over the rows of a statement, which come as they are fetched. The session is of no use afterwards."""
    cursor = session.cursor(driver().cursors.SSCursor)
    try:
        cursor.execute(statement)
        yield cursor
    finally:
        # Else the driver would fetch all that is left before it closes, or fail where the session is lost.
        if cursor._result is not None:
            cursor._result.unbuffered_active = False


def described(session: Session, query: str) -> list[Any]:
    """The columns of a query as the protocol describes them: name, type_code, length, scale, charsetnr, flags."""
    with session.cursor() as cursor:
        # No row is asked for, but names and grants are checked.
        cursor.execute(f"SELECT * FROM {query} LIMIT 0")
        # The public description leaves out what tells text from bytes, and signed numbers from unsigned.
        return list(cursor._result.fields)


def changed(session: Session, statement: str, given: tuple[Any, ...] | None = None) -> int:
    """Execute a statement; gives how many rows it changed."""
    with session.cursor() as cursor:
        return int(cursor.execute(statement, given))


def refuse_name(identifier: str) -> None:
    """Raise SpecError for what cannot be a name: MySQL's names end at U+FFFF, so they have no emoji, and at 64."""
    if len(identifier) > 64 or max(identifier, default="") > "\uffff":
        raise SpecError(
            f'"{identifier}" cannot be a name in MySQL',
            mend="rename it: at most 64 characters, and none beyond U+FFFF, so no emoji",
        )


def ticked(identifier: str) -> str:
    """`identifier` as the server's SQL quotes it. Raises SpecError for what cannot be a name."""
    refuse_name(identifier)
    escaped = identifier.replace("`", "``")
    return f"`{escaped}`"


def ticked_all(names: list[str] | tuple[str, ...]) -> str:
    """A comma-separated list of quoted names."""
    return ", ".join(ticked(name) for name in names)


def _spellings(secret: str) -> list[str]:
    """A secret as it is, as SQL and DuckDB escape it, and as a URL does; longest first."""
    from urllib.parse import quote

    escaped = secret.replace("\\", "\\\\")
    found = {secret, secret.replace("'", "''"), escaped, escaped.replace('"', '\\"'), quote(secret, safe="")}
    return sorted(filter(None, found), key=len, reverse=True)

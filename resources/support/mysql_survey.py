"""What a MySQL server holds, and what a user may do there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from databrokkr_assets.core.errors import AccessError, Unavailable
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import Finding
from resources.support.columns import arrow_schemas
from resources.support.mysql_server import rows, ticked
from resources.support.mysql_types import told

if TYPE_CHECKING:
    from resources.support.mysql_server import Server, Session
    from resources.support.tables import TableName

_OWN = "TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')"
_HELD = (
    "SELECT TABLE_SCHEMA, TABLE_NAME, IF(TABLE_TYPE LIKE '%%VIEW', 'view', 'table'), TABLE_ROWS "
    f"FROM information_schema.TABLES WHERE {_OWN} AND (%s = '' OR TABLE_SCHEMA = %s) "
    "AND TABLE_NAME NOT LIKE '\\_databrokkr\\_%%' ORDER BY 1, 2"
)
_COLUMNS = (
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS "
    f"WHERE {_OWN} AND (%s = '' OR TABLE_SCHEMA = %s) ORDER BY 1, 2, ORDINAL_POSITION"
)
_KEYS = (
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS "
    f"WHERE {_OWN} AND (%s = '' OR TABLE_SCHEMA = %s) AND INDEX_NAME = 'PRIMARY' ORDER BY 1, 2, SEQ_IN_INDEX"
)

_WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX", "CREATE TEMPORARY TABLES")


def streams(server: Server) -> Iterator[Stream]:
    """The tables and views of the server's database, or of all where it names none."""
    given = (server.database, server.database)
    with server.session() as session:
        held, columns, found = rows(session, _HELD, given), rows(session, _COLUMNS, given), rows(session, _KEYS, given)
    listed: dict[str, list[tuple[str, str]]] = {}
    for schema, table, name, kind in columns:
        listed.setdefault(f"{schema}.{table}", []).append((name, told(kind)))
    keys: dict[tuple[str, str], list[str]] = {}
    for schema, table, name in found:
        keys.setdefault((schema, table), []).append(name)
    schemas = arrow_schemas(listed)
    for schema, table, kind, count in held:
        # A table of the connection's own database is named without it, as an author names it.
        namespace = "" if schema == server.database else schema
        key = tuple(keys.get((schema, table), ()))
        yield Stream(table, schemas.get(f"{schema}.{table}"), key, namespace, kind, count)


def findings(server: Server) -> Iterator[Finding]:
    """Whether the server can be reached, as whom, and which rights they have."""
    began = time.monotonic()
    try:
        with server.session() as session:
            yield Finding("reachable", True, f"{server.place} in {(time.monotonic() - began) * 1000:.0f} ms")
            ((version, user),) = rows(session, "SELECT VERSION(), CURRENT_USER()")
            ((_, cipher),) = rows(session, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            yield Finding("server", True, f"{version}, {f'encrypted by {cipher}' if cipher else 'not encrypted'}")
            held = rows(session, _HELD, (server.database, server.database))
            mend = "" if held else f"grant {user} SELECT on the tables to read"
            yield Finding("may read", bool(held), f"{user} sees {len(held)} tables and views", mend)
            yield _may_write(session, user, server.database)
    except (AccessError, Unavailable) as error:
        yield Finding("reachable", False, error.what, error.mend)


def _may_write(session: Session, user: str, database: str) -> Finding:
    ((read_only,),) = rows(session, "SELECT @@global.read_only")
    if read_only:
        return Finding("may write", False, "the server is read-only", "connect to the primary server to write")
    granted = {
        privilege
        for (privilege,) in rows(
            session,
            "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES UNION "
            "SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES WHERE %s LIKE TABLE_SCHEMA",
            (database,),
        )
    }
    missing = [privilege for privilege in _WRITES if privilege not in granted]
    if missing:
        listed = ", ".join(missing)
        mend = f"GRANT {listed} ON {ticked(database or '<database>')}.* TO {user}, unless a role or a table grants it"
        return Finding("may write", False, f"{user} has no {listed} on the whole database", mend)
    return Finding("may write", True, f"{user} may create, write and alter tables")


def primary_key(session: Session, table: TableName) -> tuple[str, ...]:
    """The columns of a table's primary key, in its order."""
    found = rows(
        session,
        "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s "
        "AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
        (table.schema, table.table),
    )
    return tuple(name for (name,) in found)


def has_database(session: Session, name: str) -> bool:
    """Whether there is such a database, as far as this user may know."""
    return bool(rows(session, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", (name,)))


def known_tables(session: Session) -> list[str]:
    """The tables and views of the server, `database.table`, for suggestions."""
    return [f"{schema}.{table}" for schema, table, _, _ in rows(session, f"{_HELD} LIMIT 5000", ("", ""))]

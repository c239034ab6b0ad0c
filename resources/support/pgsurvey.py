"""What a PostgreSQL database holds, and what this user may do there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import Finding
from resources.support.columns import arrow_schemas
from resources.support.libpq import Server
from resources.support.pgtypes import Column

if TYPE_CHECKING:
    from psycopg import Connection

    Session = Connection[tuple[Any, ...]]

# What an author would call a table: no partition of another, none of the server's own, and none of ours.
_TABLES = """
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition
AND nspname !~ '^(pg_|information_schema$)' AND relname NOT LIKE '\\_databrokkr\\_%'
"""

_READABLE = "has_schema_privilege(relnamespace, 'USAGE') AND has_any_column_privilege(pg_class.oid, 'SELECT')"

_RIGHTS = f"SELECT count(*) FILTER (WHERE {_READABLE}), count(*) {_TABLES}"

_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname !~ '^(pg_|information_schema$)' AND has_schema_privilege(oid, 'CREATE') ORDER BY 1
"""

# The size of a partitioned table is that of its partitions. Before its first analyze a table has -1 rows, or, before
# version 14, no pages.
_STREAMS = f"""
SELECT nspname, relname, CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'p' THEN 'partitioned table' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
    ARRAY(SELECT attname::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
        WHERE indisprimary AND indrelid = pg_class.oid ORDER BY array_position(indkey::int2[], attnum)),
    CASE relkind WHEN 'v' THEN NULL WHEN 'p' THEN (
        SELECT CASE WHEN bool_and(part.reltuples > 0 OR part.relpages > 0) THEN sum(part.reltuples) END
        FROM pg_partition_tree(pg_class.oid) AS tree JOIN pg_class AS part ON part.oid = tree.relid WHERE tree.isleaf)
        ELSE CASE WHEN reltuples > 0 OR relpages > 0 THEN reltuples END END::bigint
{_TABLES} AND {_READABLE} ORDER BY nspname COLLATE "C", relname COLLATE "C"
"""

# With domains as what they are made of.
_COLUMNS = f"""
WITH RECURSIVE made AS (
    SELECT attrelid, attnum, attname, atttypid AS kind, atttypmod AS modifier, 0 AS depth, attndims
    FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
    AND attrelid IN (SELECT pg_class.oid {_TABLES} AND {_READABLE})
    UNION ALL
    SELECT attrelid, attnum, attname, typbasetype, typtypmod, depth + 1, attndims
    FROM made JOIN pg_type ON pg_type.oid = kind WHERE typtype = 'd'
), known AS (SELECT DISTINCT ON (attrelid, attnum) * FROM made ORDER BY attrelid, attnum, depth DESC)
SELECT nspname, relname, attname, kind, modifier, attndims
FROM known JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE has_column_privilege(attrelid, attnum, 'SELECT') ORDER BY attrelid, attnum
"""


def findings(server: Server) -> Iterator[Finding]:
    """What a test of the connection finds out, the first failure last. Changes nothing."""
    began = time.perf_counter()
    try:
        with server.session() as session:
            yield Finding("reachable", True, f"{server.place} in {(time.perf_counter() - began) * 1000:.0f} ms")
            yield from _rights(session)
    except DatabrokkrError as error:
        yield Finding("reachable", False, error.what, error.mend)


def _rights(session: Session) -> Iterator[Finding]:
    standby, user, version = session.execute(
        "SELECT pg_is_in_recovery(), current_user::text, current_setting('server_version')"
    ).fetchone() or (False, "", "")
    yield Finding("server", True, f"PostgreSQL {version}{', a standby, which can only be read' if standby else ''}")
    yield Finding("user", True, user)
    yield _encrypted(session)
    readable, all_of_them = session.execute(_RIGHTS.encode()).fetchone() or (0, 0)
    grant = f"as their owner: GRANT SELECT ON ALL TABLES IN SCHEMA … TO {quoted(user)}"
    allowed = readable > 0 or all_of_them == 0
    yield Finding("may read", allowed, f"{readable} of {all_of_them} tables and views", "" if allowed else grant)
    schemas = [name for (name,) in session.execute(_SCHEMAS).fetchall()]
    where = f"in {', '.join(schemas)}" if schemas else "in no schema, so sinks need tables that are there"
    yield Finding("may create tables", True, "nowhere: it is a standby" if standby else where)


def _encrypted(session: Session) -> Finding:
    row = session.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
    encrypted = row is not None and row[0]
    return Finding("TLS", True, str(row[1]) if row and encrypted else "none: what is sent can be read on the way")


def streams(server: Server) -> Iterator[Stream]:
    """The tables and views that this user may read. Raises AccessError or Unavailable."""
    with server.session() as session:
        found = session.execute(_STREAMS.encode()).fetchall()
        listed: dict[str, list[tuple[str, str]]] = {}
        for schema, table, name, kind, modifier, dimensions in session.execute(_COLUMNS.encode()).fetchall():
            column = Column(name, kind, modifier, dimensions=dimensions)
            listed.setdefault(f"{quoted(schema)}.{quoted(table)}", []).append((name, column.own))
    schemas = arrow_schemas(listed)
    for namespace, name, kind, keys, rows in found:
        yield Stream(name, schemas.get(f"{quoted(namespace)}.{quoted(name)}"), tuple(keys), namespace, kind, rows)

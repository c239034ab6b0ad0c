"""What a DuckDB file holds, and whether it may be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import Finding
from resources.support.columns import arrow_schemas

_HELD = """
SELECT schema_name, table_name, 'table' AS kind, estimated_size,
    coalesce((SELECT first(constraint_column_names) FROM duckdb_constraints() AS key
              WHERE key.table_oid = held.table_oid AND key.database_oid = held.database_oid
              AND constraint_type = 'PRIMARY KEY'), [])
FROM duckdb_tables() AS held WHERE database_name = $1 AND NOT internal AND NOT starts_with(table_name, '_databrokkr_')
UNION ALL
SELECT schema_name, view_name, 'view', NULL, [] FROM duckdb_views() WHERE database_name = $1 AND NOT internal
ORDER BY 1, 2
"""

_COLUMNS = """
SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = $1 AND NOT internal
ORDER BY schema_name, table_name, column_index
"""


def held(duck: DuckDBPyConnection, alias: str) -> Iterator[Stream]:
    """The tables and views of the file that is attached as `alias`."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for schema, table, name, kind in duck.execute(_COLUMNS, [alias]).fetchall():
        listed.setdefault(f"{schema}.{table}", []).append((name, kind))
    schemas = arrow_schemas(listed)
    for schema, table, kind, rows, keys in duck.execute(_HELD, [alias]).fetchall():
        yield Stream(table, schemas.get(f"{schema}.{table}"), tuple(keys), schema, kind, rows)


def may_write(path: Path) -> Finding:
    """Whether this user may write the file, or create it. Tries nothing."""
    asked = path if path.exists() else next(one for one in path.parents if one.exists())
    what = "may write" if path.exists() else "may create"
    if os.access(asked, os.W_OK):
        return Finding(what, True, f"this user may write {asked}")
    return Finding(what, False, f"this user may not write {asked}", f"grant it, e.g. chmod u+w {asked}")

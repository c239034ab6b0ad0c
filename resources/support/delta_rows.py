"""The rows of an external Delta table as a DuckDB query over its files."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.lake import types
from databrokkr_assets.lake.external import ExternalVersion, TableFile

_ACTIONS = (
    "{add: 'STRUCT(path VARCHAR, size BIGINT, partitionValues MAP(VARCHAR, VARCHAR), dataChange BOOLEAN, "
    "deletionVector STRUCT(storageType VARCHAR))', remove: 'STRUCT(path VARCHAR, dataChange BOOLEAN)'}"
)

FILE = "databrokkr_file"
"""The column that names a row's file."""


def rows_of(
    version: ExternalVersion,
    duck: duckdb.DuckDBPyConnection,
    files: Sequence[TableFile],
    *,
    as_stored: bool = False,
    with_file: bool = False,
) -> str:
    """The rows of `files`, partition columns included, in the columns' own types or as they are stored.

    The version must be `plain`. `with_file` adds the column `FILE`.
    """
    listed = columns(version.schema.names) if as_stored else types.read_back(version.schema)
    more = f", {FILE}" if with_file else ""
    # The typed, empty first half gives columns that no file holds yet their name and type.
    shape = f"SELECT *, '' AS {FILE} FROM (SELECT {types.nulls(duck, version.schema, as_stored=True)}) WHERE false"
    if not files:
        return f"SELECT {listed}{more} FROM ({shape})"
    urls = ", ".join(literal(file.url) for file in files)
    read = f"read_parquet([{urls}], union_by_name = true, hive_partitioning = false, filename = '{FILE}')"
    if not version.partition_by:
        return f"SELECT {listed}{more} FROM ({shape} UNION ALL BY NAME SELECT * FROM {read})"
    told = _partitions(version, duck, files)
    rows = f"SELECT rows.*, told.* EXCLUDE (url) FROM {read} AS rows JOIN {told} AS told ON rows.{FILE} = told.url"
    return f"SELECT {listed}{more} FROM ({_typed(version, duck, f'{shape} UNION ALL BY NAME {rows}')})"


def _partitions(version: ExternalVersion, duck: duckdb.DuckDBPyConnection, files: Sequence[TableFile]) -> str:
    """A temporary table with each file's partition as text: files need not hold it themselves."""
    columns_of = {
        "url": [file.url for file in files],
        **{f"databrokkr_{i}": [file.partition[name] for file in files] for i, name in enumerate(version.partition_by)},
    }
    name = f"databrokkr_partitions_{secrets.token_hex(4)}"
    schema = pa.schema([(column, pa.string()) for column in columns_of])
    duck.register("databrokkr_listed", pa.table(columns_of, schema=schema))
    duck.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM databrokkr_listed")
    duck.unregister("databrokkr_listed")
    return name


def _typed(version: ExternalVersion, duck: duckdb.DuckDBPyConnection, query: str) -> str:
    """The rows of `query` with the partition columns in their places, in their types."""
    kinds = dict(zip(version.schema.names, map(str, duck.from_arrow(_plain(version.schema)).types), strict=True))
    texts = [f"databrokkr_{i}" for i in range(len(version.partition_by))]
    typed = ", ".join(
        f"CAST({text} AS {kinds[name]}) AS {quoted(name)}"
        for text, name in zip(texts, version.partition_by, strict=True)
    )
    return f"SELECT * EXCLUDE ({', '.join(texts)}) REPLACE ({typed}) FROM ({query})"


def _plain(schema: pa.Schema) -> pa.Table:
    return schema.remove_metadata().empty_table()


def added_since(version: ExternalVersion, duck: duckdb.DuckDBPyConnection, since: int) -> list[TableFile] | None:
    """The files that hold the rows added after version `since`; `None` when rows were changed or removed, too.

    Files that a compaction has rewritten since are told as they were added, so that no row comes twice. Raises
    AccessError when the log no longer goes back so far.
    """
    commits = [
        literal(version.of.store.child("_delta_log", f"{number:020d}.json").url)
        for number in range(since + 1, version.version + 1)
    ]
    if not commits:
        return []
    try:
        rows = duck.execute(
            "SELECT add.path, add.size, add.partitionValues, remove IS NOT NULL OR add.deletionVector IS NOT NULL "
            f"FROM read_json([{', '.join(commits)}], format = 'newline_delimited', columns = {_ACTIONS}) "
            "WHERE add.dataChange OR remove.dataChange"
        ).fetchall()
    except (duckdb.IOException, duckdb.HTTPException) as error:
        raise AccessError(
            f"the table's log no longer goes back to version {since}: {error}",
            mend="load everything once with `incremental: false`, and then more often than the log is cleaned",
            where=version.of.store.url,
        ) from error
    if any(changed for _, _, _, changed in rows):
        return None
    return [TableFile(path, version.url(path), size, values or {}) for path, size, values, _ in rows]

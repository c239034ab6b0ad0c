"""Parquet files as a DuckDB query; types arrive exactly as the files have them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.errors import DataError, Where
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading
from resources.support.provenance import FILE_ROW, told

_WIDENS = (
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    ("FLOAT", "DOUBLE"),
)


def read(reading: Reading) -> RelationRead:
    """The rows of Parquet files as a query, in the order of the files; a column that a file lacks is NULL there.

    The child looks at each file first. Raises DataError for a file that is not a whole Parquet file, and for a column
    whose types do not fit together.
    """
    paths: dict[str, Path] = {}
    casts: dict[str, str] = {}
    for file in reading.files:
        path = reading.plain(file)
        source, most = str(path.absolute()), reading.settings.limits.unpacked_mb * 1_000_000
        if reading.child.call("parquet_check:look", file.key, source=source, most=most):
            path = reading.work.new(".parquet")
            casts |= reading.child.call("parquet_check:store_file", file.key, source=source, target=str(path))
        paths[file.key] = path
    return with_casts(relation_of(reading.duck, paths, provenance=reading.provenance), casts)


def with_casts(read: RelationRead, casts: Mapping[str, str]) -> RelationRead:
    """The rows with these columns, which are texts in the files, in other types."""
    if not casts:
        return read
    values = ", ".join(f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in casts.items())
    return replace(read, query=f"SELECT * REPLACE ({values}) FROM ({read.query})")


def relation_of(duck: duckdb.DuckDBPyConnection, paths: Mapping[str, Path], *, provenance: bool) -> RelationRead:
    """The rows of Parquet files that were looked at, which stand at paths by the keys that errors name.

    With `provenance`, each row tells its file and its number in it. Raises DataError for a column whose types do not
    fit together.
    """
    schemas: dict[pa.Schema, str] = {}
    for key, path in paths.items():
        schemas.setdefault(pq.read_schema(path).remove_metadata(), key)
    if len(schemas) > 1:
        _refuse_mixtures({key: (_types(duck, paths[key]), schema) for schema, key in schemas.items()})
    names = chain.from_iterable(schema.names for schema in schemas)
    more = f", {told(names, list(paths), f'{FILE_ROW} + 1')}" if provenance else ""
    return RelationRead(f"SELECT *{more} FROM {_reader(list(paths.values()), by_name=len(schemas) > 1)}")


def _reader(paths: Sequence[Path], *, by_name: bool = False) -> str:
    listed = ", ".join(literal(str(path)) for path in paths)
    return f"read_parquet([{listed}], union_by_name={by_name}, hive_partitioning=false)"


def _types(duck: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    return {row[0]: row[1] for row in duck.execute(f"DESCRIBE SELECT * FROM {_reader([path])}").fetchall()}


def _refuse_mixtures(found: dict[str, tuple[dict[str, str], pa.Schema]]) -> None:
    """DuckDB would make a DOUBLE of a BIGINT and a DOUBLE, and a text of anything else."""
    seen: dict[str, tuple[str, str]] = {}
    for key, (types, schema) in found.items():
        for name, kind in types.items():
            if name in schema.names and pa.types.is_null(schema.field(name).type):
                continue  # all NULL: fits with every type
            first, other = seen.setdefault(name.casefold(), (key, kind))
            if not _fit(kind, other):
                raise DataError(
                    f'the column "{name}" is {kind} here, but {other} in {first}',
                    where=Where(Path(key)),
                    mend="write both with one type, or read them with two sources",
                )


def _fit(one: str, other: str) -> bool:
    """Whether one type holds the values of both unchanged."""
    if one == other or any(one in family and other in family for family in _WIDENS):
        return True
    decimals = [re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind) for kind in (one, other)]
    if not all(decimals):
        return False
    digits = [(int(found[1]), int(found[2])) for found in decimals if found]
    return max(p - s for p, s in digits) + max(s for _, s in digits) <= 38

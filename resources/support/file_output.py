"""How rows are written into a file: the columns of a query as each format holds them without loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from databrokkr_assets.core.names import literal, quoted
from resources.support.file_formats import FORMATS, FormatName, Writing

_WIDE = {"hugeint": "DECIMAL(38,0)", "uhugeint": "DECIMAL(38,0)"}
PLAIN = {
    **_WIDE,
    "interval": "VARCHAR",
    "time with time zone": "VARCHAR",
    "time_ns": "VARCHAR",
    "bit": "VARCHAR",
    "bignum": "VARCHAR",
}
"""Types that Parquet and its like lack: DuckDB would write doubles, milliseconds, times in UTC."""
_JSON = {**_WIDE, "decimal": "DECIMAL", "json": "VARCHAR"}
"""DuckDB would write doubles: of decimals, too, unless they are 38 digits wide, and of the numbers in a JSON value."""
_NESTED = {"list", "struct", "map", "array", "union"}


def copy_to(duck: duckdb.DuckDBPyConnection, query: str, path: Path, form: FormatName, packing: str | None) -> int:
    """Write the rows of `query` into one file at `path` and give their number.

    Raises duckdb.Error, and DataError for a value that the format cannot hold.
    """
    return FORMATS[form].writer()(Writing(duck, query, path, packing))


def write_parquet(writing: Writing) -> int:
    """Write a Parquet file, compressed with zstd unless told otherwise."""
    return _copied(writing, "parquet", f"FORMAT parquet, COMPRESSION {writing.packing or 'zstd'}")


def write_csv(writing: Writing) -> int:
    """Write a CSV file with a header; NULL is an empty field, the empty text a quoted one."""
    return _copied(writing, "csv", f"FORMAT csv, HEADER, NULLSTR '', COMPRESSION {writing.packing or 'none'}")


def write_jsonl(writing: Writing) -> int:
    """Write one JSON object a line."""
    return _copied(writing, "json", f"FORMAT json, COMPRESSION {writing.packing or 'none'}")


def write_json(writing: Writing) -> int:
    """Write one JSON array of objects."""
    return _copied(writing, "json", f"FORMAT json, ARRAY true, COMPRESSION {writing.packing or 'none'}")


def _copied(writing: Writing, form: str, how: str) -> int:
    relation = writing.duck.sql(writing.query)
    pairs = zip(relation.columns, relation.types, strict=True)
    values = ", ".join(f"{_value(quoted(name), kind, form)} AS {quoted(name)}" for name, kind in pairs)
    row = writing.duck.execute(
        f"COPY (SELECT {values} FROM ({writing.query})) TO {literal(str(writing.path))} ({how})"
    ).fetchone()
    return int(row[0]) if row else 0


def as_text(column: str, kind: DuckDBPyType) -> str:
    """SQL: a column as CSV files hold it."""
    return _value(column, kind, "csv")


def _value(column: str, kind: DuckDBPyType, form: str) -> str:
    match kind.id, form:
        case _, "parquet":
            return _as(column, kind, PLAIN)
        case (("timestamp" | "timestamp_s" | "timestamp_ms" | "timestamp_ns"), _):
            return f"replace({column}::VARCHAR, ' ', 'T')"
        case "timestamp with time zone", _:
            return f"replace(({column} AT TIME ZONE 'UTC')::VARCHAR, ' ', 'T') || 'Z'"
        case "blob", _:
            return f"to_base64({column})"
        case identity, "csv" if identity in _NESTED:
            return f"to_json({_as(column, kind, _JSON)})::VARCHAR"
        case _, "csv":
            return column
        case (("float" | "double"), _):
            return _json_number(column)
        case _:
            return _as(column, kind, _JSON)


def _json_number(column: str) -> str:
    """JSON has no NaN and no infinity; they become texts."""
    name = f"CASE WHEN isnan({column}) THEN 'NaN' WHEN {column} > 0 THEN 'Infinity' ELSE '-Infinity' END"
    return (
        f"CASE WHEN {column} IS NULL THEN NULL WHEN isfinite({column}) THEN to_json({column}) ELSE to_json({name}) END"
    )


def _as(column: str, kind: DuckDBPyType, other: Mapping[str, str]) -> str:
    stored = stored_as(kind, other)
    return column if stored == str(kind) else f"{column}::{stored}"


def stored_as(kind: DuckDBPyType, other: Mapping[str, str]) -> str:
    """The type with those that a format lacks replaced by `other`, by their names, within nested types too."""
    children: dict[str, Any] = dict(kind.children) if kind.id in {"decimal", "struct", "list", "map", "array"} else {}
    match kind.id:
        case "decimal" if "decimal" in other:
            return f"DECIMAL(38,{children['scale']})"
        case "struct":
            return (
                f"STRUCT({', '.join(f'{quoted(name)} {stored_as(child, other)}' for name, child in children.items())})"
            )
        case "array" if "array" not in other:
            return f"{stored_as(children['child'], other)}[{children['size']}]"
        case "list" | "array":
            return f"{stored_as(children['child'], other)}[]"
        case "map":
            return f"MAP({stored_as(children['key'], other)}, {stored_as(children['value'], other)})"
        case identity:
            return other.get("json" if str(kind) == "JSON" else identity, str(kind))

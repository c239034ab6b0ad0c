"""How rows are written into a file: the columns of a query as each format holds them without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from databrokkr_assets.core.names import literal, quoted

_NESTED = {"list", "struct", "map", "array", "union"}


def copy_to(duck: duckdb.DuckDBPyConnection, query: str, path: Path, form: str, packing: str | None) -> int:
    """Write the rows of `query` into one file at `path` and give their number. Raises duckdb.Error."""
    relation = duck.sql(query)
    pairs = zip(relation.columns, relation.types, strict=True)
    values = ", ".join(f"{_value(quoted(name), kind, form)} AS {quoted(name)}" for name, kind in pairs)
    row = duck.execute(
        f"COPY (SELECT {values} FROM ({query})) TO {literal(str(path))} ({_how(form, packing)})"
    ).fetchone()
    return int(row[0]) if row else 0


def _how(form: str, packing: str | None) -> str:
    match form:
        case "parquet":
            return f"FORMAT parquet, COMPRESSION {packing or 'zstd'}"
        case "csv":
            return f"FORMAT csv, HEADER, NULLSTR '', COMPRESSION {packing or 'none'}"
        case _:
            return f"FORMAT json, COMPRESSION {packing or 'none'}"


def _value(column: str, kind: DuckDBPyType, form: str) -> str:
    match kind.id, form:
        case (("hugeint" | "uhugeint"), _):
            return f"{column}::DECIMAL(38,0)"  # DuckDB writes it as a double, into Parquet and JSON
        case _, "parquet":
            return column
        case (("timestamp" | "timestamp_s" | "timestamp_ms" | "timestamp_ns"), _):
            return f"replace({column}::VARCHAR, ' ', 'T')"
        case "timestamp with time zone", _:
            return f"replace(({column} AT TIME ZONE 'UTC')::VARCHAR, ' ', 'T') || 'Z'"
        case "blob", _:
            return f"to_base64({column})"
        case identity, "csv" if identity in _NESTED:
            return f"to_json({_widened(column, kind)})::VARCHAR"
        case _, "csv":
            return column
        case (("float" | "double"), _):
            return _json_number(column)
        case _:
            return _widened(column, kind)


def _json_number(column: str) -> str:
    """JSON has no NaN and no infinity; they become texts."""
    name = f"CASE WHEN isnan({column}) THEN 'NaN' WHEN {column} > 0 THEN 'Infinity' ELSE '-Infinity' END"
    return (
        f"CASE WHEN {column} IS NULL THEN NULL WHEN isfinite({column}) THEN to_json({column}) ELSE to_json({name}) END"
    )


def _widened(column: str, kind: DuckDBPyType) -> str:
    """The column with its decimals 38 digits wide: DuckDB prints one of up to 18 digits into JSON as a double."""
    exact = _exact(kind)
    return column if exact == str(kind) else f"{column}::{exact}"


def _exact(kind: DuckDBPyType) -> str:
    """The type with its decimals made 38 digits wide."""
    if kind.id not in {"decimal", "struct", "list", "map"}:
        return str(kind)
    children: dict[str, Any] = dict(kind.children)
    match kind.id:
        case "decimal":
            return f"DECIMAL(38,{children['scale']})"
        case "struct":
            return f"STRUCT({', '.join(f'{quoted(name)} {_exact(child)}' for name, child in children.items())})"
        case "list":
            return f"{_exact(children['child'])}[]"
        case _:
            return f"MAP({_exact(children['key'])}, {_exact(children['value'])})"

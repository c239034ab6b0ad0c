"""Whether a JSON value becomes a declared type without losing anything, down to its innermost parts."""

from __future__ import annotations

import duckdb
from duckdb.sqltypes import DuckDBPyType

from databrokkr_assets.core.names import literal
from resources.support.csv_types import holds

_NESTED = {"list", "struct", "map", "array", "union"}


def is_nested(kind: str) -> bool:
    """Whether a type has parts, or is JSON itself."""
    return kind == "JSON" or duckdb.sqltype(kind).id in _NESTED


def holds_parts(value: str, kind: str) -> str:
    """SQL: whether the JSON `value` becomes a nested type exactly; see `csv_types.holds`."""
    if kind == "JSON":
        return "true"
    return (
        f"({value} IS NULL OR TRY_CAST({value} AS {kind}) IS NOT NULL AND ({_parts(value, duckdb.sqltype(kind), 0)}))"
    )


def _parts(value: str, kind: DuckDBPyType, depth: int) -> str:
    children = dict(kind.children) if kind.id in _NESTED else {}
    element = f"e{depth}"
    match kind.id:
        case "struct":
            fields = (f"json_extract({value}, {literal(_pointer(name))})" for name in children)
            tests = zip(fields, children.values(), strict=True)
            whole = " AND ".join(f"({_parts(field, child, depth)})" for field, child in tests)  # type: ignore[arg-type]
            return f"{_is(value, 'OBJECT')} AND {whole}"
        case "list" | "array":
            elements, child = f"TRY_CAST({value} AS JSON[])", children["child"]
        case "map":
            elements, child = f"map_values(TRY_CAST({value} AS MAP(VARCHAR, JSON)))", children["value"]
        case "union":
            return "true"
        case _:
            return holds(f"json_extract_string({value}, '$')", str(kind))
    wrong = f"list_filter({elements}, lambda {element}: NOT ({_parts(element, child, depth + 1)}))"  # type: ignore[arg-type]
    return f"{_is(value, 'OBJECT' if kind.id == 'map' else 'ARRAY')} AND coalesce(len({wrong}), 0) = 0"


def _is(value: str, kind: str) -> str:
    """DuckDB casts an array to a STRUCT without a word: all its fields are NULL."""
    return f"coalesce(json_type({value}) IN ('NULL', '{kind}'), true)"


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")

"""The type that holds every value of two types unchanged."""

from __future__ import annotations

from duckdb import DuckDBPyConnection
from duckdb.sqltypes import DuckDBPyType

from databrokkr_assets.core.names import quoted
from databrokkr_assets.lake.types import child_type

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_UNSIGNED = ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
_DIGITS = {"TINYINT": 3, "UTINYINT": 3, "SMALLINT": 5, "USMALLINT": 5, "INTEGER": 10, "UINTEGER": 10, "BIGINT": 19,
           "UBIGINT": 20}  # fmt: skip
_FLOATING = ("FLOAT", "DOUBLE")
_IN_DOUBLE = {"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE"}
_IN_FLOAT = {"TINYINT", "SMALLINT", "UTINYINT", "USMALLINT", "FLOAT"}
_TIMES = ("DATE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP")


def wider(duck: DuckDBPyConnection, one: str, other: str) -> str | None:
    """The narrowest type that holds the values of both, as DuckDB writes it; `None` where there is none."""
    return _wider(duck.type(one), duck.type(other))


def _wider(one: DuckDBPyType, other: DuckDBPyType) -> str | None:
    names = (str(one), str(other))
    if names[0] == names[1]:
        return names[0]
    if "NULL" in (name.strip('"') for name in names):
        return next(name for name in names if name.strip('"') != "NULL")
    if one.id == other.id and one.id in ("struct", "list"):
        return _wider_structs(one, other) if one.id == "struct" else _wider_lists(one, other)
    return _wider_plain(*names) or _wider_decimal(one, other)


def _wider_plain(one: str, other: str) -> str | None:
    both = {one, other}
    for family in (_WHOLE, _UNSIGNED, _TIMES):
        if both <= set(family):
            return max(both, key=family.index)
    if both <= {*_WHOLE, *_UNSIGNED}:  # one of each: a signed type above the unsigned one
        unsigned = next(name for name in both if name in _UNSIGNED)
        signed = next(name for name in both if name in _WHOLE)
        place = max(_UNSIGNED.index(unsigned) + 1, _WHOLE.index(signed))
        return _WHOLE[place] if place < len(_WHOLE) else None
    if both & set(_FLOATING):
        return "FLOAT" if both <= _IN_FLOAT else "DOUBLE" if both <= _IN_DOUBLE else None
    texts = {name for name in both if name.startswith("ENUM(") or name in ("VARCHAR", "UUID")}
    return "VARCHAR" if texts == both else None


def _wider_decimal(one: DuckDBPyType, other: DuckDBPyType) -> str | None:
    digits = [_digits(kind) for kind in (one, other)]
    if None in digits:
        return None
    whole = max(found[0] - found[1] for found in digits if found)
    scale = max(found[1] for found in digits if found)
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= 38 else None


def _digits(kind: DuckDBPyType) -> tuple[int, int] | None:
    """How many digits a number has in all, and behind the point."""
    if kind.id == "decimal":
        facts = dict(kind.children)
        return int(str(facts["precision"])), int(str(facts["scale"]))
    return (_DIGITS[str(kind)], 0) if str(kind) in _DIGITS else None


def _wider_structs(one: DuckDBPyType, other: DuckDBPyType) -> str | None:
    """The fields of both; a field that one of them lacks is NULL there."""
    fields: dict[str, str] = {name: str(kind) for name, kind in one.children}
    kinds = {name: child_type(one, index) for index, (name, _) in enumerate(one.children)}
    for index, (name, kind) in enumerate(other.children):
        found = _wider(kinds[name], child_type(other, index)) if name in kinds else str(kind)
        if found is None:
            return None
        fields[name] = found
    return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in fields.items())})"


def _wider_lists(one: DuckDBPyType, other: DuckDBPyType) -> str | None:
    found = _wider(child_type(one, 0), child_type(other, 0))
    return f"{found}[]" if found else None

"""Values: the Arrow types that the suite knows, values of each, and rows told so that no difference hides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st


@dataclass(frozen=True)
class Type:
    """An Arrow type: values that everybody uses, its extremes, and how to draw any other."""

    arrow: pa.DataType
    usual: tuple[Any, ...]
    any: st.SearchStrategy[Any]


def _whole(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([low, high, 0]) | st.integers(low, high)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    most = 10**precision - 1
    return (st.sampled_from([most, -most, 0]) | st.integers(-most, most)).map(
        lambda n: Decimal(n).scaleb(-scale, _EXACT)
    )


_EXACT = Context(prec=60)
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
_WORDS = ("", " ", "NULL", "null", "\\N", "a\tb\r\nc", "'\"\\;--", "ünï 🎉 \u202e", "{}", "-", "0", "x" * 5000)
_MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
_FIRST, _LAST = datetime(1, 1, 2), datetime(9999, 12, 30, 23, 59, 59, 999999)

TYPES: Mapping[str, Type] = {
    "bool": Type(pa.bool_(), (True, False), st.booleans()),
    "int8": Type(pa.int8(), (-1, 0, 1), _whole(8)),
    "int16": Type(pa.int16(), (-1, 0, 1), _whole(16)),
    "int32": Type(pa.int32(), (-1, 0, 1), _whole(32)),
    "int64": Type(pa.int64(), (-1, 0, 1), _whole(64)),
    "uint8": Type(pa.uint8(), (0, 1), _whole(8, signed=False)),
    "uint16": Type(pa.uint16(), (0, 1), _whole(16, signed=False)),
    "uint32": Type(pa.uint32(), (0, 1), _whole(32, signed=False)),
    "uint64": Type(pa.uint64(), (0, 1), _whole(64, signed=False)),
    "float32": Type(pa.float32(), (0.5, -1.5), st.floats(width=32)),
    "float64": Type(pa.float64(), (0.1, -1.5), st.floats()),
    "decimal(12,2)": Type(pa.decimal128(12, 2), (Decimal("1.10"), Decimal("-0.01")), _decimals(12, 2)),
    "decimal(38,10)": Type(pa.decimal128(38, 10), (Decimal("0.0000000001"),), _decimals(38, 10)),
    "string": Type(pa.string(), ("", "a b", "ü🎉"), st.sampled_from(_WORDS) | _TEXT),
    "binary": Type(pa.binary(), (b"", b"\x00\xff"), st.binary(max_size=12)),
    "date": Type(pa.date32(), (date(1970, 1, 1), date(2024, 2, 29)), st.dates()),
    "time": Type(pa.time64("us"), (time(0), time(23, 59, 59, 999999)), st.times()),
    "timestamp": Type(
        pa.timestamp("us"),
        (datetime(1970, 1, 2), datetime(2024, 3, 31, 2, 30, 0, 123456)),
        st.sampled_from([_FIRST, _LAST]) | _MOMENTS,
    ),
    "timestamp with zone": Type(
        pa.timestamp("us", "UTC"),
        (datetime(1970, 1, 2, tzinfo=UTC), datetime(2024, 3, 31, 2, 30, 0, 123456, UTC)),
        (st.sampled_from([_FIRST, _LAST]) | _MOMENTS).map(lambda moment: moment.replace(tzinfo=UTC)),
    ),
    "list": Type(
        pa.list_(pa.int64()), ([], [1, None, -1]), st.lists(st.none() | _whole(64), max_size=4)
    ),
    "list of texts": Type(
        pa.list_(pa.string()),
        ([], ["", None, "a,b"]),
        st.lists(st.none() | st.sampled_from(_WORDS[:-1]) | _TEXT, max_size=4),
    ),
    "struct": Type(
        pa.struct([("n", pa.int64()), ("t", pa.string())]),
        ({"n": 1, "t": ""}, {"n": None, "t": "x"}),
        st.fixed_dictionaries({"n": st.none() | _whole(64), "t": st.none() | _TEXT}),
    ),
    "list of structs": Type(
        pa.list_(pa.struct([("n", pa.int64()), ("t", pa.string())])),
        ([], [{"n": 1, "t": None}, None]),
        st.lists(st.none() | st.fixed_dictionaries({"n": st.none() | _whole(64), "t": st.none() | _TEXT}), max_size=3),
    ),
}  # fmt: skip
"""Every type that a dataset and the engine can carry, by the name that the matrix gives it."""

NESTED = frozenset({"list", "list of texts", "struct", "list of structs"})
"""The types with parts."""

FLAT = frozenset(TYPES) - NESTED
"""The types without."""


def table(**columns: list[Any] | pa.Array) -> pa.Table:
    """Rows by column; integers are int64, texts string, as Arrow finds them."""
    return pa.table({name.replace("__", " "): values for name, values in columns.items()})


def keyed(rows: pa.Table, *keys: str) -> pa.Table:
    """The rows with these columns marked as their primary key, for `Case.put`."""
    fields = [
        field.with_metadata({"key": "yes"}).with_nullable(False) if field.name in keys else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields))


def keys_of(rows: pa.Table) -> list[str]:
    """The columns that `keyed` marked."""
    return [field.name for field in rows.schema if (field.metadata or {}).get(b"key") == b"yes"]


def of_type(name: str, values: Iterable[Any]) -> pa.Array:
    """Values as an Arrow array of one of `TYPES`."""
    return pa.array(list(values), TYPES[name].arrow)


def told(rows: pa.Table | Iterable[Mapping[str, Any]]) -> list[tuple[tuple[str, Any], ...]]:
    """Rows in a form that can be compared whatever type carries a value: sorted, without regard to column order."""
    given = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    return sorted((tuple(sorted((name, _told(value)) for name, value in row.items())) for row in given), key=repr)


def _told(value: Any) -> Any:
    match value:
        case None | str():
            return value
        case bool():
            return str(int(value))  # some systems have no type of their own for it
        case int() | Decimal():
            return _number(Decimal(value))
        case float():
            return _number(Decimal(repr(value))) if math.isfinite(value) else repr(value)
        case datetime():
            moment = value.astimezone(UTC) if value.tzinfo else value
            return moment.isoformat(timespec="microseconds")
        case time():
            return value.isoformat(timespec="microseconds")
        case date() | timedelta():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case dict():
            return tuple(sorted((name, _told(part)) for name, part in value.items()))
        case list() | tuple():
            return tuple(map(_told, value))
        case _:
            return str(value)


def _number(value: Decimal) -> str:
    if not value.is_finite():
        return str(value).lower().replace("infinity", "inf")
    # A negative zero is the same number, and DuckDB stores both as one.
    return format(value.normalize(_EXACT) if value else Decimal(0), "f")

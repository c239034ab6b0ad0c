"""Avro's schemas as Arrow's, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from databrokkr_assets.core.errors import DataError

_PRIMITIVE = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
    ("string", "uuid"): pa.uuid(),
}
_WIDER = ({"int", "long"}, {"float", "double"})
_MOST_DIGITS = 76
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_OUT = {
    pa.bool_(): "boolean",
    pa.int8(): "int",
    pa.int16(): "int",
    pa.int32(): "int",
    pa.uint8(): "int",
    pa.uint16(): "int",
    pa.uint32(): "long",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "bytes",
}


def arrow_schema(schema: Any) -> pa.Schema:
    """The columns of a file's Avro schema. Raises DataError for a file of something else than records, and for a column
    that has several types or holds itself.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise DataError("holds no records, so it is no table", mend="write records; nothing was loaded")
    known: dict[str, Any] = {schema["name"]: None}
    fields = []
    for field in schema["fields"]:
        try:
            fields.append(pa.field(field["name"], _arrow(field["type"], known)))
        except _NoColumn as error:
            what = f'the column "{field["name"]}" {error}, which a dataset cannot hold'
            raise DataError(what, mend="write it in another type; nothing was loaded") from None
    return pa.schema(fields)


class _NoColumn(Exception):
    """A type that no column can have."""


def _arrow(kind: Any, known: dict[str, Any]) -> pa.DataType:
    if isinstance(kind, list):
        return _of_union(kind, known)
    if isinstance(kind, str):
        return _PRIMITIVE[kind] if kind in _PRIMITIVE else _named(kind, known)
    match kind["type"]:
        case "array":
            return pa.list_(_arrow(kind["items"], known))
        case "map":
            return pa.map_(pa.string(), _arrow(kind["values"], known))
        case "enum":
            known[kind["name"]] = pa.string()
            return pa.string()
        case "record" | "error":
            return _of_record(kind, known)
        case "fixed":
            known[kind["name"]] = _decimal(kind) or pa.binary(kind["size"])
            return known[kind["name"]]
        case "bytes" if kind.get("logicalType") == "decimal":
            return _decimal(kind) or pa.binary()
        case other if isinstance(other, str) and other in _PRIMITIVE:
            return _LOGICAL.get((other, kind.get("logicalType", "")), _PRIMITIVE[other])
        case other:
            return _arrow(other, known)


def _named(name: str, known: Mapping[str, Any]) -> pa.DataType:
    if known.get(name) is None:
        raise _NoColumn(f"holds {name} within {name}")
    return known[name]


def _of_record(kind: dict[str, Any], known: dict[str, Any]) -> pa.DataType:
    known[kind["name"]] = None  # until its fields are known, it holds itself
    fields = [pa.field(field["name"], _arrow(field["type"], known)) for field in kind["fields"]]
    known[kind["name"]] = pa.struct(fields)
    return known[kind["name"]]


def _of_union(kinds: list[Any], known: dict[str, Any]) -> pa.DataType:
    real = [kind for kind in kinds if kind != "null"]
    if len(real) < 2:
        return _arrow(real[0], known) if real else pa.null()
    if all(isinstance(kind, str) for kind in real) and set(real) in _WIDER:
        return _PRIMITIVE[max(real, key=["int", "long", "float", "double"].index)]
    names = (kind if isinstance(kind, str) else str(kind.get("type")) for kind in real)
    raise _NoColumn(f"is a union of {', '.join(names)}")


def _decimal(kind: dict[str, Any]) -> pa.DataType | None:
    """Its decimal type; `None` where it has none, which makes it plain bytes, as the specification of Avro says."""
    digits, scale = kind.get("precision"), kind.get("scale", 0)
    if kind.get("logicalType") != "decimal" or not isinstance(digits, int) or not 0 <= scale <= digits:
        return None
    if digits > _MOST_DIGITS:
        raise _NoColumn(f"has decimals of {digits} digits")
    return pa.decimal256(digits, scale)


# --- to Avro ---


def numbers(schema: pa.Schema) -> pa.Schema:
    """The schema with instants, dates and times as the numbers that Avro stores."""
    return pa.schema([pa.field(field.name, _number(field.type)) for field in schema])


def _number(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_timestamp(kind) or types.is_time64(kind):
        return pa.int64()
    if types.is_date32(kind):
        return pa.int32()
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _number(field.type)) for field in kind.fields])
    if types.is_map(kind):
        return pa.map_(kind.key_type, _number(kind.item_type))
    return pa.list_(_number(kind.value_type)) if types.is_list(kind) else kind


def avro_schema(schema: pa.Schema) -> dict[str, Any]:
    """A record of these columns, each of which may be NULL. Raises DataError for a name or type that Avro lacks."""
    return {"type": "record", "name": "row", "fields": [_field(field, "row") for field in schema]}


def _field(field: pa.Field, parent: str) -> dict[str, Any]:
    if not _NAME.fullmatch(field.name):
        mend = "rename it in a transform: letters, digits and _ only, no digit first"
        raise DataError(f'Avro cannot name a column "{field.name}"', mend=mend)
    return {"name": field.name, "type": _nullable(field.type, f"{parent}_{field.name}"), "default": None}


def _nullable(kind: pa.DataType, name: str) -> list[Any]:
    return ["null", _avro(kind, name)]


def _avro(kind: pa.DataType, name: str) -> Any:
    types = pa.types
    if kind in _OUT:
        return _OUT[kind]
    if types.is_timestamp(kind):
        return {"type": "long", "logicalType": _instant(kind)}
    if types.is_decimal(kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if types.is_struct(kind):
        return {"type": "record", "name": name, "fields": [_field(field, name) for field in kind.fields]}
    if types.is_map(kind) and types.is_string(kind.key_type):
        return {"type": "map", "values": _nullable(kind.item_type, f"{name}_value")}
    if types.is_list(kind):
        return {"type": "array", "items": _nullable(kind.value_type, f"{name}_item")}
    simple = {pa.date32(): ("int", "date"), pa.time64("us"): ("long", "time-micros")}
    if kind in simple:
        return {"type": simple[kind][0], "logicalType": simple[kind][1]}
    raise DataError(f"Avro has no type for {name.removeprefix('row_')}, which is {kind}", mend="cast it in a transform")


def _instant(kind: pa.DataType) -> str:
    unit = {"us": "micros", "ns": "nanos"}[kind.unit]
    return f"timestamp-{unit}" if kind.tz else f"local-timestamp-{unit}"

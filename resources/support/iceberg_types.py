"""Types and partitions between DuckDB and Iceberg: exact, or refused.

Source: the Iceberg specification, "Primitive Types" and "Partition Transforms".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from duckdb.sqltypes import DuckDBPyType
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    YearTransform,
)
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import quoted

_TO_ICEBERG: Mapping[str, IcebergType] = {
    "boolean": BooleanType(),
    "tinyint": IntegerType(),
    "smallint": IntegerType(),
    "integer": IntegerType(),
    "utinyint": IntegerType(),
    "usmallint": IntegerType(),
    "bigint": LongType(),
    "uinteger": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "varchar": StringType(),
    "enum": StringType(),
    "blob": BinaryType(),
    "date": DateType(),
    "time": TimeType(),
    "timestamp": TimestampType(),
    "timestamp_s": TimestampType(),
    "timestamp_ms": TimestampType(),
    "timestamp with time zone": TimestamptzType(),
    "uuid": UUIDType(),
}
_TO_SQL: Mapping[type[IcebergType], str] = {
    BooleanType: "BOOLEAN",
    IntegerType: "INTEGER",
    LongType: "BIGINT",
    FloatType: "FLOAT",
    DoubleType: "DOUBLE",
    StringType: "VARCHAR",
    BinaryType: "BLOB",
    DateType: "DATE",
    TimeType: "TIME",
    TimestampType: "TIMESTAMP",
    TimestamptzType: "TIMESTAMP WITH TIME ZONE",
    UUIDType: "UUID",
}


def iceberg_type(name: str, own: DuckDBPyType, ids: Iterator[int]) -> IcebergType:
    """The Iceberg type that holds every value of a DuckDB type. Raises SpecError, naming the column."""
    children: dict[str, Any] = dict(own.children) if own.id in {"list", "array", "struct", "map", "decimal"} else {}
    match own.id:
        case "decimal":
            return DecimalType(children["precision"], children["scale"])
        case "list" | "array":
            return ListType(next(ids), iceberg_type(name, children["child"], ids), element_required=False)
        case "struct":
            fields = [NestedField(next(ids), part, iceberg_type(name, kind, ids)) for part, kind in children.items()]
            return StructType(*fields)
        case "map":
            key, value = (iceberg_type(name, children[part], ids) for part in ("key", "value"))
            return MapType(next(ids), key, next(ids), value, value_required=False)
        case kind if kind in _TO_ICEBERG:
            return _TO_ICEBERG[kind]
        case _:
            raise SpecError(
                f'the column "{name}" is {own}, which Iceberg has no type for',
                mend="cast it in a transform, to VARCHAR or to a DECIMAL of up to 38 digits",
            )


def sql_type(kind: IcebergType) -> str:
    """The DuckDB type that is read and written as an Iceberg type. Raises SpecError for one that cannot be."""
    match kind:
        case DecimalType():
            return f"DECIMAL({kind.precision},{kind.scale})"
        case ListType():
            return f"{sql_type(kind.element_type)}[]"
        case StructType():
            return f"STRUCT({', '.join(f'{quoted(field.name)} {sql_type(field.field_type)}' for field in kind.fields)})"
        case MapType():
            return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.value_type)})"
        case _ if type(kind) in _TO_SQL:
            return _TO_SQL[type(kind)]
        case _:
            raise SpecError(f"a column of Iceberg's type {kind} cannot be written", mend="leave the column out")


def field_ids(schema: Schema) -> str:
    """The ids of all fields, as `COPY … (FIELD_IDS …)` takes them."""
    return f"FIELD_IDS {{{', '.join(f'{quoted(f.name)}: {_ids(f.field_id, f.field_type)}' for f in schema.fields)}}}"


def _ids(own: int, kind: IcebergType) -> str:
    match kind:
        case StructType():
            inner = [f"{quoted(field.name)}: {_ids(field.field_id, field.field_type)}" for field in kind.fields]
        case ListType():
            inner = [f"element: {_ids(kind.element_id, kind.element_type)}"]
        case MapType():
            inner = [f"key: {_ids(kind.key_id, kind.key_type)}", f"value: {_ids(kind.value_id, kind.value_type)}"]
        case _:
            return str(own)
    return f"{{__duckdb_field_id: {own}, {', '.join(inner)}}}"


_DAYS = "date_diff('day', DATE '1970-01-01', CAST({} AS DATE))"
_TRANSFORMS: Mapping[type[Transform[Any, Any]], str] = {
    IdentityTransform: "{}",
    YearTransform: "year({}) - 1970",
    MonthTransform: "(year({0}) - 1970) * 12 + month({0}) - 1",
    DayTransform: _DAYS,
    HourTransform: "date_diff('hour', TIMESTAMP '1970-01-01', CAST({} AS TIMESTAMP))",
}
_BY_NAME: Mapping[str, Callable[[], Transform[Any, Any]]] = {
    "year": YearTransform,
    "month": MonthTransform,
    "day": DayTransform,
    "hour": HourTransform,
}
_IDENTITIES: Mapping[type[IcebergType], Callable[[str], Any]] = {
    IntegerType: int,
    LongType: int,
    StringType: str,
    BooleanType: "true".__eq__,
    DateType: int,
}
_WORD = re.compile(r"(?:(\w+)\()?(.+?)\)?")


@dataclass(frozen=True)
class Partition:
    """A field of a partition spec: its column, the SQL of its value, and how that one's text becomes what a manifest
    holds."""

    column: str
    sql: str
    value: Callable[[str], Any]

    def of(self, names: Sequence[str]) -> str:
        """The SQL over rows that have the columns `names`; NULL where the partition's is not among them."""
        return self.sql if self.column in names else "CAST(NULL AS INTEGER)"


def partitions(spec: PartitionSpec, schema: Schema, url: str) -> list[Partition]:
    """The fields of a spec. Raises SpecError for a transform that DuckDB cannot do."""
    return [_partition(field, schema, url) for field in spec.fields]


def _partition(field: PartitionField, schema: Schema, url: str) -> Partition:
    column = schema.find_field(field.source_id)
    name = quoted(column.name)
    kind: type[IcebergType] = type(column.field_type)
    sql = _TRANSFORMS.get(type(field.transform))
    identity = isinstance(field.transform, IdentityTransform)
    if sql is None or (identity and kind not in _IDENTITIES):
        what = f'the partition "{field.name}" of the table, {field.transform} of {column.field_type}, cannot be written'
        raise SpecError(what, mend="partition by a column of whole numbers, text or days, or by time", where=url)
    if identity and kind is DateType:
        sql = _DAYS
    return Partition(column.name, f"({sql.format(name)})", _IDENTITIES[kind] if identity else int)


def partition_spec(words: Iterable[str], schema: Schema, url: str) -> PartitionSpec:
    """The spec that an author asks for: `country`, `day(ordered_at)` … Raises SpecError."""
    fields = []
    for number, word in enumerate(words):
        match = _WORD.fullmatch(word)
        how, name = (match[1], match[2]) if match and word.endswith(")") == bool(match[1]) else (None, word)
        known = [field.name for field in schema.fields]
        if name not in known:
            what = f'the table cannot be partitioned by "{word}": there is no such column'
            raise SpecError(what, mend=did_you_mean(name, known), where=url)
        if how and how not in _BY_NAME:
            raise SpecError(f'there is no partition "{how}"', mend=did_you_mean(how, _BY_NAME), where=url)
        transform = _BY_NAME[how]() if how else IdentityTransform()
        called = f"{name}_{how}" if how else name
        fields.append(PartitionField(schema.find_field(name).field_id, 1000 + number, transform, called))
    return PartitionSpec(*fields)

"""Stores Arrow data of any origin as Parquet that DuckDB reads without changing a value; in the child process.

Left to themselves, Parquet and DuckDB would make a DOUBLE of a decimal with more than 38 digits and a number of a
duration, and would cut instants and times to microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.errors import DataError

_ROWS_AT_ONCE = 65_536
_MICROSECOND = 1_000


class _Unknown(Exception):
    """A type that no column of a dataset can hold."""


def store(batches: Iterable[pa.RecordBatch], schema: pa.Schema, target: str) -> dict[str, str]:
    """Write the batches, in the types of this schema, to a Parquet file.

    Gives the types of the columns that stand there as text. The data is checked down to its offsets first. Raises
    DataError for a column that no dataset can hold, and for a value that would not stay what it is.
    """
    _refuse_names(schema.names)
    kept = pa.schema([pa.field(field.name, _of_column(field)) for field in schema])
    with pq.ParquetWriter(target, kept, compression="zstd", compression_level=1) as writer:
        for batch in batches:
            batch.validate(full=True)
            for start in range(0, max(batch.num_rows, 1), _ROWS_AT_ONCE):
                writer.write_batch(_kept(batch.slice(start, _ROWS_AT_ONCE), kept))
    return {field.name: "INTERVAL" for field in schema if _is_span(field.type)}


def _refuse_names(names: list[str]) -> None:
    if not names:
        raise DataError("has no columns", mend="")
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            mend = "rename one of them; a table cannot have both"
            raise DataError(f'has the columns "{seen[name.casefold()]}" and "{name}", which are one name', mend=mend)
        seen[name.casefold()] = name


def _of_column(field: pa.Field) -> pa.DataType:
    try:
        return pa.string() if _is_span(field.type) else _kept_type(field.type)
    except _Unknown as error:
        what = f'the column "{field.name}" is {field.type}: a dataset cannot hold {error}'
        raise DataError(what, mend="write it as another type, or without this column") from None


def _kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that DuckDB reads from Parquet with the values unchanged. Raises _Unknown where there is none."""
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns" and kind.tz:
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_date64(kind):
        return pa.date32()
    if types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if _fits(kind) else pa.string()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _kept_type(kind.value_type)
    if types.is_nested(kind):
        return _kept_nested(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return kind if kind in {pa.uuid(), pa.json_()} else _kept_type(kind.storage_type)
    if types.is_union(kind) or _is_span(kind):
        raise _Unknown(f"{kind} there")
    return kind


def _fits(kind: pa.DataType) -> bool:
    return bool(kind.precision <= 38 and 0 <= kind.scale <= kind.precision)


def _kept_nested(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_map(kind):
        return pa.map_(_kept_type(kind.key_type), _kept_type(kind.item_type))
    if types.is_struct(kind):
        if not kind.num_fields:
            raise _Unknown("a structure without fields")
        return pa.struct([pa.field(field.name, _kept_type(field.type)) for field in kind.fields])
    if types.is_union(kind):
        raise _Unknown("a value of several types")
    return pa.list_(_kept_type(kind.value_type))


def _is_span(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind) or pa.types.is_interval(kind))


def _kept(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [_cast(column, field) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        return _spans(column) if _is_span(column.type) else column.cast(field.type)
    except (pa.ArrowInvalid, ValueError) as error:
        what = f'the column "{field.name}" holds a value that {field.type} cannot hold: {error}'
        raise DataError(what, mend="write it in another type; nothing was loaded") from error


def _spans(column: pa.Array) -> pa.Array:
    """Durations and intervals as texts that DuckDB reads as INTERVAL."""
    if pa.types.is_duration(column.type):
        column = column.cast(pa.duration("us")).cast(pa.int64())
        return pa.array(
            [None if value is None else f"{value} microseconds" for value in column.to_pylist()], pa.string()
        )
    return pa.array([_span(value) for value in column.to_pylist()], pa.string())


def _span(value: Any) -> str | None:
    if value is None:
        return None
    if value.nanoseconds % _MICROSECOND:
        raise ValueError(f"{value.nanoseconds} nanoseconds are no whole microseconds")
    return f"{value.months} months {value.days} days {value.nanoseconds // _MICROSECOND} microseconds"

"""Avro files. fastavro reads and writes row by row, so these are the slowest of the typed formats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading, Writing
from resources.support.file_output import PLAIN
from resources.support.native_files import stored_relation

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 5_000
_OTHER = {
    **PLAIN,
    "ubigint": "DECIMAL(20,0)",
    "timestamp_s": "TIMESTAMP",
    "timestamp_ms": "TIMESTAMP",
    "enum": "VARCHAR",
    "array": "LIST",
}
"""Avro has no such types."""
_LOGICAL_NUMBERS = (
    "int-date",
    "int-time-millis",
    "long-time-micros",
    "long-timestamp-millis",
    "long-timestamp-micros",
    "long-local-timestamp-millis",
    "long-local-timestamp-micros",
)


def read(reading: Reading) -> RelationRead:
    """The rows of Avro files; see `stored_relation`."""
    return stored_relation(reading, "avro_files:store_file")


def store_file(source: str, target: str) -> dict[str, str]:
    """Store an Avro file as Parquet; in the child process. See `arrow_storing.store`."""
    from fastavro import read as avro

    from resources.support.arrow_storing import store
    from resources.support.avro_types import arrow_schema

    for kind in _LOGICAL_NUMBERS:
        avro.LOGICAL_READERS[kind] = _as_it_is  # instants beyond the year 9999 are no datetime
    avro.LOGICAL_READERS["string-uuid"] = _uuid_bytes
    with open(source, "rb") as stream:
        rows = avro.reader(stream)
        schema = arrow_schema(rows.writer_schema)
        return store(_batches(rows, schema), schema, target)


def _as_it_is(value: Any, *_: Any) -> Any:
    return value


def _uuid_bytes(value: str, *_: Any) -> bytes:
    from uuid import UUID

    return UUID(value).bytes


def _batches(rows: Iterator[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield pa.RecordBatch.from_pylist(some, schema=schema)


def write(writing: Writing) -> int:
    """Write an Avro file, its blocks compressed with deflate.

    Raises DataError for a column whose name or type Avro does not have, SpecError for another compression.
    """
    try:
        from fastavro import writer
    except ImportError as error:
        raise missing_extra("formats", "writing Avro files") from error

    from resources.support.arrow_output import arrow_rows
    from resources.support.avro_types import avro_schema, numbers

    if writing.packing not in (None, "gzip"):
        raise SpecError("Avro files are packed with deflate", mend="remove `compression`")
    count = 0
    rows = arrow_rows(writing, _OTHER, _ROWS_AT_ONCE)
    plain = numbers(rows.schema)

    def records() -> Iterator[dict[str, Any]]:
        nonlocal count
        for batch in rows:
            count += batch.num_rows
            yield from batch.cast(plain).to_pylist(maps_as_pydicts="strict")

    with open(writing.path, "wb") as out:
        writer(out, avro_schema(rows.schema), records(), codec="deflate")
    return count

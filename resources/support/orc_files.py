"""ORC files. Timestamps come in microseconds, though the format has finer ones; a file that needs those is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from databrokkr_assets.core.ports import RelationRead
from resources.support.arrow_output import arrow_rows
from resources.support.file_formats import Reading, Writing
from resources.support.file_output import PLAIN
from resources.support.native_files import stored_relation

if TYPE_CHECKING:
    import pyarrow as pa

_OTHER = {
    **PLAIN,
    "utinyint": "SMALLINT",
    "usmallint": "INTEGER",
    "uinteger": "BIGINT",
    "ubigint": "DECIMAL(20,0)",
    "timestamp_ns": "VARCHAR",
    "time": "VARCHAR",
    "enum": "VARCHAR",
    "array": "LIST",
}
"""ORC has no such types."""


def read(reading: Reading) -> RelationRead:
    """The rows of ORC files; see `stored_relation`."""
    return stored_relation(reading, "orc_files:store_file")


def store_file(source: str, target: str) -> dict[str, str]:
    """Store an ORC file as Parquet, stripe by stripe; in the child process. See `arrow_storing.store`."""
    import pyarrow as pa
    from pyarrow.orc import ORCFile

    from resources.support.arrow_storing import store

    stored = ORCFile(source)
    schema = pa.schema([pa.field(field.name, _in_microseconds(field.type)) for field in stored.schema])

    def stripes() -> Iterator[pa.RecordBatch]:
        for index in range(stored.nstripes):
            yield stored.read_stripe(index)

    return store(stripes(), schema, target)


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _in_microseconds(field.type)) for field in kind.fields])
    if pa.types.is_map(kind):
        return pa.map_(_in_microseconds(kind.key_type), _in_microseconds(kind.item_type))
    return pa.list_(_in_microseconds(kind.value_type)) if pa.types.is_list(kind) else kind


def write(writing: Writing) -> int:
    """Write an ORC file, compressed with zstd unless told otherwise."""
    import pyarrow as pa
    from pyarrow.orc import ORCWriter

    rows = arrow_rows(writing, _OTHER)
    count = 0
    with ORCWriter(str(writing.path), compression="zlib" if writing.packing == "gzip" else "zstd") as stored:
        stored.write(rows.schema.empty_table())  # a file without rows has columns, too
        for batch in rows:
            stored.write(pa.Table.from_batches([batch]))
            count += batch.num_rows
    return count

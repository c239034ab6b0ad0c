"""ORC files. Instants and timestamps have microseconds; a file with finer ones is refused, because few mean them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from databrokkr_assets.core.ports import RelationRead
from resources.support.arrow_output import Stand, written_batches
from resources.support.file_formats import Reading, Writing
from resources.support.native_files import stored_relation

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 65_536
_STAND: Stand = {
    "utinyint": "SMALLINT",
    "usmallint": "INTEGER",
    "uinteger": "BIGINT",
    "ubigint": "DECIMAL(20,0)",
    "timestamp_ns": "VARCHAR",
    "time": "VARCHAR",
    "time_ns": "VARCHAR",
    "interval": "VARCHAR",
    "uuid": "VARCHAR",
    "json": "VARCHAR",
    "enum": "VARCHAR",
    '"null"': "VARCHAR",
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

    def stripes() -> Iterator[pa.RecordBatch]:
        for index in range(stored.nstripes):
            yield _in_microseconds(stored.read_stripe(index))

    return store(stripes(), _in_microseconds(stored.schema.empty_table().to_batches()[0]).schema, target)


def write(writing: Writing) -> int:
    """Write an ORC file, compressed with zstd unless told otherwise."""
    from pyarrow.orc import ORCWriter

    with ORCWriter(str(writing.path), compression=_CODECS[writing.packing]) as stored:
        return written_batches(writing, _STAND, stored.write)

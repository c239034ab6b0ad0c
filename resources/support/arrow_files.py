"""Arrow IPC: files (which Feather is) and streams."""

from __future__ import annotations

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import RelationRead
from resources.support.arrow_output import arrow_rows
from resources.support.file_formats import Reading, Writing
from resources.support.file_output import PLAIN
from resources.support.native_files import stored_relation

_OTHER = {**PLAIN, "enum": "VARCHAR"}
_MAGIC = b"ARROW1"
_FEATHER_1 = b"FEA1"


def read(reading: Reading) -> RelationRead:
    """The rows of Arrow files and streams; see `stored_relation`."""
    return stored_relation(reading, "arrow_files:store_file")


def store_file(source: str, target: str) -> dict[str, str]:
    """Store an Arrow file or stream as Parquet, batch by batch; in the child process. See `arrow_storing.store`."""
    import pyarrow as pa

    from resources.support.arrow_storing import store

    with pa.OSFile(source) as stream:
        magic = stream.read(len(_MAGIC))
        stream.seek(0)
        if magic.startswith(_FEATHER_1):
            raise DataError("is Feather of version 1", mend="write it in version 2; nothing was loaded")
        if magic == _MAGIC:
            stored = pa.ipc.open_file(stream)
            batches = (stored.get_batch(index) for index in range(stored.num_record_batches))
            return store(batches, stored.schema, target)
        with pa.ipc.open_stream(stream) as stored:
            return store(stored, stored.schema, target)


def write(writing: Writing) -> int:
    """Write an Arrow file, its buffers compressed with zstd."""
    import pyarrow as pa

    rows = arrow_rows(writing, _OTHER)
    count = 0
    with pa.ipc.new_file(writing.path, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stored:
        for batch in rows:
            stored.write_batch(batch)
            count += batch.num_rows
    return count

"""Text files as rows of lines: `line`, and `line_number`, counted from 1."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import RelationRead
from databrokkr_assets.engine.shaping import POSITION
from resources.support.file_formats import Reading
from resources.support.line_blocks import LineBlocks
from resources.support.parquet_files import relation_of
from resources.support.reject_spool import RejectSpool

_SCHEMA = pa.schema([("line", pa.string()), ("line_number", pa.int64())])


def read(reading: Reading) -> RelationRead:
    """The lines of the files, in order. Raises DataError for a file that is no text."""
    paths: dict[str, Path] = {}
    spools: list[RejectSpool] = []
    for file in reading.files:
        spools.append(RejectSpool(reading.work.new(".rejects")))
        paths[file.key] = reading.work.new(".parquet")
        with pq.ParquetWriter(paths[file.key], _SCHEMA, compression="zstd", compression_level=1) as stored:
            for lines in LineBlocks(reading, file, "text", spools[-1]):
                stored.write_batch(pa.record_batch([lines.texts, lines.numbers], schema=_SCHEMA))
        spools[-1].close()
    query = relation_of(reading.duck, paths, provenance=reading.provenance).query
    if reading.provenance:  # lines that were set aside count, too
        query = f"SELECT * REPLACE (line_number AS {quoted(POSITION)}) FROM ({query})"
    return RelationRead(query, rejects=lambda: chain.from_iterable(spools))

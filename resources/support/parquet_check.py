"""The first look at a Parquet file: whether its footer fits the file, and what DuckDB would change.

This happens in the child process; DuckDB then reads the file itself, at its full speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.errors import DataError
from resources.support.arrow_storing import store

_ENDS = 12
"""Bytes of the marks at both ends, and of the footer's length."""

_EXPORT = "export it again or move it away; nothing was loaded"


def look(source: str, most: int) -> bool:
    """Whether the file has types that DuckDB would change, so that it is to be stored anew by `store_file`.

    Raises DataError for a file that is not whole, and for a footer that promises what the file cannot hold: parts
    outside of it, other rows than its parts have, or more than `most` bytes in one part.
    """
    path = Path(source)
    try:
        with pq.ParquetFile(path) as stored:
            _refuse_lies(stored.metadata, path.stat().st_size, most)
            return any(map(_is_changed, stored.schema_arrow.types))
    except (pa.ArrowException, OSError) as error:
        text = str(error).splitlines()[0]
        raise DataError(f"is not a whole Parquet file: {text}", mend=_EXPORT) from error


def store_file(source: str, target: str) -> dict[str, str]:
    """Store the file anew, in types that DuckDB does not change. See `arrow_storing.store`."""
    with pq.ParquetFile(source) as stored:
        return store(stored.iter_batches(), stored.schema_arrow, target)


def _refuse_lies(footer: Any, size: int, most: int) -> None:
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    end = size - _ENDS - footer.serialized_size + len(b"PAR1")
    if sum(group.num_rows for group in groups) != footer.num_rows:
        raise DataError("has a footer that counts its rows wrongly", mend=_EXPORT)
    for group in (group for group in groups if group.num_rows):  # pyarrow writes no pages, and no offsets, for none
        for column in (group.column(index) for index in range(group.num_columns)):
            if not _is_inside(column, end):
                raise DataError("has a footer that names parts outside of the file", mend=_EXPORT)
            if column.total_uncompressed_size > most:
                mend = "move it away; nothing was loaded. If you trust it, raise `limits: {unpacked_mb: …}`"
                raise DataError(f"has a part that becomes more than {most // 1_000_000:,} MB", mend=mend)


def _is_inside(column: Any, end: int) -> bool:
    """Whether a column's pages stand before the `end` of what the file can hold."""
    first = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    size = column.total_compressed_size
    return bool(0 <= first <= column.data_page_offset <= end and 0 <= size <= end - first)


def _is_changed(kind: pa.DataType) -> bool:
    """Whether DuckDB reads values of the type as others: it knows no instants in nanoseconds, no longer decimals."""
    types = pa.types
    if types.is_timestamp(kind):
        return kind.unit == "ns" and kind.tz is not None
    if types.is_decimal(kind):
        return bool(kind.precision > 38)
    if types.is_time64(kind):
        return bool(kind.unit == "ns")
    return bool(types.is_duration(kind)) or any(map(_is_changed, _parts(kind)))


def _parts(kind: pa.DataType) -> Iterator[pa.DataType]:
    return (kind.field(index).type for index in range(kind.num_fields))

"""Rows as Arrow batches in types that a format has, each value unchanged: for formats that DuckDB does not write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import quoted
from resources.support.file_output import stored_as

if TYPE_CHECKING:
    import pyarrow as pa

    from resources.support.file_formats import Writing

_ROWS_AT_ONCE = 16_384


def arrow_rows(writing: Writing, other: Mapping[str, str], rows_at_once: int = _ROWS_AT_ONCE) -> pa.RecordBatchReader:
    """The rows to write, where a type that the format lacks is replaced by its `other`; see `stored_as`."""
    relation = writing.duck.sql(writing.query)
    pairs = zip(relation.columns, relation.types, strict=True)
    values = ", ".join(f"CAST({quoted(name)} AS {stored_as(kind, other)}) AS {quoted(name)}" for name, kind in pairs)
    writing.duck.execute("SET arrow_lossless_conversion = false")  # else a BOOLEAN becomes an extension type
    return writing.duck.execute(f"SELECT {values} FROM ({writing.query})").to_arrow_reader(rows_at_once)

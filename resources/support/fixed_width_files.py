"""Files of fixed width: each column stands at the same characters of every line."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from databrokkr_assets.core.ports import Reject, RelationRead
from resources.support.file_formats import Reading
from resources.support.file_settings import FixedWidth
from resources.support.found_files import FoundFile
from resources.support.line_blocks import LineBlocks, Lines
from resources.support.reject_spool import RejectSpool
from resources.support.typed_texts import POSITION, TextTable, TypedTexts

RULE = "fixed_width"


def read(reading: Reading) -> RelationRead | None:
    """The rows of the files; a column of blanks is NULL, and empty lines are no rows."""
    layout = reading.settings.fixed_width
    assert layout, "the settings have been checked"
    tables = [_table(reading, file, layout) for file in reading.files]
    return TypedTexts(reading, tables, RULE).relation()


def _table(reading: Reading, file: FoundFile, layout: FixedWidth) -> TextTable:
    path, rejects = reading.work.new(".parquet"), RejectSpool(reading.work.new(".rejects"))
    names = tuple(layout.columns)
    schema = pa.schema([*((name, pa.string()) for name in names), (POSITION, pa.int64())])
    nulls = pa.array([*reading.settings.null_values, ""], pa.string())
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as stored:
        for lines in LineBlocks(reading, file, RULE, rejects):
            kept = _kept(lines, layout, file.key, rejects)
            columns = [_field(kept.texts, place, layout, nulls) for place in layout.columns.values()]
            stored.write_batch(pa.record_batch([*columns, kept.numbers], schema=schema))
    rejects.close()
    return TextTable(file.key, path, names, rejects)


def _kept(lines: Lines, layout: FixedWidth, name: str, rejects: RejectSpool) -> Lines:
    """The lines below the header that are neither empty nor too short; the latter go to `rejects`."""
    filled = pc.and_(
        pc.greater(lines.numbers, layout.skip_lines), pc.not_equal(pc.utf8_rtrim_whitespace(lines.texts), "")
    )
    numbers, texts = lines.numbers.filter(filled), lines.texts.filter(filled)
    if layout.short_lines == "pad":
        return Lines(numbers, texts)
    short = pc.less(pc.utf8_length(texts), layout.width)
    for number, text in zip(numbers.filter(short).to_pylist(), texts.filter(short).to_pylist(), strict=True):
        reason = f"the line has {len(text)} characters, not {layout.width}"
        rejects.add(Reject(reason, f"{RULE}.short", f"{name}:{number}", text))
    whole = pc.invert(short)
    return Lines(numbers.filter(whole), texts.filter(whole))


def _field(texts: pa.StringArray, place: Sequence[int], layout: FixedWidth, nulls: pa.StringArray) -> pa.StringArray:
    start, width = place
    field = pc.utf8_slice_codeunits(texts, start - 1, start - 1 + width)
    blank = pc.is_in(pc.utf8_trim_whitespace(field), value_set=nulls)
    shown = pc.utf8_trim_whitespace(field) if layout.trim else field
    return pc.if_else(blank, pa.scalar(None, pa.string()), shown)

"""Takes what can be read out of a CSV file that DuckDB's strict reader refuses, and names the lines that cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.ports import Reject
from resources.support.csv_records import Fields, Record
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import repaired

_ROWS_AT_ONCE = 20_000
_CHARACTERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class Salvaged:
    """A Parquet file of texts `c0`, `c1` … with `line` and the record's `text`, and what was not fit to go there."""

    path: Path
    rejects: RejectSpool


def salvage(records: Iterable[Record], width: int, delimiter: str, name: str, into: Path) -> Salvaged:
    """Sort the records of the file called `name` into rows of `width` fields and rejects, in bounded memory."""
    salvaged = Salvaged(into, RejectSpool(into.with_suffix(".rejects")))
    with _Rows(into, width) as rows:
        for record in records:
            if width > 1 and not record.text and not record.rule:
                continue  # an empty line; DuckDB passes over it too
            fields = _fitted(record, width, delimiter)
            if record.rule or len(fields) != width:
                salvaged.rejects.add(_reject(record, width, name))
            else:
                rows.add(record, fields)
    salvaged.rejects.close()
    return salvaged


def _fitted(record: Record, width: int, delimiter: str) -> Fields:
    """Delimiters at the end of a line are not more fields; DuckDB takes it so too."""
    more = len(record.fields) - width
    return record.fields[:width] if more > 0 and record.text.endswith(delimiter * more) else record.fields


def _reject(record: Record, width: int, name: str) -> Reject:
    rule = record.rule or "csv.columns"
    reason = record.problem or f"the line has {len(record.fields)} fields, not {width}"
    return Reject(reason, rule, f"{name}:{record.line}", repaired(record.text))


class _Rows:
    """Writes rows to a Parquet file, some thousand at a time."""

    def __init__(self, path: Path, width: int) -> None:
        texts = [(f"c{index}", pa.string()) for index in range(width)]
        self._schema = pa.schema([*texts, ("line", pa.int64()), ("text", pa.string())])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[tuple[object, ...]] = []
        self._size = 0

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, record: Record, fields: Fields) -> None:
        self._rows.append((*fields, record.line, record.text))
        self._size += len(record.text)
        if len(self._rows) >= _ROWS_AT_ONCE or self._size >= _CHARACTERS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = [list(column) for column in zip(*self._rows, strict=True)]
            self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._size = [], 0

"""Keeps the rejects of a load on disk, so that a million of them need no memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.ports import Reject

_AT_ONCE = 10_000
_SCHEMA = pa.schema([(name, pa.string()) for name in ("reason", "rule", "position", "payload")])


class RejectSpool:
    """Rejects in the order in which they came: written, closed, then read any number of times."""

    def __init__(self, path: Path, count: int = 0) -> None:
        """A spool to write to; or, with the `count` of the rejects that it got, one that was closed."""
        self.path = path
        self.count = count
        self._held: list[Reject] = []
        self._size = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, reject: Reject) -> None:
        """Keep one more."""
        self._held.append(reject)
        self._size += len(reject.payload)
        self.count += 1
        if len(self._held) >= _AT_ONCE or self._size > 1 << 23:
            self._flush()

    def close(self) -> None:
        """Finish writing."""
        self._flush()
        if self._writer:
            self._writer.close()

    def __iter__(self) -> Iterator[Reject]:
        if not self.count:
            return
        with pq.ParquetFile(self.path) as stored:
            for group in range(stored.num_row_groups):
                for row in stored.read_row_group(group).to_pylist():
                    yield Reject(**row)

    def _flush(self) -> None:
        if not self._held:
            return
        self._writer = self._writer or pq.ParquetWriter(self.path, _SCHEMA)
        columns = zip(*((r.reason, r.rule, r.position, r.payload) for r in self._held), strict=True)
        self._writer.write_table(pa.table(list(map(list, columns)), schema=_SCHEMA))
        self._held, self._size = [], 0

"""Keeps the rejects of a load on disk, so that a million of them need no memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.names import literal
from databrokkr_assets.core.ports import Reject

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_AT_ONCE = 10_000
_SCHEMA = pa.schema([(name, pa.string()) for name in ("reason", "rule", "position", "payload")])


class RejectSpool:
    """Rejects in the order in which they came: written, closed, then read any number of times."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._held: list[Reject] = []
        self._size = 0
        self._writer: pq.ParquetWriter | None = None

    @classmethod
    def of_query(cls, duck: DuckDBPyConnection, query: str, path: Path) -> RejectSpool:
        """The rejects that a query over `duck` finds: its columns are called as a reject's fields."""
        spool = cls(path)
        row = duck.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)").fetchone()
        spool.count = row[0] if row else 0
        return spool

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
            for batch in stored.iter_batches(batch_size=_AT_ONCE):
                for row in batch.to_pylist():
                    yield Reject(**row)

    def _flush(self) -> None:
        if not self._held:
            return
        self._writer = self._writer or pq.ParquetWriter(self.path, _SCHEMA)
        columns = zip(*((r.reason, r.rule, r.position, r.payload) for r in self._held), strict=True)
        self._writer.write_table(pa.table(list(map(list, columns)), schema=_SCHEMA))
        self._held, self._size = [], 0

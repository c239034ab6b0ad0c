"""Rows as Parquet files of about a wanted size, split by partition where there is one, in bounded memory.

DuckDB can do either of the two at once, not both. So partitions are written first, and what came out too large is cut
in a second step. Rows are sorted by partition before: else every partition would need a buffer at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from databrokkr_assets.core.names import columns, literal
from databrokkr_assets.lake.store import Store

TARGET_BYTES = 128 * 1000 * 1000
"""The size of files where nobody asks for another: what Delta's and Iceberg's own writers come to."""

_TOO_LARGE = 1.5


@dataclass(frozen=True)
class Part:
    """A file: its path below the folder that was written to, what it holds, and the text of its partition's values.

    `stats` are those of DuckDB's `RETURN_STATS`: by quoted column, by kind, as text.
    """

    path: str
    rows: int
    bytes: int
    stats: Mapping[str, Mapping[str, str]]
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class PartsWriter:
    """Writes below `folder`. `keep` tells that files have the partition's columns, too; `options` go to `COPY`."""

    duck: duckdb.DuckDBPyConnection
    folder: Store
    partition_by: tuple[str, ...] = ()
    target_bytes: int = TARGET_BYTES
    keep: bool = True
    options: tuple[str, ...] = ()

    def write(self, query: str, name: str) -> list[Part]:
        """The files that hold the rows of `query`, called after `name`; none when there are none.

        Raises duckdb.Error as it comes.
        """
        self.folder.make()
        self.duck.execute("SET preserve_insertion_order = false")
        if not self.partition_by:
            return list(self._copied(query, self.folder, name, {}))
        listed = columns(self.partition_by)
        # Small thresholds, because rows come sorted: one partition at a time is open, not a hundred.
        self.duck.execute("SET partitioned_write_flush_threshold = 20000")
        self.duck.execute("SET partitioned_write_max_open_files = 10")
        rows = self._copy(
            f"{query} ORDER BY {listed}",
            self.folder,
            name,
            f"PARTITION_BY ({listed}), WRITE_PARTITION_COLUMNS {str(self.keep).lower()}",
        )
        return [part for row in rows for part in self._cut(self._part(row, row[5] or {}))]

    def _cut(self, part: Part) -> Iterator[Part]:
        """The file, or in its place several that are not too large."""
        if part.bytes <= _TOO_LARGE * self.target_bytes:
            yield part
            return
        whole = self.folder.child(part.path)
        above, _, name = part.path.rpartition("/")
        query = f"SELECT * FROM read_parquet({literal(whole.url)}, hive_partitioning = false)"
        yield from self._copied(query, self.folder.child(above), name.removesuffix(".parquet"), part.partition)
        whole.delete()

    def _copied(self, query: str, folder: Store, name: str, partition: Mapping[str, str | None]) -> Iterator[Part]:
        how = f"PER_THREAD_OUTPUT true, FILE_SIZE_BYTES {self.target_bytes}"
        for row in self._copy(query, folder, name, how):
            part = self._part(row, partition)
            if part.rows:
                yield part
            else:
                self.folder.child(part.path).delete()

    def _copy(self, query: str, folder: Store, name: str, how: str) -> list[tuple[Any, ...]]:
        options = ", ".join(["FORMAT parquet", "COMPRESSION zstd", "COMPRESSION_LEVEL 1", how, *self.options])
        pattern = literal(f"{name}-{{i}}")
        return self.duck.execute(
            f"COPY ({query}) TO {literal(folder.url)} ({options}, FILENAME_PATTERN {pattern}, "
            "OVERWRITE_OR_IGNORE true, RETURN_STATS true)"
        ).fetchall()

    def _part(self, row: tuple[Any, ...], partition: Mapping[str, str | None]) -> Part:
        url, rows, size, _, stats, _ = row
        path = str(url).removeprefix(self.folder.url).lstrip("/")
        return Part(path, rows, size, stats or {}, partition)

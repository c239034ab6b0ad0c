"""Loads for tests: a source that is an SQL query, and what stands in the dataset and its quarantine afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.ports import Batch, Cursor, ReadsAsRelation, Reject, RelationRead, Source, Stream
from databrokkr_assets.engine.job import Job
from databrokkr_assets.lake.dataset import Dataset


class Query(Source, ReadsAsRelation):
    """A source that is an SQL query."""

    def __init__(self, sql: str, rejects: Iterable[Reject] = (), fail_after: bool = False) -> None:
        self._sql, self._rejects, self._fail_after = sql, rejects, fail_after
        self.asked_after: list[Cursor | None] = []

    def streams(self) -> Iterable[Stream]:
        return [Stream("query")]

    def relation(self, duck: DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        self.asked_after.append(after)
        return RelationRead(self._sql, self._advance, lambda: iter(self._rejects))

    def _advance(self, scalar: Callable[[str], Any]) -> Cursor | None:
        if self._fail_after:
            raise AccessError("gone", mend="wait")
        highest = scalar("max(id)")
        return None if highest is None else {"id": highest}

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        raise AssertionError("a source that reads as a relation is not read in batches")


def table(job: Job, dataset: Dataset | None = None, order: str = "1") -> list[tuple[Any, ...]]:
    snapshot = (dataset or job.dataset).open()
    assert snapshot is not None
    with job.duck() as duck:
        return duck.sql(f"SELECT * FROM ({snapshot.query(duck)}) ORDER BY {order}").fetchall()


def letters(job: Job) -> list[dict[str, Any]]:
    with job.duck() as duck:
        snapshot = job.quarantine.open()
        return (
            []
            if snapshot is None
            else duck.sql(f"FROM ({snapshot.query(duck)}) ORDER BY position").to_arrow_table().to_pylist()
        )

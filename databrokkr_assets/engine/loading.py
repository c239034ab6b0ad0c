"""A source's work: read what came after the cursor into a dataset."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Disposition, Replace
from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import Batch, Cursor, ReadsAsRelation, Reject, RelationRead, Source, Stream
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome
from databrokkr_assets.engine.progress import Progress
from databrokkr_assets.engine.staging import Rows, Staging

_FEED = "databrokkr_feed"


def load(job: Job, source: Source, how: Disposition) -> Outcome:
    """Read the source's one stream and publish its rows.

    The cursor of the last load is where reading resumes, except for `replace`, which reads everything. Raises Blocked,
    or any of our errors; then the dataset, its cursor included, is as it was.
    """
    with told_plainly(job.node), job.duck() as duck:
        before = job.dataset.open()
        after = None if before is None or before.last is None or isinstance(how, Replace) else before.last.cursor
        stream = next(iter(source.streams()), None)
        if stream is None:
            raise DataError("the source has nothing to read", mend="check what it points at", where=job.node)
        return Staging(duck, job, before, how).run(_rows(duck, job, source, stream, after))


def _rows(duck: DuckDBPyConnection, job: Job, source: Source, stream: Stream, after: Cursor | None) -> Rows:
    if isinstance(source, ReadsAsRelation):
        read = source.relation(duck, stream, after)
        if read is not None:
            return _shaped(duck, job, stream, read)
    feed = _Feed(job, source.read(stream, after))
    duck.register(_FEED, feed.reader())
    read = RelationRead(
        f"SELECT * FROM {_FEED}",
        advance=lambda scalar: feed.cursor,
        rejects=lambda: iter(feed.rejects),
        explain=lambda error: feed.error,
    )
    return _shaped(duck, job, stream, read)


def _shaped(duck: DuckDBPyConnection, job: Job, stream: Stream, read: RelationRead) -> Rows:
    """What is read, in the shape in which it is stored."""
    shape = job.shape
    query = shape.finishing(duck, read.fresh(shape.masking(duck, read.query)), stream.name, job.load_id)
    return Rows(query, lambda: shape.withheld(read.rejects()), read.advance, read.explain, shape.as_given)


class _Feed:
    """A source's batches as one Arrow stream, with the last cursor and the rejects that came along."""

    def __init__(self, job: Job, batches: Iterator[Batch]) -> None:
        self.cursor: Cursor | None = None
        self.rejects: list[Reject] = []
        self.error: Exception | None = None
        self._job = job
        self._batches = batches
        self._rows = 0

    def reader(self) -> pa.RecordBatchReader:
        """The rows; DuckDB pulls them one batch at a time."""
        first = next(self._batches, None)
        if first is None:
            raise DataError(
                "the source gave no rows and no columns", mend="check what it points at", where=self._job.node
            )
        return pa.RecordBatchReader.from_batches(first.records.schema, self._records(first))

    def _records(self, first: Batch) -> Iterator[pa.RecordBatch]:
        yield self._noted(first)
        try:
            for batch in self._batches:
                yield self._noted(batch)
        except Exception as error:
            self.error = error  # DuckDB, which pulls the rows, would keep only its text.
            raise

    def _noted(self, batch: Batch) -> pa.RecordBatch:
        self.cursor = batch.cursor if batch.cursor is not None else self.cursor
        self.rejects.extend(batch.rejects)
        self._rows += batch.records.num_rows
        self._job.listener(Progress(self._job.node, "reading", rows=self._rows))
        return batch.records

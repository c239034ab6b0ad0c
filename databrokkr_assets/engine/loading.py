"""A source's work: read what came after the cursor into a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.ports import (
    Batch,
    Cursor,
    LandsFiles,
    ReadsAsRelation,
    Reject,
    RelationRead,
    Source,
    Stream,
)
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome, own_columns
from databrokkr_assets.engine.progress import Progress
from databrokkr_assets.engine.staging import Rows, Staging
from databrokkr_assets.lake.dataset import Snapshot

_FEED = "databrokkr_feed"


def load_range(job: Job, source: Source, how: Disposition, high: str, condition: str) -> Outcome:
    """Read a range again, up to `high`, and put its rows in the place of those that `condition` tells.

    `merge` and `history` meet the rows by key. The cursor stays where it is. Raises SpecError for a dataset without a
    load, for a range that reaches beyond what was read, and for `replace`, which reads everything anyway.
    """
    with told_plainly(job.node), job.duck() as duck:
        before = job.dataset.open()
        last = before.last if before else None
        if before is None or last is None or isinstance(how, Replace):
            what = "reads everything in each load" if isinstance(how, Replace) else "was never loaded"
            raise SpecError(f"the source {what}, so there is no range to fill", mend="run it", where=job.node)
        if isinstance(how, Append):
            _require_read(duck, before, high, last.cursor, job.node)
        rows = replace(read_rows(duck, job, source), advance=lambda scalar: None)
        clearing = condition if isinstance(how, Append) else None
        return Staging(duck, job, before, how, clearing).run(rows)


def _require_read(duck: DuckDBPyConnection, before: Snapshot, high: str, cursor: Cursor | None, node: str) -> None:
    """Raise SpecError when the next load would read rows of the range again."""
    value = (cursor or {}).get("value")
    own = {name.lower(): kind for name, kind in own_columns(duck, before)}
    kind = own.get(str((cursor or {}).get("column", "")).lower(), "VARCHAR")
    sql = f"SELECT CAST({literal(high)} AS {kind}) > CAST({literal(str(value))} AS {kind})"
    if value is None or (duck.execute(sql).fetchone() or (True,))[0]:
        raise SpecError(
            f"the range reaches beyond {value}, where the next load starts, which would read its rows again",
            mend=f"end it at {value}",
            where=node,
        )


def load(job: Job, source: Source, how: Disposition) -> Outcome:
    """Read the source's one stream and publish its rows.

    The cursor of the last load is where reading resumes, except for `replace`, which reads everything. Raises Blocked,
    or any of our errors; then the dataset, its cursor included, is as it was.
    """
    with told_plainly(job.node), job.duck() as duck:
        before = job.dataset.open()
        after = None if before is None or before.last is None or isinstance(how, Replace) else before.last.cursor
        return Staging(duck, job, before, how).run(read_rows(duck, job, source, after))


def read_rows(duck: DuckDBPyConnection, job: Job, source: Source, after: Cursor | None = None) -> Rows:
    """The rows of the source's one stream after the cursor, in the shape in which they are stored."""
    stream = next(iter(source.streams()), None)
    if stream is None:
        raise DataError("the source has nothing to read", mend="check what it points at", where=job.node)
    if isinstance(source, ReadsAsRelation):
        read = source.relation(duck, stream, after)
        if read is not None:
            return _shaped(duck, job, source, stream, read)
    feed = _Feed(job, source.read(stream, after))
    duck.register(_FEED, feed.reader())
    read = RelationRead(
        f"SELECT * FROM {_FEED}",
        advance=lambda scalar: feed.cursor,
        rejects=lambda: iter(feed.rejects),
        explain=lambda error: feed.error,
    )
    return _shaped(duck, job, source, stream, read)


def _shaped(duck: DuckDBPyConnection, job: Job, source: Source, stream: Stream, read: RelationRead) -> Rows:
    """What is read, in the shape in which it is stored."""
    shape = job.shape
    query = shape.finishing(duck, read.fresh(shape.masking(duck, read.query)), stream.name, job.load_id)
    rows = Rows(query, lambda: shape.withheld(read.rejects()), read.advance, read.explain, shape.as_given)
    return replace(rows, taken=source.taken) if isinstance(source, LandsFiles) else rows


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

"""A sink's work: carry what its input published since the target's own ledger says, to the target."""

from __future__ import annotations

import time

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import AccessError, SpecError
from databrokkr_assets.core.names import columns
from databrokkr_assets.core.ports import DeletesRows, Load, LoadMark, Receipt, Sink, Target, WritesRelation
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome
from databrokkr_assets.engine.progress import Progress
from databrokkr_assets.lake.dataset import Changes, Snapshot
from databrokkr_assets.lake.types import TYPE

_BATCH_ROWS = 50_000


def deliver(job: Job, sink: Sink, how: Disposition) -> Outcome:
    """Bring the target up to the version of `job.dataset` that is published now.

    Raises our errors; the target is then as it was or, where delivery is at least once, made whole by the next run.
    """
    began = time.monotonic()
    if type(how) not in sink.dispositions:
        offered = ", ".join(sorted(kind.__name__.lower() for kind in sink.dispositions))
        raise SpecError(f"the target cannot {how}", mend=f"use one of: {offered}", where=job.node)
    with told_plainly(job.node), job.duck() as duck:
        snapshot = job.dataset.open()
        if snapshot is None:
            raise AccessError(f"{job.dataset.node} has no data yet", mend="materialise it first", where=job.node)
        receipt, rows_in = _carry(duck, job, sink, how, snapshot)
    return Outcome(
        node=job.node,
        load_id=job.load_id,
        rows_in=rows_in,
        rows_out=receipt.rows,
        seconds=time.monotonic() - began,
        published=not receipt.already,
        version=snapshot.version,
        target=receipt.target,
        facts=dict(receipt.facts),
    )


def _carry(duck: DuckDBPyConnection, job: Job, sink: Sink, how: Disposition, snapshot: Snapshot) -> tuple[Receipt, int]:
    schema = _schema(duck, snapshot)
    target = Target(job.node, schema)
    last = sink.last_load(target)
    if last is not None and (last.dataset, last.version) == (snapshot.table_id, snapshot.version):
        return Receipt(0, job.dataset.node, already=True), 0
    changes = _changes(duck, job, how, snapshot, last)
    mark = LoadMark(job.load_id, snapshot.table_id, snapshot.version, last.version if last else None, job.run_id)
    with sink.begin(target, how, mark) as load:
        _write(duck, job, load, changes.query)
        if changes.gone and isinstance(how, Merge):
            _delete(duck, job, load, changes, how)
        receipt = load.commit()
    return receipt, receipt.rows


def _changes(
    duck: DuckDBPyConnection, job: Job, how: Disposition, snapshot: Snapshot, last: LoadMark | None
) -> Changes:
    """What the target lacks: what is new since its ledger, or all rows for a `replace` or a dataset made anew."""
    same = last is not None and last.dataset == snapshot.table_id
    if isinstance(how, Append) and last is not None and not same:
        raise AccessError(
            "the target was filled from another dataset of this name, so appending would double rows",
            mend="delete the node's row from the target's _databrokkr_loads once the table holds what it should",
            where=job.node,
        )
    # A history is compared with everything: a row that is missing is over.
    since = last.version if last is not None and same and not isinstance(how, Replace | History) else None
    changes = snapshot.changes(duck, since)
    if isinstance(how, Append) and since is not None and changes.whole:
        raise AccessError(
            f"{job.dataset.node} was replaced as a whole, so appending it would double rows",
            mend="use `disposition: replace` or `merge` for this sink",
            where=job.node,
        )
    return changes


def _write(duck: DuckDBPyConnection, job: Job, load: Load, query: str) -> None:
    job.listener(Progress(job.node, "delivering"))
    if isinstance(load, WritesRelation):
        load.write_relation(duck, query)
        return
    rows = 0
    for batch in duck.execute(query).to_arrow_reader(_BATCH_ROWS):
        load.write(batch)
        rows += batch.num_rows
        job.listener(Progress(job.node, "delivering", rows=rows))


def _delete(duck: DuckDBPyConnection, job: Job, load: Load, changes: Changes, how: Merge) -> None:
    """Have the target remove the rows that are gone from the dataset."""
    assert changes.gone is not None
    if duck.execute(f"SELECT 1 FROM ({changes.gone}) LIMIT 1").fetchone() is None:
        return
    if not isinstance(load, DeletesRows) or not set(how.keys) <= set(changes.keys):
        why = f"merges by {columns(how.keys)}, the dataset by {columns(changes.keys)}"
        raise SpecError(
            "rows were deleted from the dataset, and this sink cannot delete them: it "
            + (why if isinstance(load, DeletesRows) else "has no way to"),
            mend="use the same `keys` in both, or `disposition: replace` in the sink",
            where=job.node,
        )
    for batch in duck.execute(f"SELECT {columns(how.keys)} FROM ({changes.gone})").to_arrow_reader(_BATCH_ROWS):
        load.delete(batch)


def _schema(duck: DuckDBPyConnection, snapshot: Snapshot) -> pa.Schema:
    """The columns as the target will see them: Arrow, with the exact type in the metadata where Arrow cannot say it."""
    plain = duck.execute(f"{snapshot.query(duck)} LIMIT 0").to_arrow_table().schema
    kept = {field.name: field.metadata for field in snapshot.schema if (field.metadata or {}).get(TYPE)}
    return pa.schema([field.with_metadata(kept.get(field.name) or {}) for field in plain])

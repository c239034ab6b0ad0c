"""The dead letters of a node: rows that could not be read, cast, or accepted by a check, as a dataset beside it.

Rows are written before the load that they were left out of is published. Should the load die in between, the next one
has the same number and replaces them, so a row is never in quarantine twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Append
from databrokkr_assets.core.names import columns, literal
from databrokkr_assets.core.ports import Reject
from databrokkr_assets.engine.job import Job
from databrokkr_assets.lake.dataset import LoadRecord
from databrokkr_assets.lake.publishing import Stage, publish

REJECTED = "databrokkr_rejected"
_COLUMNS = "stage VARCHAR, rule VARCHAR, reason VARCHAR, position VARCHAR, payload VARCHAR"
_OF_REJECT = ("rule", "reason", "position", "payload")


def prepare(duck: DuckDBPyConnection) -> None:
    """Make the empty table that gathers rejected rows."""
    duck.execute(f"CREATE OR REPLACE TEMP TABLE {REJECTED} ({_COLUMNS})")


def add(duck: DuckDBPyConnection, rejects: Iterable[Reject]) -> None:
    """Gather rows that a source could not read."""
    rows = iter(rejects)
    while some := list(islice(rows, 10_000)):
        table = pa.table({name: [getattr(reject, name) for reject in some] for name in _OF_REJECT})
        duck.from_arrow(table).create_view("databrokkr_some", replace=True)
        duck.execute(f"INSERT INTO {REJECTED} SELECT 'read', {columns(_OF_REJECT)} FROM databrokkr_some")


def copy(duck: DuckDBPyConnection, rows: str) -> None:
    """Gather rows of another quarantine; `rows` is their query."""
    duck.execute(f"INSERT INTO {REJECTED} SELECT stage, {columns(_OF_REJECT)} FROM ({rows})")


def unreadable(duck: DuckDBPyConnection) -> int:
    """How many of the gathered rows a source could not read."""
    found = duck.execute(f"SELECT count(*) FILTER (stage = 'read') FROM {REJECTED}").fetchone()
    assert found is not None
    return int(found[0])


def count(duck: DuckDBPyConnection) -> int:
    """How many rows were gathered."""
    found = duck.execute(f"SELECT count(*) FROM {REJECTED}").fetchone()
    assert found is not None
    return int(found[0])


def reasons(duck: DuckDBPyConnection) -> tuple[tuple[str, str, int], ...]:
    """Why rows were rejected, the most frequent reasons first: rule, reason, number of rows; at most ten."""
    found = duck.execute(f"SELECT rule, reason, count(*) FROM {REJECTED} GROUP BY ALL ORDER BY 3 DESC, 1, 2 LIMIT 10")
    return tuple(found.fetchall())


def publish_rejected(duck: DuckDBPyConnection, job: Job, number: int) -> int:
    """Make the gathered rows part of the node's quarantine; gives how many there are."""
    rows = count(duck)
    before = job.quarantine.open()
    if rows == 0 and not (before and before.number == number):
        return 0
    stage = Stage(job.quarantine, duck, number, job.load_id)
    stage.begin()
    stage.write(
        f"SELECT {literal(job.load_id)} AS load_id, {literal(job.run_id)} AS run_id, {literal(job.node)} AS node, *, "
        f"now() AS at FROM {REJECTED}"
    )
    record = LoadRecord(
        job.load_id,
        job.run_id,
        number,
        "append",
        stage.folder,
        datetime.now(UTC).isoformat(),
        rows,
        bytes=stage.bytes,
    )
    publish(job.quarantine, before, stage, Append(), record, replacing=f"load-{number:08d}-")
    return rows

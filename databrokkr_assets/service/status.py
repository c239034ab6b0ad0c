"""How the pipelines of a project stand: each node's last run, from Dagster's instance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import QUARANTINE_SUFFIX
from databrokkr_assets.service.pipelines import pipelines

if TYPE_CHECKING:
    import dagster as dg

_RUNS = 50
"""How many of the newest runs are looked through for failures."""


@dataclass(frozen=True)
class NodeStatus:
    """A node as it was left: `rows` in its dataset, when it last ran, and how that went."""

    pipeline: str
    node: str
    state: str
    rows: int | None = None
    quarantined: int | None = None
    at: str | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class _Failure:
    at: float
    run_id: str


def status(defs: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[NodeStatus]:
    """Every node of every pipeline in running order; a broken pipeline as one row."""
    failures = _failures(instance)
    for known in pipelines(defs).values():
        if known.mistakes:
            yield NodeStatus(known.name, "-", "broken")
        for node in known.nodes:
            if not node.endswith(QUARANTINE_SUFFIX):
                yield _node(instance, known.name, node, failures)


def _node(instance: dg.DagsterInstance, pipeline: str, node: str, failures: Mapping[str, _Failure]) -> NodeStatus:
    import dagster as dg

    event = instance.get_latest_materialization_event(dg.AssetKey([pipeline, node]))
    failure = failures.get(f"{pipeline}__{node}")
    facts = event.asset_materialization.metadata if event and event.asset_materialization else {}
    rows = facts.get("dagster/row_count") or facts.get("databrokkr/rows_out")
    quarantined = facts.get("databrokkr/rows_quarantined")
    state, at, run_id = "never run", None, None
    if event is not None:
        state, at, run_id = "loaded", event.timestamp, event.run_id
    if failure is not None and (at is None or failure.at > at):
        state, at, run_id = "failed", failure.at, failure.run_id
    return NodeStatus(
        pipeline,
        node,
        state,
        int(str(rows.value)) if rows else None,
        int(str(quarantined.value)) if quarantined else None,
        datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else None,
        run_id,
    )


def _failures(instance: dg.DagsterInstance) -> dict[str, _Failure]:
    """The newest failure of each step, by its key."""
    import dagster as dg

    found: dict[str, _Failure] = {}
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=_RUNS):
        run_id = record.dagster_run.run_id
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            if entry.step_key:
                found.setdefault(entry.step_key, _Failure(entry.timestamp, run_id))
    return found

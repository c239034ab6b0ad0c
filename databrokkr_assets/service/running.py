"""Runs a pipeline in this process, recorded in the project's Dagster instance like any other run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import QUARANTINE_SUFFIX
from databrokkr_assets.engine.progress import meanwhile
from databrokkr_assets.service.pipelines import Known, sound
from databrokkr_assets.service.processes import free_what_the_dead_hold, own_tag

if TYPE_CHECKING:
    import dagster as dg

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class NodeReport:
    """What became of one node: `done`, `failed`, or `skipped` because something upstream failed."""

    node: str
    state: str = "skipped"
    rows_in: int = 0
    rows_out: int = 0
    quarantined: int = 0
    bytes: int = 0
    seconds: float = 0.0
    published: bool = False
    checks: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    exit_code: int = 0


@dataclass
class RunReport:
    """What became of a run; `exit_code` is 0, or that of the first node that failed."""

    pipeline: str
    run_id: str
    seconds: float
    nodes: list[NodeReport]

    @property
    def exit_code(self) -> int:
        """For scripts: 0 when every node is done."""
        return next((node.exit_code for node in self.nodes if node.state == "failed"), 0)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {**asdict(self), "exit_code": self.exit_code}


def run(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    pipeline: str,
    select: Sequence[str] = (),
    listener: Callable[[str], None] = lambda text: None,
    tags: Mapping[str, str] | None = None,
) -> RunReport:
    """Run a pipeline, or the nodes of it that `select` names (`node`, `+node` with all upstream, `node+` downstream).

    `tags` go with the run. `listener` is told when a step waits for a pool. Raises SpecError for a pipeline or node
    that is not there; failures of nodes are in the report.
    """
    known = sound(defs, pipeline)
    began = time.monotonic()
    job = defs.resolve_job_def(pipeline)
    keys = _selected(defs, known, select)
    free_what_the_dead_hold(instance)
    run_id = str(uuid.uuid4())
    with meanwhile(lambda: _waits(instance, run_id, listener), 1):
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            asset_selection=keys,
            run_config=_QUIET,
            run_id=run_id,
            tags={**own_tag(), **(tags or {})},
        )
    order = _order(defs, pipeline, {key.path[1] for key in keys} if keys else None)
    # Some events are in the instance only: those that a step logs rather than yields.
    logged = (entry.dagster_event for entry in instance.all_logs(result.run_id))
    nodes = _reports([event for event in logged if event is not None], order)
    return RunReport(pipeline, result.run_id, time.monotonic() - began, nodes)


def _waits(instance: dg.DagsterInstance, run_id: str, listener: Callable[[str], None]) -> None:
    """Say which pool a step of the run waits for, and which run holds it."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        waits = any(step.run_id == run_id and not step.assigned_timestamp for step in info.pending_steps)
        holders = {slot.run_id for slot in info.claimed_slots}
        if waits and holders:
            listener(f"waiting for {pool}: one writer at a time, now run {', '.join(sorted(holders))}")


def _selected(defs: dg.Definitions, known: Known, select: Sequence[str]) -> list[dg.AssetKey] | None:
    import dagster as dg

    if not select:
        return None
    graph = defs.resolve_asset_graph()
    chosen: set[dg.AssetKey] = set()
    for word in select:
        node = word.strip("+")
        if node not in known.nodes:
            names = [name for name in known.nodes if not name.endswith(QUARANTINE_SUFFIX)]
            raise SpecError(f'there is no node "{node}" in {known.name}', mend=did_you_mean(node, names))
        picked: dg.AssetSelection = dg.AssetSelection.assets(dg.AssetKey([known.name, node]))
        picked = picked.upstream() if word.startswith("+") else picked
        picked = picked.downstream() if word.endswith("+") else picked
        chosen |= set(picked.resolve(graph))
    return sorted(key for key in chosen if key in graph.executable_asset_keys)


def _order(defs: dg.Definitions, pipeline: str, chosen: set[str] | None) -> list[str]:
    graph = defs.resolve_asset_graph()
    keys = [key for key in graph.toposorted_asset_keys if key in graph.executable_asset_keys]
    return [key.path[1] for key in keys if key.path[0] == pipeline and (chosen is None or key.path[1] in chosen)]


def _reports(events: Sequence[dg.DagsterEvent], order: list[str]) -> list[NodeReport]:
    reports = {node: NodeReport(node) for node in order}
    for event in events:
        node = _node_of(event)
        if node in reports:
            _note(reports[node], event)
    return list(reports.values())


def _node_of(event: dg.DagsterEvent) -> str:
    return event.step_key.partition("__")[2] if event.step_key else ""


def _note(report: NodeReport, event: dg.DagsterEvent) -> None:
    match event.event_type_value:
        case "ASSET_MATERIALIZATION" if event.asset_key and event.asset_key.path[-1] == report.node:
            facts: dict[str, Any] = {key: value.value for key, value in event.materialization.metadata.items()}
            report.state = "done"
            report.rows_in = facts["databrokkr/rows_in"]
            report.rows_out = facts["databrokkr/rows_out"]
            report.quarantined = facts["databrokkr/rows_quarantined"]
            report.bytes = facts["databrokkr/bytes"]
            report.seconds = facts["databrokkr/seconds"]
            report.published = facts["databrokkr/published"]
        case "ASSET_CHECK_EVALUATION":
            found = event.asset_check_evaluation_data
            facts = {key: value.value for key, value in found.metadata.items()}
            report.checks.append(
                {
                    "name": found.check_name,
                    "passed": found.passed,
                    "on_fail": facts.get("databrokkr/on_fail"),
                    "rows_failed": facts.get("databrokkr/rows_failed"),
                    "says": found.description,
                }
            )
        case "STEP_FAILURE":
            _note_failure(report, event)


def _note_failure(report: NodeReport, event: dg.DagsterEvent) -> None:
    report.state = "failed"
    report.exit_code = 1
    data = event.step_failure_data
    told = data.user_failure_data
    if told is not None:
        report.error = told.description
        code = told.metadata.get("databrokkr/exit_code")
        report.exit_code = int(str(code.value)) if code is not None else 1
    elif data.error is not None:
        cause = data.error.cause or data.error
        report.error = cause.message.strip()

"""How the pipelines of a project stand: each node's last load, from Dagster's instance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import QUARANTINE_SUFFIX
from databrokkr_assets.service.pipelines import pipelines

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class NodeStatus:
    """A node as it was left: `rows` in its dataset, when it last ran, and what that run said."""

    pipeline: str
    node: str
    rows: int | None
    quarantined: int | None
    at: str | None
    run_id: str | None
    state: str


def status(defs: dg.Definitions, instance: dg.DagsterInstance) -> Iterator[NodeStatus]:
    """Every node of every pipeline, in the order of the definitions; a broken pipeline as one row."""
    import dagster as dg

    for known in pipelines(defs).values():
        if known.mistakes:
            yield NodeStatus(known.name, "-", None, None, None, None, "broken")
        for node in known.nodes:
            if not node.endswith(QUARANTINE_SUFFIX):
                yield _node(instance, known.name, node, dg.AssetKey([known.name, node]))


def _node(instance: dg.DagsterInstance, pipeline: str, node: str, key: dg.AssetKey) -> NodeStatus:
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return NodeStatus(pipeline, node, None, None, None, None, "never run")
    facts = event.asset_materialization.metadata
    rows = facts.get("dagster/row_count") or facts.get("databrokkr/rows_out")
    quarantined = facts.get("databrokkr/rows_quarantined")
    return NodeStatus(
        pipeline,
        node,
        int(str(rows.value)) if rows else None,
        int(str(quarantined.value)) if quarantined else None,
        datetime.fromtimestamp(event.timestamp, UTC).isoformat(timespec="seconds"),
        event.run_id,
        "loaded",
    )

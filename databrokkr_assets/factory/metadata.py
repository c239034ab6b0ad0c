"""What Dagster shows of a node's work: the outcome as metadata and check results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.engine.job import Outcome


def of_outcome(outcome: Outcome, pipeline: str) -> dict[str, Any]:
    """Metadata of a materialisation. Keys with numbers keep their names, so the UI draws them over time."""
    facts: dict[str, Any] = {
        "databrokkr/load_id": outcome.load_id,
        "databrokkr/rows_in": outcome.rows_in,
        "databrokkr/rows_out": outcome.rows_out,
        "databrokkr/rows_quarantined": outcome.quarantined,
        "databrokkr/bytes": outcome.bytes,
        "databrokkr/seconds": round(outcome.seconds, 3),
        "databrokkr/published": outcome.published,
        "dagster/uri": outcome.target,
    }
    if outcome.total_rows is not None:
        facts["dagster/row_count"] = outcome.total_rows
    if outcome.deleted:
        facts["databrokkr/rows_deleted"] = outcome.deleted
    if outcome.discarded:
        facts["databrokkr/values_discarded"] = outcome.discarded
    for fact in ("parts_resumed", "loads_repeated"):
        if outcome.facts.get(fact):
            facts[f"databrokkr/{fact}"] = outcome.facts[fact]
    if outcome.version is not None:
        facts["databrokkr/version"] = outcome.version
    if outcome.columns:
        columns = [dg.TableColumn(name, kind) for name, kind in outcome.columns]
        facts["dagster/column_schema"] = dg.TableSchema(columns=columns)
    if outcome.facts.get("lineage"):
        facts["dagster/column_lineage"] = _lineage(outcome.facts["lineage"], pipeline)
    if outcome.facts.get("sql"):
        facts["databrokkr/sql"] = dg.MetadataValue.md(f"```sql\n{outcome.facts['sql']}\n```")
    return facts


def of_quarantine(outcome: Outcome) -> dict[str, Any]:
    """Metadata of the rows that a load set aside, with the most frequent reasons."""
    facts: dict[str, Any] = {
        "databrokkr/rows_quarantined": outcome.quarantined,
        "databrokkr/load_id": outcome.load_id,
    }
    if outcome.reasons:
        # A list, because a table of long reasons would be cut off.
        lines = [f"- {rows:,} × `{rule}`: {' '.join(why.split())}" for rule, why, rows in outcome.reasons]
        facts["databrokkr/reasons"] = dg.MetadataValue.md("\n".join(lines))
    return facts


def _lineage(lineage: Mapping[str, list[tuple[str, str]]], pipeline: str) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(asset_key=dg.AssetKey([pipeline, node]), column_name=name) for node, name in deps
            ]
            for column, deps in lineage.items()
        }
    )


def of_checks(outcome: Outcome, key: dg.AssetKey) -> Iterator[dg.AssetCheckResult]:
    """One Dagster check result for each check of the node."""
    for check in outcome.checks:
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=check.name,
            passed=check.passed,
            # Red is for a load that was stopped; rows set aside left the dataset sound.
            severity=dg.AssetCheckSeverity.ERROR if check.blocks or check.passed else dg.AssetCheckSeverity.WARN,
            description=check.finding,
            metadata=dict(_of_check(check)),
        )


def _of_check(check: CheckResult) -> Iterator[tuple[str, Any]]:
    yield "databrokkr/expectation", check.expectation
    yield "databrokkr/parameters", _as_json(dict(check.parameters))
    yield "databrokkr/on_fail", check.on_fail.value
    if check.evaluated is not None:
        yield "databrokkr/rows_checked", check.evaluated
    if check.unexpected is not None:
        yield "databrokkr/rows_failed", check.unexpected
    if check.observed is not None:
        plain = isinstance(check.observed, str | int | float)
        yield "databrokkr/observed", check.observed if plain else _as_json(check.observed)
    if check.sample:
        yield "databrokkr/sample", ", ".join(map(str, check.sample))
    if check.error:
        yield "databrokkr/error", check.error


def _as_json(value: Any) -> dg.JsonMetadataValue:
    return dg.MetadataValue.json(json.loads(json.dumps(value, default=str)))

"""A pipeline as Dagster assets: one for each node, its quarantine beside it, its checks on it.

Annotations are real here, not postponed: Dagster compares that of `context` with its own classes.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from databrokkr_assets.core.checks import asked
from databrokkr_assets.core.document import Document
from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.graph import stored_inputs
from databrokkr_assets.core.run_tags import again_of
from databrokkr_assets.core.spec import (
    CallsPython,
    ComposesSql,
    ConnectionSettings,
    NodeSettings,
    OnFail,
    Pipeline,
    SinkSettings,
    SourceSettings,
)
from databrokkr_assets.engine.composing import composed
from databrokkr_assets.engine.job import Outcome, Stopped
from databrokkr_assets.factory import metadata
from databrokkr_assets.factory.keys import connection_pool, node_key, quarantine_key
from databrokkr_assets.factory.project import Project, Unset
from databrokkr_assets.factory.reading_ahead import ReadingAhead
from databrokkr_assets.factory.references import code_reference
from databrokkr_assets.factory.work import QUARANTINE, Worker
from resources.registry import connector

LAKE_RESOURCE = "lake"


def pipeline_assets(
    pipeline: Pipeline, project: Project, document: Document | None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Every asset of a pipeline; the external systems that it reads are noted in `project.origins`."""
    build = _Assets(pipeline, project, document)
    return [asset for name, _ in pipeline.nodes() for asset in build.of(name)]


class _Assets:
    def __init__(self, pipeline: Pipeline, project: Project, document: Document | None) -> None:
        self._pipeline = pipeline
        self._project = project
        self._document = document
        self._ahead = ReadingAhead(pipeline, self._pool)

    def of(self, node: str) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
        transform = self._pipeline.transforms.get(node)
        if transform is not None and not transform.stored:
            yield self._spec(node)
            return
        yield self._executable(node)
        if self._may_set_aside(node):
            yield self._quarantine(node)

    def _may_set_aside(self, node: str) -> bool:
        """Any row of a source may be unreadable; of a transform only a check can set some aside."""
        checks = self._pipeline.checks_on(node).values()
        return node in self._pipeline.sources or any(check.on_fail is OnFail.QUARANTINE for check in checks)

    def _spec(self, node: str) -> dg.AssetSpec:
        settings = dict(self._pipeline.nodes())[node]
        return dg.AssetSpec(
            key=node_key(self._pipeline.name, node),
            deps=self._deps(node),
            group_name=self._pipeline.name,
            description=settings.description or self._in_words(node),
            kinds=self._kinds(node),
            owners=list(settings.owners or self._pipeline.owners),
            tags={**self._pipeline.tags, **settings.tags},
            code_version=_code_version(self._pipeline, node),
            metadata={**self._facts(node), **self._references(node)},
        )

    def _in_words(self, node: str) -> str | None:
        """What a node does, for one that has no description of its own."""
        source, sink = self._pipeline.sources.get(node), self._pipeline.sinks.get(node)
        if source is not None:
            read = [f"`{'/'.join(key.path)}`" for key in self._deps(node)]
            return f"Read from {', '.join(read)}." if read else None
        if sink is not None:
            place = f" to `{'/'.join(sink.origin(self._connection(sink)).key)}`" if self._usable(sink) else ""
            return f"`{sink.input}`, written{place}: {sink.how}."
        stored = self._pipeline.transforms[node].stored
        return None if stored else "Not stored: part of the queries of the nodes that read it."

    def _deps(self, node: str) -> list[dg.AssetKey]:
        source = self._pipeline.sources.get(node)
        if source is not None:
            origins = source.origins(self._connection(source)) if self._usable(source) else ()
            self._project.origins |= {origin.key: origin for origin in origins}
            return [dg.AssetKey(list(origin.key)) for origin in origins]
        # Dagster orders steps by direct dependencies: what stands behind a node that is not stored is named too.
        names = dict.fromkeys([*self._pipeline.inputs_of(node), *stored_inputs(self._pipeline, node)])
        return [node_key(self._pipeline.name, name) for name in names]

    def _connection(self, settings: SourceSettings | SinkSettings) -> ConnectionSettings | None:
        return self._project.connection(settings.connection)

    def _usable(self, settings: SourceSettings | SinkSettings) -> bool:
        """Whether the connection's variables are set here; where not, the asset is shown without what they tell."""
        return not isinstance(self._project.connections.get(settings.connection or ""), Unset)

    def _kinds(self, node: str) -> set[str]:
        pipeline = self._pipeline
        if node in pipeline.sources:
            return {connector(pipeline.sources[node].type).kind, "deltalake"}
        if node in pipeline.sinks:
            return {connector(pipeline.sinks[node].type).kind}
        kind = pipeline.transforms[node].type
        return {kind, "deltalake"} if pipeline.transforms[node].stored else {kind, "view"}

    def _facts(self, node: str) -> dict[str, Any]:
        pipeline = self._pipeline
        if node in pipeline.sinks:
            return self._target_facts(node, pipeline.sinks[node])
        settings = pipeline.sources.get(node) or pipeline.transforms[node]
        facts: dict[str, Any] = {"databrokkr/zone": settings.zone.value}
        if node in pipeline.sources:
            facts["databrokkr/disposition"] = str(pipeline.sources[node].how)
        elif isinstance(settings, ComposesSql):
            facts["databrokkr/sql"] = _as_sql(composed(pipeline, node).sql(dialect="duckdb", pretty=True))
        if node in pipeline.sources or pipeline.transforms[node].stored:
            worker = Worker(pipeline, self._project)
            facts["dagster/storage_kind"] = "deltalake"
            facts["dagster/uri"] = worker.dataset(node).store.url
            facts["dagster/table_name"] = f"{settings.zone.value}.{pipeline.name}.{node}"
        return facts

    def _target_facts(self, node: str, sink: SinkSettings) -> dict[str, Any]:
        facts: dict[str, Any] = {"databrokkr/disposition": str(sink.how)}
        if self._usable(sink):
            origin = sink.origin(self._connection(sink))
            self._project.targets[origin.key] = (self._pipeline.name, node)
            facts["dagster/table_name"] = ".".join(origin.key[1:]) or origin.key[0]
            facts["dagster/storage_kind"] = origin.kind
            facts["dagster/uri"] = origin.uri
        return facts

    def _references(self, node: str) -> dict[str, Any]:
        if self._document is None:
            return {}
        section = next(s for s in ("sources", "transforms", "sinks") if node in getattr(self._pipeline, s))
        where = self._document.where(("attributes", section, node))
        return code_reference(where, f"{self._pipeline.name}/{node}")

    def _quarantine(self, node: str) -> dg.AssetSpec:
        return dg.AssetSpec(
            key=quarantine_key(self._pipeline.name, node),
            deps=[node_key(self._pipeline.name, node)],
            group_name=self._pipeline.name,
            kinds={"deltalake", "quarantine"},
            description=f"Rows of `{node}` that were set aside, each with its reason, rule and load id.",
            owners=list(dict(self._pipeline.nodes())[node].owners or self._pipeline.owners),
            tags=dict(self._pipeline.tags),
            metadata={
                "dagster/uri": Worker(self._pipeline, self._project).quarantine(node).store.url,
                "dagster/storage_kind": "deltalake",
                "dagster/table_name": f"{QUARANTINE}.{self._pipeline.name}.{node}",
                **self._references(node),
            },
        )

    def _executable(self, node: str) -> dg.AssetsDefinition:
        pipeline, project, ahead = self._pipeline, self._project, self._ahead
        key = node_key(pipeline.name, node)
        limit = self._limit(node)

        @dg.multi_asset(
            name=f"{pipeline.name}__{node}",
            specs=[self._spec(node)],
            check_specs=list(_check_specs(pipeline, node)),
            required_resource_keys={LAKE_RESOURCE, *self._connections(node)},
            pool=self._pool(node),
        )
        def work(context: dg.AssetExecutionContext) -> Iterator[Any]:
            if limit is not None:
                keep_limit(context.instance, *limit)
            again = again_of(context.run.tags)
            outcome = _run(context, Worker(pipeline, project, context.run.run_id, again), node, ahead)
            nothing_new = not outcome.published and not outcome.checks
            yield from _as_before(context, pipeline, node) if nothing_new else metadata.of_checks(outcome, key)
            yield dg.MaterializeResult(asset_key=key, metadata=metadata.of_outcome(outcome, pipeline.name))

        return work

    def _connections(self, node: str) -> set[str]:
        settings = self._pipeline.sources.get(node) or self._pipeline.sinks.get(node)
        return {settings.connection} if settings is not None and settings.connection else set()

    def _pool(self, node: str) -> str | None:
        """The pool that a node takes a slot of: that of a target with few writers, or of a connection with a limit."""
        settings = self._pipeline.sources.get(node) or self._pipeline.sinks.get(node)
        if settings is None or not self._usable(settings):
            return None
        pool = settings.pool(self._connection(settings)) if isinstance(settings, SinkSettings) else None
        limit = self._limit(node)
        return pool or (limit[0] if limit else None)

    def _limit(self, node: str) -> tuple[str, int] | None:
        """The pool of the node's connection and its size, where the connection has a limit."""
        settings = self._pipeline.sources.get(node) or self._pipeline.sinks.get(node)
        connection = self._connection(settings) if settings is not None and self._usable(settings) else None
        if settings is None or connection is None or connection.max_concurrent is None:
            return None
        return connection_pool(settings.connection or ""), connection.max_concurrent


def keep_limit(instance: dg.DagsterInstance, pool: str, limit: int) -> None:
    """Make the pool as large as the connection says; the first step that uses it finds Dagster's default."""
    storage = instance.event_log_storage
    if storage.get_concurrency_info(pool).slot_count != limit:
        storage.set_concurrency_slots(pool, limit)


def _run(context: dg.AssetExecutionContext, worker: Worker, node: str, ahead: ReadingAhead) -> Outcome:
    """The node's work, told to Dagster's log; our errors become failures that say how to mend them."""
    pipeline = worker.pipeline.name
    try:
        reads = node in worker.pipeline.sources
        outcome = ahead.load(context, node, worker.run) if reads else worker.run(node)
    except Stopped as stopped:
        for result in metadata.of_checks(stopped.outcome, node_key(pipeline, node)):
            context.log_event(_evaluation(result))
        _tell_quarantine(context, stopped.outcome, pipeline, node)
        raise _failure(stopped) from stopped
    except DatabrokkrError as error:
        raise _failure(error) from error
    _tell_quarantine(context, outcome, pipeline, node)
    context.log.info(
        f"{outcome.rows_in:,} rows in, {outcome.rows_out:,} out, {outcome.quarantined:,} quarantined, "
        f"{outcome.seconds:.2f} s"
    )
    return outcome


def _as_before(context: dg.AssetExecutionContext, pipeline: Pipeline, node: str) -> Iterator[dg.AssetCheckResult]:
    """Nothing came, so nothing was checked: each check stands as the last load left it. Dagster wants a result."""
    for key in (spec.key for spec in _check_specs(pipeline, node)):
        last = _last_evaluation(context.instance, key)
        yield dg.AssetCheckResult(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=last.passed if last else True,
            severity=last.severity if last else dg.AssetCheckSeverity.ERROR,
            description=last.description if last else "no rows have come yet",
            metadata=last.metadata if last else {},
        )


def _last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    # The newest entries may be plans only: that of this run, and those of runs that failed before they checked.
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=20):
        event = record.event.dagster_event if record.event else None
        if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
            return event.asset_check_evaluation_data
    return None


def _evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def _failure(error: DatabrokkrError) -> dg.Failure:
    facts: dict[str, Any] = {
        "mend": error.mend,
        "databrokkr/error": type(error).__name__,
        "databrokkr/exit_code": error.exit_code,
    }
    return dg.Failure(str(error), metadata=facts, allow_retries=False)


def _tell_quarantine(context: dg.AssetExecutionContext, outcome: Outcome, pipeline: str, node: str) -> None:
    if outcome.quarantined:
        context.log_event(
            dg.AssetMaterialization(
                asset_key=quarantine_key(pipeline, node),
                description=f"{outcome.quarantined} rows set aside by load {outcome.load_id}",
                metadata=metadata.of_quarantine(outcome),
            )
        )


def _check_specs(pipeline: Pipeline, node: str) -> Iterator[dg.AssetCheckSpec]:
    for name, check in pipeline.checks_on(node).items():
        yield dg.AssetCheckSpec(
            name=name,
            asset=node_key(pipeline.name, node),
            description=f"{check.description}\n\n`{asked(check)}`, on failure: {check.on_fail.value}".strip(),
            blocking=check.on_fail is OnFail.BLOCK,
            metadata={"databrokkr/expectation": check.type, "databrokkr/on_fail": check.on_fail.value},
        )


def _as_sql(text: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"```sql\n{text}\n```")


def _code_version(pipeline: Pipeline, node: str) -> str:
    """A hash that changes when what the node does changes; secrets are not part of it."""
    settings: NodeSettings = dict(pipeline.nodes())[node]
    parts: list[Any] = [settings.model_dump(mode="json", exclude={"description", "owners", "tags"})]
    if isinstance(settings, CallsPython):
        parts.append(settings.fingerprint())
    if isinstance(settings, ComposesSql):
        parts.append(composed(pipeline, node).sql(dialect="duckdb"))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

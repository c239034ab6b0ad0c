"""A transform's work: reshape published datasets into a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from databrokkr_assets.core.disposition import Replace
from databrokkr_assets.core.errors import AccessError, DataError
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.spec import CallsPython, ComposesSql, Pipeline
from databrokkr_assets.engine.composing import column_lineage, composed, reference
from databrokkr_assets.engine.duckdb import SHAPING
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome, own_columns
from databrokkr_assets.engine.staging import Rows, Staging
from databrokkr_assets.lake.dataset import Dataset, Snapshot

_RESULT = "databrokkr_result"
_ROWS_AT_ONCE = 50_000


def transform(job: Job, pipeline: Pipeline, node: str, inputs: Mapping[str, Dataset]) -> Outcome:
    """Run the transform over the versions of its inputs that are published now, and publish what it gives.

    `inputs` are the stored datasets that it reads. Raises Blocked, or any of our errors; then nothing has changed.
    """
    with told_plainly(job.node), job.duck(SHAPING) as duck:
        before = job.dataset.open()
        snapshots = {name: _opened(dataset) for name, dataset in inputs.items()}
        for name, snapshot in snapshots.items():
            duck.execute(f"CREATE VIEW {quoted(name)} AS {snapshot.query(duck)}")
        versions = {name: snapshot.version for name, snapshot in snapshots.items()}
        query, facts = _query(duck, job, pipeline, node, snapshots)
        return Staging(duck, job, before, Replace()).run(Rows(query, inputs=versions, facts=facts))


def _opened(dataset: Dataset) -> Snapshot:
    snapshot = dataset.open()
    if snapshot is None:
        raise AccessError(f"{dataset.node} has no data yet", mend="materialise it first", where=dataset.node)
    return snapshot


def _query(
    duck: DuckDBPyConnection, job: Job, pipeline: Pipeline, node: str, snapshots: Mapping[str, Snapshot]
) -> tuple[str, dict[str, Any]]:
    settings = pipeline.transforms[node]
    if isinstance(settings, ComposesSql):
        tree = composed(pipeline, node)
        schemas = {name: own_columns(duck, snapshot) for name, snapshot in snapshots.items()}
        text = tree.sql(dialect="duckdb")
        return text, {
            "sql": tree.sql(dialect="duckdb", pretty=True),
            "lineage": column_lineage(tree, schemas),
        }
    assert isinstance(settings, CallsPython)
    return _registered(duck, job.node, settings.call(_given(duck, pipeline, settings))), {}


def _given(duck: DuckDBPyConnection, pipeline: Pipeline, settings: CallsPython) -> dict[str, DuckDBPyRelation]:
    """The inputs as relations of cursors of their own.

    A connection that runs another statement ends the stream of the one before: a function that returned such a stream
    would lose its rows without a word. Relations that it may join must be of one cursor, streams of one each.
    """
    shared = duck.cursor()
    return {
        name: (shared if settings.joins_inputs() else duck.cursor()).sql(
            f"SELECT * FROM {reference(pipeline, name).sql(dialect='duckdb')}"
        )
        for name in settings.inputs()
    }


def _registered(duck: DuckDBPyConnection, node: str, result: Any) -> str:
    """A query over what a Python function returned."""
    if isinstance(result, DuckDBPyRelation):
        duck.register(_RESULT, result.to_arrow_reader(_ROWS_AT_ONCE))
    elif hasattr(result, "__arrow_c_stream__") or type(result).__module__.startswith("pandas"):
        duck.register(_RESULT, result)
    else:
        raise DataError(
            f"the function returned {type(result).__name__}",
            mend="return an Arrow table or reader, a pandas data frame, or a DuckDB relation",
            where=node,
        )
    return f"SELECT * FROM {_RESULT}"

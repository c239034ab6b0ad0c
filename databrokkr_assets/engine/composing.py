"""Transforms as queries: nodes that are not stored become part of the query of those that read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlglot import exp

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import ComposesSql, Pipeline


def composed(pipeline: Pipeline, node: str) -> exp.Query:
    """The whole query of an SQL transform over stored datasets only. Raises SpecError for SQL that cannot be parsed."""
    transform = pipeline.transforms[node]
    if not isinstance(transform, ComposesSql):
        raise SpecError(f'"{node}" is no SQL, so it cannot be part of a query', mend="let it be stored", where=node)
    try:
        return transform.to_sql({name: reference(pipeline, name) for name in transform.inputs()})
    except SpecError as error:
        raise type(error)(error.what, mend=error.mend, where=error.where or f"{pipeline.name}/{node}") from error


def reference(pipeline: Pipeline, node: str) -> exp.Expression:
    """What stands in a query where `node` is read: its table, or the query of a transform that is not stored."""
    if node in pipeline.transforms and not pipeline.transforms[node].stored:
        return exp.Subquery(this=composed(pipeline, node))
    return exp.Table(this=exp.to_identifier(node, quoted=True))


def column_lineage(
    query: exp.Query, schemas: Mapping[str, Iterable[tuple[str, str]]]
) -> dict[str, list[tuple[str, str]]]:
    """For each output column, the columns of stored inputs that it comes from: `{output: [(input, column), …]}`.

    `schemas` are the inputs' columns and types by name. A query that sqlglot cannot follow gives an empty result:
    lineage is a help, never a reason to fail a load.
    """
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify

    schema: dict[str, object] = {name: dict(columns) for name, columns in schemas.items()}
    try:
        qualified = qualify(query.copy(), schema=schema, dialect="duckdb")
        outputs = qualified.named_selects
        return {
            output: sorted(
                {
                    (leaf.source.name, leaf.name.rsplit(".", 1)[-1].strip('"'))
                    for leaf in lineage(output, qualified, schema=schema, dialect="duckdb", copy=False).walk()
                    if isinstance(leaf.source, exp.Table) and not leaf.downstream
                }
            )
            for output in outputs
        }
    except (SqlglotError, ValueError, KeyError):
        return {}

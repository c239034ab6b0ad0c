"""Puts what is read in the place of the tables of a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp


def placed(
    query: exp.Query, inputs: Mapping[str, exp.Expression], reads: Callable[[exp.Table], bool] = lambda table: True
) -> exp.Query:
    """The query with its tables of the inputs' names replaced, where `reads` says that the name means the input."""
    for table in list(query.find_all(exp.Table)):
        if table.name in inputs and reads(table):
            table.replace(_aliased(inputs[table.name], table))
    return query


def _aliased(read: exp.Expression, table: exp.Table) -> exp.Expression:
    """`read` under the name that the query knows it by, with whatever else (joins, sample) hangs on the table."""
    source = read.copy()
    source.set("alias", table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
    for key in ("joins", "laterals", "pivots", "sample", "ordinality"):
        if table.args.get(key):
            source.set(key, table.args[key])
    return source

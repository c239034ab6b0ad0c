"""`sql`: a query in DuckDB's dialect over the node's inputs, by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

import sqlglot
from pydantic import field_validator
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ComposesSql, TransformSettings
from databrokkr_assets.transforms.placing import placed


class Sql(TransformSettings, ComposesSql):
    """A query over other nodes. The nodes that it reads are found in the query itself."""

    type: Literal["sql"] = "sql"
    """A query in DuckDB's SQL."""
    sql: str
    """One SELECT; the nodes of the pipeline are its tables."""
    input: Names = ()
    """The nodes that are read, where the query does not tell them."""

    @field_validator("sql")
    @classmethod
    def _parses(cls, text: str) -> str:
        _parsed(text)
        return text

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.input, *self._tables]))

    def to_sql(self, inputs: Mapping[str, exp.Expression]) -> exp.Query:
        return placed(_parsed(self.sql), inputs, lambda table: not table.db and not _is_cte(table))

    @cached_property
    def _tables(self) -> tuple[str, ...]:
        tables = _parsed(self.sql).find_all(exp.Table)
        return tuple(dict.fromkeys(table.name for table in tables if _reads_a_node(table)))


def _parsed(text: str) -> exp.Query:
    try:
        statements = [tree for tree in sqlglot.parse(text, dialect="duckdb") if tree is not None]
    except (ParseError, TokenError) as error:
        details = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
        place = f"line {details['line']}, column {details['col']}: " if details.get("line") else ""
        reason = details.get("description") or str(error)
        raise ValueError(f"{place}{reason}; correct the SQL there") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ValueError("must be one SELECT; a transform reads its inputs and writes nothing else")
    return statements[0]


def _reads_a_node(table: exp.Table) -> bool:
    """Table functions such as `range(10)`, qualified names, and names of the query's own CTEs are no nodes."""
    return isinstance(table.this, exp.Identifier) and not table.db and not _is_cte(table)


def _is_cte(table: exp.Table) -> bool:
    """Whether the name is one that the query itself defines; only a recursive definition may read itself."""
    within = list(_ancestors(table))
    for node in within:
        clause = node.args.get("with_")
        if not isinstance(clause, exp.With):
            continue
        for cte in clause.expressions:
            if cte.alias == table.name and (clause.recursive or cte not in within):
                return True
    return False


def _ancestors(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node


transform = Sql

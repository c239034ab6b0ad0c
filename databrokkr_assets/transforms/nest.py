"""`nest`: the rows of child tables as lists within the rows that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import sqlglot
from pydantic import Field
from sqlglot import exp

from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.core.settings import Names, Settings
from databrokkr_assets.core.spec import ComposesSql, TransformSettings
from databrokkr_assets.transforms.child_table import INDEX
from databrokkr_assets.transforms.placing import placed


class Child(Settings):
    """A child table, and how its rows become a list."""

    input: str
    """The node that has the children."""
    keys: Mapping[str, str] = Field(min_length=1)
    """The child's column for each key of the parent, e.g. `{id: orders_id}`."""
    order: Names = (INDEX,)
    """The columns that order the list; they and the keys are not part of it."""
    value: str | None = None
    """The one column that makes a list of plain values; without it, a list of structs."""


class Nest(TransformSettings, ComposesSql):
    """Rows with the rows of child tables as lists in them: what `child_table` took apart.

    A row without children has an empty list.
    """

    type: Literal["nest"] = "nest"
    """Child tables as lists in their parents' rows."""
    input: str
    """The node with the parents."""
    children: Mapping[str, Child] = Field(min_length=1)
    """The children, by the name of the list's column; a column of the parent with this name gives way."""

    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([self.input, *(child.input for child in self.children.values())]))

    def to_sql(self, inputs: Mapping[str, exp.Expression]) -> exp.Query:
        tables = {"databrokkr_parent": inputs[self.input]}
        lists, joins = [], []
        for number, (name, child) in enumerate(self.children.items()):
            tables[f"databrokkr_child{number}"] = inputs[child.input]
            lists.append(f"coalesce(c{number}.items, []) AS {quoted(name)}")
            same = " AND ".join(f"c{number}.{quoted(of)} = parent.{quoted(key)}" for key, of in child.keys.items())
            joins.append(f"LEFT JOIN ({_gathered(number, child)}) AS c{number} ON {same}")
        others = f"COLUMNS(name -> name NOT IN ({', '.join(literal(name) for name in self.children)}))"
        query = sqlglot.parse_one(
            f"SELECT parent.*, {', '.join(lists)} FROM (SELECT {others} FROM databrokkr_parent) AS parent "
            + " ".join(joins),
            dialect="duckdb",
        )
        assert isinstance(query, exp.Query)
        return placed(query, tables)


def _gathered(number: int, child: Child) -> str:
    """The lists of a child table, by the keys of the parents."""
    keys = tuple(child.keys.values())
    apart = columns(tuple(dict.fromkeys([*keys, *child.order])))
    item = f"child.{quoted(child.value)}" if child.value else f"struct_pack(*COLUMNS(child.* EXCLUDE ({apart})))"
    order = ", ".join(f"child.{quoted(name)}" for name in child.order)
    listed = ", ".join(f"child.{quoted(key)}" for key in keys)
    rows = f"databrokkr_child{number} AS child"
    return f"SELECT {listed}, list({item} ORDER BY {order}) AS items FROM {rows} GROUP BY {listed}"


transform = Nest

"""`child_table`: the elements of a list, each a row of a table of its own, with the keys of the row it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import sqlglot
from pydantic import Field
from sqlglot import exp

from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import ComposesSql, TransformSettings
from databrokkr_assets.transforms.placing import placed

INDEX = "_index"
"""The column that tells an element's place in its list, from 1."""


class ChildTable(TransformSettings, ComposesSql):
    """The elements of a list column, each a row: the keys of its parent, its place in the list, and its own fields.

    Fields become columns; lists within them stay, for a child table of their own. `nest` puts it together again.
    """

    type: Literal["child_table"] = "child_table"
    """The elements of a list as a table."""
    input: str
    """The node that has the column."""
    column: str
    """The list. A list within a struct is named by its path: `customer.addresses`."""
    keys: Names = Field(min_length=1)
    """The columns that name a row of the input; they come as `<input>_<key>`."""
    value: str | None = None
    """For a list of plain values: the name of their column. Without it, the elements are structs."""

    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    def to_sql(self, inputs: Mapping[str, exp.Expression]) -> exp.Query:
        keys = ", ".join(f"parent.{quoted(key)} AS {quoted(f'{self.input}_{key}')}" for key in self.keys)
        path = ".".join(quoted(part) for part in self.column.split("."))
        element = f"child.item AS {quoted(self.value)}" if self.value else "unnest(child.item)"
        query = sqlglot.parse_one(
            f"SELECT {keys}, child.place AS {quoted(INDEX)}, {element} FROM databrokkr_input AS parent, "
            f"LATERAL (SELECT unnest(parent.{path}) AS item, generate_subscripts(parent.{path}, 1) AS place) AS child",
            dialect="duckdb",
        )
        assert isinstance(query, exp.Query)
        return placed(query, {"databrokkr_input": inputs[self.input]})


transform = ChildTable

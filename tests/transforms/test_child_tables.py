"""A nested dataset becomes child tables with keys, and comes back together."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from databrokkr_assets.core.spec import ComposesSql, Pipeline
from databrokkr_assets.engine.composing import composed
from databrokkr_assets.transforms.child_table import ChildTable
from databrokkr_assets.transforms.nest import Nest
from databrokkr_assets.transforms.sql import Sql

ITEM = "STRUCT(sku VARCHAR, n INTEGER, tags VARCHAR[])"

CHAIN = Pipeline(
    name="shop",
    transforms={
        "bare": Sql(sql="SELECT * EXCLUDE (items) FROM orders", stored=False),
        "items": ChildTable(input="orders", column="items", keys=("id",), stored=False),
        "tags": ChildTable(input="items", column="tags", keys=("orders_id", "_index"), value="tag", stored=False),
        "few_items": Sql(sql="SELECT * EXCLUDE (tags) FROM items", stored=False),
        "items_again": Nest.model_validate(
            {
                "input": "few_items",
                "children": {
                    "tags": {
                        "input": "tags",
                        "keys": {"orders_id": "items_orders_id", "_index": "items__index"},
                        "value": "tag",
                    }
                },
                "stored": False,
            }
        ),
        "whole": Nest.model_validate(
            {"input": "bare", "children": {"items": {"input": "items_again", "keys": {"id": "orders_id"}}}}
        ),
    },
)


def queried(node: str, orders: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows of a node of the chain, which is one query."""
    with duckdb.connect() as duck:
        duck.execute(f"CREATE TABLE orders (id INTEGER, who VARCHAR, items {ITEM}[])")
        for order in orders:
            duck.execute("INSERT INTO orders VALUES ($id, $who, $items)", order)
        return duck.sql(f"SELECT * FROM ({composed(CHAIN, node).sql(dialect='duckdb')}) ORDER BY ALL").fetchall()


def item(sku: str, *tags: str) -> dict[str, Any]:
    return {"sku": sku, "n": len(tags), "tags": list(tags)}


def test_elements_become_rows_with_keys_and_places() -> None:
    orders = [{"id": 1, "who": "a", "items": [item("x", "t", "u"), item("y")]}, {"id": 2, "who": "b", "items": []}]
    assert queried("items", orders) == [(1, 1, "x", 2, ["t", "u"]), (1, 2, "y", 0, [])]
    assert queried("tags", orders) == [(1, 1, 1, "t"), (1, 1, 2, "u")]


ITEMS = st.lists(
    st.builds(lambda sku, tags: item(sku, *tags), st.text(max_size=3), st.lists(st.text(max_size=3), max_size=3)),
    max_size=3,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(ITEMS, max_size=4))
def test_what_was_taken_apart_comes_back_together(orders: list[list[dict[str, Any]]]) -> None:
    given = [{"id": number, "who": f"w{number}", "items": items} for number, items in enumerate(orders)]
    assert queried("whole", given) == [(order["id"], order["who"], order["items"]) for order in given]


def test_a_column_gives_way_to_the_list_of_its_name() -> None:
    nested = Nest.model_validate(
        {"input": "orders", "children": {"items": {"input": "items", "keys": {"id": "orders_id"}}}}
    )
    assert isinstance(nested, ComposesSql)
    assert set(nested.inputs()) == {"orders", "items"}
    pipeline = CHAIN.model_copy(update={"transforms": {**CHAIN.transforms, "again": nested}})
    with duckdb.connect() as duck:
        duck.execute(f"CREATE TABLE orders (items {ITEM}[], id INTEGER)")
        assert duck.sql(composed(pipeline, "again").sql(dialect="duckdb")).columns == ["id", "items"]


def test_a_child_table_needs_keys() -> None:
    with pytest.raises(ValidationError, match="keys"):
        ChildTable.model_validate({"input": "orders", "column": "items", "keys": []})

"""A range of a source's cursor is read again, in the place of what was loaded; the cursor stays."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from tests.project import Project, node

PIPELINE = """
type: databrokkr_assets.Connections
attributes:
  shop: {{type: duckdb, path: shop.duckdb}}
---
type: databrokkr_assets.Pipeline
attributes:
  name: shop
  sources:
    orders: {{type: duckdb, connection: shop, table: orders, cursor: day{how}}}
    all: {{type: duckdb, connection: shop, table: orders}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.made(tmp_path)
    with duckdb.connect(made.root / "shop.duckdb") as shop:
        shop.execute("CREATE TABLE orders AS SELECT i AS id, DATE '2026-01-01' + i::INTEGER AS day FROM range(10) t(i)")
    return made


def days(project: Project) -> list[tuple[int, str]]:
    """The dataset's rows, sorted."""
    rows = DeltaTable(str(project.root / "lake/raw/shop/orders")).to_pyarrow_table().to_pylist()
    return sorted((row["id"], str(row["day"])) for row in rows)


def change(project: Project, *statements: str) -> None:
    with duckdb.connect(project.root / "shop.duckdb") as shop:
        for statement in statements:
            shop.execute(statement)


@pytest.mark.parametrize("how", ["", ", disposition: merge, keys: [id]"], ids=["append", "merge"])
def test_a_range_takes_the_place_of_what_was_loaded(project: Project, how: str) -> None:
    project.write("shop", PIPELINE.format(how=how))
    project.run("shop", "--select", "orders")
    change(project, "INSERT INTO orders VALUES (100, '2026-01-04')", "UPDATE orders SET id = 102 WHERE id = 2")
    done = project.call("backfill", "shop.orders", "--from", "2026-01-03", "--to", "2026-01-05")
    assert done.returncode == 0, done.stdout + done.stderr
    stale = [] if how == "" else [(2, "2026-01-03")]  # a merge does not know that a key is gone
    fresh = [(100, "2026-01-04"), (102, "2026-01-03")]
    rest = [(i, f"2026-01-{i + 1:02}") for i in range(10) if i != 2]
    assert days(project) == sorted(rest + stale + fresh)
    again = project.run("shop", "--select", "orders")  # the cursor has not moved
    assert not node(again, "orders")["published"] or node(again, "orders")["rows_out"] <= 1
    assert days(project) == sorted(rest + stale + fresh)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("shop.orders", "--from", "2026-01-03", "--to", "2026-03-05"), "reaches beyond 2026-01-10"),
        (("shop.all", "--from", "1", "--to", "2"), "no `cursor`"),
        (("shop.order", "--from", "1", "--to", "2"), 'did you mean "orders"'),
    ],
    ids=["too far", "no cursor", "no such node"],
)
def test_a_range_that_cannot_be_filled_is_refused(project: Project, words: tuple[str, ...], told: str) -> None:
    project.write("shop", PIPELINE.format(how=""))
    project.run("shop")
    before = days(project)
    done = project.call("backfill", *words)
    assert done.returncode == 2 and told in done.stdout + done.stderr
    assert days(project) == before

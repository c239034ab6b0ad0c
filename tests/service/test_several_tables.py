"""A source of several tables: one node each, read side by side, looked up by a command, tested and discovered."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from tests.project import Project, node

CONNECTIONS = """
type: databrokkr_assets.Connections
attributes:
  shop: {type: duckdb, path: shop.duckdb, max_concurrent: 2}
  nowhere: {type: duckdb, path: missing/nowhere.duckdb}
"""

PIPELINE = """
type: databrokkr_assets.Pipeline
attributes:
  parallel_reads: 3
  sources:
    shop:
      type: duckdb
      connection: shop
      tables:
        orders: {disposition: merge, keys: [id]}
        "sales_*": null
      exclude: "*_old"
  transforms:
    total: {type: sql, sql: "SELECT count(*) AS n FROM shop_orders"}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.made(tmp_path)
    with duckdb.connect(made.root / "shop.duckdb") as shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, what VARCHAR)")
        shop.execute("INSERT INTO orders VALUES (1, 'a'), (2, 'b')")
        for name in ("sales_north", "sales_south", "sales_old", "other"):
            shop.execute(f"CREATE TABLE {name} AS SELECT range AS id FROM range(3)")
    made.write("connections", CONNECTIONS)
    return made


def test_patterns_are_looked_up_and_every_table_is_a_node(project: Project) -> None:
    file = project.write("shop", PIPELINE)
    (broken,) = [one for one in json.loads(project.call("check", "--json").stdout) if one["name"] == "shop"]
    assert "run `databrokkr refresh shop`" in broken["mistakes"][0]["mend"]
    assert file.name in broken["mistakes"][0]["where"]

    (told,) = json.loads(project.call("refresh", "shop", "--json").stdout)
    assert (told["source"], told["added"]) == ("shop", ["main.sales_north", "main.sales_south"])
    report = project.run("shop")
    assert {one["node"]: one["rows_out"] for one in report["nodes"]} == {
        "shop_orders": 2,
        "shop_sales_north": 3,
        "shop_sales_south": 3,
        "total": 1,
    }
    with duckdb.connect(project.root / "shop.duckdb") as shop:
        shop.execute("INSERT INTO orders VALUES (3, 'c')")
        shop.execute("DROP TABLE sales_south")
        shop.execute("CREATE TABLE sales_west AS SELECT 1 AS id")
    done = project.call("run", "shop", "--json")  # a table that is gone fails alone
    report = json.loads(done.stdout)
    assert node(report, "shop_sales_south")["state"] == "failed"
    assert (node(report, "shop_orders")["rows_out"], node(report, "total")["state"]) == (3, "done")

    (told,) = json.loads(project.call("refresh", "shop", "--json").stdout)
    assert (told["added"], told["gone"]) == (["main.sales_west"], ["main.sales_south"])
    assert node(project.run("shop"), "shop_sales_west")["rows_out"] == 1


def test_a_frozen_set_of_tables_takes_no_new_one(project: Project) -> None:
    frozen = PIPELINE.replace("exclude:", "contract: {tables: freeze}\n      exclude:").replace(
        "shop_orders", "few_orders"
    )
    project.write("few", frozen.replace("    shop:\n", "    few:\n"))
    project.call("refresh", "few")
    with duckdb.connect(project.root / "shop.duckdb") as shop:
        shop.execute("CREATE TABLE sales_east AS SELECT 1 AS id")
    (told,) = json.loads(project.call("refresh", "few", "--json").stdout)
    assert (told["added"], told["left_out"]) == ([], ["main.sales_east"])


def test_a_connection_is_tested_and_discovered(project: Project) -> None:
    found = json.loads(project.call("connection", "test", "shop", "--json").stdout)
    assert found and all(one["ok"] for one in found)
    missing = project.call("connection", "test", "nowhere")
    assert missing.returncode == 3 and "nowhere.duckdb" in missing.stdout
    streams = {one["name"]: one for one in json.loads(project.call("discover", "shop", "--json").stdout)}
    assert (streams["orders"]["keys"], streams["orders"]["kind"]) == (["id"], "table")
    unknown = project.call("discover", "shp")
    assert unknown.returncode == 2 and 'did you mean "shop"' in unknown.stderr
    listed = json.loads(project.call("connection", "list", "--json").stdout)
    assert {one["name"]: one["type"] for one in listed} == {"nowhere": "duckdb", "shop": "duckdb"}


@pytest.mark.parametrize("words", [("connection", "test", "shop"), ("discover", "shop"), ("refresh", "shop")], ids=str)
def test_the_tables_in_the_terminal_are_readable(project: Project, words: tuple[str, ...]) -> None:
    project.write("shop", PIPELINE)
    done = project.call(*words)
    assert done.returncode == 0, done.stderr
    assert "{" not in done.stdout and len(done.stdout.splitlines()) >= 1


def test_a_project_keeps_what_was_found_in_a_file_to_review(project: Project) -> None:
    project.write("shop", PIPELINE)
    project.call("refresh", "shop")
    kept = json.loads((project.defs / "shop" / "discovered.json").read_text())
    assert "sales_north" in {one["name"] for one in kept["shop"]}
    assert not list(Path(project.defs / "shop").glob("*.tmp"))

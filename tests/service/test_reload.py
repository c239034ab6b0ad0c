"""`databrokkr reload`: what was landed comes again without its source, and what stands downstream gets it right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from tests.project import Project, node

PIPELINE = """
type: databrokkr_assets.Connections
attributes:
  shop: {type: duckdb, path: shop.duckdb}
---
type: databrokkr_assets.Pipeline
attributes:
  name: shop
  sources:
    orders: {type: files, path: in/*.csv, landing: true, disposition: merge, keys: [id]}
    events: {type: files, path: in/*.csv, landing: true}
  transforms:
    total: {type: sql, sql: "SELECT sum(n) AS n FROM orders"}
  sinks:
    merged: {type: duckdb, connection: shop, table: merged, input: orders, disposition: merge, keys: [id]}
    replaced: {type: duckdb, connection: shop, table: replaced, input: total}
    appended: {type: duckdb, connection: shop, table: appended, input: events, disposition: append}
"""
OTHER = """
type: databrokkr_assets.Pipeline
attributes:
  sources:
    table: {type: duckdb, connection: shop, table: other}
    files: {type: files, path: in/*.csv}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.made(tmp_path)
    made.write("shop", PIPELINE)
    return made


def tables(project: Project) -> list[list[tuple[int, ...]]]:
    """What stands in the targets."""
    with duckdb.connect(project.root / "shop.duckdb") as shop:
        names = ("merged", "replaced", "appended")
        return [shop.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for name in names]


def test_what_is_downstream_follows(project: Project) -> None:
    (project.root / "in").mkdir()
    for name, rows in {"1": "1,10\n2,20\n", "2": "2,21\n3,30\n"}.items():
        (project.root / f"in/{name}.csv").write_text(f"id,n\n{rows}")
        project.run("shop")
    before = tables(project)
    assert before == [[(1, 10), (2, 21), (3, 30)], [(61,)], [(1, 10), (2, 20), (2, 21), (3, 30)]]
    with duckdb.connect(project.root / "shop.duckdb") as shop:
        shop.execute("UPDATE merged SET n = 0")
        shop.execute("UPDATE replaced SET n = 0")
    shutil.rmtree(project.root / "in")
    done = project.call("reload", "shop", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, node(report, "orders")["rows_out"], node(report, "events")["rows_out"]) == (3, 3, 4)
    assert "events was replaced as a whole, so appending it would double rows" in node(report, "appended")["error"]
    assert tables(project) == before


def test_what_cannot_be_read_again_is_refused(project: Project) -> None:
    project.write("other", OTHER)
    done = project.call("reload", "other", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 2
    assert "duckdb keeps no copies" in node(report, "table")["error"]
    assert "nothing was landed" in node(report, "files")["error"]


def test_copies_and_masking_are_refused_where_they_stand(project: Project) -> None:
    project.write("shop", PIPELINE.replace("landing: true}", "landing: true, masked: {n: drop}}"))
    done = project.call("check")
    assert done.returncode == 2
    assert "shop/defs.yaml:11:5: a copy would hold in the clear" in done.stdout

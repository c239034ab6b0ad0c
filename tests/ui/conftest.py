"""One Dagster for all tests of its UI: a project with sound, broken, gated, watched and unreachable pipelines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project
from tests.ui.server import Run, Ui, dagster

SECRET = "hunter2-never-to-be-seen"

CONNECTIONS = """\
type: databrokkr_assets.Connections
attributes:
  warehouse: {type: duckdb, path: warehouse.duckdb}
  billing:
    {type: postgres, host: 127.0.0.1, port: 1, database: b, user: shop, password: "{{ env.SECRET }}", retries: 1}
  ledger: {type: postgres, url: "postgresql://shop:{{ env.SECRET }}@127.0.0.1:1/ledger", retries: 1}
  archive: {type: postgres, url: "{{ env.ARCHIVE_URL }}"}
"""
SHOP = """\
type: databrokkr_assets.Pipeline
attributes:
  description: The orders of a small shop.
  owners: ["team:shop", "ada@example.com"]
  tags: {domain: sales}
  sources:
    orders:
      type: files
      path: in/orders
      columns: {id: BIGINT, amount: "DECIMAL(10,2)"}
      description: One row for each order.
  transforms:
    paid:
      type: sql
      stored: false
      sql: select id, customer, amount from orders where amount > 0
    by_customer:
      type: sql
      description: What each customer spent.
      owners: ["grace@example.com"]
      sql: |
        select upper(customer) as buyer, count(*) as orders, sum(amount) as spent
        from paid group by customer
  sinks:
    report: {type: duckdb, connection: warehouse, table: by_customer, input: by_customer}
  checks:
    customer_is_known:
      {type: expect_column_values_to_not_be_null, dataset: orders, column: customer, on_fail: warn}
    amount_is_not_negative:
      type: expect_column_values_to_be_between
      dataset: orders
      column: amount
      min_value: 0
      on_fail: quarantine
    id_is_unique:
      {type: expect_column_values_to_be_unique, dataset: orders, column: id, on_fail: block}
  schedule: {cron: "0 6 * * *", timezone: Europe/Berlin}
"""
ORDERS = """\
id,customer,amount
1,Ada,19.90
2,Grace,5.00
3,Ada,-1.00
4,,7.25
5,Edsger,42.50
six,Ada,1.00
7,Grace,-2.50
"""
STOCK = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    levels: {type: files, path: in/levels.csv, disposition: replace}
  transforms:
    low: {type: sql, sql: "select item, level from levels where level < 10"}
  checks:
    level_is_possible:
      type: expect_column_values_to_be_between
      dataset: levels
      column: level
      min_value: 0
      max_value: 1000
      on_fail: block
"""
GOOD_LEVELS = "item,level\nnut,5\nbolt,50\n"
BAD_LEVELS = "item,level\nnut,-5\nbolt,5000\nscrew,7\n"
DROP = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    parcels: {type: files, path: in/parcels, settle: 1}
  transforms:
    weights: {type: sql, sql: "select count(*) as parcels, sum(kg) as kg from parcels"}
  triggers:
    new_parcels: {type: file_arrival, source: parcels, every: 1}
"""
REMOTE = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    invoices: {type: postgres, connection: billing, table: invoices}
    entries: {type: postgres, connection: ledger, query: select * from entries}
    old: {type: postgres, connection: archive, table: old}
"""
BROKEN = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: files, pth: in/orders}
  transforms:
    copied: {type: sql, sql: select * from ordres}
"""


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Dagster with the pipelines above, loaded; none of them has run."""
    with dagster(_project(tmp_path_factory.mktemp("ui")), SECRET=SECRET) as started:
        yield started


@pytest.fixture(scope="session")
def first(ui: Ui) -> dict[str, str]:
    """The first runs of the pipelines, launched together because most of a run is Dagster's start of a process."""
    return {name: ui.launch(name) for name in ("shop", "stock", "remote")}


@pytest.fixture(scope="session")
def shop(ui: Ui, first: dict[str, str]) -> Run:
    """A run of all of `shop`."""
    return ui.wait(first["shop"])


@pytest.fixture(scope="session")
def remote(ui: Ui, first: dict[str, str]) -> Run:
    """A run whose systems cannot be reached."""
    return ui.wait(first["remote"])


@pytest.fixture(scope="session")
def blocked(ui: Ui, first: dict[str, str]) -> Run:
    """A run of `stock` that a check blocked, after one that published `GOOD_LEVELS`."""
    assert ui.wait(first["stock"]).status == "SUCCESS"
    arrives(ui.project.root / "in/levels.csv", BAD_LEVELS)
    return ui.run("stock")


def arrives(file: Path, text: str) -> None:
    """As a careful program writes a file: nobody sees half of it."""
    partial = file.with_name(f".{file.name}.part")
    partial.write_text(text)
    os.replace(partial, file)


def _project(folder: Path) -> Project:
    project = Project.made(folder)
    for name, yaml in {
        "connections": CONNECTIONS,
        "shop": SHOP,
        "stock": STOCK,
        "drop": DROP,
        "remote": REMOTE,
    }.items():
        project.write(name, yaml)
    project.write("broken", BROKEN)
    for name, text in {"orders/2026-01.csv": ORDERS, "levels.csv": GOOD_LEVELS}.items():
        file = project.root / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (project.root / "in/parcels").mkdir()
    return project

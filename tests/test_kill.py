"""Kill -9 at random moments of PostgreSQL → dataset → DuckDB → dataset → PostgreSQL: nothing lost, nothing doubled.

The suite kills a few times; `pytest tests/test_kill.py --kills 50` is the full figure.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import duckdb
import psycopg
import pytest

from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import store_at
from tests.project import Project

CONNECTIONS = """\
type: databrokkr_assets.Connections
attributes:
  here: {type: postgres, url: "{{ env.TEST_DSN }}"}
  file: {type: duckdb, path: middle.duckdb}
"""
FIRST = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    events: {type: postgres, connection: here, table: events, cursor: id}
    accounts: {type: postgres, connection: here, table: accounts, cursor: updated, disposition: merge, keys: [id]}
  sinks:
    out_events: {type: duckdb, connection: file, table: events, input: events, disposition: append}
    out_accounts: {type: duckdb, connection: file, table: accounts, input: accounts, disposition: merge, keys: [id]}
"""
SECOND = """\
type: databrokkr_assets.Pipeline
attributes:
  sources:
    events: {type: duckdb, connection: file, table: events, cursor: id}
    accounts: {type: duckdb, connection: file, table: accounts, cursor: updated, disposition: merge, keys: [id]}
  sinks:
    out_events:
      {type: postgres, connection: here, table: copied_events, input: events, disposition: append}
    out_accounts:
      {type: postgres, connection: here, table: copied_accounts, input: accounts, disposition: merge, keys: [id]}
"""
DATASETS = [(pipeline, node) for pipeline in ("first", "second") for node in ("events", "accounts")]


def test_kill_9_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    kills = int(request.config.getoption("--kills"))
    chance = random.Random(request.config.getoption("randomly_seed", None) or 1)
    project = Project.made(tmp_path)
    for name, yaml in {"connections": CONNECTIONS, "first": FIRST, "second": SECOND}.items():
        project.write(name, yaml)
    with psycopg.connect(database, autocommit=True) as source:
        source.execute("CREATE TABLE events (id bigserial PRIMARY KEY, what text, amount numeric(12, 2))")
        source.execute("CREATE TABLE accounts (id int PRIMARY KEY, balance numeric(12, 2), updated timestamptz)")
        _live(source, 0)
        usual = {name: _timed(project, name, database) for name in ("first", "second")}
        for turn in range(1, kills + 1):
            _live(source, turn)
            name = "first" if turn % 2 else "second"
            _killed(project, name, database, usual[name] * chance.uniform(0.2, 1.05))
            _nothing_doubled(project, source)
        for name in ("first", "second"):
            project.run(name, TEST_DSN=database)
        _all_alike(project, source)


def _live(source: psycopg.Connection[tuple[object, ...]], turn: int) -> None:
    """What happens in the source between two runs: new events, changed accounts, several with one time."""
    source.execute(
        "INSERT INTO events (what, amount) SELECT 'turn ' || %s, i / 7.0 FROM generate_series(1, 20000) i", (turn,)
    )
    source.execute(
        "INSERT INTO accounts SELECT i * 7 %% 5000, %s + i / 100.0, now() FROM generate_series(1, 3000) i "
        "ON CONFLICT (id) DO UPDATE SET balance = excluded.balance, updated = excluded.updated",
        (turn,),
    )


def _timed(project: Project, name: str, dsn: str) -> float:
    began = time.monotonic()
    project.run(name, TEST_DSN=dsn)
    return time.monotonic() - began


def _killed(project: Project, name: str, dsn: str, after: float) -> None:
    process = subprocess.Popen(
        project.command("run", name),
        cwd=project.root,
        env={**os.environ, "TEST_DSN": dsn},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _nothing_doubled(project: Project, source: psycopg.Connection[tuple[object, ...]]) -> None:
    with duckdb.connect(str(project.root / "middle.duckdb"), read_only=True) as middle:
        for table in ("events", "accounts"):
            assert middle.execute(f"SELECT count(*) - count(DISTINCT id) FROM {table}").fetchone() == (0,)
    for table in ("copied_events", "copied_accounts"):
        assert source.execute(f"SELECT count(*) - count(DISTINCT id) FROM {table}").fetchone() == (0,)


def _all_alike(project: Project, source: psycopg.Connection[tuple[object, ...]]) -> None:
    """Source, both datasets, the file and the copy hold the same rows; ledgers name the datasets' versions."""
    events, accounts = "SELECT id, what, amount FROM {}", "SELECT id, balance FROM {}"
    for table, query in (("events", events), ("accounts", accounts)):
        truth = sorted(source.execute(query.format(table)).fetchall())
        assert sorted(source.execute(query.format(f"copied_{table}")).fetchall()) == truth
        with duckdb.connect(str(project.root / "middle.duckdb"), read_only=True) as middle:
            assert sorted(middle.execute(query.format(table)).fetchall()) == truth
            for pipeline in ("first", "second"):
                snapshot = _dataset(project, pipeline, table).open()
                assert snapshot is not None
                assert sorted(middle.execute(query.format(f"({snapshot.query(middle)})")).fetchall()) == truth
    _ledgers_agree(project, source)


def _ledgers_agree(project: Project, source: psycopg.Connection[tuple[object, ...]]) -> None:
    ledger = "SELECT node, version FROM _databrokkr_loads"
    with duckdb.connect(str(project.root / "middle.duckdb"), read_only=True) as middle:
        rows = [*middle.execute(ledger).fetchall(), *source.execute(ledger).fetchall()]
    found = dict(rows)
    expected = {}
    for pipeline, node in DATASETS:
        snapshot = _dataset(project, pipeline, node).open()
        assert snapshot is not None
        expected[f"{pipeline}/out_{node}"] = snapshot.version
    assert found == expected


def _dataset(project: Project, pipeline: str, node: str) -> Dataset:
    return Dataset(store_at("lake", project.root, {}).child("raw", pipeline, node), f"{pipeline}/{node}")

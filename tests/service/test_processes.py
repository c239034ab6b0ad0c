"""A run that was killed holds no pool for ever, and one that waits for a pool says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from databrokkr_assets.service.home import Home
from databrokkr_assets.service.processes import TAG, free_what_the_dead_hold, own_tag
from databrokkr_assets.service.running import run
from tests.project import Project

YAML = """\
type: databrokkr_assets.Pipeline
attributes:
  sources: {a: {type: files, path: a.csv}}
  sinks: {out: {type: duckdb, connection: file, table: t, input: a}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project.made(tmp_path)
    made.write("p", YAML)
    made.write("connections", "type: databrokkr_assets.Connections\nattributes: {file: {type: duckdb, path: x.duckdb}}")
    (made.root / "a.csv").write_text("id\n1\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    Home(made.root, "project.definitions").enter()
    yield made
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "project"]:
        del sys.modules[name]


def held_by(instance: dg.DagsterInstance, defs: dg.Definitions, tag: dict[str, str]) -> str:
    """A run that looks as if it was at work, and holds the pool of the file."""
    job = defs.resolve_job_def("p")
    (pool,) = {node.pool for node in job.all_node_defs if isinstance(node, dg.OpDefinition) and node.pool}
    one = instance.create_run_for_job(job, tags=tag, status=dg.DagsterRunStatus.STARTED)
    instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
    instance.event_log_storage.claim_concurrency_slot(pool, one.run_id, "p__out")
    return one.run_id


def a_dead_process() -> dict[str, str]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tag = own_tag()[TAG].replace(f" {os.getpid()} ", f" {process.pid} ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return {TAG: tag}


def test_a_run_whose_process_is_gone_frees_its_pool(project: Project) -> None:
    home = Home(project.root, "project.definitions")
    with home.instance() as instance:
        dead = held_by(instance, home.definitions(), a_dead_process())
        assert run(home.definitions(), instance, "p").exit_code == 0
        found = instance.get_run_by_id(dead)
        assert found is not None and found.status is dg.DagsterRunStatus.FAILURE
    with duckdb.connect(str(project.root / "x.duckdb"), read_only=True) as file:
        assert file.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_a_run_whose_process_lives_is_waited_for_and_told(project: Project) -> None:
    home = Home(project.root, "project.definitions")
    told: list[str] = []

    def hear(text: str) -> None:
        told.append(text)
        instance.event_log_storage.free_concurrency_slots_for_run(living)

    with home.instance() as instance:
        living = held_by(instance, home.definitions(), own_tag())
        assert free_what_the_dead_hold(instance) == []
        began = time.monotonic()
        assert run(home.definitions(), instance, "p", listener=hear).exit_code == 0
        assert time.monotonic() - began < 60
    assert told and living in told[0] and "duckdb_" in told[0]

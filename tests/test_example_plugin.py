"""The plugin in `examples/`, as a third party has it: built, installed beside DataBrokkr, found, tested and used."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "databrokkr-plugin-git"

PIPELINE = """\
type: databrokkr_assets.Connections
attributes:
  shop: {type: git, path: shop.git}
---
type: databrokkr_assets.Pipeline
attributes:
  sources:
    orders: {type: git, connection: shop, table: orders}
  sinks:
    copy: {type: git, connection: shop, table: orders_copy, input: orders}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheels of DataBrokkr and of the plugin are installed.

    What they depend on comes from the environment of this test, because to install it anew would take minutes.
    """
    wheels, environment = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("environment")
    for package in (ROOT, PLUGIN):
        _uv("build", "--wheel", "--out-dir", wheels, package)
    _uv("venv", "--python", sys.executable, environment)
    found = sorted(wheels.glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in found] == ["databrokkr", "databrokkr_plugin_git"]
    _uv("pip", "install", "--no-deps", "--python", environment / "bin" / "python", *found)
    there = sysconfig.get_path("purelib", vars={"base": str(environment)})
    (Path(there) / "beside.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def _uv(*words: str | Path) -> None:
    # On the path, or where `./test` has put it.
    uv = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(ROOT / ".databrokkr/uv/bin")]))
    assert uv, "this project is worked on with uv"
    done = subprocess.run([uv, "-q", *words], capture_output=True, text=True, cwd=PLUGIN)
    assert done.returncode == 0, done.stderr


def _run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_the_installed_databrokkr_that_runs(installed: Path, tmp_path: Path) -> None:
    where = "import databrokkr_assets, databrokkr_contract.suite as suite; print(databrokkr_assets.__path__[0], suite)"
    found = _run([installed / "python", "-c", where], tmp_path)
    assert found.count(str(installed.parent)) == 2


def test_it_is_listed_with_its_origin(installed: Path, tmp_path: Path) -> None:
    rows = json.loads(_run([installed / "databrokkr", "connectors", "--json"], tmp_path))
    found = next(row for row in rows if row["name"] == "git")
    assert (found["from"], found["source"], found["sink"]) == ("databrokkr-plugin-git 1.0", True, True)


def test_its_pipeline_loads_data(installed: Path, tmp_path: Path) -> None:
    _run([installed / "databrokkr", "init", "shop"], tmp_path)
    project = tmp_path / "shop"
    defs = next(project.glob("*/defs"))
    shutil.rmtree(defs / "orders")
    (defs / "books").mkdir()
    (defs / "books" / "defs.yaml").write_text(PIPELINE)
    rows = pa.table({"id": [1, 2, 3], "what": ["a", None, "ü"]})
    _committed(rows, project / "shop.git")
    report = json.loads(_run([installed / "databrokkr", "run", "books", "--json"], project))
    assert [node["rows_out"] for node in report["nodes"]] == [3, 3]
    copy = _git(project / "shop.git", "cat-file", "blob", "main:orders_copy.parquet")
    assert pq.read_table(io.BytesIO(copy)).equals(rows)


def test_it_passes_the_whole_contract_suite(installed: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        PLUGIN,
        "--rootdir",
        PLUGIN,
        "-W",
        "error",
    ]
    told = _run([installed / "python", *words], tmp_path)
    assert " passed" in told and "skipped" not in told


def _committed(rows: pa.Table, repository: Path) -> None:
    content = io.BytesIO()
    pq.write_table(rows, content)
    work = repository.with_suffix(".work")
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    (work / "orders.parquet").write_bytes(content.getvalue())
    _git(work, "add", ".")
    _git(work, "commit", "-q", "-m", "orders")
    _git(work, "clone", "-q", "--bare", ".", str(repository))


def _git(folder: Path, *words: str) -> bytes:
    who = {f"GIT_{role}_{what}": "tester" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, env={**os.environ, **who}).stdout

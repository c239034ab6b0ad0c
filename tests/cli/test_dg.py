"""Dagster's own `dg` finds nothing to complain about: in this project, and in one that `databrokkr init` makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from databrokkr_assets.cli.init import make

DG = str(Path(sys.executable).with_name("dg"))
OWN = Path(__file__).parents[2]
COMPONENTS = ("databrokkr_assets.Connections", "databrokkr_assets.Lake", "databrokkr_assets.Pipeline")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `databrokkr init` leaves it."""
    root = tmp_path_factory.mktemp("dg") / "shop"
    make(root)
    return root


def test_this_project() -> None:
    _passes(OWN)


def test_a_new_project(new: Path) -> None:
    _passes(new)


def test_check_yaml_finds_mistakes(tmp_path: Path) -> None:
    make(tmp_path / "shop")
    file = tmp_path / "shop/shop/defs/orders/defs.yaml"
    text = file.read_text()
    for right, wrong in (("path: data/orders", "pth: data/orders"), ("on_fail: quarantine", "on_fail: ignore")):
        assert right in text
        text = text.replace(right, wrong)
    file.write_text(text)
    done = _dg(tmp_path / "shop", "check", "yaml")
    assert done.returncode == 1
    for says in ("pth", "ignore", "defs/orders/defs.yaml:"):
        assert says in done.stdout + done.stderr


def _passes(root: Path) -> None:
    # `check defs` begins with `check yaml`, but says so on its own too.
    for words, says in {
        ("check", "yaml"): ("All component YAML validated successfully.",),
        ("check", "defs"): ("All definitions loaded successfully.",),
        ("list", "components"): COMPONENTS,
        ("list", "envs"): ("No environment variables are defined for this project.",),
    }.items():
        done = _dg(root, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        for text in says:
            assert text in done.stdout


def _dg(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run([DG, *words], cwd=root, env=environment, capture_output=True, text=True, timeout=300)

"""The job that every test of the engine starts from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from databrokkr_assets.engine.job import Job
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import Store


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    def make(**more: Any) -> Job:
        lake = Store(str(tmp_path))
        return Job("p/n", Dataset(lake.child("raw"), "p/n"), Dataset(lake.child("quarantine"), "p/n"), **more)

    return make

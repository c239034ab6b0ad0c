"""Which project a path is in: the nearest folder above whose `pyproject.toml` has `[tool.dg]`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from databrokkr_assets.core.errors import SpecError, Where


def project_of(start: Path) -> tuple[Path, Mapping[str, Any]]:
    """The project's folder and its `[tool.dg.project]`. Raises SpecError when `start` is in none."""
    for folder in [start.resolve(), *start.resolve().parents]:
        file = folder / "pyproject.toml"
        project = (
            tomllib.loads(file.read_text()).get("tool", {}).get("dg", {}).get("project") if file.is_file() else None
        )
        if project:
            return folder, project
    mend = "run `databrokkr init <folder>`, then `cd` there"
    raise SpecError("this folder is in no DataBrokkr project", mend=mend, where=Where(start))

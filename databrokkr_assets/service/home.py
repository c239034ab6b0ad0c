"""Where a project is, and how its Dagster instance is found."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from databrokkr_assets.core.errors import SpecError, Where

if TYPE_CHECKING:
    import dagster as dg

HOME = "DATABROKKR_HOME"
"""The environment variable that says where a Dagster instance keeps its files; else `.databrokkr` in the project."""


@dataclass(frozen=True)
class Home:
    """A project: its folder, and the module that Dagster loads."""

    root: Path
    module: str

    def enter(self) -> None:
        """Make this process use the project: its folder on the path, its own `dagster.yaml`."""
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        os.environ.update(self.environment())

    def environment(self) -> dict[str, str]:
        """The variables that `dagster.yaml` and Dagster's own commands read."""
        state = Path(os.environ.get(HOME) or self.root / ".databrokkr").resolve()
        for part in ("storage", "artifacts", "logs"):
            (state / part).mkdir(parents=True, exist_ok=True)
        return {HOME: str(state), "DAGSTER_HOME": os.environ.get("DAGSTER_HOME") or str(self.root)}

    def definitions(self) -> dg.Definitions:
        """The project's definitions, loaded into this process."""
        import dagster as dg

        found = importlib.import_module(self.module).defs
        assert isinstance(found, dg.Definitions)
        return found

    def instance(self) -> dg.DagsterInstance:
        """The project's Dagster instance, as `dagster.yaml` describes it."""
        import dagster as dg

        return dg.DagsterInstance.get()


def home(start: Path) -> Home:
    """The project that `start` is in: the nearest folder above with `[tool.dg]` in its `pyproject.toml`.

    Raises SpecError when there is none.
    """
    for folder in [start.resolve(), *start.resolve().parents]:
        file = folder / "pyproject.toml"
        project = (
            tomllib.loads(file.read_text()).get("tool", {}).get("dg", {}).get("project") if file.is_file() else None
        )
        if project:
            module = project.get("code_location_target_module") or f"{project['root_module']}.definitions"
            return Home(folder, module)
    raise SpecError(
        "this folder is in no DataBrokkr project",
        mend="run `databrokkr init <folder>`, then `cd` there",
        where=Where(start),
    )

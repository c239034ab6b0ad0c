"""Where a project is, and how its Dagster instance is found."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from databrokkr_assets.core.dg_project import project_of

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class Home:
    """A project: its folder, and the module that Dagster loads."""

    root: Path
    module: str

    def enter(self) -> None:
        """Make this process use the project: its folder, now the current one, its `.env` and its `dagster.yaml`.

        Paths in `dagster.yaml` are relative to the project, as Dagster's own commands are started there.
        """
        os.chdir(self.root)
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        os.environ.update(self.environment())

    def environment(self) -> dict[str, str]:
        """What is added to the environment: the variables of `.env`, and where `dagster.yaml` is."""
        from dotenv import dotenv_values

        # Over what the shell has, as Dagster's own commands do it: a run is the same through every door.
        given = {name: value for name, value in dotenv_values(self.root / ".env").items() if value is not None}
        return {"DAGSTER_HOME": os.environ.get("DAGSTER_HOME") or str(self.root), **given}

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
    """The project that `start` is in. Raises SpecError when there is none."""
    root, project = project_of(start)
    return Home(root, project.get("code_location_target_module") or f"{project['root_module']}.definitions")

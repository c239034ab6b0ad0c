"""A project made for a test, and the `databrokkr` command run in it as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databrokkr_assets.cli.init import make

DATABROKKR = str(Path(sys.executable).with_name("databrokkr"))


@dataclass(frozen=True)
class Project:
    """A folder made by `databrokkr init`, its example pipeline removed."""

    root: Path

    @staticmethod
    def made(folder: Path) -> Project:
        """A new project below `folder`, without pipelines."""
        project = Project(folder / "project")
        make(project.root)
        (project.defs / "orders" / "defs.yaml").unlink()
        (project.defs / "orders").rmdir()
        return project

    @property
    def defs(self) -> Path:
        """Where pipelines stand."""
        return self.root / "project" / "defs"

    def write(self, name: str, yaml: str) -> Path:
        """A `defs.yaml` in a folder called `name`; gives the file."""
        file = self.defs / name / "defs.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml)
        return file

    def command(self, *words: str) -> list[str]:
        """The command line of `databrokkr` with these words."""
        return [DATABROKKR, *words]

    def call(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `databrokkr` in the project's folder to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, pipeline: str, *words: str, **environment: str) -> dict[str, Any]:
        """Run a pipeline and give its report; it must have succeeded."""
        done = self.call("run", pipeline, "--json", *words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def node(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of a run's report about one node."""
    found: dict[str, Any] = next(one for one in report["nodes"] if one["node"] == name)
    return found

"""Starts Dagster for a project: webserver, daemon and code server, on the project's own `dagster.yaml`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from databrokkr_assets.service.home import Home

_NOISE = "ignore:Function `dev_command` is superseded"  # `dg dev` reads no workspace.yaml, so it cannot take its place


def dev(home: Home, host: str, port: int) -> None:
    """Become `dagster dev`; ends with it."""
    print(f"the UI will be at http://{host}:{port} (Ctrl-C ends it)", flush=True)
    dagster = str(Path(sys.executable).with_name("dagster"))
    environment = {**os.environ, **home.environment()}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home.root), os.environ.get("PYTHONPATH")]))
    environment["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _NOISE]))
    os.execve(dagster, [dagster, "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)], environment)

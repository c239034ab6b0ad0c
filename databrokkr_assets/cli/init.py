"""Makes a project: a folder that Dagster and `databrokkr` can load, with one pipeline that runs as it is."""

from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from databrokkr_assets.core.errors import AccessError, SpecError

_TEMPLATE = files("databrokkr_assets.cli").joinpath("template")


def init(folder: Path) -> None:
    """Write the project, and print what to do next. Raises as `make` does."""
    package = make(folder)
    print(f"made {folder}: its pipeline is {package}/defs/orders/defs.yaml\n")
    print(f"  cd {folder}\n  databrokkr check\n  databrokkr run orders\n  databrokkr dev")


def make(folder: Path) -> str:
    """Write the project; gives its package's name.

    Raises SpecError for a folder that holds something already, AccessError for one that cannot be written.
    """
    package = re.sub(r"\W", "_", folder.resolve().name).lower()
    if not re.match(r"[a-z_]", package):
        raise SpecError(f'"{folder.name}" cannot name a Python package', mend="begin the name with a letter")
    if importlib.util.find_spec(package) is not None:
        raise SpecError(f'"{package}" is the name of a package that is installed', mend="choose another folder name")
    if folder.exists() and any(folder.iterdir()):
        raise SpecError(f"{folder} holds files already", mend="name a new folder")
    try:
        _write(folder, package)
    except OSError as error:
        raise AccessError(str(error), mend="choose a folder that you may write to") from error
    return package


def _write(folder: Path, package: str) -> None:
    source = Path(str(_TEMPLATE))
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        relative = str(file.relative_to(source)).replace("package", package).replace("dot.", ".")
        target = folder / relative.removesuffix(".template")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(file.read_text()).substitute(package=package))

"""What `databrokkr init` shares with this project stays the same."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from databrokkr_assets.cli.init import make
from databrokkr_assets.core.errors import SpecError


def test_a_new_project_has_this_projects_dagster_yaml(tmp_path: Path) -> None:
    own = Path(str(files("databrokkr_assets"))).parent / "dagster.yaml"
    make(tmp_path / "shop")
    assert (tmp_path / "shop" / "dagster.yaml").read_text() == own.read_text(), "copy it to cli/template"


@pytest.mark.parametrize("name", ["json", "quality", "9lives"])
def test_a_name_that_would_not_import_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError):
        make(tmp_path / name)

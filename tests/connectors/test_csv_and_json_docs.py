"""The examples in docs/csv-and-json.md are run: the file, the source, and what is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.connectors.files_reading import read, write

PAGE = Path(__file__).parents[2] / "docs" / "csv-and-json.md"
EXAMPLE = re.compile(r"```(?:csv|json)\n(.*?)```\s*```yaml\n(.*?)```\s*```text\n(.*?)```", re.DOTALL)
EXAMPLES = EXAMPLE.findall(PAGE.read_text())


@pytest.mark.parametrize(("content", "source", "shown"), EXAMPLES)
def test_what_the_page_shows_is_what_is_read(content: str, source: str, shown: str, tmp_path: Path) -> None:
    settings = yaml.safe_load(source)
    assert settings.pop("type") == "files"
    found = read(write(tmp_path / settings.pop("path"), content), **settings)
    lines = [", ".join(found.types), *(", ".join(map(str, row)) for row in found.rows)]
    for rule, position, payload in found.refused:
        lines.append(f"set aside: line {position.rpartition(':')[2]}, {rule}, {payload}")
    assert "\n".join(lines) + "\n" == shown


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```yaml")

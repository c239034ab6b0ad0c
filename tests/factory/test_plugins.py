"""A plugin that cannot be imported says so, and hides no other."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

import pytest

from databrokkr_assets.core import plugins
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.factory.schema import defs_yaml_schema
from databrokkr_assets.service.connecting import connectors
from resources.registry import connector


@pytest.fixture(autouse=True)
def broken_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = entry_points

    def with_a_broken_one(group: str) -> list[EntryPoint]:
        broken = EntryPoint("broken", "no_such_package.at_all:connector", plugins.CONNECTORS)
        return [*real(group=group), *([broken] if group == plugins.CONNECTORS else [])]

    monkeypatch.setattr("databrokkr_assets.core.plugins.entry_points", with_a_broken_one)
    plugins._group.cache_clear()
    yield
    plugins._group.cache_clear()
    plugins.load.cache_clear()


def test_it_is_listed_with_its_reason() -> None:
    found = {row["name"]: row for row in connectors()}
    assert "no_such_package" in found["broken"]["summary"] and not found["broken"]["source"]
    assert found["files"]["source"]


def test_it_does_not_break_the_schema() -> None:
    assert "files" in str(defs_yaml_schema())


def test_who_names_it_learns_why() -> None:
    with pytest.raises(SpecError, match="cannot be loaded"):
        connector("broken")

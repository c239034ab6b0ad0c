"""The only place that loads a connector: by name, on demand."""

from __future__ import annotations

from databrokkr_assets.core import plugins
from resources.base import Connector


def connector(name: str) -> Connector:
    """The connector called `name`; SpecError with a suggestion when there is none."""
    found = plugins.load(plugins.CONNECTORS, name)
    assert isinstance(found, Connector), f"entry point {name} must be a resources.base.Connector"
    return found


def connectors() -> list[Connector]:
    """Every connector that is installed, by name."""
    return [connector(name) for name in plugins.names(plugins.CONNECTORS)]

"""The only place that loads a connector: by name, on demand."""

from __future__ import annotations

from databrokkr_assets.core import plugins
from databrokkr_assets.core.errors import SpecError
from resources.base import Connector


def connector(name: str) -> Connector:
    """The connector called `name`; SpecError with a suggestion when there is none."""
    found = plugins.load(plugins.CONNECTORS, name)
    assert isinstance(found, Connector), f"entry point {name} must be a resources.base.Connector"
    return found


def connectors() -> list[Connector]:
    """Every connector that is installed and can be loaded, by name; a broken plugin hides no other."""
    return [connector(name) for name in plugins.names(plugins.CONNECTORS) if problem(name) is None]


def problem(name: str) -> SpecError | None:
    """Why an installed connector cannot be loaded; `None` when it can."""
    try:
        connector(name)
    except SpecError as error:
        return error
    return None

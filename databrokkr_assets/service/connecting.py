"""What connectors there are, for people who look for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from databrokkr_assets.core import plugins
from resources.base import Connector
from resources.registry import connector, problem


def connectors() -> Iterator[dict[str, Any]]:
    """Each installed connector: what it reads and writes; one that cannot be loaded with the reason as its summary."""
    for name in plugins.names(plugins.CONNECTORS):
        broken = problem(name)
        found = Connector(name, str(broken), kind="") if broken else connector(name)
        yield {
            "name": name,
            "summary": found.summary,
            "source": found.source is not None,
            "sink": found.sink is not None,
            "extra": found.extra,
            "from": plugins.origin(plugins.CONNECTORS, name),
        }

"""What connectors there are, and what the project's connections reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core import plugins
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, SpecError, did_you_mean
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import ChecksAccess, ConnectionSettings, Finding, ListsStreams, Place
from resources.base import Connector
from resources.registry import connector, problem

if TYPE_CHECKING:
    import dagster as dg


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


def connections(defs: dg.Definitions) -> dict[str, ConnectionSettings | None]:
    """The connections of the project by name; `None` for one whose variables are not set here."""
    found: dict[str, ConnectionSettings | None] = {}
    for name, resource in (defs.resources or {}).items():
        value = resource.resource_fn(None)
        if isinstance(value, ConnectionSettings):
            found[name] = value
        elif hasattr(value, "variables"):
            found[name] = None
    return found


def check_access(defs: dg.Definitions, root: Path, name: str) -> Iterator[Finding]:
    """Whether a connection's system is reachable, and with which rights. Raises SpecError for an unknown name."""
    connection = _connection(defs, name)
    if not isinstance(connection, ChecksAccess):
        raise SpecError(f"connections of type {connection.type} cannot be tested", mend="run a pipeline that uses it")
    try:
        yield from connection.check_access(name, Place(root))
    except DatabrokkrError as error:
        yield Finding("reachable", False, error.what, error.mend)


def discover(defs: dg.Definitions, root: Path, name: str) -> list[Stream]:
    """What a connection's system holds, by namespace and name. Raises SpecError, AccessError or Unavailable."""
    connection = _connection(defs, name)
    if not isinstance(connection, ListsStreams):
        raise SpecError(f"connections of type {connection.type} cannot list what they hold", mend="see its page")
    return sorted(connection.list_streams(name, Place(root)), key=lambda one: (one.namespace, one.name))


def _connection(defs: dg.Definitions, name: str) -> ConnectionSettings:
    known = connections(defs)
    if name not in known:
        raise SpecError(f'there is no connection "{name}"', mend=did_you_mean(name, known))
    found = known[name]
    if found is None:
        unset = ", ".join((defs.resources or {})[name].resource_fn(None).variables)
        raise AccessError(f'the connection "{name}" needs the environment variable {unset}', mend=f"set {unset}")
    return found

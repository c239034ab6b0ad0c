"""Which models stand behind a `type:`: the installed connectors and transforms, and Great Expectations' own checks."""

from __future__ import annotations

from databrokkr_assets.core import plugins
from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.reading import Kinds
from databrokkr_assets.core.spec import ConnectionSettings, SinkSettings, SourceSettings, TransformSettings
from quality import gate
from resources.registry import connector


def installed() -> Kinds:
    """The kinds that this environment has."""
    return Kinds(_source, _transform, _sink, _connection, gate.problems)


def _source(name: str) -> type[SourceSettings]:
    return connector(name).source or _refuse(name, "read from")


def _sink(name: str) -> type[SinkSettings]:
    return connector(name).sink or _refuse(name, "write to")


def _connection(name: str) -> type[ConnectionSettings]:
    return connector(name).connection or _refuse(name, "name a connection of")


def _transform(name: str) -> type[TransformSettings]:
    found: type[TransformSettings] = plugins.load(plugins.TRANSFORMS, name)
    return found


def _refuse(name: str, what: str) -> type:
    others = [other for other in plugins.names(plugins.CONNECTORS) if other != name]
    raise SpecError(f'the connector "{name}" does not let you {what} it', mend=did_you_mean(name, others))

"""A connector: the plugin for one kind of system, as its entry point gives it."""

from __future__ import annotations

from dataclasses import dataclass

from databrokkr_assets.core.spec import ConnectionSettings, SinkSettings, SourceSettings


@dataclass(frozen=True)
class Connector:
    """What a connector file declares, once: its name and the models of its connection, source and sink.

    `kind` is the icon in the Dagster UI, where it has one of that name. `extra` names the extra of this distribution
    that brings the drivers.
    """

    name: str
    summary: str
    kind: str
    connection: type[ConnectionSettings] | None = None
    source: type[SourceSettings] | None = None
    sink: type[SinkSettings] | None = None
    extra: str | None = None

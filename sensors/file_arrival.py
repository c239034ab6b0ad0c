"""Starts a run when files have arrived for a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import dagster as dg

from databrokkr_assets.core.spec import ConnectionSettings, FileArrival, Place, SourceSettings, WatchesFiles


def file_arrival_sensor(
    name: str,
    trigger: FileArrival,
    source: SourceSettings,
    place: Place,
    keys: list[dg.AssetKey],
    connection: Callable[[str | None], ConnectionSettings | None] = lambda name: None,
) -> dg.SensorDefinition:
    """A sensor whose cursor holds the files that were seen, so that each arrival starts one run.

    `connection` gives a connection by its name; it is asked at each look, because its secrets may not be set.

    The run reads what the source's own cursor has not seen; a tick that is repeated starts nothing twice.
    """
    assert isinstance(source, WatchesFiles)

    @dg.sensor(
        name=name,
        asset_selection=dg.AssetSelection.assets(*keys),
        minimum_interval_seconds=int(trigger.every),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches the files of `{trigger.source}`.",
    )
    def arrived(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen = json.loads(context.cursor) if context.cursor else None
        arrivals = source.arrivals(place, seen, connection(source.connection))
        if not arrivals.paths:
            return dg.SkipReason("no new files")
        cursor = json.dumps(arrivals.cursor, sort_keys=True)
        listed = ", ".join(arrivals.paths[:5]) + (" …" if len(arrivals.paths) > 5 else "")
        context.log.info(f"{len(arrivals.paths)} new: {listed}")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=hashlib.sha256(cursor.encode()).hexdigest(),
                    tags={"databrokkr/files": str(len(arrivals.paths))},
                )
            ],
            cursor=cursor,
        )

    return arrived

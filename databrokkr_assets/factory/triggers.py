"""What starts a pipeline: its schedule and its event sensors, as Dagster's."""

from __future__ import annotations

import dagster as dg

from databrokkr_assets.core.document import Document
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.graph import downstream
from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.factory.keys import node_key
from databrokkr_assets.factory.project import Project
from schedules.cron import cron_schedule
from sensors.file_arrival import file_arrival_sensor


def schedules(
    pipeline: Pipeline, job: dg.UnresolvedAssetJobDefinition, document: Document | None
) -> list[dg.ScheduleDefinition]:
    """The pipeline's schedule, if it has one. Raises SpecError for a cron or time zone that is none."""
    if pipeline.schedule is None:
        return []
    try:
        return [cron_schedule(pipeline.name, pipeline.schedule, job)]
    except dg.DagsterInvalidDefinitionError as error:
        where = document.where(("attributes", "schedule")) if document else None
        mend = 'write five fields such as "0 6 * * *", and a time zone such as Europe/Berlin'
        raise SpecError(str(error), mend=mend, where=where) from error


def sensors(pipeline: Pipeline, project: Project) -> list[dg.SensorDefinition]:
    """One sensor for each trigger; it runs the source's node and everything downstream."""
    return [
        file_arrival_sensor(
            f"{pipeline.name}__{name}",
            trigger,
            pipeline.sources[trigger.source],
            project.place,
            [
                node_key(pipeline.name, node)
                for node in downstream(pipeline, [trigger.source])
                if node not in pipeline.transforms or pipeline.transforms[node].stored
            ],
            project.connection,
        )
        for name, trigger in pipeline.triggers.items()
    ]

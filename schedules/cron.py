"""A pipeline's schedule: a cron expression in a time zone."""

from __future__ import annotations

import dagster as dg

from databrokkr_assets.core.spec import ScheduleSettings


def cron_schedule(name: str, settings: ScheduleSettings, job: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """A schedule that is on as soon as the daemon sees it. Raises DagsterInvalidDefinitionError for a bad cron."""
    return dg.ScheduleDefinition(
        name=f"{name}__schedule",
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )

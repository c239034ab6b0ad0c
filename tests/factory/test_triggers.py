"""Triggers: the schedule as it is written, and one run for each arrival of files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg

from databrokkr_assets.core.spec import FileArrival, Pipeline, ScheduleSettings
from databrokkr_assets.factory.project import Project
from databrokkr_assets.factory.triggers import schedules, sensors
from databrokkr_assets.transforms.sql import Sql
from resources.connectors.files import FilesSource


def pipeline() -> Pipeline:
    return Pipeline(
        name="p",
        sources={
            "orders": FilesSource.model_validate({"type": "files", "path": "in"}),
            "other": FilesSource.model_validate({"type": "files", "path": "elsewhere"}),
        },
        transforms={"view": Sql(sql="select * from orders", stored=False), "totals": Sql(sql="select * from view")},
        schedule=ScheduleSettings(cron="0 6 * * 1-5", timezone="Europe/Berlin"),
        triggers={"new": FileArrival(type="file_arrival", source="orders")},
    )


def arrive(folder: Path, name: str, rows: int = 1) -> None:
    file = folder / "in" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("id\n" + "1\n" * rows)
    settled = time.time() - 60
    os.utime(file, (settled, settled))


def evaluated(sensor: dg.SensorDefinition, cursor: str | None = None) -> Any:
    """One tick of the sensor."""
    defs = dg.Definitions(assets=[_asset("orders"), _asset("totals")], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:
        return sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs))


def _asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(key=["p", name])
    def made() -> None:
        """Stands for a node; never run here."""

    return made


def test_the_schedule_is_on_and_in_its_time_zone() -> None:
    job = dg.define_asset_job("p", selection="*")
    (schedule,) = schedules(pipeline(), job, None)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * 1-5", "Europe/Berlin")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_each_arrival_starts_one_run_of_what_is_downstream(tmp_path: Path) -> None:
    (sensor,) = sensors(pipeline(), Project(tmp_path))
    assert sensor.asset_selection == dg.AssetSelection.assets(
        dg.AssetKey(["p", "orders"]), dg.AssetKey(["p", "totals"])
    )
    cursor, asked = None, []
    for step in ("nothing", "a.csv", "nothing", "b.csv", "nothing"):
        if step != "nothing":
            arrive(tmp_path, step)
        tick = evaluated(sensor, cursor)
        cursor = tick.cursor or cursor
        asked.append(len(tick.run_requests or []))
    assert asked == [0, 1, 0, 1, 0]
    assert cursor is not None and {Path(name).name for name in json.loads(cursor)["files"]} == {"a.csv", "b.csv"}


def test_a_tick_that_is_repeated_asks_for_the_same_run(tmp_path: Path) -> None:
    (sensor,) = sensors(pipeline(), Project(tmp_path))
    arrive(tmp_path, "a.csv")
    keys = [[request.run_key for request in evaluated(sensor).run_requests or []] for _ in range(2)]
    assert keys[0] == keys[1] and len(keys[0]) == 1

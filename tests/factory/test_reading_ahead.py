"""Sources of one run are read at once; a limit on their connection holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import dagster as dg
import pyarrow as pa
import pytest

from databrokkr_assets.core.ports import Batch, Cursor, Source, Stream
from databrokkr_assets.core.spec import ConnectionSettings, Pipeline, Place, SourceSettings
from databrokkr_assets.factory.assets import pipeline_assets
from databrokkr_assets.factory.keys import connection_pool
from databrokkr_assets.factory.project import Project


class Meeting:
    """Counts who is reading at once, and can make each wait until `size` of them are there."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=30)
        self._lock = threading.Lock()
        self._here = 0
        self.most = 0

    def attend(self) -> None:
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        self._barrier.wait()
        with self._lock:
            self._here -= 1


MEETINGS: dict[str, Meeting] = {}


class MeetingConnection(ConnectionSettings):
    type: Literal["files"]
    room: str | None = None

    def alone(self, place: Place) -> str | None:
        return self.room


class MeetingSource(SourceSettings, Source):
    """A source that reads one row after it has met the others."""

    type: Literal["files"] = "files"
    meeting: str

    def open(self, connection: ConnectionSettings | None, place: Place) -> Source:
        return self

    def streams(self) -> Iterable[Stream]:
        return [Stream("one")]

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        MEETINGS[self.meeting].attend()
        if self.description == "fails":
            raise AssertionError("this one fails")
        yield Batch(pa.record_batch({"id": [1]}))


def ran(
    folder: Path, meeting: str, size: int, *, parallel: int, limit: int | None = None, room: str | None = None
) -> dg.ExecuteInProcessResult:
    """Run three sources, which are read `parallel` at a time; the second one fails."""
    MEETINGS[meeting] = Meeting(size)
    texts = {"a": "", "b": "fails", "c": ""}
    sources = {
        name: MeetingSource(meeting=meeting, connection="there" if limit or room else None, description=text)
        for name, text in texts.items()
    }
    project = Project(folder, {"there": MeetingConnection(type="files", max_concurrent=limit, room=room)})
    pipeline = Pipeline(name="p", sources=sources, parallel_reads=parallel)
    resources = {name: dg.ResourceDefinition.hardcoded_resource(1) for name in ("lake", "there")}
    assets = [one for one in pipeline_assets(pipeline, project, None) if isinstance(one, dg.AssetsDefinition)]
    defs = dg.Definitions(assets, resources=resources, executor=dg.in_process_executor)
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, raise_on_error=False)


def done(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}


def test_sources_are_read_at_once_and_fail_alone(tmp_path: Path) -> None:
    result = ran(tmp_path, "all", 3, parallel=3)
    assert (MEETINGS["all"].most, done(result), result.success) == (3, {"a", "c"}, False)


@pytest.mark.parametrize(
    ("parallel", "limit", "room"),
    [(1, None, None), (3, 1, None), (3, None, "a file")],
    ids=["one at a time", "a connection for one", "a file for one thread"],
)
def test_a_limit_holds(tmp_path: Path, parallel: int, limit: int | None, room: str | None) -> None:
    result = ran(tmp_path, "one", 1, parallel=parallel, limit=limit, room=room)
    assert (MEETINGS["one"].most, done(result)) == (1, {"a", "c"})


def test_a_connection_has_the_pool_that_it_says(tmp_path: Path) -> None:
    result = ran(tmp_path, "pool", 1, parallel=1, limit=4)
    assert result.dagster_run.run_id
    project = Project(tmp_path, {"there": MeetingConnection(type="files", max_concurrent=4)})
    source = MeetingSource(meeting="pool", connection="there")
    (asset, *_) = pipeline_assets(Pipeline(name="p", sources={"a": source}), project, None)
    assert isinstance(asset, dg.AssetsDefinition) and asset.op.pool == connection_pool("there")

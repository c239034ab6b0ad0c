"""Reads a source part by part: a load that dies in the middle leaves its finished parts to the next one.

The parts are noted beside the staged files, under the number that the load would have had. The next load with this
number, which is the one after, copies the finished parts from there and asks the source for the others only. It copies,
because the load that it goes on from may be alive after all, and would remove its own files when it finds itself late.

Each part is a snapshot of its own: a row whose key changes meanwhile may come twice or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import duckdb
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Disposition
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Reject, Source
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome
from databrokkr_assets.engine.loading import read_rows
from databrokkr_assets.engine.staging import Rows, Staging
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.publishing import Stage, unfinished

_FRESH_SECONDS = 24 * 3600
"""How long a part counts as a read of the present; an older one is read again."""


@dataclass
class Progress:
    """How far a load has come. `files` are those of each finished part, by its index; `rejects` what it set aside;
    `columns` the types of all."""

    fingerprint: str
    bounds: list[str]
    began: float
    columns: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    rejects: dict[str, list[dict[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """A source in parts: `ask` gives where they begin, `open` the sources of the parts between such bounds.

    `fingerprint` changes with the settings: what was read with others is not gone on from.
    """

    fingerprint: str
    ask: Callable[[], list[str]]
    open: Callable[[Sequence[str]], Sequence[Source]]


def load_in_parts(job: Job, parts: Parts, how: Disposition) -> Outcome:
    """Read every part and publish all rows at once. Raises our errors; finished parts then stay for the next load."""
    with told_plainly(job.node), job.duck() as duck:
        before = job.dataset.open()
        staging = Staging(duck, job, before, how)
        load = _Load(duck, job, parts, _latest(job.dataset, staging.number, parts.fingerprint))
        rows = Rows("", rejects=load.rejects, staged=load.stage, facts={"parts_resumed": len(load.earlier.files)})
        return staging.run(rows)


def _latest(dataset: Dataset, number: int, fingerprint: str) -> Progress | None:
    """How far the unfinished load of these settings came that came farthest."""
    told = (Progress(**json.loads(text)) for text in unfinished(dataset, number).values() if text)
    fitting = (one for one in told if one.fingerprint == fingerprint and time.time() - one.began < _FRESH_SECONDS)
    return max(fitting, key=lambda one: len(one.files), default=None)


class _Load:
    """The parts of one load."""

    def __init__(self, duck: DuckDBPyConnection, job: Job, parts: Parts, earlier: Progress | None) -> None:
        self._duck, self._job, self._parts = duck, job, parts
        self.earlier = earlier or Progress(parts.fingerprint, parts.ask(), time.time())
        self._now = Progress(parts.fingerprint, self.earlier.bounds, self.earlier.began)

    def stage(self, stage: Stage) -> None:
        """Stage every part, noting each one that is done."""
        stage.resumable = True
        for index, source in enumerate(self._parts.open(self.earlier.bounds)):
            key = str(index)
            if not self._copied(stage, key):
                self._read(stage, key, source)
            stage.note(json.dumps(asdict(self._now)))
        stage.resumable = False  # From here on it is the rows themselves that may be refused.

    def rejects(self) -> Iterator[Reject]:
        """What the parts could not read."""
        return (Reject(**one) for found in self._now.rejects.values() for one in found)

    def _copied(self, stage: Stage, key: str) -> bool:
        """Take a part over from the load before; false when there is none, or its files have gone."""
        files = self.earlier.files.get(key)
        if files is None:
            return False
        listed = ", ".join(literal(stage.dataset.store.child(file).url) for file in files)
        chosen = ", ".join(
            f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in self.earlier.columns.items()
        )
        try:
            self._stage(stage, key, f"SELECT {chosen} FROM read_parquet([{listed}])")
        except duckdb.IOException:
            return False
        self._now.rejects[key] = self.earlier.rejects[key]
        return True

    def _read(self, stage: Stage, key: str, source: Source) -> None:
        rows = read_rows(self._duck, self._job, source)
        try:
            self._stage(stage, key, rows.query)
        except duckdb.Error as error:
            ours = rows.explain(error)
            if ours is None:
                raise
            raise ours from error
        self._now.rejects[key] = [asdict(one) for one in rows.rejects()]

    def _stage(self, stage: Stage, key: str, query: str) -> None:
        relation = self._duck.sql(query)
        self._now.columns = dict(zip(relation.columns, map(str, relation.types), strict=True))
        self._now.files[key] = [file.path for file in stage.add(query)]

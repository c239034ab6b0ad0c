"""Reads again what was landed, without the source, and puts it in the place of the dataset's rows.

The loads are repeated one after the other, with their copies, on a dataset beside the lake that lives as long as this
takes. So contract, checks, deletions and keys do the same again, load by load. Its rows are then published at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Disposition, History, Replace
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.ports import Cursor, Source, Taken
from databrokkr_assets.engine.faults import told_plainly
from databrokkr_assets.engine.job import Job, Outcome
from databrokkr_assets.engine.loading import read_rows
from databrokkr_assets.engine.staging import Rows, Staging
from databrokkr_assets.lake.dataset import Dataset, LoadRecord, Snapshot
from databrokkr_assets.lake.landing import Landing
from databrokkr_assets.lake.store import Store

OpenCopies = Callable[[Sequence[Taken]], Source]
"""Gives a reader of what one load took."""

_FROM_THE_BEGINNING: Cursor = {}
_NAMED_AT_MOST = 5
_READ_AGAIN = "read everything from the source again, with `landing: true` from then on"


def reload(job: Job, landing: Store, how: Disposition, open_copies: OpenCopies) -> Outcome:
    """Put what was landed in the place of all rows, in one commit; the cursor stays where it is.

    `append` and `merge` repeat every load since the last `replace`, or the beginning, `replace` the newest. What is set
    aside goes to quarantine again. Raises SpecError for a `history`, and when rows would be lost: those of a load that
    was not landed.
    """
    with told_plainly(job.node), job.duck() as duck:
        before = job.dataset.open()
        loads = _to_repeat(before, how, job.node)
        with tempfile.TemporaryDirectory(prefix="databrokkr-reload-") as folder:
            repeated = _Repeated(duck, job, Path(folder))
            for record in loads:
                repeated.add(record, Landing.at(landing, record.at, record.load_id), how, open_copies)
            limit = job.max_rejects and job.max_rejects * len(loads)
            whole = replace(job, max_rejects=limit, landing=landing)  # to sweep there; nothing more is landed
            return Staging(duck, whole, before, Replace()).run(repeated.rows(len(loads)))


def _to_repeat(before: Snapshot | None, how: Disposition, node: str) -> list[LoadRecord]:
    """The landed loads whose rows make the dataset, the oldest first."""
    if isinstance(how, History):
        mend = "read the source again, or use `merge`"
        raise SpecError("a history cannot be made again: when its versions came would be lost", mend=mend, where=node)
    loads = list(_until_the_first(before, how, node)) if before else []
    lost = [one for one in loads if not one.landed and (one.rows or one.deleted or one.disposition == Replace.name)]
    if lost:
        named = ", ".join(f"{one.load_id} ({one.rows:,} rows, {one.at[:16]})" for one in lost[:_NAMED_AT_MOST])
        more = " …" if len(lost) > _NAMED_AT_MOST else ""
        what = f"rows would be lost, because these loads were not landed: {named}{more}"
        raise SpecError(what, mend=_READ_AGAIN, where=node)
    found = [one for one in loads if one.landed]
    if not found:
        raise SpecError("nothing was landed", mend="set `landing: true` and run it", where=node)
    return found[::-1]


def _until_the_first(before: Snapshot, how: Disposition, node: str) -> Iterator[LoadRecord]:
    """The loads that read the source, from the newest to the one with which the rows of the dataset begin."""
    number = 0
    for record in before.loads():
        number = record.number
        if record.reloaded:
            continue
        yield record
        if record.disposition == Replace.name or (record.landed and isinstance(how, Replace)):
            return
    if number > 1:
        what = f"the dataset's log begins with its load number {number}; what came before cannot be told"
        raise SpecError(what, mend=_READ_AGAIN, where=node)


@dataclass(frozen=True)
class _Repeated:
    """The dataset, in a local folder, on which loads are repeated."""

    duck: DuckDBPyConnection
    job: Job
    folder: Path

    def add(self, record: LoadRecord, copies: Landing, how: Disposition, open_copies: OpenCopies) -> None:
        """Repeat one load."""
        with tempfile.TemporaryDirectory(dir=self.folder) as files:
            source = open_copies(copies.bring(Path(files)))
            job = replace(
                self.job,
                dataset=self._dataset("rows"),
                quarantine=self._dataset("quarantine"),
                max_rejects=None,  # their number is judged when all are there
                load_id=record.load_id,
            )
            rows = read_rows(self.duck, job, source, _FROM_THE_BEGINNING)
            Staging(self.duck, job, job.dataset.open(), how).run(rows)

    def rows(self, loads: int) -> Rows:
        """What came of all of them."""
        rows, aside = self._dataset("rows").open(), self._dataset("quarantine").open()
        assert rows is not None
        rejected = aside.query(self.duck) if aside else None
        return Rows(rows.query(self.duck), reloaded=True, aside=rejected, facts={"loads_repeated": loads})

    def _dataset(self, name: str) -> Dataset:
        return Dataset(Store(str(self.folder / name)), self.job.node)

"""Writing: what each disposition leaves, once, and never seen half done."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import VALID_TO, Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import Unavailable
from databrokkr_assets.core.ports import Target

from .bench import TARGET, Bench, mark, staged, written
from .case import Busy, Case, Merges, Writes
from .child import Run, run_in_child
from .theme import DISPOSITIONS, Theme
from .values import table, told

FIRST = table(id=[1, 2], what=["a", ""])
SECOND = table(id=[2, 3], what=["B", None])

LEFT: dict[str, list[tuple[int, str | None]]] = {
    "append": [(1, "a"), (2, ""), (2, "B"), (3, None)],
    "replace": [(2, "B"), (3, None)],
    "merge": [(1, "a"), (2, "B"), (3, None)],
    "history": [(2, "B"), (3, None)],
}
"""What two loads leave, as it is now. A load of a history brings all rows: what does not come is over."""


def now(case: Case, target: str) -> list[Any]:
    """The rows of a target, without those that a history has closed and without its times."""
    rows = [dict(row) for row in case.get(target) if row.get(VALID_TO) is None]
    return told([{name: value for name, value in row.items() if name in ("id", "what")} for row in rows])


def input_of(how: Disposition) -> Disposition:
    """How the dataset is filled that such a sink reads."""
    return Merge(how.keys) if isinstance(how, History) else Replace() if isinstance(how, Replace) else Append()


def _as_told(rows: list[tuple[int, str | None]]) -> list[Any]:
    return told([{"id": key, "what": what} for key, what in rows])


class Writing(Theme):
    """What a sink leaves in the system."""

    title = "Writing"
    abilities = (Writes,)

    @pytest.mark.parametrize("by_batches", [False, True], ids=["fast", "batches"])
    def test_what_each_disposition_leaves(self, bench: Bench, how: Disposition, by_batches: bool) -> None:
        """Each disposition leaves what it says, and each load that comes twice is applied once."""
        sink = bench.sink("orders", how)
        for rows, load in ((FIRST, mark(1)), (SECOND, mark(2, after=1))):
            assert not written(sink, rows, how, load, by_batches=by_batches).already
            assert written(bench.sink("orders", how), rows, how, load, by_batches=by_batches).already
        assert now(bench.case, "orders") == _as_told(LEFT[how.name])
        last = sink.last_load(Target(TARGET, FIRST.schema))
        assert last is not None and (last.dataset, last.version) == ("contract-rows", 2)

    def test_a_pipeline_delivers_each_version_once(self, bench: Bench, how: Disposition) -> None:
        """A pipeline brings its target up to its dataset, version by version; run again, it does nothing."""
        for rows in (FIRST, SECOND):
            bench.publish(rows, input_of(how))
            assert bench.deliver("orders", how).published
            assert not bench.deliver("orders", how).published
        assert now(bench.case, "orders") == _as_told(LEFT["merge" if isinstance(how, History) else how.name])

    def test_leaving_without_commit_changes_nothing(self, bench: Bench, how: Disposition) -> None:
        """A load that is left without its commit changes nothing and leaves nothing behind."""
        written(bench.sink("orders", how), FIRST, how, mark(1))
        with staged(bench.sink("orders", how), SECOND, how, mark(2, after=1)):
            pass
        assert now(bench.case, "orders") == told(FIRST)
        written(bench.sink("orders", how), SECOND, how, mark(2, after=1))
        assert now(bench.case, "orders") == _as_told(LEFT[how.name])

    def test_an_empty_load_counts(self, bench: Bench, how: Disposition) -> None:
        """A load without rows is a load: `replace` empties the target, `history` ends all rows."""
        written(bench.sink("orders", how), FIRST, how, mark(1))
        sink = bench.sink("orders", how)
        with sink.begin(Target(TARGET, FIRST.schema), how, mark(2, after=1)) as load:
            assert load.commit().rows == 0
        whole = isinstance(how, Replace | History)
        assert now(bench.case, "orders") == ([] if whole else told(FIRST))
        written(bench.sink("orders", how), SECOND, how, mark(3, after=2))

    def test_columns_are_added(self, bench: Bench, how: Disposition) -> None:
        """A column that is new in the dataset is added to the target; a column that is gone is NULL there."""
        written(bench.sink("orders", how), table(id=[1], old=["x"]), how, mark(1))
        written(bench.sink("orders", how), table(id=[2], new=["y"]), how, mark(2, after=1))
        rows = {row["id"]: row for row in bench.case.get("orders")}
        assert rows[2]["new"] == "y" and rows[2].get("old") is None
        assert isinstance(how, Replace) or (rows[1]["old"] == "x" and rows[1].get("new") is None)

    def test_the_case_claims_what_the_sink_says(self, bench: Bench) -> None:
        """Dispositions and delivery are what the sink itself says."""
        case = bench.able(Writes)
        sink = bench.sink("orders", DISPOSITIONS[case.dispositions[0]])
        assert (frozenset(case.dispositions), case.delivery) == (sink.dispositions, sink.delivery)

    def test_nobody_sees_a_replace_half_done(self, bench: Bench) -> None:
        """Who looks 20 times a second while `replace` is at work sees all old rows or all new ones."""
        sizes = {version: 2000 + version for version in range(1, 4)}
        seen: set[int] = set()
        for version, size in sizes.items():
            bench.publish(table(version=[version] * size, fill=["x" * 500] * size), Replace())
            with _Watcher(bench.case, "orders") as watcher:
                done = run_in_child(Run(bench.writing("orders", Replace()), "out"))
            assert done.error is None, done.says
            for look in [*watcher.looks, bench.case.get("orders")]:
                kinds = {row["version"] for row in look}
                assert len(kinds) <= 1, f"rows of {kinds} together"
                assert len(look) == (sizes[kinds.pop()] if kinds else 0)
                seen |= {row["version"] for row in look[:1]}
            assert version == 1 or all(watcher.looks), "nothing was there for a moment"
        assert 3 in seen


class _Watcher:
    """Looks at a table 20 times a second, from a thread of its own, while the block runs."""

    def __init__(self, case: Case, name: str) -> None:
        self.looks: list[Any] = []
        self._case, self._name = case, name
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            try:
                self.looks.append(self._case.get(self._name))
            except Busy:
                continue
            except BaseException as error:
                self._error = error
                return

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._done.set()
        self._thread.join()
        if self._error:
            raise self._error


class Merging(Theme):
    """What a sink that merges does beside."""

    title = "Merging"
    abilities = (Merges,)

    def test_deletions_reach_the_target(self, bench: Bench, by_key: Disposition) -> None:
        """A row that is deleted in the dataset is deleted in a target that merges, or closed in its history."""
        deleting: dict[str, Any] = {"deleted_flag": "gone"}
        rows = table(id=[1, 2, 3], what=["a", "b", "c"], gone=pa.array([None] * 3, pa.bool_()))
        bench.publish(rows, Merge(("id",)), **deleting)
        bench.deliver("orders", by_key)
        bench.publish(table(id=[2, 4], what=["b", "d"], gone=[True, False]), Merge(("id",)), **deleting)
        bench.deliver("orders", by_key)
        assert now(bench.case, "orders") == _as_told([(1, "a"), (3, "c"), (4, "d")])
        bench.publish(table(id=[2], what=["again"], gone=[False]), Merge(("id",)), **deleting)
        bench.deliver("orders", by_key)
        assert (2, "again") in {(row["id"], row["what"]) for row in bench.case.get("orders")}


class Fencing(Theme):
    """Loads that meet."""

    title = "Loads that meet"
    abilities = (Writes,)

    def test_a_zombie_writes_nothing(self, bench: Bench, how: Disposition) -> None:
        """A writer that wakes up after its successor committed writes nothing; while it holds on, nobody else does."""
        written(bench.sink("orders", how), FIRST, how, mark(1))
        with staged(bench.sink("orders", how), SECOND, how, mark(2, after=1)) as zombie:
            try:
                # The successor carries more than the zombie did, so it is another version.
                written(bench.sink("orders", how), SECOND, how, mark(3, after=1))
            except Unavailable:
                zombie.commit()
            else:
                with pytest.raises(Unavailable) as raised:
                    zombie.commit()
                assert raised.value.mend
        assert now(bench.case, "orders") == _as_told(LEFT[how.name])

    def test_a_load_that_builds_on_another_version_is_refused(self, bench: Bench, how: Disposition) -> None:
        """A load that does not build on what the target holds writes nothing."""
        written(bench.sink("orders", how), FIRST, how, mark(2))
        for after in (None, 1, 3):
            with pytest.raises(Unavailable):
                written(bench.sink("orders", how), SECOND, how, mark(4, after=after))
        assert now(bench.case, "orders") == told(FIRST)

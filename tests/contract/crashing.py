"""Crashing: a process that is killed between any two steps, and its restart, lose nothing and double nothing."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import Append, Disposition, Replace

from .bench import Bench, Plan
from .case import Reads, ReadsArrivals, ReadsByCursor, Writes, only_new
from .child import END, Run, run_in_child
from .theme import Theme, needs
from .values import told
from .writing import input_of, now

FEW = 6
"""At how many places of a load a test kills; they are spread over all that there are. `--kills N` is for more."""


class Crashing(Theme):
    """kill -9, and another run."""

    title = "Crashes"

    @pytest.fixture
    def kills(self, request: pytest.FixtureRequest) -> int:
        """How often a load is killed."""
        return max(3, int(request.config.getoption("--kills", FEW)))

    @needs(Writes)
    def test_a_killed_delivery_is_made_whole(self, bench: Bench, how: Disposition, kills: int) -> None:
        """kill -9 between any two steps of a delivery, its reply lost too: the next run loses and doubles nothing."""
        plan = bench.writing("orders", how)
        want = _published(bench, how, 0, [])
        first = run_in_child(Run(plan, "out"))
        assert first.error is None, first.says
        want = _published(bench, how, 1, want)
        steps = run_in_child(Run(plan, "out")).steps
        for version, step in enumerate(_spread(steps, kills), 2):
            want = _published(bench, how, version, want)
            _kill(plan, "out", step)
            bench.deliver("orders", how)
            assert now(bench.case, "orders") == told(want), f"killed after step {step} of {steps}"

    @needs(Reads)
    def test_a_killed_load_is_made_whole(self, bench: Bench, kills: int) -> None:
        """kill -9 between any two steps of a load from the source: the next run loses and doubles nothing."""
        how = only_new(bench.case, "id")
        plan = bench.reading("log", **how)
        want = _happened(bench, 0, [])
        first = run_in_child(Run(plan, "rows"))
        assert first.error is None, first.says
        want = _happened(bench, 1, want)
        steps = run_in_child(Run(plan, "rows")).steps
        for version, step in enumerate(_spread(steps, kills), 2):
            want = _happened(bench, version, want)
            _kill(plan, "rows", step)
            bench.load("log", **how)
            assert told(bench.stored()) == told(want), f"killed after step {step} of {steps}"


def _spread(steps: Sequence[int], kills: int) -> list[int]:
    """Some of the steps, evenly chosen, and the end."""
    assert len(steps) > 2, "the work was not seen"
    # What comes first only looks.
    later = sorted(steps)[len(steps) // 3 :]
    some = min(kills - 1, len(later))
    return [*(later[index * (len(later) - 1) // (some - 1)] for index in range(some)), END]


def _kill(plan: Plan, node: str, step: int) -> None:
    done = run_in_child(Run(plan, node, kill_after=step))
    # Steps differ a little from run to run; a run that was not killed has done its work.
    assert done.signal == signal.SIGKILL or done.error is None, done.says


def _rows(version: int) -> list[dict[str, Any]]:
    """A row that all versions share, and two that no other has."""
    return [{"id": key, "what": f"of {version}"} for key in (1, 10 * version + 2, 10 * version + 3)]


def _published(bench: Bench, how: Disposition, version: int, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Publish another version, and give what the target is to hold."""
    fresh = _rows(version)
    bench.publish(pa.Table.from_pylist(fresh), input_of(how))
    if isinstance(how, Replace):
        return fresh
    if isinstance(how, Append):
        return before + fresh
    return [row for row in before if row["id"] != 1] + fresh


def _happened(bench: Bench, version: int, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let rows come in the source, and give what the dataset is to hold."""
    fresh = [row for row in _rows(version) if row["id"] != 1]
    rows = pa.Table.from_pylist(fresh)
    if isinstance(bench.case, ReadsArrivals):
        bench.case.arrive("log", f"{version:03}", rows)
    elif version and isinstance(bench.case, ReadsByCursor):
        bench.case.add("log", rows)
    else:
        bench.case.put("log", pa.Table.from_pylist(before + fresh))
    return before + fresh

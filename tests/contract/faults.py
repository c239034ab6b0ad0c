"""Faults: who is refused, a system that is down, a target that takes nothing. Each is told with what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import Append
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, Unavailable
from databrokkr_assets.core.ports import ReadsAsRelation, Source
from databrokkr_assets.core.spec import ChecksAccess, Finding, Place
from databrokkr_assets.engine.job import Outcome

from .bench import CONNECTION, Bench, mark, session, staged
from .case import CanBeReadOnly, ChecksPasswords, GrantsRights, Reads, RunsFull, Settings, Stops, Writes
from .child import Run, run_in_child
from .theme import Theme, needs
from .values import table, told
from .writing import FIRST, SECOND, now


class Refused(Theme):
    """Who is not let in, and what may not be done."""

    title = "Rights"

    @needs(ChecksPasswords, Reads)
    def test_a_wrong_password_when_reading(self, bench: Bench) -> None:
        """Wrong credentials of a source are an error that names the connection and shows no secret."""
        bench.case.put("orders", FIRST)
        with pytest.raises(AccessError) as raised:
            bench.load("orders", connection=bench.able(ChecksPasswords).wrong_password())
        _tells(raised.value)

    @needs(ChecksPasswords, Writes)
    def test_a_wrong_password_when_writing(self, bench: Bench) -> None:
        """Wrong credentials of a sink are an error that names the connection and shows no secret."""
        bench.publish(FIRST, Append())
        with pytest.raises(AccessError) as raised:
            bench.writing("orders", Append(), bench.able(ChecksPasswords).wrong_password()).worker().run("out")
        _tells(raised.value)

    @needs(GrantsRights, Reads)
    def test_a_missing_grant_when_reading(self, bench: Bench) -> None:
        """A source that this user may not read is an error that says which right is missing."""
        bench.case.put("orders", FIRST)
        with pytest.raises(AccessError) as raised:
            bench.load("orders", connection=bench.able(GrantsRights).without_rights())
        assert raised.value.mend
        assert bench.stored() == []

    @needs(GrantsRights, Writes)
    def test_a_missing_grant_when_writing(self, bench: Bench) -> None:
        """A target that this user may not change is an error that says so, and stays as it was."""
        bench.case.put("orders", FIRST)
        bench.publish(SECOND, Append())
        with pytest.raises(AccessError) as raised:
            bench.writing("orders", Append(), bench.able(GrantsRights).without_rights()).worker().run("out")
        assert raised.value.mend
        assert told(bench.case.get("orders")) == told(FIRST)

    @needs(CanBeReadOnly, Writes)
    def test_a_read_only_target(self, bench: Bench) -> None:
        """A target that is read-only is an error that says so, and stays as it was; later the load is made whole."""
        bench.publish(FIRST, Append())
        bench.deliver("orders", Append())
        bench.publish(SECOND, Append())
        with bench.able(CanBeReadOnly).read_only() as connection:
            done = run_in_child(Run(bench.writing("orders", Append(), connection), "out", powerless=True))
        assert done.error is AccessError, done.says
        assert done.mend
        assert now(bench.case, "orders") == told(FIRST)
        bench.deliver("orders", Append())
        assert now(bench.case, "orders") == told(pa.concat_tables([FIRST, SECOND]))

    @needs(RunsFull, Writes)
    def test_a_full_disk(self, bench: Bench) -> None:
        """A target whose disk is full is an error that says so, and stays as it was; later the load is made whole."""
        bench.publish(FIRST, Append())
        bench.deliver("orders", Append())
        big = table(id=list(range(10, 60)), what=[_noise(600_000, seed) for seed in range(50)])
        bench.publish(big, Append())
        with bench.able(RunsFull).full_disk() as limit:
            done = run_in_child(Run(bench.writing("orders", Append()), "out", file_size=limit))
        assert done.error is AccessError, done.says
        assert "space" in done.mend or "disk" in done.mend
        assert now(bench.case, "orders") == told(FIRST)
        bench.deliver("orders", Append())
        assert sorted(row["id"] for row in bench.case.get("orders")) == [1, 2, *range(10, 60)]


def _noise(size: int, seed: int) -> str:
    """A text that cannot be compressed much."""
    import random

    return random.Random(seed).randbytes(size // 2).hex()


def _tells(error: DatabrokkrError) -> None:
    assert CONNECTION in str(error)
    assert "hush" not in str(error)


class Checked(Theme):
    """What `databrokkr connection test` says."""

    title = "`connection test`"
    abilities = (ChecksAccess,)

    def test_a_connection_that_is_well(self, bench: Bench) -> None:
        """`connection test` finds nothing wrong with a connection that is well, and changes nothing."""
        bench.case.put("orders", FIRST)
        findings = _findings(bench)
        assert findings
        assert [finding for finding in findings if not finding.ok] == []
        assert told(bench.case.get("orders")) == told(FIRST)

    @needs(ChecksPasswords)
    def test_a_connection_with_a_wrong_password(self, bench: Bench) -> None:
        """`connection test` says that the credentials are wrong, and shows none."""
        findings = _findings(bench, bench.able(ChecksPasswords).wrong_password())
        assert not findings[-1].ok
        assert findings[-1].mend
        assert "hush" not in repr(findings)

    @needs(Stops)
    def test_a_connection_to_what_is_down(self, bench: Bench) -> None:
        """`connection test` says within seconds that the system is down."""
        with _down(bench):
            began = time.monotonic()
            findings = _findings(bench)
        assert not findings[-1].ok
        assert findings[-1].mend
        assert time.monotonic() - began < 20


def _findings(bench: Bench, connection: Settings | None = None) -> list[Finding]:
    opened = bench.plan(connection).opened()
    assert isinstance(opened, ChecksAccess)
    return list(opened.check_access(CONNECTION, Place(bench.folder)))


@contextmanager
def _down(bench: Bench) -> Iterator[None]:
    system = bench.able(Stops)
    system.stop()
    try:
        yield
    finally:
        system.start()


class Down(Theme):
    """A system that goes down, and comes back."""

    title = "A system that is down"
    abilities = (Stops,)

    @needs(Reads)
    def test_down_when_a_load_begins(self, bench: Bench) -> None:
        """A source that is down is tried again, then a clear error; the next run goes on."""
        bench.case.put("orders", FIRST)
        with _down(bench):
            began = time.monotonic()
            with pytest.raises(Unavailable) as raised:
                bench.load("orders", disposition="replace")
        assert raised.value.mend
        assert time.monotonic() - began > 0.5, "it was not tried again"
        bench.load("orders", disposition="replace")
        assert told(bench.stored()) == told(FIRST)

    @needs(Reads)
    def test_a_short_failure_is_not_noticed(self, bench: Bench) -> None:
        """A source that comes back within the tries is read as if nothing had been."""
        bench.case.put("orders", FIRST)
        bench.able(Stops).stop()
        assert _while_starting(bench, lambda: bench.load("orders", disposition="replace")).rows_out == 2

    @needs(Reads)
    def test_down_while_rows_are_read(self, bench: Bench) -> None:
        """A source that goes down while rows come is a clear error that publishes nothing; the next run goes on."""
        rows = table(id=list(range(60_000)), what=["x" * 300] * 60_000)
        bench.case.put("orders", rows)
        with suppress(Unavailable):
            try:
                got = _read_until_down(bench.source("orders"), bench)
                assert got == rows.num_rows, "rows were lost without a word"
            finally:
                bench.able(Stops).start()
        assert bench.load("orders", disposition="replace").rows_out == rows.num_rows

    @needs(Writes)
    def test_down_when_a_delivery_begins(self, bench: Bench) -> None:
        """A target that is down is tried again, then a clear error; the next run goes on."""
        bench.publish(FIRST, Append())
        with _down(bench), pytest.raises(Unavailable) as raised:
            bench.deliver("orders", Append())
        assert raised.value.mend
        bench.deliver("orders", Append())
        assert now(bench.case, "orders") == told(FIRST)

    @needs(Writes)
    def test_down_while_rows_are_written(self, bench: Bench) -> None:
        """A target that goes down before the commit is a clear error; the next run loses and doubles nothing."""
        bench.publish(FIRST, Append())
        bench.deliver("orders", Append())
        try:
            with pytest.raises(Unavailable), staged(bench.sink("orders", Append()), SECOND, Append(), mark(2)) as load:
                bench.able(Stops).stop()
                load.commit()
        finally:
            bench.able(Stops).start()
        assert now(bench.case, "orders") == told(FIRST)
        bench.publish(SECOND, Append())
        bench.deliver("orders", Append())
        assert now(bench.case, "orders") == told(pa.concat_tables([FIRST, SECOND]))


def _while_starting(bench: Bench, work: Callable[[], Outcome]) -> Outcome:
    """What `work` gives, which begins while the system is down."""
    # A server is the child of the thread that starts it, so it is the work that moves to another thread.
    with ThreadPoolExecutor(1) as elsewhere:
        result = elsewhere.submit(work)
        time.sleep(0.3)
        bench.able(Stops).start()
        return result.result()


def _read_until_down(source: Source, bench: Bench) -> int:
    """How many rows come, as the system goes down once the source knows what it reads."""
    stream = next(iter(source.streams()))
    with session() as duck:
        relation = source.relation(duck, stream, None) if isinstance(source, ReadsAsRelation) else None
        if relation is None:
            batches = source.read(stream, None)
            rows = int(next(batches).records.num_rows)
            bench.able(Stops).stop()
            return rows + sum(int(batch.records.num_rows) for batch in batches)
        bench.able(Stops).stop()
        try:
            found = duck.execute(f"SELECT count(*) FROM ({relation.fresh(relation.query)})").fetchone()
        except Exception as error:
            raise relation.explain(error) or error from error
        return int(found[0]) if found else 0

"""A load from query to publication: rows that cannot stay are set aside with a reason; nothing is half published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.contract import Contract
from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError
from databrokkr_assets.core.ports import Batch, Cursor, Reject, Source, Stream
from databrokkr_assets.core.spec import OnFail
from databrokkr_assets.engine.job import ROW_ID, STAGED, WHOLE, Blocked, Job, Outcome, no_checks
from databrokkr_assets.engine.loading import load
from tests.engine.loads import Query, letters, table


class Batches(Source):
    """A source that gives Arrow batches."""

    def streams(self) -> Iterable[Stream]:
        return [Stream("batches")]

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        for number in range(3):
            records = pa.record_batch({"id": [number * 10, number * 10 + 1]})
            yield Batch(records, {"seen": number}, (Reject("torn", "torn", f"batch {number}", "…"),))


def test_batches_are_staged_with_cursor_and_rejects(job: Callable[..., Job]) -> None:
    outcome = load(job(), Batches(), Append())
    assert (outcome.rows_in, outcome.rows_out, outcome.quarantined) == (9, 6, 3)
    snapshot = job().dataset.open()
    assert snapshot is not None and snapshot.last is not None and snapshot.last.cursor == {"seen": 2}
    assert [letter["position"] for letter in letters(job())] == ["batch 0", "batch 1", "batch 2"]


def test_the_cursor_of_the_last_load_is_where_reading_resumes(job: Callable[..., Job]) -> None:
    load(job(), Query("SELECT 7 AS id"), Append())
    source = Query("SELECT 8 AS id")
    load(job(), source, Append())
    assert source.asked_after == [{"id": 7}]


def test_nothing_new_publishes_nothing(job: Callable[..., Job]) -> None:
    first = load(job(), Query("SELECT 7 AS id"), Append())
    again = load(job(), Query("SELECT 7 AS id WHERE false"), Append())
    assert (again.published, again.version, again.rows_out) == (False, first.version, 0)


def test_a_failure_after_staging_leaves_nothing(job: Callable[..., Job], tmp_path: Path) -> None:
    with pytest.raises(AccessError):
        load(job(), Query("SELECT 7 AS id", fail_after=True), Append())
    assert job().dataset.open() is None
    assert not list(tmp_path.rglob("*.parquet"))


def test_values_that_do_not_fit_the_dataset_are_set_aside(job: Callable[..., Job]) -> None:
    load(job(), Query("SELECT 1::INTEGER AS id, 1.5::DECIMAL(4,1) AS money, DATE '2020-01-01' AS day"), Append())
    values = "(2::DOUBLE, 2.5::DOUBLE, '2020-02-30'), (3.5, 1, '2020-03-01'), (4, 9, '2020-03-02')"
    wider = f"SELECT * FROM (VALUES {values}) t(ID, money, day)"
    strict = Contract.model_validate({"types": "discard_row"})
    outcome = load(job(contract=strict), Query(wider), Append())
    assert (outcome.rows_out, outcome.quarantined) == (1, 2)
    assert [row[0] for row in table(job())] == [1, 4]
    assert dict(outcome.columns)["money"] == "DECIMAL(4,1)"
    found = letters(job())
    assert {json.loads(letter["payload"])["ID"] for letter in found} == {2.0, 3.5}
    assert {letter["rule"] for letter in found} == {"type.day", "type.id"}
    assert all(letter["stage"] == "cast" and letter["load_id"] == outcome.load_id for letter in found)


def test_merge_takes_the_last_of_a_key_and_sets_aside_rows_without_one(job: Callable[..., Job]) -> None:
    sql = "SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (1, 'c'), (NULL, 'd')) t(id, s)"
    outcome = load(job(), Query(sql), Merge(("id",)))
    assert table(job()) == [(1, "c"), (2, "b")]
    assert outcome.quarantined == 1 and "key" in letters(job())[0]["reason"]


def test_a_key_that_is_no_column_is_a_mistake(job: Callable[..., Job]) -> None:
    with pytest.raises(SpecError, match='the key "idd" is no column'):
        load(job(), Query("SELECT 1 AS id"), Merge(("idd",)))


def test_more_rejects_than_allowed_fail_the_load_but_are_kept(job: Callable[..., Job]) -> None:
    rejects = [Reject("torn", "torn", f"f:{line}", "…") for line in range(3)]
    with pytest.raises(DataError, match="3 rows could not be read, 2 are allowed"):
        load(job(max_rejects=2), Query("SELECT 1 AS id", rejects), Append())
    assert job().dataset.open() is None
    with pytest.raises(DataError):
        load(job(max_rejects=2), Query("SELECT 1 AS id", rejects), Append())
    assert len(letters(job())) == 3, "a second attempt replaces what the first one set aside"


def rule(condition: str, on_fail: OnFail, source: str = STAGED) -> Callable[[DuckDBPyConnection], list[CheckResult]]:
    """A gate of one rule: rows that do not meet `condition` fail."""

    def gate(duck: DuckDBPyConnection) -> list[CheckResult]:
        failing = f'SELECT "{ROW_ID}" FROM {source} WHERE NOT ({condition})'
        found = duck.sql(f"SELECT count(*) FROM ({failing})").fetchone()
        assert found is not None
        return [CheckResult("rule", "rule", on_fail, found[0] == 0, evaluated=9, unexpected=found[0], failing=failing)]

    return gate


def test_a_blocked_load_leaves_the_old_version(job: Callable[..., Job]) -> None:
    load(job(), Query("SELECT 1 AS id"), Append())
    with pytest.raises(Blocked) as caught:
        load(job(gate=rule("id < 5", OnFail.BLOCK)), Query("SELECT 9 AS id"), Append())
    assert caught.value.outcome.checks[0].unexpected == 1
    assert table(job()) == [(1,)]


def test_quarantine_takes_the_failing_rows_only(job: Callable[..., Job]) -> None:
    outcome = load(job(gate=rule("id < 5", OnFail.QUARANTINE)), Query("SELECT i AS id FROM range(8) t(i)"), Append())
    assert (outcome.rows_out, outcome.quarantined) == (5, 3)
    assert [json.loads(letter["payload"]) for letter in letters(job())] == [{"id": 5}, {"id": 6}, {"id": 7}]


def test_quarantine_without_rows_to_set_aside_blocks(job: Callable[..., Job]) -> None:
    def gate(duck: DuckDBPyConnection) -> list[CheckResult]:
        return [CheckResult("mean", "mean", OnFail.QUARANTINE, passed=False)]

    with pytest.raises(Blocked):
        load(job(gate=gate), Query("SELECT 1 AS id"), Append())


def test_a_warning_lets_everything_pass(job: Callable[..., Job]) -> None:
    outcome = load(job(gate=rule("false", OnFail.WARN)), Query("SELECT 1 AS id"), Append())
    assert outcome.rows_out == 1 and not outcome.checks[0].passed


@pytest.mark.parametrize(("how", "whole"), [(Append(), [1, 1, 2, 3]), (Merge(("id",)), [1, 2, 3]), (Replace(), [1, 3])])
def test_checks_see_what_the_dataset_will_be(job: Callable[..., Job], how: Disposition, whole: list[int]) -> None:
    load(job(), Query("SELECT * FROM (VALUES (1), (2)) t(id)"), Append())
    seen: list[int] = []

    def gate(duck: DuckDBPyConnection) -> Iterable[CheckResult]:
        seen.extend(row[0] for row in duck.sql(f"SELECT id FROM {WHOLE} ORDER BY id").fetchall())
        return no_checks(duck)

    load(job(gate=gate), Query("SELECT * FROM (VALUES (1), (3)) t(id)"), how)
    assert seen == whole


def test_published_rows_are_never_set_aside(job: Callable[..., Job]) -> None:
    load(job(), Query("SELECT 1 AS id"), Append())
    outcome: Outcome = load(job(gate=rule("id <> 1", OnFail.QUARANTINE, WHOLE)), Query("SELECT 1 AS id"), Append())
    assert (outcome.quarantined, table(job())) == (1, [(1,)])

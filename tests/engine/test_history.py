"""A history keeps each version of a row; deletions close it, and remove it from a merged dataset."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from databrokkr_assets.core.disposition import History, Merge
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.ports import Reject
from databrokkr_assets.engine.deleting import Deletes
from databrokkr_assets.engine.job import Job
from databrokkr_assets.engine.loading import load
from tests.engine.loads import Query, table

Jobs = Callable[..., Job]
BY_ID = History(("id",))


def rows(*given: tuple[Any, ...]) -> Query:
    """A source of rows `(id, name)`, or `(id, name, gone)`."""
    names = "id, name, gone" if given and len(given[0]) == 3 else "id, name"
    listed = ", ".join(str(row).replace("None", "NULL") for row in given)
    return Query(f"SELECT * FROM (VALUES {listed}) t({names})")


def versions(job: Job) -> list[tuple[Any, ...]]:
    """The history without its times: id, name, and whether it is the current version."""
    found = table(job, order="id, valid_from")
    assert all(isinstance(row[-2], datetime) for row in found)
    return [(*row[:2], row[-1] is None) for row in found]


def test_changes_become_versions_and_what_is_the_same_does_not(job: Jobs) -> None:
    load(job(), rows((1, "a"), (2, "b"), (3, None)), BY_ID)
    outcome = load(job(), rows((1, "a"), (2, "B"), (3, None), (4, "d")), BY_ID)
    assert versions(job()) == [(1, "a", True), (2, "b", False), (2, "B", True), (3, None, True), (4, "d", True)]
    assert outcome.rows_out == 3  # two new versions and one that was closed


def test_versions_follow_each_other_without_a_gap(job: Jobs) -> None:
    for name in "abc":
        load(job(), rows((1, name)), BY_ID)
    found = table(job(), order="valid_from")
    assert [row[-1] for row in found] == [found[1][-2], found[2][-2], None]


def test_the_same_load_again_publishes_nothing(job: Jobs) -> None:
    first = load(job(), rows((1, "a")), BY_ID)
    again = load(job(), rows((1, "a")), BY_ID)
    assert (again.published, again.version) == (False, first.version)


def test_of_several_rows_with_one_key_the_last_is_the_version(job: Jobs) -> None:
    load(job(), rows((1, "a"), (1, "b")), BY_ID)
    assert versions(job()) == [(1, "b", True)]


def test_a_row_that_does_not_come_stays_current_unless_missing_means_deleted(job: Jobs) -> None:
    load(job(), rows((1, "a"), (2, "b")), BY_ID)
    load(job(), rows((1, "a")), BY_ID)
    assert versions(job()) == [(1, "a", True), (2, "b", True)]
    outcome = load(job(deletes=Deletes(missing=True)), rows((1, "a")), BY_ID)
    assert outcome.deleted == 1
    assert versions(job()) == [(1, "a", True), (2, "b", False)]
    load(job(deletes=Deletes(missing=True)), rows((1, "a"), (2, "b")), BY_ID)
    assert versions(job()) == [(1, "a", True), (2, "b", False), (2, "b", True)]


def test_a_flag_closes_a_version(job: Jobs) -> None:
    by_flag = Deletes(flag="gone")
    load(job(deletes=by_flag), rows((1, "a", False), (2, "b", False)), BY_ID)
    load(job(deletes=by_flag), rows((2, "b", True), (3, "c", True)), BY_ID)
    assert versions(job()) == [(1, "a", True), (2, "b", False)]


def test_a_new_column_makes_a_version_where_it_has_a_value(job: Jobs) -> None:
    load(job(), rows((1, "a"), (2, "b")), BY_ID)
    load(job(), Query("SELECT * FROM (VALUES (1, 'a', 'x'), (2, 'b', NULL)) t(id, name, more)"), BY_ID)
    assert [row[:2] for row in table(job(), order="id, valid_from")] == [(1, "a"), (1, "a"), (2, "b")]


def test_a_history_has_columns_of_its_own(job: Jobs) -> None:
    with pytest.raises(SpecError, match="valid_from"):
        load(job(), Query("SELECT 1 AS id, 2 AS valid_from"), BY_ID)


def test_a_flag_removes_a_merged_row_and_tells_the_sinks(job: Jobs) -> None:
    by_flag = Deletes(flag="gone")
    load(job(deletes=by_flag), rows((1, "a", False), (2, "b", False), (3, "c", False)), Merge(("id",)))
    before = job().dataset.open()
    outcome = load(job(deletes=by_flag), rows((2, "b", True), (3, "C", False), (9, "z", True)), Merge(("id",)))
    assert (outcome.deleted, [row[0] for row in table(job())]) == (1, [1, 3])
    now = job().dataset.open()
    assert before is not None and now is not None
    with job().duck() as duck:
        changes = now.changes(duck, before.version)
        assert changes.gone is not None
        assert duck.sql(changes.gone).fetchall() == [(2,)]
        assert [row[0] for row in duck.sql(changes.query).fetchall()] == [3]


def test_a_row_that_came_again_is_not_gone(job: Jobs) -> None:
    by_flag = Deletes(flag="gone")
    load(job(deletes=by_flag), rows((1, "a", False)), Merge(("id",)))
    before = job().dataset.open()
    load(job(deletes=by_flag), rows((1, "a", True)), Merge(("id",)))
    load(job(deletes=by_flag), rows((1, "again", False)), Merge(("id",)))
    now = job().dataset.open()
    assert before is not None and now is not None
    with job().duck() as duck:
        changes = now.changes(duck, before.version)
        assert duck.sql(changes.gone or "").fetchall() == []
        assert [row[1] for row in duck.sql(changes.query).fetchall()] == ["again"]


def test_of_a_row_and_its_deletion_in_one_load_the_last_counts(job: Jobs) -> None:
    by_flag = Deletes(flag="gone")
    load(job(deletes=by_flag), rows((1, "a", False), (2, "b", False)), Merge(("id",)))
    load(job(deletes=by_flag), rows((1, "x", True), (1, "y", False), (2, "x", False), (2, "y", True)), Merge(("id",)))
    assert [row[:2] for row in table(job())] == [(1, "y")]


def test_missing_keys_are_removed_but_not_while_a_row_is_unreadable(job: Jobs) -> None:
    missing = Deletes(missing=True)
    load(job(deletes=missing), rows((1, "a"), (2, "b"), (3, "c")), Merge(("id",)))
    torn = Query("SELECT 1 AS id, 'a' AS name", [Reject("torn", "torn", "line 2", "2,")])
    assert load(job(deletes=missing), torn, Merge(("id",))).deleted == 0
    outcome = load(job(deletes=missing), rows((1, "a"), (None, "no key")), Merge(("id",)))
    assert (outcome.deleted, [row[0] for row in table(job())]) == (2, [1])


def test_a_flag_that_is_no_boolean_tells_by_being_there(job: Jobs) -> None:
    flag = Deletes(flag="deleted_at")
    sql = "SELECT * FROM (VALUES (1, NULL), (2, DATE '2026-01-01')) t(id, deleted_at)"
    load(job(deletes=flag), Query(sql), Merge(("id",)))
    assert [row[0] for row in table(job())] == [1]


def test_a_number_tells_by_not_being_zero(job: Jobs) -> None:
    sql = "SELECT * FROM (VALUES (1, 0), (2, 1), (3, NULL)) t(id, gone)"
    load(job(deletes=Deletes(flag="gone")), Query(sql), Merge(("id",)))
    assert [row[0] for row in table(job())] == [1, 3]


def test_an_unknown_flag_is_refused(job: Jobs) -> None:
    with pytest.raises(SpecError, match="deleted"):
        load(job(deletes=Deletes(flag="deleted")), rows((1, "a")), Merge(("id",)))


def test_the_last_of_many_rows_with_one_key_is_the_version(job: Jobs) -> None:
    many = "SELECT i % 1000 AS id, i AS n FROM range(600000) t(i)"
    load(job(), Query(many), BY_ID)
    assert {row[1] for row in table(job())} == set(range(599000, 600000))

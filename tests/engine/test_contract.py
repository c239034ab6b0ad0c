"""What a contract lets change: columns and types that come, and what becomes of those it does not let in."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from databrokkr_assets.core.contract import Contract
from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import DataError
from databrokkr_assets.engine.job import Job
from databrokkr_assets.engine.loading import load
from tests.engine.loads import Query, letters, table

Jobs = Callable[..., Job]

FIRST = "SELECT * FROM (VALUES (1, 10), (2, 20)) t(id, n)"


def contract(**fates: str) -> Contract:
    """A contract of these fates."""
    return Contract.model_validate(fates)


def test_a_new_column_evolves_by_default(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    load(job(), Query("SELECT 3 AS id, 30 AS n, 'x' AS word"), Append())
    assert table(job()) == [(1, 10, None), (2, 20, None), (3, 30, "x")]


def test_a_frozen_table_takes_no_new_column_and_misses_none(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    with pytest.raises(DataError, match='new: "word"; gone: "n"'):
        load(job(contract=contract(columns="freeze")), Query("SELECT 3 AS id, 'x' AS word"), Append())
    assert table(job()) == [(1, 10), (2, 20)]


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",))], ids=str)
def test_rows_with_a_value_in_a_new_column_are_discarded(job: Jobs, how: Disposition) -> None:
    load(job(), Query(FIRST), how)
    fresh = "SELECT * FROM (VALUES (3, 30, 'x'), (4, 40, NULL)) t(id, n, word)"
    outcome = load(job(contract=contract(columns="discard_row")), Query(fresh), how)
    assert (outcome.rows_out, outcome.quarantined) == (1, 1)
    assert table(job())[-1] == (4, 40)
    (letter,) = letters(job())
    assert (letter["rule"], json.loads(letter["payload"])["word"]) == ("column.word", "x")


def test_values_of_a_new_column_are_discarded_and_counted(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    fresh = "SELECT * FROM (VALUES (3, 30, 'x'), (4, 40, NULL)) t(id, n, word)"
    outcome = load(job(contract=contract(columns="discard_value")), Query(fresh), Append())
    assert (outcome.rows_out, outcome.quarantined, outcome.discarded) == (2, 0, 1)
    assert table(job())[-2:] == [(3, 30), (4, 40)]


@pytest.mark.parametrize("how", [Append(), Merge(("id",))], ids=str)
def test_a_column_widens_with_the_rows_it_has(job: Jobs, how: Disposition) -> None:
    load(job(), Query(FIRST), how)
    before = job().dataset.open()
    assert before is not None
    outcome = load(job(), Query("SELECT * FROM (VALUES (2, 5000000000), (3, 30)) t(id, n)"), how)
    assert dict(outcome.columns) == {"id": "INTEGER", "n": "BIGINT"}
    kept = [(2, 20)] if isinstance(how, Append) else []
    assert table(job(), order="id, n") == [(1, 10), *kept, (2, 5000000000), (3, 30)]
    after = job().dataset.open()
    assert after is not None
    with job().duck() as duck:  # the older version stays what it was, and what is new are the new rows alone
        assert duck.sql(before.query(duck)).types[1] == "INTEGER"
        changes = after.changes(duck, before.version)
        assert not changes.whole
        assert sorted(duck.sql(changes.query).fetchall()) == [(2, 5000000000), (3, 30)]


def test_what_a_later_widening_rewrote_is_still_new_to_a_sink(job: Jobs) -> None:
    load(job(), Query("SELECT 1 AS id"), Append())
    first = job().dataset.open()
    load(job(), Query("SELECT 2 AS id"), Append())
    load(job(), Query("SELECT 5000000000 AS id"), Append())
    now = job().dataset.open()
    assert first is not None and now is not None
    with job().duck() as duck:
        assert sorted(duck.sql(now.changes(duck, first.version).query).fetchall()) == [(2,), (5000000000,)]


def test_a_type_stays_narrow_while_the_values_fit(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    outcome = load(job(), Query("SELECT 3::BIGINT AS id, 30::BIGINT AS n"), Append())
    assert dict(outcome.columns) == {"id": "INTEGER", "n": "INTEGER"}


def test_nested_fields_evolve(job: Jobs) -> None:
    load(job(), Query("SELECT 1 AS id, {'a': 1} AS s, [{'x': 1}] AS l"), Append())
    load(job(), Query("SELECT 2 AS id, {'a': 2, 'b': 'new'} AS s, [{'x': 2, 'y': 3}] AS l"), Append())
    assert table(job()) == [
        (1, {"a": 1, "b": None}, [{"x": 1, "y": None}]),
        (2, {"a": 2, "b": "new"}, [{"x": 2, "y": 3}]),
    ]


def test_a_value_without_a_wider_type_is_set_aside(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    outcome = load(job(), Query("SELECT * FROM (VALUES (3, 'many'), (4, '40')) t(id, n)"), Append())
    assert (outcome.rows_out, outcome.quarantined) == (1, 1)
    assert table(job())[-1] == (4, 40)


def test_a_frozen_type_stops_the_load(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    with pytest.raises(DataError, match='1 values of "n" do not fit INTEGER'):
        load(job(contract=contract(types="freeze")), Query("SELECT 3 AS id, 5000000000 AS n"), Append())
    assert len(table(job())) == 2


def test_a_value_that_does_not_fit_is_discarded_and_counted(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    fresh = "SELECT * FROM (VALUES (3, 1.5), (4, 40.0)) t(id, n)"
    outcome = load(job(contract=contract(types="discard_value")), Query(fresh), Append())
    assert (outcome.rows_out, outcome.discarded) == (2, 1)
    assert table(job())[-2:] == [(3, None), (4, 40)]


def test_a_column_that_was_dropped_and_comes_again_goes_on(job: Jobs) -> None:
    load(job(), Query(FIRST), Append())
    load(job(), Query("SELECT 3 AS id"), Append())
    load(job(), Query("SELECT 4 AS id, 40 AS n"), Append())
    assert table(job()) == [(1, 10), (2, 20), (3, None), (4, 40)]


def test_a_key_may_widen(job: Jobs) -> None:
    load(job(), Query(FIRST), Merge(("id",)))
    load(job(), Query("SELECT * FROM (VALUES (2, 21), (5000000000, 1)) t(id, n)"), Merge(("id",)))
    assert table(job()) == [(1, 10), (2, 21), (5000000000, 1)]

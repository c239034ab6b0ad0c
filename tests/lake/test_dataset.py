"""Datasets on a local folder: what is published is all or nothing, fenced, and comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, SpecError, Unavailable
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.lake.dataset import Dataset, LoadRecord, Snapshot
from databrokkr_assets.lake.publishing import Stage, publish, sweep
from databrokkr_assets.lake.store import Store, store_at

EVERY_TYPE = """
    SELECT true AS bool, 1::TINYINT AS i8, (-32768)::SMALLINT AS i16, 2147483647::INTEGER AS i32,
           (-9223372036854775808)::BIGINT AS i64, 170141183460469231731687303715884105727::HUGEINT AS i128,
           255::UTINYINT AS u8, 65535::USMALLINT AS u16, 4294967295::UINTEGER AS u32,
           18446744073709551615::UBIGINT AS u64, 1.5::FLOAT AS f32, 'nan'::DOUBLE AS f64,
           99999999999999999999999999999999999999::DECIMAL(38,0) AS huge, (-0.01)::DECIMAL(5,2) AS money,
           'a''b"c' AS text, '' AS empty, NULL::VARCHAR AS nothing, '\\x00\\xff'::BLOB AS bytes,
           DATE '0001-01-01' AS d, TIME '23:59:59.999999' AS t, TIMESTAMP '1969-12-31 23:59:59.999999' AS ts,
           TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS ns, TIMESTAMPTZ '2020-06-01 12:00:00+02' AS tz,
           'infinity'::TIMESTAMP AS forever, INTERVAL '1 month 2 days' AS span,
           '123e4567-e89b-12d3-a456-426614174000'::UUID AS id, '{"a": 1}'::JSON AS doc, '101'::BIT AS bits,
           'x'::ENUM('x', 'y') AS choice, [1, NULL, 3] AS list, []::INTEGER[] AS none,
           {'a': 1::UTINYINT, 'b c': [{'t': TIME '01:00'}]} AS nested, MAP {'k': 1.25::DECIMAL(4,2)} AS map,
           [1, 2]::INTEGER[2] AS pair
"""


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_duck() as connection:
        yield connection


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(store_at("lake", tmp_path, {}).child("raw", "p", "n"), "p/n")


def load(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset, query: str, how: Disposition, load_id: str = "a"
) -> Snapshot:
    stage, before = staged(duck, dataset, query, how, load_id)
    return publish(dataset, before, stage, how, record(stage, how, load_id))


def staged(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset, query: str, how: Disposition, load_id: str = "a"
) -> tuple[Stage, Snapshot | None]:
    before = dataset.open()
    stage = Stage(dataset, duck, (before.number if before else 0) + 1, load_id)
    stage.begin()
    stage.write(query, ordered=isinstance(how, Merge))
    return stage, before


def record(stage: Stage, how: Disposition, load_id: str) -> LoadRecord:
    return LoadRecord(
        load_id,
        "run",
        stage.number,
        how.name,
        stage.folder,
        "now",
        stage.rows,
        keys=how.keys if isinstance(how, Merge) else (),
        cursor={"at": load_id},
    )


def rows(duck: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> list[tuple[object, ...]]:
    return sorted(duck.sql(snapshot.query(duck)).fetchall())


def test_every_type_comes_back_as_it_was(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    snapshot = load(duck, dataset, EVERY_TYPE, Append())
    before, after = duck.sql(EVERY_TYPE), duck.sql(snapshot.query(duck))
    assert dict(zip(after.columns, map(str, after.types), strict=True)) == {
        **dict(zip(before.columns, map(str, before.types), strict=True)),
        "pair": "INTEGER[2]",
    }
    as_text = "SELECT " + ", ".join(f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in before.columns)
    assert (
        duck.sql(f"{as_text} FROM ({snapshot.query(duck)})").fetchall()
        == duck.sql(f"{as_text} FROM ({EVERY_TYPE})").fetchall()
    )


def test_a_type_that_nothing_can_hold_is_refused(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    with pytest.raises(SpecError, match="cannot hold a column of type UNION"):
        staged(duck, dataset, "SELECT union_value(a := 1) AS u", Append())


def test_append_merge_replace(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    load(duck, dataset, "SELECT i AS id, 'old' AS s FROM range(5) t(i)", Append(), "a")
    load(duck, dataset, "SELECT 5 AS id, 'new' AS s", Append(), "b")
    merged = load(duck, dataset, "SELECT i AS id, 'merged' AS s FROM range(4, 8) t(i)", Merge(("id",)), "c")
    assert rows(duck, merged) == [(i, "old") for i in range(4)] + [(i, "merged") for i in range(4, 8)]
    assert (merged.rows(), merged.number) == (8, 3)
    replaced = load(duck, dataset, "SELECT 'x' AS other", Replace(), "d")
    assert rows(duck, replaced) == [("x",)]
    assert replaced.last is not None and replaced.last.cursor == {"at": "d"}


def test_a_new_column_is_null_in_old_rows(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    load(duck, dataset, "SELECT 1 AS id", Append(), "a")
    snapshot = load(duck, dataset, "SELECT 2 AS id, TIME '01:00' AS t", Append(), "b")
    assert [str(value) for _, value in rows(duck, snapshot)] == ["None", "01:00:00"]


def test_a_worker_thought_dead_cannot_publish(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    load(duck, dataset, "SELECT 1 AS id", Append(), "a")
    zombie, before = staged(duck, dataset, "SELECT 2 AS id", Append(), "zombie")
    load(duck, dataset, "SELECT 3 AS id", Append(), "successor")
    with pytest.raises(Unavailable, match="published by another run"):
        publish(dataset, before, zombie, Append(), record(zombie, Append(), "zombie"))
    now = dataset.open()
    assert now is not None and rows(duck, now) == [(1,), (3,)]


def test_two_first_loads_do_not_both_publish(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    zombie, before = staged(duck, dataset, "SELECT 1 AS id", Append(), "zombie")
    load(duck, dataset, "SELECT 2 AS id", Append(), "successor")
    with pytest.raises(Unavailable):
        publish(dataset, before, zombie, Append(), record(zombie, Append(), "zombie"))


def test_files_of_dead_loads_are_swept_once_they_are_surely_dead(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset
) -> None:
    dead, _ = staged(duck, dataset, "SELECT 1 AS id", Append(), "dead")
    assert sweep(dataset, dataset.open()) == [], "it may still be at work"
    load(duck, dataset, "SELECT 2 AS id", Append(), "live")
    assert sweep(dataset, dataset.open()) == [dead.folder]
    assert not Path(dead.store.url).exists()
    now = dataset.open()
    assert now is not None and rows(duck, now) == [(2,)]


def test_a_load_that_died_after_its_commit_is_not_swept(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    snapshot = load(duck, dataset, "SELECT 1 AS id", Append(), "a")
    dataset.store.child("_databrokkr_staging", "load-00000001-a").write()
    assert sweep(dataset, snapshot) == []
    assert rows(duck, snapshot) == [(1,)]


def test_a_lost_reply_is_no_failure(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(duck, dataset, "SELECT 1 AS id", Append(), "a")
    commit = DeltaTable.create_write_transaction

    def committed_but_not_heard(*arguments: Any, **more: Any) -> None:
        commit(*arguments, **more)
        raise DeltaError("the connection was reset")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", committed_but_not_heard)
    assert rows(duck, load(duck, dataset, "SELECT 2 AS id", Append(), "b")) == [(1,), (2,)]


def test_a_load_that_dies_while_it_commits_keeps_its_files(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, before = staged(duck, dataset, "SELECT 1 AS id", Append(), "a")
    published = publish(dataset, before, stage, Append(), record(stage, Append(), "a"))
    stage.committing = True
    stage.discard()
    assert rows(duck, published) == [(1,)]


def test_a_log_that_no_longer_goes_back_so_far_gives_all_rows(
    duck: duckdb.DuckDBPyConnection, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(duck, dataset, "SELECT 1 AS id", Append(), "a")
    load(duck, dataset, "SELECT 2 AS id", Append(), "b")
    now = load(duck, dataset, "SELECT 3 AS id", Append(), "c")
    history = now.table.history(1)
    monkeypatch.setattr(DeltaTable, "history", lambda table, limit=None: history)
    changes = now.changes(duck, first.version)
    assert changes.whole and len(duck.sql(changes.query).fetchall()) == 3


def test_changes_are_what_came_since(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    first = load(duck, dataset, "SELECT i AS id, 'a' AS s FROM range(3) t(i)", Append(), "a")
    second = load(duck, dataset, "SELECT 3 AS id, 'b' AS s", Append(), "b")
    assert duck.sql(second.changes(duck, first.version).query).fetchall() == [(3, "b")]
    load(duck, dataset, "SELECT i AS id, 'c' AS s FROM range(2, 4) t(i)", Merge(("id",)), "c")
    now = load(duck, dataset, "SELECT 2 AS id, 'd' AS s", Merge(("id",)), "d")
    changes = now.changes(duck, first.version)
    assert (sorted(duck.sql(changes.query).fetchall()), changes.whole) == ([(2, "d"), (3, "c")], False)
    assert duck.sql(now.changes(duck, now.version).query).fetchall() == []
    replaced = load(duck, dataset, "SELECT 9 AS id, 'e' AS s", Replace(), "e")
    assert replaced.changes(duck, first.version).whole
    with pytest.raises(AccessError, match="has only"):
        replaced.changes(duck, 99)


@settings(max_examples=15, deadline=None)
@given(
    loads=st.lists(
        st.lists(st.tuples(st.integers(0, 8), st.integers()), unique_by=lambda row: row[0], max_size=6), max_size=4
    )
)
def test_merging_is_what_a_dictionary_does(
    tmp_path_factory: pytest.TempPathFactory, loads: list[list[tuple[int, int]]]
) -> None:
    dataset = Dataset(Store(str(tmp_path_factory.mktemp("lake"))), "p/n")
    expected: dict[int, int] = {}
    with open_duck() as duck:
        for number, some in enumerate(loads):
            values = ", ".join(f"({key}::BIGINT, {value}::HUGEINT)" for key, value in some) or "(0::BIGINT, 0::HUGEINT)"
            query = f"SELECT * FROM (VALUES {values}) t(id, v)" + ("" if some else " WHERE false")
            for attempt in ("first", "again"):
                load(duck, dataset, query, Merge(("id",)), f"{number}{attempt}")
            expected |= dict(some)
        snapshot = dataset.open()
        assert (rows(duck, snapshot) if snapshot else []) == sorted(expected.items())


@pytest.mark.parametrize("folder", ["with space", "ümlaut#1"])
def test_a_lake_may_stand_anywhere(duck: duckdb.DuckDBPyConnection, tmp_path: Path, folder: str) -> None:
    dataset = Dataset(store_at(folder, tmp_path, {}).child("raw", "p", "n"), "p/n")
    load(duck, dataset, "SELECT 1 AS id, 'a' AS s", Append(), "a")
    now = load(duck, dataset, "SELECT 1 AS id, 'b' AS s", Merge(("id",)), "b")
    assert rows(duck, now) == [(1, "b")]
    assert duck.sql(now.changes(duck, 0).query).fetchall() == [(1, "b")]


def test_changes_after_merges_by_other_keys_and_appends(duck: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    first = load(duck, dataset, 'SELECT 1 AS id, 2 AS "a, b"', Merge(("id",)), "a")
    load(duck, dataset, 'SELECT 5 AS id, 2 AS "a, b"', Merge(("a, b",)), "b")
    now = load(duck, dataset, 'SELECT 6 AS id, 3 AS "a, b"', Append(), "c")
    assert sorted(duck.sql(now.changes(duck, first.version).query).fetchall()) == [(5, 2), (6, 3)]
    last = load(duck, dataset, 'SELECT 6 AS id, 4 AS "a, b"', Merge(("id",)), "d")
    assert last.changes(duck, first.version).whole, "by which key, it cannot tell"


def test_a_lake_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file stands in the way")
    with pytest.raises(AccessError, match="the lake cannot be used"):
        store_at("lake/raw", tmp_path, {}).make()


@pytest.mark.parametrize(("url", "says"), [("ftp://host/x", 'cannot stand on "ftp"'), ("100%", "cannot contain %")])
def test_a_lake_on_something_unknown_is_refused(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        store_at(url, tmp_path, {})

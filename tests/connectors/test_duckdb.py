"""DuckDB files: nothing changes on the way, no row is lost or doubled, and whoever comes second waits."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import LoadMark, Target
from databrokkr_assets.core.spec import Finding, Origin, Place
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from resources.connectors.duckdb import (
    DuckDBConnection,
    DuckDBSink,
    DuckDBSinkSettings,
    DuckDBSource,
    DuckDBSourceSettings,
)
from resources.registry import connector
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, staged, values, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a DuckDB file is to be."""
    return tmp_path / "shop.duckdb"


def connection(path: Path, wait: float = 0) -> DuckDBConnection:
    return DuckDBConnection(type="duckdb", path=path.name, wait=wait)


def source(path: Path, *, wait: float = 0, **more: Any) -> DuckDBSource:
    given = DuckDBSourceSettings(type="duckdb", connection="shop", **more)
    return given.open(connection(path, wait), Place(path.parent))


def sink(path: Path, table: str = "target", *, wait: float = 0, **more: Any) -> DuckDBSink:
    given = DuckDBSinkSettings(type="duckdb", connection="shop", input="orders", table=table, **more)
    return given.open(connection(path, wait), Place(path.parent))


def run(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as duck:
        for statement in statements:
            duck.execute(statement)


def shown(path: Path, query: str = "SELECT * FROM target") -> list[Row]:
    with duckdb.connect(str(path), read_only=True) as duck:
        return in_order(duck.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})").fetchall())


def target() -> Target:
    return Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))


UNIQUE = "ffffffff-ffff-ffff-ffff-ffffffffffff"
ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")

# ------------------------------------------------------------------------------------------------- types

TYPED = """CREATE TABLE typed AS SELECT * FROM (VALUES
    (true, (-128)::TINYINT, 255::UTINYINT, 65535::USMALLINT, 4294967295::UINTEGER, 18446744073709551615::UBIGINT,
     (-170141183460469231731687303715884105728)::HUGEINT, 0.1::FLOAT, 'nan'::DOUBLE, 1.10::DECIMAL(12,2),
     '0.99999999999999999999999999999999999999'::DECIMAL(38,38), '', 'x'::BLOB, DATE 'infinity', TIME '24:00:00',
     TIMETZ '10:00:00+02', TIMESTAMP '-infinity', TIMESTAMPTZ '2024-01-01 00:00:00.000001+02',
     TIMESTAMP_NS '2024-01-01 00:00:00.123456789', TIMESTAMP_S '2024-01-01 00:00:01', INTERVAL '-1 month 2 days',
     'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID, '{"a": 1.0}'::JSON, 'a'::ENUM('a', 'b'), '101'::BIT,
     [1, NULL], {'a': 'x', 'b': [1.5]}, MAP {'k': 1}, ['a', NULL]::VARCHAR[2], [[1], NULL, []])
) AS t(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, ab, ac, ad)"""


def test_no_value_changes_from_file_to_dataset_to_file(path: Path, tmp_path: Path) -> None:
    nulls = f"INSERT INTO typed VALUES ({', '.join(['NULL'] * 30)})"
    run(path, TYPED, nulls)
    load(job(tmp_path), source(path, table="typed"), Replace())
    deliver(job(tmp_path), sink(path), Append())
    assert shown(path) == shown(path, "SELECT * FROM typed")
    kinds = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = "
    assert shown(path, f"{kinds}'target'") == shown(path, f"{kinds}'typed'")


def test_batches_hold_the_same_rows_as_the_relation(path: Path) -> None:
    run(path, TYPED)
    # Arrow has no time with an offset and no bit string.
    query = "SELECT * EXCLUDE (p, y) FROM typed"
    assert batched(source(path, query=query)) == staged(source(path, query=query))


# ------------------------------------------------------------------------------------------------ reading


def test_a_stream_tells_columns_and_primary_key(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (b INT, a UUID, c INT, PRIMARY KEY (b, a))",
        "CREATE SCHEMA s",
        "CREATE VIEW s.v AS FROM t",
    )
    stream = next(source(path, table="t").streams())
    assert stream.schema is not None
    assert (stream.name, stream.keys, stream.schema.names) == ("main.t", ("b", "a"), ["b", "a", "c"])
    assert next(source(path, table="s.v", columns="c").streams()).keys == ()


def test_odd_names_are_found_and_kept(path: Path) -> None:
    run(
        path,
        'CREATE SCHEMA "my.schema"',
        'CREATE TABLE "my.schema"."my ""t" ("select" INT, "ü🎉 ""x""" VARCHAR)',
        'INSERT INTO "my.schema"."my ""t" VALUES (1, \'z\')',
    )
    given = source(path, schema="my.schema", table='my "t', cursor='ü🎉 "x"')
    rows, cursor = staged(given)
    assert rows == [("1", "z")]
    assert staged(source(path, schema="my.schema", table='my "t', cursor='ü🎉 "x"'), cursor)[0] == []
    query = 'SELECT * FROM (VALUES (1, \'z\')) AS v("select", "ü🎉 ""x""")'
    for how in (Replace(), Merge(("select",))):
        written(sink(path, schema="my.schema", table='new "t'), query, how, mark(1), node=str(how))
    assert shown(path, 'SELECT * FROM "my.schema"."new ""t"') == [("1", "z")]


def test_a_query_reads_the_tables_of_the_file(path: Path) -> None:
    run(
        path,
        "CREATE TABLE orders AS SELECT range AS id FROM range(3)",
        "CREATE SCHEMA s",
        "CREATE TABLE s.x AS SELECT 1 AS id",
        "CREATE VIEW s.v AS SELECT id FROM orders WHERE id = 2",
    )
    query = "WITH orders AS (SELECT * FROM orders WHERE id > 0) SELECT id FROM orders "
    query += "UNION ALL SELECT id + 10 FROM s.x UNION ALL SELECT id + 20 FROM s.v -- ok"
    assert staged(source(path, query=query))[0] == [("1",), ("11",), ("2",), ("22",)]
    settings = DuckDBSourceSettings(type="duckdb", connection="shop", query=query)
    keys = sorted(origin.key for origin in settings.origins(connection(path)))
    assert keys == [("shop", "main", "orders"), ("shop", "s", "v"), ("shop", "s", "x")]


def test_a_cursor_reads_what_is_new_and_late_rows_of_the_same_value_each_once(path: Path, tmp_path: Path) -> None:
    run(
        path, 'CREATE TABLE t ("at" TIMESTAMPTZ, what VARCHAR)', "INSERT INTO t VALUES ('2024-01-02', 'b'), (NULL, 'n')"
    )
    given: dict[str, Any] = {"table": "t", "cursor": "at"}
    rows, cursor = staged(source(path, **given))
    assert [row[1] for row in rows] == ["n", "b"]
    run(path, "INSERT INTO t VALUES ('2024-01-02', 'b'), ('2024-01-02', 'c'), (NULL, 'm')")
    rows, cursor = staged(source(path, **given), cursor)
    assert [row[1] for row in rows] == ["b", "c"]
    assert staged(source(path, **given), cursor) == ([], cursor)
    for _ in range(2):
        load(job(tmp_path), source(path, **given), Append())
    deliver(job(tmp_path), sink(path), Append())
    assert len(shown(path)) == 5


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", None])), max_size=4), max_size=5))
def test_whatever_comes_in_which_order_of_values_not_below_the_last_is_read_once(
    path: Path, loads: list[list[tuple[int, str | None]]]
) -> None:
    run(path, "CREATE OR REPLACE TABLE t (n INT, what VARCHAR)")
    cursors: dict[str, Any] = {"relation": None, "batches": None}
    got: dict[str, list[Row]] = {"relation": [], "batches": []}
    floor = 0
    for rows in loads:
        fresh = [(floor + step, what) for step, what in rows]
        floor = max([floor, *(number for number, _ in fresh)])
        with duckdb.connect(str(path)) as duck:
            for row in fresh:
                duck.execute("INSERT INTO t VALUES (?, ?)", row)
        for way, read in (("relation", staged), ("batches", batched)):
            found, cursors[way] = read(source(path, table="t", cursor="n"), cursors[way])
            got[way] += found
    assert in_order(got["relation"]) == in_order(got["batches"]) == shown(path, "SELECT * FROM t")
    assert cursors["relation"] == cursors["batches"]


def test_late_rows_and_rows_without_a_value_come_again_where_they_meet_by_key(path: Path) -> None:
    run(path, 'CREATE TABLE t (id INT, "at" TIMESTAMP)', "INSERT INTO t VALUES (1, '2024-01-05'), (2, NULL)")
    again: dict[str, Any] = {"disposition": "merge", "keys": "id", "lookback": "2 days", "cursor_nulls": "always"}
    given: dict[str, Any] = {"table": "t", "cursor": "at", **again}
    rows, cursor = staged(source(path, **given))
    assert [row[0] for row in rows] == ["1", "2"]
    run(path, "INSERT INTO t VALUES (3, '2024-01-03'), (4, '2024-01-02 23:59:59'), (5, NULL)")
    for read in (staged, batched):
        rows, after = read(source(path, **given), cursor)
        assert [row[0] for row in rows] == ["1", "2", "3", "5"]
        assert after == cursor
    with pytest.raises(SpecError, match='lookback "5 apples" does not fit'):
        staged(source(path, **given | {"lookback": "5 apples"}))


# ------------------------------------------------------------------------------------------------ writing


def test_what_each_disposition_leaves(path: Path) -> None:
    wanted: dict[Disposition, list[Row]] = {
        Append(): [("1", "a"), ("2", "B"), ("2", "b"), ("3", "c")],
        Replace(): [("2", "B"), ("3", "c")],
        Merge(("id",)): [("1", "a"), ("2", "B"), ("3", "c")],
    }
    for how, want in wanted.items():
        to = sink(path, f"t_{type(how).__name__}")
        assert written(to, ROWS, how, mark(1), node=str(how)).rows == 2
        written(to, MORE, how, mark(2, after=1), node=str(how))
        assert shown(path, f"SELECT * FROM t_{type(how).__name__}") == want


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",))], ids=str)
@pytest.mark.parametrize("as_batches", [False, True])
def test_a_load_that_comes_twice_is_applied_once(path: Path, how: Disposition, as_batches: bool) -> None:
    to = sink(path)
    assert to.last_load(target()) is None
    first = written(to, ROWS, how, mark(7), as_batches=as_batches)
    assert (first.rows, first.already) == (2, False)
    again = written(to, MORE, how, mark(7), as_batches=as_batches)
    assert (again.rows, again.already) == (0, True)
    assert shown(path) == [("1", "a"), ("2", "b")]
    last = to.last_load(target())
    assert last is not None
    assert (last.version, last.dataset, last.run_id) == (7, "orders-table", "run")


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=6), max_size=3))
def test_merging_loads_gives_the_last_row_of_each_key_however_often_they_come(
    path: Path, loads: list[list[tuple[int, int]]]
) -> None:
    path.unlink(missing_ok=True)
    to = sink(path)
    want: dict[int, int] = {}
    for version, rows in enumerate(loads, 1):
        for as_batches in (False, True):
            written(to, values(rows, "id n"), Merge(("id",)), mark(version, version - 1 or None), as_batches=as_batches)
        want |= dict(rows)
    if loads:
        assert shown(path) == in_order((str(key), str(value)) for key, value in want.items())


def test_of_two_loads_that_build_on_one_the_second_to_commit_writes_nothing(path: Path) -> None:
    to = sink(path)
    written(to, ROWS, Append(), mark(1))
    written(to, MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="names version 2"):
        written(to, MORE, Append(), mark(3, after=1))
    assert len(shown(path)) == 4


def test_leaving_without_commit_changes_nothing(path: Path) -> None:
    with sink(path).begin(target(), Append(), mark(1)) as load:
        load.write(pa.record_batch({"id": pa.array([1], pa.int32()), "what": ["a"]}))
    assert not path.exists()


def test_an_empty_load_counts(path: Path) -> None:
    with sink(path).begin(target(), Replace(), mark(1)) as load:
        assert load.commit().rows == 0
    assert shown(path) == []
    assert sink(path).last_load(target()) is not None


def test_a_load_that_fails_changes_nothing(path: Path) -> None:
    run(path, "CREATE TABLE target (id INT PRIMARY KEY, what VARCHAR)", "INSERT INTO target VALUES (2, 'old')")
    with pytest.raises(DataError, match=r"[Dd]uplicate key"):
        written(sink(path), ROWS, Append(), mark(1))
    assert shown(path) == [("2", "old")]
    assert sink(path).last_load(target()) is None
    written(sink(path), ROWS, Merge(("id",)), mark(1))
    written(sink(path), MORE, Replace(), mark(2, 1))
    assert shown(path) == [("2", "B"), ("3", "c")]


def test_new_columns_are_added_and_missing_ones_stay_null(path: Path) -> None:
    written(sink(path), ROWS, Append(), mark(1))
    written(sink(path), values([(3, 1.5)], "ID more"), Append(), mark(2, 1))
    assert shown(path, "SELECT id, what, more FROM target")[-1] == ("3", None, "1.5")
    with pytest.raises(SpecError, match='has no column "other"'):
        written(sink(path, create=False), values([(1, 2)], "id other"), Append(), mark(3, 2))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(path), ROWS, Merge(("ident",)), mark(3, 2))


def test_a_value_that_the_column_would_change_is_an_error(path: Path) -> None:
    run(path, "CREATE TABLE target (id INT, odd SMALLINT)")
    for value in ("1.5", "40000", "'x'", "1.5::DOUBLE"):
        with pytest.raises(DataError, match='the column "odd" is SMALLINT'):
            written(sink(path), f"SELECT 1 AS id, {value} AS odd", Append(), mark(1))
    written(sink(path), "SELECT 1 AS id, 2.0 AS odd", Append(), mark(1))
    assert shown(path) == [("1", "2")]


def test_a_big_merge_takes_little_memory(path: Path) -> None:
    code = f"""
from pathlib import Path
from databrokkr_assets.core.disposition import Append, Merge
from tests.connectors.carrying import mark, written
from tests.connectors.test_duckdb import sink
from tests.memory import peak_kilobytes
to = sink(Path({str(path)!r}))
written(to, "SELECT range AS id, md5(range::VARCHAR) AS note FROM range(500000)", Append(), mark(1))
written(to, "SELECT range * 5 AS id, 'new' AS note FROM range(125000)", Merge(("id",)), mark(2, 1))
print(peak_kilobytes() // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 700
    assert shown(path, "SELECT count(*), count(*) FILTER (note = 'new') FROM target") == [("525000", "125000")]


# ---------------------------------------------------------------------------------------- history and deletes

VERSIONS = "SELECT id, what, valid_from, valid_to FROM target"


def at(day: int) -> str:
    """A day as a history shows it."""
    return f"2024-01-{day:02} 00:00:00+00"


def on(day: int, after: int | None = None) -> LoadMark:
    """The load of a day, which is its version."""
    return replace(mark(day, after), at=datetime(2024, 1, day, tzinfo=UTC))


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_history_keeps_each_version_with_its_time(path: Path, as_batches: bool) -> None:
    to, how = sink(path), History(("id",))
    old, new = values([(1, "'a'"), (2, "'b'"), (3, "NULL")], "id what"), values([(3, "NULL"), (2, "'B'")], "id what")
    assert written(to, old, how, on(1), as_batches=as_batches).rows == 3
    receipt = written(to, new, how, on(2, 1), as_batches=as_batches)
    assert (receipt.rows, receipt.facts) == (1, {"rows_closed": 2})
    assert written(to, new, how, on(2, 1), as_batches=as_batches).already
    receipt = written(to, new, how, on(3, 2), as_batches=as_batches)
    assert (receipt.rows, receipt.facts) == (0, {"rows_closed": 0})
    written(to, old, how, on(4, 3), as_batches=as_batches)
    assert shown(path, VERSIONS) == in_order(
        [
            ("1", "a", at(1), at(2)),
            ("1", "a", at(4), None),
            ("2", "b", at(1), at(2)),
            ("2", "B", at(2), at(4)),
            ("2", "b", at(4), None),
            ("3", None, at(1), None),
        ]
    )


def test_a_history_of_doubles_keeps_the_last_and_of_new_columns_the_change(path: Path) -> None:
    to, how = sink(path), History(("id",))
    written(to, values([(1, "'a'"), (1, "'z'")], "id what"), how, on(1))
    written(to, "SELECT 1 AS ID, 'z' AS what, [1.5, 'nan'::DOUBLE] AS more, 'run 2' AS _load_id", how, on(2, 1))
    written(to, "SELECT 1 AS ID, 'z' AS what, [1.5, 'nan'::DOUBLE] AS more, 'run 3' AS _load_id", how, on(3, 2))
    assert shown(path, VERSIONS) == [("1", "z", at(1), at(2)), ("1", "z", at(2), None)]


def test_a_history_refuses_what_would_make_it_wrong(path: Path) -> None:
    with pytest.raises(SpecError, match='adds the column "valid_from"'):
        written(sink(path), "SELECT 1 AS id, now() AS valid_from", History(("id",)), mark(1))
    run(path, "CREATE TABLE target (id INT, valid_from DATE)")
    with pytest.raises(SpecError, match="is DATE, but a history needs"):
        written(sink(path), "SELECT 1 AS id", History(("id",)), mark(1))
    for how in (History(("id",)), Merge(("id",))):
        with pytest.raises(DataError, match='the key "id" is NULL in 1 rows'):
            written(sink(path, "other"), values([(1,), ("NULL",)], "id"), how, mark(1))


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_merge_deletes_rows_by_their_keys(path: Path, as_batches: bool) -> None:
    run(path, "CREATE TABLE target (b UUID, a SMALLINT, what VARCHAR, PRIMARY KEY (a, b))")
    how, rows = Merge(("a", "b")), values([(number, "uuid '" + UNIQUE + "'", "'x'") for number in range(5)], "a b what")
    gone = f"SELECT n::INTEGER AS a, uuid '{UNIQUE}' AS b FROM range(1, 4) AS r(n)"
    assert written(sink(path), rows, how, mark(1)).facts == {}
    receipt = written(sink(path), f"{rows} WHERE a = 0", how, mark(2, 1), as_batches=as_batches, gone=gone)
    assert (receipt.rows, receipt.facts) == (1, {"rows_deleted": 3})
    assert shown(path, "SELECT a FROM target") == [("0",), ("4",)]


def test_a_key_that_the_column_would_change_deletes_nothing(path: Path) -> None:
    run(path, "CREATE TABLE target (id INTEGER)", "INSERT INTO target VALUES (2)")
    with pytest.raises(DataError, match='the column "id" is INTEGER'):
        written(sink(path), "SELECT 1.0 AS id", Merge(("id",)), mark(1), gone="SELECT 1.5 AS id")
    assert shown(path) == [("2",)]


# --------------------------------------------------------------------------------------------- what there is


def found(path: Path) -> list[Finding]:
    """What a test of the connection says."""
    return list(connection(path).check_access("shop", Place(path.parent)))


def test_a_connection_says_what_is_reachable(path: Path) -> None:
    assert [(one.what, one.ok) for one in found(path)] == [("exists", False), ("may create", True)]
    run(path, "CREATE TABLE t (id INT)", "CREATE VIEW v AS FROM t")
    assert [(one.what, one.ok) for one in found(path)] == [
        (what, True) for what in ("reachable", "server", "may read", "may write")
    ]
    assert found(path)[2].says == "2 tables and views"
    with held(path) as pid:
        assert [(one.what, one.ok) for one in found(path)] == [("reachable", False)]
        assert f"held by PID {pid}" in found(path)[0].says
    path.write_bytes(b"no database" * 1000)
    assert [(one.what, one.ok) for one in found(path)] == [("reachable", False)]


def test_a_connection_lists_what_the_file_holds(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (id INT, u UUID, PRIMARY KEY (u, id))",
        "INSERT INTO t SELECT range, uuid() FROM range(5)",
        'CREATE SCHEMA "Ä.s"',
        'CREATE VIEW "Ä.s"."ein ""v" AS SELECT u FROM t',
    )
    written(sink(path, "other"), ROWS, Append(), mark(1))
    streams = list(connection(path).list_streams("shop", Place(path.parent)))
    assert [(one.namespace, one.name, one.kind, one.keys, one.rows) for one in streams] == [
        ("main", "other", "table", (), 2),
        ("main", "t", "table", ("u", "id"), 5),
        ("Ä.s", 'ein "v', "view", (), None),
    ]
    assert streams[1].schema == next(source(path, table="t").streams()).schema
    with pytest.raises(AccessError, match="there is no file"):
        list(connection(path.with_name("none")).list_streams("shop", Place(path.parent)))


# ------------------------------------------------------------------------------------------------- errors


@contextmanager
def held(path: Path, seconds: float = 60) -> Iterator[int]:
    """Another process that has the file open for writing."""
    code = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('open', flush=True); time.sleep({seconds})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        try:
            yield other.pid
        finally:
            other.kill()


def test_a_file_that_another_process_holds_is_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(path, "CREATE TABLE t AS SELECT 1 AS id")
    with held(path) as pid, caplog.at_level(logging.INFO, "databrokkr"):
        for attempt in (
            lambda: staged(source(path, table="t", wait=0.1)),
            lambda: written(sink(path, wait=0.1), ROWS, Append(), mark(1)),
            lambda: sink(path, wait=0.1).last_load(target()),
        ):
            with pytest.raises(Unavailable, match=f"held by PID {pid}") as raised:
                attempt()
            assert "wait` of the connection shop" in raised.value.mend
        assert f"waiting for {path}, held by PID {pid}" in caplog.messages
    with held(path, seconds=0.5):
        written(sink(path, wait=30), ROWS, Append(), mark(1))
    assert len(shown(path)) == 2


def test_a_file_that_this_process_holds_is_waited_for(path: Path) -> None:
    with duckdb.connect(str(path)), pytest.raises(Unavailable, match="held by this process"):
        written(sink(path), ROWS, Append(), mark(1))


def test_the_file_is_let_go_at_the_end(path: Path) -> None:
    written(sink(path), ROWS, Append(), mark(1))
    staged(source(path, table="target"))
    with duckdb.connect(str(path)) as duck:
        duck.execute("DELETE FROM target")


def test_a_file_that_is_none_says_how_to_mend_it(path: Path) -> None:
    with pytest.raises(AccessError, match=f"there is no file {path}") as raised:
        next(source(path, table="t").streams())
    assert raised.value.mend == "correct `path` of the connection shop"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(AccessError, match="not a valid DuckDB database"):
        next(source(path, table="t").streams())
    with pytest.raises(AccessError, match="not a valid DuckDB database"):
        written(sink(path), ROWS, Append(), mark(1))
    with pytest.raises(AccessError):
        written(sink(path / "below" / "x.duckdb"), ROWS, Append(), mark(1))


def test_a_folder_is_made(tmp_path: Path) -> None:
    given = DuckDBSinkSettings(type="duckdb", connection="shop", input="orders", table="t")
    to = given.open(DuckDBConnection(type="duckdb", path="a/b/c.duckdb"), Place(tmp_path))
    written(to, ROWS, Append(), mark(1))
    assert shown(tmp_path / "a/b/c.duckdb", "SELECT * FROM t") == [("1", "a"), ("2", "b")]


def test_a_table_or_column_that_is_not_there_is_suggested(path: Path) -> None:
    run(path, "CREATE TABLE orders (id INT, amount INT)")
    wrongs: list[dict[str, Any]] = [{"table": "ordres"}, {"query": "SELECT * FROM ordres"}]
    for wrong in wrongs:
        with pytest.raises(SpecError, match="there is no table") as raised:
            next(source(path, **wrong).streams())
        assert raised.value.mend == 'did you mean "main.orders"?'
    with pytest.raises(SpecError) as raised:
        next(source(path, table="orders", columns="amuont").streams())
    assert raised.value.mend == 'did you mean "amount"?'
    for query in ("SELECT amuont FROM orders", "SELEKT 1", "SELECT * FROM ("):
        with pytest.raises(SpecError):
            next(source(path, query=query).streams())


def test_how_the_ui_names_it(path: Path) -> None:
    given = DuckDBSinkSettings(type="duckdb", connection="shop", input="orders", table="t")
    assert given.origin(connection(path)) == Origin(("shop", "main", "t"), "duckdb", "duckdb://shop.duckdb")
    assert given.pool(connection(path)).startswith("duckdb_shop_")
    found = connector("duckdb")
    assert (found.connection, found.source, found.sink) == (DuckDBConnection, DuckDBSourceSettings, DuckDBSinkSettings)

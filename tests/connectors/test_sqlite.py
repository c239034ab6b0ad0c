"""SQLite files: no value changes on the way, values of another type than declared are set aside, rows arrive once."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
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
from databrokkr_assets.core.ports import LoadMark, RelationRead, Target
from databrokkr_assets.core.spec import Origin, Place
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from resources.connectors.sqlite import (
    SqliteConnection,
    SqliteSink,
    SqliteSinkSettings,
    SqliteSource,
    SqliteSourceSettings,
)
from resources.registry import connector
from resources.support import sqlite_file, sqlite_stage
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, one_duck, staged, values, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite file is to be."""
    return tmp_path / "shop.sqlite"


@pytest.fixture(params=["scanner", "driver"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With DuckDB's extension, and as if it were not installed."""
    if request.param == "driver":
        for module in (sqlite_file, sqlite_stage):
            monkeypatch.setattr(module, "load_extension", _not_installed)
    return str(request.param)


def _not_installed(*_: object, **__: object) -> None:
    raise SpecError("it is not installed", mend="install it")


def connection(path: Path, wait: float = 5) -> SqliteConnection:
    return SqliteConnection(type="sqlite", path=path.name, wait=wait)


def source(path: Path, *, wait: float = 5, **more: Any) -> SqliteSource:
    given = SqliteSourceSettings(type="sqlite", connection="shop", **more)
    return given.open(connection(path, wait), Place(path.parent))


def sink(path: Path, table: str = "target", *, wait: float = 5, **more: Any) -> SqliteSink:
    given = SqliteSinkSettings(type="sqlite", connection="shop", input="orders", table=table, **more)
    return given.open(connection(path, wait), Place(path.parent))


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def shown(path: Path, query: str = "SELECT * FROM target") -> list[tuple[Any, ...]]:
    """The rows of a query as Python's driver gives them, sorted."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(query).fetchall()
    return sorted(rows, key=lambda row: [(value is not None, str(value)) for value in row])


def target() -> Target:
    return Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))


def relation(given: SqliteSource) -> tuple[list[Row], list[tuple[str, str, str]]]:
    """The rows and the rejects (reason, position, payload) of a source."""
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        rows = duck.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({read.query})").fetchall()
        rejects = sorted(read.rejects(), key=lambda one: one.position)
        return in_order(rows), [(one.reason, one.position, one.payload) for one in rejects]


def is_scanned(given: SqliteSource) -> bool:
    """Whether the rows come through DuckDB's scanner."""
    with one_duck() as duck:
        return "databrokkr_sqlite_" in given.relation(duck, next(given.streams()), None).query and bool(
            duck.execute("SELECT 1 FROM duckdb_databases() WHERE type = 'sqlite'").fetchone()
        )


ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")

# ------------------------------------------------------------------------------------------------- types

TYPED = """SELECT * FROM (VALUES
    (true, (-128)::TINYINT, 255::UTINYINT, 65535::USMALLINT, 4294967295::UINTEGER, 18446744073709551615::UBIGINT,
     (-170141183460469231731687303715884105728)::HUGEINT, 0.1::FLOAT, 'inf'::DOUBLE, 1.10::DECIMAL(12,2),
     '0.99999999999999999999999999999999999999'::DECIMAL(38,38), '', '\\x00\\xFF'::BLOB, DATE 'infinity',
     TIME '23:59:59.000001', TIMESTAMP '-infinity', TIMESTAMPTZ '2024-01-01 00:00:00.000001+02',
     TIMESTAMP_NS '2024-01-01 00:00:00.123456789', TIMESTAMP_S '2024-01-01 00:00:01', INTERVAL '-1 month 2 days',
     'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID, '1.0'::JSON, 9007199254740993::BIGINT, '007',
     (-9223372036854775808)::BIGINT, DATE '0044-03-15 (BC)', TIMESTAMP '12024-01-01 00:00:00', 'a' || chr(0) || 'ü🎉'),
    (false, 1, 2, 3, 4, 5, 6, 1.5, -0.1, 99999999.99, -0.5, 'NULL', ''::BLOB, DATE '2024-02-29', TIME '00:00:00',
     TIMESTAMP '2024-01-01 10:00:00', TIMESTAMPTZ '1970-01-01 00:00:00+00', TIMESTAMP_NS '1970-01-01', TIMESTAMP_S
     '1970-01-01', INTERVAL '1 second', '00000000-0000-0000-0000-000000000000', '{"a": 1.50}'::JSON, 0, '1e5', 1,
     DATE '1970-01-01', TIMESTAMP '1970-01-01 00:00:00.000001', ' '),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL))
    AS t(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, ab)"""


def test_no_value_changes_on_the_way_into_a_file_and_back(path: Path, either: str) -> None:
    written(sink(path), TYPED, Append(), mark(1))
    with one_duck() as duck:
        given = duck.sql(f"SELECT * REPLACE (CAST(h AS DOUBLE) AS h) FROM ({TYPED})")
        want = in_order(given.project("CAST(COLUMNS(*) AS VARCHAR)").fetchall())
    rows, rejects = relation(source(path, table="target"))
    assert (rows, rejects) == (want, [])
    assert batched(source(path, table="target"))[0] == want


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1)),
            st.one_of(st.none(), st.floats(allow_nan=False)),
            st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))),
            st.one_of(st.none(), st.binary()),
            st.one_of(st.none(), st.decimals(-(10**13) + 1, 10**13 - 1, places=2)),
            st.one_of(st.none(), st.datetimes()),
        ),
        max_size=4,
    )
)
def test_whatever_a_file_holds_as_declared_arrives_as_it_is(path: Path, rows: list[tuple[Any, ...]]) -> None:
    run(path, "DROP TABLE IF EXISTS t", "CREATE TABLE t (i INT, r REAL, s TEXT, b BLOB, d DECIMAL(15,2), at DATETIME)")
    with closing(sqlite3.connect(path)) as database:
        for i, r, s, b, d, at in rows:
            told = (i, r, s, b, None if d is None else str(d), None if at is None else at.isoformat(" "))
            database.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", told)
        database.commit()
    with one_duck() as duck:
        read = source(path, table="t").relation(duck, next(source(path, table="t").streams()), None)
        got = duck.execute(read.query).fetchall()
        assert list(read.rejects()) == []
    assert sorted(got, key=repr) == sorted(rows, key=repr) or [_plain(row) for row in got] == [_plain(r) for r in rows]


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value + 0 if isinstance(value, float) else value for value in row)  # SQLite makes 0.0 of -0.0


MISFITS = {
    "INTEGER": ["'x'", "1.5", "x'00'", "1e30"],
    "BOOLEAN": ["2", "'true'", "0.5"],
    "REAL": ["'x'", "x'00'"],
    "NUMERIC": ["9007199254740993", "'x'"],
    "TEXT": ["x'00'", "CAST(x'61ff' AS TEXT)"],
    "BLOB": ["'x'", "1"],
    "DATE": ["1700000000", "2460000.5", "'2024-02-30'", "'yesterday'", "'2024-01-01 10:00:00'", "''"],
    "DATETIME": ["1700000000", "'2024-01-01T10:00:00+02:00'", "'2024-01-01 10:00:00.1234567'", "'10:00'"],
    "TIMESTAMP WITH TIME ZONE": ["'x'", "1"],
    "TIME": ["'25:00:00'", "36000"],
    "DECIMAL(10,2)": ["1.555", "100000000", "'12,50'", "9e999"],
    "UUID": ["'x'", "1"],
    "TEXT DECIMAL(20,0)": ["'1.5'"],
}


@pytest.mark.parametrize("declared", MISFITS)
def test_a_value_that_is_not_of_the_declared_type_is_set_aside(path: Path, declared: str) -> None:
    given = MISFITS[declared]
    run(path, f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared})", "INSERT INTO t VALUES (100, NULL)")
    run(path, *(f"INSERT INTO t (v) VALUES ({value})" for value in given))
    rows, rejects = relation(source(path, table="t"))
    assert rows == [("100", None)]
    assert [position for _, position, _ in rejects] == [f"rowid {101 + at}" for at in range(len(given))]
    assert all(f'"v" is declared {declared} and holds a' in reason for reason, _, _ in rejects)
    texts, none = relation(source(path, table="t", as_text="v"))
    assert (len(texts), none) == (1 + len(given), [])


def test_rejects_tell_the_value_and_a_load_goes_on(path: Path, tmp_path: Path) -> None:
    run(
        path, "CREATE TABLE t (id INT, what TEXT, raw BLOB)", "INSERT INTO t VALUES (1, 'a', NULL), ('x', 'b', x'00FF')"
    )
    outcome = load(job(tmp_path), source(path, table="t"), Replace())
    assert (outcome.rows_out, outcome.quarantined) == (1, 1)
    assert outcome.reasons == (("type.id", '"id" is declared INT and holds a text', 1),)
    assert relation(source(path, table="t"))[1][0][2] == '{"id": "x", "what": "b", "raw": "X\'00FF\'"}'
    texts, _ = relation(source(path, table="t", as_text=["id", "raw"]))
    assert texts == [("1", "a", None), ("x", "b", "X'00FF'")]


def test_dates_are_read_in_other_ways_of_writing(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (d DATE, at DATETIME, tz TIMESTAMPTZ)",
        "INSERT INTO t VALUES ('2024-1-2', '2024-01-01T10:00:00Z', '2024-01-01 10:00:00-02:00'), "
        "('2024-01-02 00:00:00', '2024-01-01 10:00', '2024-01-01 12:00:00')",
    )
    same = ("2024-01-02", "2024-01-01 10:00:00", "2024-01-01 12:00:00+00")
    assert relation(source(path, table="t")) == ([same, same], [])


def test_columns_without_a_telling_type_are_what_their_values_are(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (a, b, c ANY, d MONEY, e, f, g STRING)",
        "INSERT INTO t VALUES (1, 1, 'x', 1.5, x'00', NULL, 1), (2, 2.5, NULL, 2, NULL, NULL, 'x')",
    )
    stream = next(source(path, table="t").streams())
    assert stream.schema is not None
    assert [str(kind) for kind in stream.schema.types] == [
        "int64",
        "double",
        "string",
        "double",
        "binary",
        *["string"] * 2,
    ]
    assert [row[-1] for row in relation(source(path, table="t"))[0]] == ["1", "x"]
    query = "SELECT count(*) AS n, sum(a) AS s, max(c) AS m, CAST(1 AS INTEGER) AS i FROM t"
    assert relation(source(path, query=query))[0] == [("2", "3", "x", "1")]


def test_generated_columns_views_and_tables_without_rowid_are_read(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a + 1) VIRTUAL, c TEXT AS (a || 'x') STORED)",
        "INSERT INTO t (a) VALUES (1)",
        "CREATE VIEW v AS SELECT a, c FROM t",
        "CREATE TABLE w (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID",
        "INSERT INTO w VALUES ('x', 1), ('y', 'bad')",
        'CREATE TABLE "ro""w" (rowid TEXT, v INT)',
        "INSERT INTO \"ro\"\"w\" VALUES ('q', 7), ('r', 'bad')",
        "CREATE TABLE strict (a ANY, b TEXT) STRICT",
        "INSERT INTO strict VALUES (1, 'x')",
    )
    assert relation(source(path, table="t")) == ([("1", "2", "1x")], [])
    assert relation(source(path, table="v")) == ([("1", "1x")], [])
    rows, rejects = relation(source(path, table="w"))
    assert (rows, [one[1] for one in rejects]) == ([("x", "1")], ["row 2"])
    rows, rejects = relation(source(path, schema="main", table='ro"w'))
    assert (rows, [one[1] for one in rejects]) == ([("q", "7")], ["rowid 2"])
    assert relation(source(path, table="strict")) == ([("1", "x")], [])


def test_the_scanner_is_used_where_it_changes_nothing(path: Path) -> None:
    run(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, r REAL, s TEXT, b BLOB, d DECIMAL(10,2), f BOOLEAN, day DATE, "
        "at DATETIME, n NUMERIC, v VARCHAR(5))",
        "INSERT INTO t VALUES (1, 0.1, 'ü', x'00', 1.1, 1, '2024-01-01', '2024-01-01 10:00:00.5', 7, 'abcdefgh')",
    )
    assert is_scanned(source(path, table="t"))
    scanned = relation(source(path, table="t"))
    assert scanned == (
        [("1", "0.1", "ü", "\\x00", "1.10", "true", "2024-01-01", "2024-01-01 10:00:00.5", "7.0", "abcdefgh")],
        [],
    )
    assert relation(source(path, query="SELECT * FROM t")) == scanned
    run(path, "INSERT INTO t (day) VALUES ('2024-01-01 10:00:00')")
    assert not is_scanned(source(path, table="t"))


def test_a_file_that_gets_a_misfit_while_it_is_scanned_is_noticed(path: Path) -> None:
    run(path, "CREATE TABLE t (at DATETIME)", "INSERT INTO t VALUES ('2024-01-01 10:00:00')")
    given = source(path, table="t")
    with one_duck() as duck:
        read: RelationRead = given.relation(duck, next(given.streams()), None)
        run(path, "INSERT INTO t VALUES (1700000000)")
        duck.execute(f"CREATE TEMP TABLE staged AS {read.query}")
        with pytest.raises(Unavailable, match="changed while it was read"):
            list(read.rejects())
    run(path, "CREATE TABLE u (i INT)", "INSERT INTO u VALUES (1)")
    given = source(path, table="u")
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        run(path, "INSERT INTO u VALUES ('x')")
        with pytest.raises(duckdb.Error) as raised:
            duck.execute(f"CREATE TEMP TABLE staged AS {read.query}")
        assert isinstance(read.explain(raised.value), Unavailable)


def test_text_that_is_not_utf8_ends_a_scan_and_is_set_aside_otherwise(path: Path) -> None:
    run(path, "CREATE TABLE t (id INT, s TEXT)", "INSERT INTO t VALUES (1, 'a'), (2, CAST(x'61ff' AS TEXT))")
    given = source(path, table="t")
    if is_scanned(given):
        with one_duck() as duck:
            read = given.relation(duck, next(given.streams()), None)
            with pytest.raises(duckdb.Error) as raised:
                duck.execute(f"CREATE TEMP TABLE staged AS {read.query}")
            told = read.explain(raised.value)
        assert isinstance(told, DataError) and "as_text" in told.mend
    rows, rejects = relation(source(path, table="t", as_text="id"))
    assert (rows, rejects[0][2]) == ([("1", "a")], '{"id": 2, "s": "X\'61FF\'"}')
    assert relation(source(path, table="t", as_text="s"))[0] == [("1", "a"), ("2", "X'61FF'")]


def _documented(heading: str) -> list[tuple[str, str]]:
    """The pairs of types in the table below a heading of docs/types.md; rows that only describe are left out."""
    page = (Path(__file__).parents[2] / "docs/types.md").read_text().split("\n## SQLite\n")[1]
    table = page.split(f"### {heading}\n")[1].split("\n#")[0]
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    pairs = [[re.findall("`([^`]+)`", cell) for cell in row] for row in cells]
    return [pair for left, right in pairs for pair in zip(left, right, strict=False)]


def test_the_types_that_the_docs_promise(path: Path) -> None:
    from_sqlite, to_sqlite = (
        _documented(f"From a {way}") for way in ("table or query to a dataset", "dataset to a table")
    )
    assert len(from_sqlite) > 20 and len(to_sqlite) > 20
    run(path, f"CREATE TABLE t ({', '.join(f'c{at} {declared}' for at, (declared, _) in enumerate(from_sqlite))})")
    with one_duck() as duck:
        read = source(path, table="t").relation(duck, next(source(path, table="t").streams()), None)
        assert list(map(str, duck.sql(read.query).types)) == [own for _, own in from_sqlite]
    nulls = ", ".join(f"CAST(NULL AS {own}) AS c{at}" for at, (own, _) in enumerate(to_sqlite))
    written(sink(path), f"SELECT {nulls}", Append(), mark(1))
    made = shown(path, "SELECT cid, type FROM pragma_table_info('target')")
    assert [declared for _, declared in sorted(made)] == [declared for _, declared in to_sqlite]


# ------------------------------------------------------------------------------------------------ reading


def test_a_stream_tells_columns_and_primary_key(path: Path) -> None:
    run(path, "CREATE TABLE t (b INT, a UUID, c INT, PRIMARY KEY (b, a))")
    stream = next(source(path, table="t").streams())
    assert stream.schema is not None
    assert (stream.name, stream.keys, stream.schema.names) == ("t", ("b", "a"), ["b", "a", "c"])
    assert next(source(path, table="t", columns="c").streams()).keys == ()


def test_odd_names_are_found_and_kept(path: Path, either: str) -> None:
    run(path, 'CREATE TABLE "my ""t" ("select" INT, "ü🎉 ""x""" TEXT)', 'INSERT INTO "my ""t" VALUES (1, \'z\')')
    given: dict[str, Any] = {"schema": "main", "table": 'my "t', "cursor": 'ü🎉 "x"'}
    rows, cursor = staged(source(path, **given))
    assert rows == [("1", "z")]
    assert staged(source(path, **given), cursor)[0] == []
    query = 'SELECT * FROM (VALUES (1, \'z\')) AS v("select", "ü🎉 ""x""")'
    dispositions: list[Disposition] = [Replace(), Merge(("select",)), History(("select",))]
    for version, how in enumerate(dispositions):
        written(sink(path, schema="main", table=f'new "{version}'), query, how, mark(1), node=str(how))
        assert shown(path, f'SELECT "select", "ü🎉 ""x""" FROM "new ""{version}"') == [(1, "z")]


def test_a_query_reads_as_it_is_written(path: Path) -> None:
    run(path, "CREATE TABLE orders (id INT)", "INSERT INTO orders VALUES (0), (1), (2)")
    query = "WITH o AS (SELECT * FROM orders WHERE id > 0) SELECT id FROM o UNION ALL SELECT id + 10 FROM orders -- ok"
    assert staged(source(path, query=query))[0] == [("1",), ("10",), ("11",), ("12",), ("2",)]
    given = SqliteSourceSettings(type="sqlite", connection="shop", query=query)
    assert [origin.key for origin in given.origins(connection(path))] == [("shop", "main", "orders")]


@pytest.mark.parametrize(
    ("declared", "first", "second"),
    [
        ("INTEGER", ["1", "2"], ["2", "3"]),
        ("REAL", ["0.5", "1e300"], ["1e300", "2e300"]),
        ("TEXT", ["'a'", "'b'"], ["'b'", "'c'"]),
        ("DATE", ["'2024-01-01'", "'2024-01-02'"], ["'2024-01-02'", "'2024-1-3'"]),
        ("DATETIME", ["'2024-01-02 10:00:00'"], ["'2024-01-02T10:00:00'", "'2024-01-02T10:00:01'"]),
        (
            "TIMESTAMPTZ",
            ["'2024-01-02 01:00:00+02:00'"],
            ["'2024-01-01 23:00:00+00:00'", "'2024-01-01 20:00:00-05:00'"],
        ),
        ("DECIMAL(10,2)", ["1.1", "1.2"], ["1.2", "'1.30'"]),
    ],
)
def test_a_cursor_reads_what_is_new_and_late_rows_of_the_same_value(
    path: Path, declared: str, first: list[str], second: list[str]
) -> None:
    run(path, f"CREATE TABLE t (c {declared} COLLATE NOCASE, what TEXT)", "INSERT INTO t VALUES (NULL, 'null')")
    run(path, *(f"INSERT INTO t VALUES ({value}, 'first')" for value in first))
    rows, cursor = staged(source(path, table="t", cursor="c"))
    assert len(rows) == len(first) + 1
    run(path, *(f"INSERT INTO t VALUES ({value}, 'second')" for value in second))
    rows, after = staged(source(path, table="t", cursor="c"), cursor)
    assert [row[1] for row in rows] == ["second"] * len(second)
    assert batched(source(path, table="t", cursor="c"), cursor) == (rows, after)
    assert staged(source(path, table="t", cursor="c"), after) == ([], after)


def test_rows_that_come_late_or_without_a_value_come_again(path: Path) -> None:
    run(path, "CREATE TABLE t (id INT, at DATETIME)", "INSERT INTO t VALUES (1, '2024-01-10 00:00:00')")
    given: dict[str, Any] = {"table": "t", "cursor": "at", "disposition": "merge", "keys": "id"}
    _, cursor = staged(source(path, **given))
    run(path, "INSERT INTO t VALUES (2, '2024-01-09 12:00:00'), (3, '2024-01-08 00:00:00'), (4, NULL)")
    rows, _ = staged(source(path, **given, lookback="1 day", cursor_nulls="always"), cursor)
    assert [row[0] for row in rows] == ["1", "2", "4"]


def test_a_table_is_read_in_one_snapshot_while_others_write(path: Path) -> None:
    run(path, "PRAGMA journal_mode = wal", "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT)")
    run(path, _many(100_000))
    # A process of its own: two libraries of one process break each other's locks on a file.
    endless = "while True: database.execute('UPDATE t SET n = n + 1 WHERE id IN (1, 50000, 100000)')"
    script = f"import sqlite3; database = sqlite3.connect({str(path)!r}, isolation_level=None, timeout=60)\n{endless}"
    writer = subprocess.Popen([sys.executable, "-c", script])
    try:
        for query in (None, "SELECT id, n + 0 AS n FROM t"):
            given = source(path, query=query) if query else source(path, table="t")
            rows, _ = relation(given)
            assert len(rows) == 100_000
            assert len({row[1] for row in rows if row[0] in ("1", "50000", "100000")}) == 1
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


def _many(rows: int) -> str:
    numbers = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}"
    return f"WITH RECURSIVE n(i) AS ({numbers}) INSERT INTO t SELECT i, 0 FROM n"


# ------------------------------------------------------------------------------------------------ writing


def test_what_each_disposition_leaves(path: Path, either: str) -> None:
    wanted: dict[Disposition, list[Any]] = {
        Append(): [(1, "a"), (2, "B"), (2, "b"), (3, "c")],
        Replace(): [(2, "B"), (3, "c")],
        Merge(("id",)): [(1, "a"), (2, "B"), (3, "c")],
    }
    for how, want in wanted.items():
        to = sink(path, f"t_{type(how).__name__}")
        assert written(to, ROWS, how, mark(1), node=str(how)).rows == 2
        written(to, MORE, how, mark(2, after=1), node=str(how))
        assert shown(path, f"SELECT * FROM t_{type(how).__name__}") == want


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",)), History(("id",))], ids=str)
@pytest.mark.parametrize("as_batches", [False, True])
def test_a_load_that_comes_twice_is_applied_once(path: Path, how: Disposition, as_batches: bool) -> None:
    to = sink(path)
    assert to.last_load(target()) is None
    first = written(to, ROWS, how, mark(7), as_batches=as_batches)
    assert (first.rows, first.already) == (2, False)
    again = written(to, MORE, how, mark(7), as_batches=as_batches)
    assert (again.rows, again.already) == (0, True)
    assert shown(path, "SELECT id, what FROM target") == [(1, "a"), (2, "b")]
    last = to.last_load(target())
    assert last is not None
    assert (last.version, last.dataset, last.run_id) == (7, "orders-table", "run")


def at(version: int, after: int | None = None) -> LoadMark:
    return LoadMark(f"load-{version}", "orders-table", version, after, "run", datetime(2024, 1, version, tzinfo=UTC))


def test_a_history_keeps_each_version_of_a_row(path: Path) -> None:
    how, to = History(("id",)), sink(path)
    first = values([(1, "'a'"), (2, "'b'"), (3, "NULL")], "id what")
    assert written(to, first, how, at(1)).rows == 3
    assert written(to, first, how, at(2, 1)).rows == 0
    done = written(to, values([(1, "'A'"), (3, "NULL"), (4, "'d'")], "id what"), how, at(3, 2))
    assert (done.rows, done.facts) == (2, {"rows_closed": 2})
    days = [f"2024-01-0{day} 00:00:00.000000+00" for day in (1, 2, 3)]
    assert shown(path) == [
        (1, "A", days[2], None),
        (1, "a", days[0], days[2]),
        (2, "b", days[0], days[2]),
        (3, None, days[0], None),
        (4, "d", days[2], None),
    ]
    assert next(source(path, table="target").streams()).schema.field("valid_to").type == pa.timestamp("us", "UTC")  # type: ignore[union-attr]
    run(path, "CREATE TABLE other (id INT, valid_to TEXT)")
    with pytest.raises(SpecError, match='"valid_to" is declared TEXT'):
        written(sink(path, "other"), ROWS, how, mark(1), node="other")
    with pytest.raises(SpecError, match='adds the column "valid_from"'):
        written(to, "SELECT 1 AS id, 2 AS valid_from", how, mark(1), node="more")


@pytest.mark.parametrize("as_batches", [False, True])
def test_rows_are_deleted_by_key_in_the_same_load(path: Path, as_batches: bool) -> None:
    to, how = sink(path), Merge(("id",))
    written(to, values([(1, "'a'"), (2, "'b'"), (3, "'c'")], "id what"), how, mark(1))
    with one_duck() as duck, to.begin(target(), how, mark(2, 1)) as opened:
        rows = duck.sql("SELECT 2::INT AS id, 'B' AS what")
        if as_batches:
            opened.write(rows.to_arrow_table().to_batches()[0])
        else:
            opened.write_relation(duck, "SELECT 2::INT AS id, 'B' AS what")
        for key in (1, 3):
            opened.delete(pa.record_batch({"id": pa.array([key], pa.int32())}))
        receipt = opened.commit()
    assert (receipt.rows, receipt.facts) == (1, {"rows_deleted": 2})
    assert shown(path) == [(2, "B")]


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
        assert shown(path) == sorted(want.items())


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
    run(path, "CREATE TABLE target (id INT PRIMARY KEY, what TEXT)", "INSERT INTO target VALUES (2, 'old')")
    with pytest.raises(DataError, match="UNIQUE constraint failed"):
        written(sink(path), ROWS, Append(), mark(1))
    assert shown(path) == [(2, "old")]
    assert sink(path).last_load(target()) is None
    written(sink(path), ROWS, Merge(("id",)), mark(1))
    written(sink(path), MORE, Replace(), mark(2, 1))
    assert shown(path) == [(2, "B"), (3, "c")]


def test_a_kill_while_rows_are_taken_over_changes_nothing(path: Path) -> None:
    written(sink(path), ROWS, Append(), mark(1))
    code = f"""
import os, sqlite3
from pathlib import Path
from databrokkr_assets.core.disposition import Replace
from resources.support import ledger
from tests.connectors.carrying import mark, written
from tests.connectors.test_sqlite import MORE, sink
ledger.upsert = lambda *a: os.kill(os.getpid(), 9)
written(sink(Path({str(path)!r})), MORE, Replace(), mark(2, 1))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert shown(path) == [(1, "a"), (2, "b")]
    written(sink(path), MORE, Replace(), mark(2, 1))
    assert shown(path) == [(2, "B"), (3, "c")]


def test_new_columns_are_added_and_missing_ones_stay_null(path: Path) -> None:
    written(sink(path), ROWS, Append(), mark(1))
    written(sink(path), values([(3, 1.5)], "ID more"), Append(), mark(2, 1))
    assert shown(path, "SELECT id, what, more FROM target")[-1] == (3, None, 1.5)
    with pytest.raises(SpecError, match='has no column "other"'):
        written(sink(path, create=False), values([(1, 2)], "id other"), Append(), mark(3, 2))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(path), ROWS, Merge(("ident",)), mark(3, 2))


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        ("INTEGER", ["1.5", "'x'", "18446744073709551615::UBIGINT", "'007'"]),
        ("REAL", ["'x'", "9007199254740993::BIGINT", "'nan'::DOUBLE"]),
        ("DECIMAL(20,2)", ["123456789012345678.99::DECIMAL(20,2)"]),
        ("JSON", ["'1.0'::JSON"]),
        ("STRING", ["'007'", "'1e5'"]),
        ("BOOLEAN", ["2"]),
        ("DATE", ["TIMESTAMP '2024-01-01 10:00:00'"]),
    ],
)
def test_a_value_that_the_column_would_change_is_an_error(path: Path, declared: str, given: list[str]) -> None:
    run(path, f"CREATE TABLE target (id INT, odd {declared})")
    for value in given:
        with pytest.raises(DataError, match='the column "odd"'):
            written(sink(path), f"SELECT 1 AS id, {value} AS odd", Append(), mark(1))
    assert shown(path) == []


def test_a_null_in_a_key_is_an_error(path: Path) -> None:
    for how in (Merge(("id",)), History(("id",))):
        with pytest.raises(DataError, match='the column "id" takes no NULL'):
            written(sink(path), values([("NULL", "'a'")], "id what"), how, mark(1))


def test_nested_values_are_written_as_json(path: Path, either: str) -> None:
    written(
        sink(path), "SELECT [1, NULL] AS l, {'a': 'x'} AS s, MAP {'k': 1} AS m, 'a'::ENUM('a') AS e", Append(), mark(1)
    )
    assert shown(path) == [("[1,null]", '{"a":"x"}', '{"k":1}', "a")]
    assert relation(source(path, table="target"))[0] == [("[1,null]", '{"a":"x"}', '{"k":1}', "a")]


def test_a_file_goes_through_a_dataset_into_another(path: Path, tmp_path: Path) -> None:
    run(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, price DECIMAL(10,2), day DATE)")
    run(path, "INSERT INTO t VALUES (1, 1.10, '2024-01-01'), (2, NULL, NULL)")
    given: dict[str, Any] = {"table": "t", "cursor": "id"}
    load(job(tmp_path), source(path, **given), Append())
    deliver(job(tmp_path), sink(path), Append())
    run(path, "INSERT INTO t VALUES (3, 2, '2024-01-02')")
    load(job(tmp_path), source(path, **given), Append())
    deliver(job(tmp_path), sink(path), Append())
    assert shown(path) == shown(path, "SELECT * FROM t")


def test_a_big_load_takes_little_memory(path: Path) -> None:
    code = f"""
from pathlib import Path
from databrokkr_assets.core.disposition import Append, Merge
from tests.connectors.carrying import mark, one_duck, written
from tests.connectors.test_sqlite import sink, source
from tests.memory import peak_kilobytes
path = Path({str(path)!r})
written(sink(path), "SELECT range AS id, md5(range::VARCHAR) AS note FROM range(300000)", Append(), mark(1))
written(sink(path), "SELECT range * 5 AS id, 'new' AS note FROM range(60000)", Merge(("id",)), mark(2, 1))
for given in (source(path, table="target"), source(path, query="SELECT * FROM target")):
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        assert duck.execute(f"SELECT count(*), max(note) FROM ({{read.query}})").fetchone()[0] == 300000
print(peak_kilobytes() // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 600


# ------------------------------------------------------------------------------------------------- errors


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, locked by another writer."""
    run(path, "CREATE TABLE t (id INT)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


def test_a_file_that_another_writes_is_waited_for(path: Path, locked: sqlite3.Connection) -> None:
    for attempt in (
        lambda: staged(source(path, table="t", wait=0.1)),
        lambda: written(sink(path, wait=0.1), ROWS, Append(), mark(1)),
        lambda: sink(path, wait=0.1).last_load(target()),
    ):
        with pytest.raises(Unavailable, match="locked by another writer") as raised:
            attempt()
        assert "wait` of the connection shop" in raised.value.mend
    locked.execute("COMMIT")
    written(sink(path), ROWS, Append(), mark(1))
    assert len(shown(path)) == 2


def test_a_file_that_is_none_says_how_to_mend_it(path: Path) -> None:
    with pytest.raises(AccessError, match=f"there is no file {path}") as raised:
        next(source(path, table="t").streams())
    assert raised.value.mend == "correct `path` of the connection shop"
    path.write_bytes(b"not a database" * 1000)
    for attempt in (
        lambda: next(source(path, table="t").streams()),
        lambda: written(sink(path), ROWS, Append(), mark(1)),
        lambda: sink(path).last_load(target()),
    ):
        with pytest.raises(AccessError, match="file is not a database"):
            attempt()
    with pytest.raises(AccessError):
        written(sink(path / "below" / "x.sqlite"), ROWS, Append(), mark(1))


def test_a_folder_is_made_and_a_new_file_is_in_wal_mode(tmp_path: Path) -> None:
    for wal, mode in ((True, "wal"), (False, "delete")):
        given = SqliteSinkSettings(type="sqlite", connection="shop", input="orders", table="t")
        name = f"a/b/{mode}.sqlite"
        to = given.open(SqliteConnection(type="sqlite", path=name, wal=wal), Place(tmp_path))
        written(to, ROWS, Append(), mark(1))
        assert shown(tmp_path / name, "PRAGMA journal_mode") == [(mode,)]


def test_a_table_or_column_that_is_not_there_is_suggested(path: Path) -> None:
    run(path, "CREATE TABLE orders (id INT, amount INT)")
    with pytest.raises(SpecError, match='there is no table "ordres"') as raised:
        next(source(path, table="ordres").streams())
    assert raised.value.mend == 'did you mean "orders"?'
    with pytest.raises(SpecError) as raised:
        next(source(path, table="orders", columns="amuont").streams())
    assert raised.value.mend == 'did you mean "amount"?'
    for query in (
        "SELECT amuont FROM orders",
        "SELEKT 1",
        "SELECT * FROM (",
        "DELETE FROM orders",
        "SELECT 1; SELECT 2",
    ):
        with pytest.raises(SpecError):
            next(source(path, query=query).streams())
    with pytest.raises(ValueError, match="one schema"):
        source(path, table="sales.orders")


def test_a_connection_tells_what_it_reaches(path: Path) -> None:
    given, place = connection(path), Place(path.parent)
    assert [(one.what, one.ok) for one in given.check_access("shop", place)] == [("open", False)]
    run(
        path,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, price DECIMAL(10,2))",
        "CREATE INDEX i ON orders (price)",
        "INSERT INTO orders VALUES (1, 1), (2, 2)",
        "ANALYZE",
        "CREATE VIEW v AS SELECT id + 1 AS n FROM orders",
    )
    assert [(one.what, one.ok) for one in given.check_access("shop", place)] == [("open", True), ("write", True)]
    found = {one.name: one for one in given.list_streams("shop", place)}
    assert {name: (one.kind, one.namespace, one.keys, one.rows) for name, one in found.items()} == {
        "orders": ("table", "main", ("id",), 2),
        "v": ("view", "main", (), None),
    }


def test_tables_of_a_pattern_become_sources_with_their_keys(path: Path) -> None:
    run(
        path,
        "CREATE TABLE sales_a (id INTEGER PRIMARY KEY)",
        "CREATE TABLE sales_b (x INT)",
        "CREATE TABLE other (y INT)",
    )
    given = SqliteSourceSettings(type="sqlite", connection="shop", tables={"sales_*": {}}, disposition="replace")
    known = list(connection(path).list_streams("shop", Place(path.parent)))
    found = given.expanded(known)
    assert sorted(found) == ["sales_a", "sales_b"]
    assert all(isinstance(one, SqliteSourceSettings) and one.schema_ == "main" for one in found.values())


def test_how_the_ui_names_it(path: Path) -> None:
    given = SqliteSinkSettings(type="sqlite", connection="shop", input="orders", table="t")
    assert given.origin(connection(path)) == Origin(("shop", "main", "t"), "sqlite", "sqlite://shop.sqlite")
    assert given.pool(connection(path)).startswith("sqlite_shop_")
    found = connector("sqlite")
    assert (found.connection, found.source, found.sink) == (SqliteConnection, SqliteSourceSettings, SqliteSinkSettings)

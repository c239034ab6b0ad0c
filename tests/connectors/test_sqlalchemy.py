"""The generic connector on SQLite and PostgreSQL: values stay as they are, rows arrive once, errors say what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import LoadMark, Sink, Source, Target
from databrokkr_assets.core.spec import Origin, Place, Range
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from resources.connectors.sqlalchemy import (
    SqlAlchemyConnection,
    SqlAlchemySinkSettings,
    SqlAlchemySourceSettings,
)
from resources.registry import connector
from resources.support import sqlalchemy_sink
from resources.support.sqlalchemy_types import Field
from tests.connectors.carrying import NODE, batched, in_order, job, mark, one_duck, staged, values, written

PLACE = Place(Path("/nowhere"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    return str(request.getfixturevalue("database")).replace("postgresql://", "postgresql+psycopg://")


def connection(url: str, **more: Any) -> SqlAlchemyConnection:
    return SqlAlchemyConnection.model_validate({"type": "sqlalchemy", "url": url, "retries": 1, **more})


def source(url: str, **more: Any) -> Any:
    return SqlAlchemySourceSettings(type="sqlalchemy", connection="shop", **more).open(connection(url), PLACE)


def sink(url: str, table: str = "target", **more: Any) -> Any:
    given = SqlAlchemySinkSettings(type="sqlalchemy", connection="shop", input="orders", table=table, **more)
    return given.open(connection(url), PLACE)


@contextmanager
def opened(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as given:
        yield given


def run(url: str, *statements: str) -> None:
    with opened(url) as given:
        for statement in statements:
            given.execute(sa.text(statement.replace(":", "\\:")))


def shown(url: str, query: str = "SELECT * FROM target") -> list[tuple[Any, ...]]:
    with opened(url) as given:
        rows = [tuple(row) for row in given.exec_driver_sql(query)]
    return sorted(rows, key=lambda row: [(value is not None, str(value)) for value in row])


def relation(given: Source) -> tuple[list[tuple[Any, ...]], list[tuple[str, str]]]:
    """The rows, and the reason and position of each that was set aside."""
    with one_duck() as duck:
        read = given.relation(duck, next(iter(given.streams())), None)  # type: ignore[attr-defined]
        try:
            rows = duck.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({read.query})").fetchall()
        except duckdb.Error as error:
            raise read.explain(error) or error from error
        return in_order(rows), [(one.reason, one.position) for one in read.rejects()]


def at(version: int, after: int | None = None) -> LoadMark:
    return LoadMark(f"load-{version}", "orders-table", version, after, "run", datetime(2024, 1, version, tzinfo=UTC))


def target() -> Target:
    return Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))


ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")

# ------------------------------------------------------------------------------------------------- types

TYPED = """SELECT * FROM (VALUES
    (true, (-128)::TINYINT, 255::UTINYINT, 65535::USMALLINT, 4294967295::UINTEGER, 18446744073709551615::UBIGINT,
     (-170141183460469231731687303715884105728)::HUGEINT, 0.5::FLOAT, 'inf'::DOUBLE, 1.10::DECIMAL(12,2),
     '0.99999999999999999999999999999999999999'::DECIMAL(38,38), 'ü🎉', '\\x00\\xFF'::BLOB, DATE '0001-01-01',
     TIME '23:59:59.000001', TIMESTAMP '9999-12-31 23:59:59.999999', TIMESTAMPTZ '2024-01-01 00:00:00.000001+02',
     TIMESTAMP_NS '2024-01-01 00:00:00.123456789', TIMESTAMP_S '2024-01-01 00:00:01', INTERVAL '-1 month 2 days',
     'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID, '{"a": 1.0}'::JSON, (-9223372036854775808)::BIGINT, 'a'::ENUM('a'),
     [1, NULL]),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL))
    AS t(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y)"""


def test_no_value_changes_on_the_way_into_a_table_and_back(url: str) -> None:
    written(sink(url), TYPED, Append(), mark(1))
    with one_duck() as duck:
        given = duck.sql(f"SELECT * REPLACE (CAST(y AS JSON) AS y, CAST(h AS DOUBLE) AS h) FROM ({TYPED})")
        want = in_order(given.project("CAST(COLUMNS(*) AS VARCHAR)").fetchall())
    as_text = ["q"] if url.startswith("postgresql") else []
    rows, rejects = relation(source(url, table="target"))
    assert rejects == []
    if url.startswith("sqlite"):  # which keeps an instant as text
        rows = [
            tuple(value[:26] + "+00" if value and value.endswith("+00:00") else value for value in row) for row in rows
        ]
    assert rows == want
    assert len(batched(source(url, table="target", as_text=as_text))[0]) == 2


POSTGRES = """CREATE TABLE t (id int PRIMARY KEY, n numeric, m numeric(10,2), j jsonb, u uuid, b bytea, ts timestamptz,
    span interval, list int[], net inet, e xml, big numeric(50,0), tz timetz, r real, c char(3))"""


def test_types_of_postgresql_are_read_as_they_are(database: str) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    run(
        url,
        POSTGRES,
        'INSERT INTO t VALUES (1, 1.230, 4.50, \'{"b": 1.0, "a": 12345678901234567890.5}\', '
        "'00000000-0000-0000-0000-000000000001', '\\x00ff', '2024-01-01 10:00:00.000001+02', '1 month', '{1,NULL}', "
        "'10.0.0.1', '<a/>', 12345678901234567890123456789012345678901234567890, '10:00+02', 0.5, 'x')",
    )
    assert relation(source(url, table="t")) == (
        [
            (
                *(
                    "1",
                    "1.230",
                    "4.50",
                    '{"a": 12345678901234567890.5, "b": 1.0}',
                    "00000000-0000-0000-0000-000000000001",
                ),
                *("\\x00\\xFF", "2024-01-01 08:00:00.000001+00", "1 mon", "{1,NULL}", "10.0.0.1/32", "<a/>"),
                *("12345678901234567890123456789012345678901234567890", "10:00:00+02", "0.5", "x  "),
            )
        ],
        [],
    )


def test_a_value_that_its_type_cannot_hold_is_set_aside_or_told(database: str) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    run(url, "CREATE TABLE t (id int PRIMARY KEY, n numeric(5,2))", "INSERT INTO t VALUES (1, 'NaN'), (2, 1.5)")
    rows, rejects = relation(source(url, table="t"))
    assert rows == [("2", "1.50")]
    assert rejects == [('"n" is NUMERIC(5, 2) and holds a Decimal that is no DECIMAL(5,2)', "id 1")]
    assert relation(source(url, table="t", as_text="n"))[0] == [("1", "NaN"), ("2", "1.50")]
    run(url, "CREATE TABLE d (d timestamp)", "INSERT INTO d VALUES ('infinity')")
    with pytest.raises((DataError, AccessError, Unavailable, SpecError)) as raised:
        relation(source(url, table="d"))
    assert isinstance(raised.value, DataError)


def test_misfits_of_sqlite_go_to_quarantine_and_the_load_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    run(url, "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, d DATE, n NUMERIC(10,2))")
    run(
        url, "INSERT INTO t VALUES (1, 1, '2024-01-01', 1.1), (2, 'x', NULL, NULL), (3, 1, 'y', 2), (4, 1, NULL, 1.555)"
    )
    outcome = load(job(tmp_path), source(url, table="t"), Replace())
    assert (outcome.rows_out, outcome.quarantined) == (1, 3)
    assert relation(source(url, table="t"))[0] == [("1", "1", "2024-01-01", "1.10")]


@pytest.mark.parametrize(
    ("own", "good", "bad"),
    [
        ("BOOLEAN", [True, 0], [2, "true"]),
        ("BIGINT", [1, 2], [1 << 63, 1.5, "1"]),
        ("DOUBLE", [1.5, 2], [(1 << 53) + 1, "x"]),
        ("TIMESTAMP", [datetime(2024, 1, 1), "2024-01-01 10:00:00.123456"], [datetime(2024, 1, 1, tzinfo=UTC)]),
        ("TIMESTAMP", ["2024-01-01"], ["2024-01-01 10:00:00.1234567", "x"]),
        ("TIMESTAMP WITH TIME ZONE", [datetime(2024, 1, 1, tzinfo=UTC)], [datetime(2024, 1, 1)]),
        ("DATE", [datetime(2024, 1, 1)], [datetime(2024, 1, 1, 10)]),
        ("VARCHAR", ["a"], ["\udcff", 1, b"x"]),
        ("UUID", ["00000000-0000-0000-0000-000000000001"], ["x"]),
    ],
)
def test_what_fits_a_type(own: str, good: list[Any], bad: list[Any]) -> None:
    one = Field("v", own, own)
    assert one.array([*good, None]) is not None
    assert [one.fits(value) for value in bad] == [False] * len(bad)


# ------------------------------------------------------------------------------------------------ reading


def test_a_stream_tells_columns_and_primary_key(url: str) -> None:
    run(url, "CREATE TABLE t (b INT, a INT, c INT, PRIMARY KEY (b, a))", "CREATE VIEW v AS SELECT a FROM t")
    stream = next(source(url, table="t").streams())
    assert (stream.name, stream.keys, stream.schema.names) == ("t", ("b", "a"), ["b", "a", "c"])
    assert next(source(url, table="t", columns="c").streams()).keys == ()
    assert next(source(url, table="v").streams()).keys == ()


def test_odd_names_are_found_and_kept(url: str) -> None:
    run(url, 'CREATE TABLE "my ""t%" ("select" INT, "ü🎉 ""x"":y" TEXT)')
    with opened(url) as given:
        table = sa.table('my "t%', sa.column("select"), sa.column('ü🎉 "x":y'))
        given.execute(table.insert(), [{"select": 1, 'ü🎉 "x":y': "z"}])
    settings = {"schema": "", "table": 'my "t%', "cursor": "select"}
    rows, cursor = staged(source(url, **settings))
    assert rows == [("1", "z")]
    assert staged(source(url, **settings), cursor)[0] == []
    query = 'SELECT * FROM (VALUES (1, \'z\')) AS v("select", "ü🎉 ""x"" %y")'
    dispositions: list[Disposition] = [Replace(), Merge(("select",)), History(("select",))]
    for version, how in enumerate(dispositions):
        written(sink(url, schema="", table=f'new "{version}'), query, how, mark(1), node=str(how))
        assert [row[:2] for row in shown(url, f'SELECT * FROM "new ""{version}"')] == [(1, "z")]


def test_a_query_is_typed_by_its_first_rows_or_by_the_settings(url: str) -> None:
    run(
        url,
        "CREATE TABLE t (id INT, n NUMERIC(10,2), s TEXT)",
        "INSERT INTO t VALUES (1, 1.50, ':a 5%'), (2, NULL, NULL)",
    )
    query = "SELECT id, n, s, ':x' AS x, 5 % 3 AS rest FROM t WHERE s IS NULL OR s LIKE ':a%' -- ok"
    stream = next(source(url, query=query, types={"n": "DECIMAL(12,3)"}).streams())
    assert [str(kind) for kind in stream.schema.types] == ["int64", "decimal128(12, 3)", "string", "string", "int64"]
    rows, rejects = relation(source(url, query=query, types={"n": "DECIMAL(12,3)"}))
    assert (rows, rejects) == ([("1", "1.500", ":a 5%", ":x", "2"), ("2", None, None, ":x", "2")], [])
    assert relation(source(url, query="SELECT id FROM t", columns="id"))[0] == [("1",), ("2",)]
    given = SqlAlchemySourceSettings(type="sqlalchemy", connection="shop", query="SELECT * FROM s.t, u")
    assert sorted(one.key for one in given.origins(connection(url))) == [("shop", "s", "t"), ("shop", "u")]


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("INTEGER", ["1", "2"], ["2", "3"]),
        ("DATE", ["'2024-01-01'"], ["'2024-01-01'", "'2024-01-02'"]),
        ("TIMESTAMP", ["'2024-01-02 10:00:00'"], ["'2024-01-02 10:00:00'", "'2024-01-02 10:00:00.5'"]),
        ("NUMERIC(10,2)", ["1.10", "1.20"], ["1.20", "1.30"]),
        ("TEXT", ["'a'", "'B'"], ["'a'", "'b'"]),
    ],
)
def test_a_cursor_reads_what_is_new_and_late_rows_of_the_same_value(
    url: str, kind: str, first: list[str], second: list[str]
) -> None:
    run(url, f"CREATE TABLE t (c {kind}, what TEXT)", "INSERT INTO t VALUES (NULL, 'null')")
    run(url, *(f"INSERT INTO t VALUES ({value}, 'first')" for value in first))
    rows, cursor = staged(source(url, table="t", cursor="c"))
    assert len(rows) == len(first) + 1
    run(url, *(f"INSERT INTO t VALUES ({value}, 'second')" for value in second))
    rows, after = staged(source(url, table="t", cursor="c"), cursor)
    assert [row[1] for row in rows] == ["second"] * len(second)
    assert batched(source(url, table="t", cursor="c"), cursor) == (rows, after)
    assert staged(source(url, table="t", cursor="c"), after) == ([], after)


def test_rows_that_come_late_or_without_a_value_come_again(url: str) -> None:
    run(url, "CREATE TABLE t (id INT, at TIMESTAMP)", "INSERT INTO t VALUES (1, '2024-01-10 00:00:00')")
    given: dict[str, Any] = {"table": "t", "cursor": "at", "disposition": "merge", "keys": "id"}
    _, cursor = staged(source(url, **given))
    run(url, "INSERT INTO t VALUES (2, '2024-01-09 12:00:00'), (3, '2024-01-08 00:00:00'), (4, NULL)")
    rows, _ = staged(source(url, **given, lookback="1 day", cursor_nulls="always"), cursor)
    assert [row[0] for row in rows] == ["1", "2", "4"]


def test_a_range_of_the_cursor_is_read_again(url: str) -> None:
    run(url, "CREATE TABLE t (id INT, what TEXT)", "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    given = SqlAlchemySourceSettings(type="sqlalchemy", connection="shop", table="t", cursor="id")
    again, _ = given.within(Range("2", "3"))
    assert isinstance(again, SqlAlchemySourceSettings)
    assert relation(again.open(connection(url), PLACE))[0] == [("2", "b")]


# ------------------------------------------------------------------------------------------------ writing


def test_what_each_disposition_leaves(url: str) -> None:
    wanted: dict[Disposition, list[Any]] = {
        Append(): [(1, "a"), (2, "B"), (2, "b"), (3, "c")],
        Replace(): [(2, "B"), (3, "c")],
        Merge(("id",)): [(1, "a"), (2, "B"), (3, "c")],
    }
    for how, want in wanted.items():
        to = sink(url, f"t_{type(how).__name__}")
        assert written(to, ROWS, how, mark(1), node=str(how)).rows == 2
        written(to, MORE, how, mark(2, after=1), node=str(how))
        assert shown(url, f'SELECT * FROM "t_{type(how).__name__}"') == want


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",)), History(("id",))], ids=str)
@pytest.mark.parametrize("as_batches", [False, True])
def test_a_load_that_comes_twice_is_applied_once(url: str, how: Disposition, as_batches: bool) -> None:
    to = sink(url)
    assert to.last_load(target()) is None
    assert written(to, ROWS, how, mark(7), as_batches=as_batches).rows == 2
    again = written(to, MORE, how, mark(7), as_batches=as_batches)
    assert (again.rows, again.already) == (0, True)
    assert shown(url, "SELECT id, what FROM target") == [(1, "a"), (2, "b")]
    last = to.last_load(target())
    assert (last.version, last.dataset, last.run_id) == (7, "orders-table", "run")
    assert [name for name in _tables(url) if name.startswith("_databrokkr")] == ["_databrokkr_loads"]


def _tables(url: str) -> list[str]:
    with opened(url) as given:
        return sorted(sa.inspect(given).get_table_names())


def test_a_history_keeps_each_version_of_a_row(url: str) -> None:
    how, to = History(("id",)), sink(url)
    first = values([(1, "'a'"), (2, "'b'"), (3, "NULL")], "id what")
    assert written(to, first, how, at(1)).rows == 3
    assert written(to, first, how, at(2, 1)).rows == 0
    done = written(to, values([(1, "'A'"), (3, "NULL"), (4, "'d'")], "id what"), how, at(3, 2))
    assert (done.rows, done.facts) == (2, {"rows_closed": 2})
    days = [str(one) for one in (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))]
    rows = [(key, what, str(since), str(until)) for key, what, since, until in _utc(shown(url))]
    assert sorted(rows, key=str) == [
        (1, "A", days[1], "None"),
        (1, "a", days[0], days[1]),
        (2, "b", days[0], days[1]),
        (3, None, days[0], "None"),
        (4, "d", days[1], "None"),
    ]


def _utc(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(one.astimezone(UTC) if isinstance(one, datetime) else one for one in row) for row in rows]


def test_rows_are_deleted_by_key_in_the_same_load(url: str) -> None:
    to, how = sink(url), Merge(("id",))
    written(to, values([(1, "'a'"), (2, "'b'"), (3, "'c'")], "id what"), how, mark(1))
    with one_duck() as duck, to.begin(target(), how, mark(2, 1)) as opened_load:
        opened_load.write_relation(duck, "SELECT 2::INT AS id, 'B' AS what")
        for key in (1, 3):
            opened_load.delete(pa.record_batch({"id": pa.array([key], pa.int32())}))
        receipt = opened_load.commit()
    assert (receipt.rows, receipt.facts) == (1, {"rows_deleted": 2})
    assert shown(url) == [(2, "B")]


def test_of_two_loads_that_build_on_one_the_second_to_commit_writes_nothing(url: str) -> None:
    to = sink(url)
    written(to, ROWS, Append(), mark(1))
    written(to, MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="names version 2"):
        written(to, MORE, Append(), mark(3, after=1))
    assert len(shown(url)) == 4


def test_a_load_that_fails_changes_nothing(url: str) -> None:
    run(url, "CREATE TABLE target (id INT PRIMARY KEY, what TEXT)", "INSERT INTO target VALUES (2, 'old')")
    with pytest.raises(DataError):
        written(sink(url), ROWS, Append(), mark(1))
    assert shown(url) == [(2, "old")]
    assert sink(url).last_load(target()) is None
    assert "_databrokkr_loads" in _tables(url) and len(_tables(url)) == 2
    written(sink(url), ROWS, Merge(("id",)), mark(1))
    assert shown(url) == [(1, "a"), (2, "b")]


def test_a_kill_before_the_commit_changes_nothing_and_the_next_load_sweeps(url: str) -> None:
    written(sink(url), ROWS, Append(), mark(1))
    code = f"""
import os
from databrokkr_assets.core.disposition import Replace
from resources.support.sqlalchemy_sink import SqlAlchemyLoad
from tests.connectors.carrying import mark, written
from tests.connectors.test_sqlalchemy import MORE, sink
SqlAlchemyLoad._write_ledger = lambda *a, **k: os.kill(os.getpid(), 9)
written(sink({url!r}), MORE, Replace(), mark(2, 1))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert shown(url) == [(1, "a"), (2, "b")]
    assert len(_tables(url)) == 3
    written(sink(url), MORE, Replace(), mark(2, 1))
    assert shown(url) == [(2, "B"), (3, "c")]
    assert len(_tables(url)) == 2


def test_new_columns_are_added_and_missing_ones_stay_null(url: str) -> None:
    written(sink(url), ROWS, Append(), mark(1))
    written(sink(url), values([(3, "1.5::DOUBLE")], "ID more"), Append(), mark(2, 1))
    assert [row[2] for row in shown(url, "SELECT id, what, more FROM target")] == [None, None, 1.5]
    with pytest.raises(SpecError, match='has no column "other"'):
        written(sink(url, create=False), values([(1, 2)], "id other"), Append(), mark(3, 2))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(url), ROWS, Merge(("ident",)), mark(3, 2))


@pytest.mark.parametrize(
    ("kind", "given"),
    [("INTEGER", "'007'"), ("DATE", "TIMESTAMP '2024-01-01 10:00:00'"), ("TIMESTAMP", "TIMESTAMP 'infinity'")],
)
def test_a_value_that_the_column_would_change_is_an_error(url: str, kind: str, given: str) -> None:
    run(url, f"CREATE TABLE target (id INT, odd {kind})")
    with pytest.raises((DataError, SpecError)) as raised:
        written(sink(url), f"SELECT 1 AS id, {given} AS odd", Append(), mark(1))
    assert isinstance(raised.value, DataError | SpecError)
    assert shown(url) == []


@pytest.mark.parametrize(
    ("kind", "given"), [("NUMERIC(10,2)", "1.555"), ("CHAR(5)", "'a'"), ("REAL", "0.123456789::DOUBLE")]
)
def test_a_value_that_postgresql_would_change_without_a_word_is_an_error(database: str, kind: str, given: str) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    run(url, f"CREATE TABLE target (odd {kind})")
    with pytest.raises(DataError, match='the column "odd" is'):
        written(sink(url), f"SELECT {given} AS odd", Append(), mark(1))
    assert shown(url) == []


def test_a_null_in_a_key_is_an_error(url: str) -> None:
    with pytest.raises(DataError, match='the column "id" takes no NULL'):
        written(sink(url), values([("NULL::INT", "'a'")], "id what"), Merge(("id",)), mark(1))


def test_a_table_goes_through_a_dataset_into_another(url: str, tmp_path: Path) -> None:
    run(url, "CREATE TABLE t (id INT PRIMARY KEY, price NUMERIC(10,2), day DATE)")
    run(url, "INSERT INTO t VALUES (1, 1.10, '2024-01-01'), (2, NULL, NULL)")
    for _ in range(2):
        load(job(tmp_path), source(url, table="t", cursor="id"), Append())
        deliver(job(tmp_path), sink(url), Append())
        run(url, "INSERT INTO t SELECT 3, 2, '2024-01-02' WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = 3)")
    assert relation(source(url, query="SELECT id FROM target"))[0] == [("1",), ("2",), ("3",)]


def test_many_rows_take_little_memory(database: str) -> None:
    url = database.replace("postgresql://", "postgresql+psycopg://")
    code = f"""
from databrokkr_assets.core.disposition import Append
from tests.connectors.carrying import mark, one_duck, written
from tests.connectors.test_sqlalchemy import sink, source
from tests.memory import peak_kilobytes
rows = "SELECT range AS id, repeat(md5(range::VARCHAR), 10) AS note FROM range(60000)"
written(sink({url!r}), rows, Append(), mark(1))
given = source({url!r}, query="SELECT a.id, a.note FROM target a, generate_series(1, 3)")
with one_duck() as duck:
    read = given.relation(duck, next(given.streams()), None)
    assert duck.execute(f"SELECT count(*), max(note) FROM ({{read.query}})").fetchone()[0] == 180000
print(peak_kilobytes() // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 450


# ------------------------------------------------------------------------------------------------- errors


def test_a_database_without_transactions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlalchemy_sink, "WITHOUT_TRANSACTIONS", frozenset({"sqlite"}))
    to: Sink = sink(f"sqlite:///{tmp_path / 'shop.db'}")
    for attempt in (lambda: to.last_load(target()), lambda: written(to, ROWS, Append(), mark(1))):
        with pytest.raises(SpecError, match="has no transactions"):
            attempt()


def test_a_driver_that_is_missing_says_what_to_install() -> None:
    with pytest.raises(SpecError) as raised:
        next(source("oracle+oracledb://x:secret@h/d", table="t").streams())
    assert raised.value.mend == 'run: uv pip install "databrokkr[oracle]"'
    with pytest.raises(SpecError, match="nosuch") as raised:
        next(source("nosuch://x:secret@h/d", table="t").streams())
    assert "dialect nosuch" in raised.value.mend
    with pytest.raises(SpecError, match="no URL of SQLAlchemy") as raised:
        next(source("secret word", table="t").streams())
    assert "secret" not in str(raised.value)


def test_a_wrong_password_and_a_server_that_is_down_are_told_apart(database: str) -> None:
    url = sa.make_url(database.replace("postgresql://", "postgresql+psycopg://"))
    wrong = url.set(username="nobody", password="hunter2").render_as_string(hide_password=False)
    with pytest.raises(AccessError) as raised:
        next(source(wrong, table="t").streams())
    assert "hunter2" not in str(raised.value)
    down = url.set(port=1).render_as_string(hide_password=False)
    with pytest.raises(Unavailable):
        next(source(down, table="t").streams())
    findings = list(connection(wrong).check_access("shop", PLACE))
    assert [(one.what, one.ok) for one in findings] == [("connect", False)]


def test_a_table_or_column_that_is_not_there_is_suggested(url: str) -> None:
    run(url, "CREATE TABLE orders (id INT, amount INT)")
    with pytest.raises(SpecError, match='there is no table "ordres"') as raised:
        next(source(url, table="ordres").streams())
    assert raised.value.mend == 'did you mean "orders"?'
    with pytest.raises(SpecError) as raised:
        next(source(url, table="orders", columns="amuont").streams())
    assert raised.value.mend == 'did you mean "amount"?'
    for query in ("SELECT amuont FROM orders", "SELEKT 1", "SELECT * FROM ("):
        with pytest.raises(SpecError):
            next(source(url, query=query).streams())


def test_a_connection_tells_what_it_reaches(url: str) -> None:
    run(url, "CREATE TABLE orders (id INT PRIMARY KEY, price NUMERIC(10,2))", "CREATE VIEW v AS SELECT id FROM orders")
    assert [(one.what, one.ok) for one in connection(url).check_access("shop", PLACE)] == [
        ("connect", True),
        ("read", True),
    ]
    found = {one.name: one for one in connection(url).list_streams("shop", PLACE)}
    assert {name: (one.kind, one.namespace, one.keys) for name, one in found.items()} == {
        "orders": ("table", "", ("id",)),
        "v": ("view", "", ()),
    }
    given = SqlAlchemySourceSettings(type="sqlalchemy", connection="shop", tables={"ord*": {}}, disposition="merge")
    expanded = given.expanded(list(found.values()))
    assert {name: one.keys for name, one in expanded.items()} == {"orders": ("id",)}


def test_how_the_ui_names_it() -> None:
    given = SqlAlchemySinkSettings(type="sqlalchemy", connection="shop", input="orders", table="sales.t")
    to = connection("oracle+oracledb://me:secret@erp:1521/?service_name=x")
    assert given.origin(to) == Origin(("shop", "sales", "t"), "sqlalchemy", "oracle+oracledb://erp:1521/")
    found = connector("sqlalchemy")
    assert (found.connection, found.sink) == (SqlAlchemyConnection, SqlAlchemySinkSettings)

"""PostgreSQL, for real: no value changes on the way, no row is lost or doubled, and errors say how to mend them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql as pg

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Load, Target, WritesRelation
from databrokkr_assets.core.spec import Origin, Place
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.loading import load
from resources.connectors.postgres import (
    PostgresConnection,
    PostgresSink,
    PostgresSinkSettings,
    PostgresSource,
    PostgresSourceSettings,
)
from resources.registry import connector
from resources.support import libpq
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, one_duck, staged, values, written
from tests.services import Postgres

PLACE = Place(Path("/nowhere"))


def connection(dsn: str, **more: Any) -> PostgresConnection:
    return PostgresConnection.model_validate({"type": "postgres", "url": dsn, **more})


def source(dsn: str, **more: Any) -> PostgresSource:
    given = PostgresSourceSettings(type="postgres", connection="shop", **more)
    return given.open(connection(dsn, retries=1), PLACE)


def sink(dsn: str, table: str = "target", **more: Any) -> PostgresSink:
    given = PostgresSinkSettings(type="postgres", connection="shop", input="orders", table=table, **more)
    return given.open(connection(dsn, retries=1), PLACE)


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def shown(dsn: str, query: str = "SELECT * FROM target") -> list[Row]:
    """The rows of a query, sorted, every value as PostgreSQL prints it."""
    with psycopg.connect(dsn, options="-c TimeZone=UTC -c extra_float_digits=1") as session:
        cursor = session.execute(query.encode())
        assert cursor.description is not None
        names = [pg.SQL("{}::text").format(pg.Identifier(column.name)) for column in cursor.description]
        texts = pg.SQL("SELECT {} FROM ({}) AS q").format(pg.SQL(", ").join(names), pg.SQL(query))
        return in_order(session.execute(texts).fetchall())


def run_relation(given: PostgresSource) -> None:
    """Run the relation's query as the engine does, with its errors explained."""
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        assert read is not None
        try:
            duck.execute(f"CREATE TEMP TABLE staged AS {read.query}")
        except duckdb.Error as error:
            raise read.explain(error) or error from error


# ------------------------------------------------------------------------------------------------- types

# Every value as PostgreSQL text, by type. Columns are nullable, and each has a NULL, too.
EXACT = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "0", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["0.1", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e+38", "1e-45"],
    "double precision": ["0.1", "-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e+308", "5e-324"],
    "numeric(12,2)": ["0.00", "-0.01", "9999999999.99", "1.10"],
    "numeric(38,0)": ["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"],
    "numeric(38,38)": ["0.12345678901234567890123456789012345678"],
    "numeric(4,4)": ["0.9999", "-0.0001"],
    "text": ["", "NULL", " x ", "a\tb\nc\\d\"e'f", "ünï🎉", "\\N", "{}"],
    "varchar(5)": ["", "abc", "12345"],
    "bytea": ["\\x", "\\x00ff27", "\\x4e554c4c"],
    "date": ["4713-01-01 BC", "0001-01-01", "1970-01-01", "5874897-12-31", "infinity", "-infinity"],
    "time": ["00:00:00", "23:59:59.999999", "24:00:00"],
    "timestamp": ["4713-01-01 00:00:00 BC", "1970-01-01 00:00:00.000001", "294246-12-31 23:59:59.999999", "infinity"],
    "timestamptz": ["4713-01-02 00:00:00+00 BC", "2024-03-31 02:30:00.123456+02", "infinity", "-infinity"],
    "interval": ["1 year 2 mons -3 days +04:05:06.789123", "00:00:00", "-178000000 years", "0.000001 s"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": ['{"b": 1.0, "a":2,  "a": 3}', "null", '"x"', "123456789012345678901234567890.5", '"\\u0000"'],
    "integer[]": ["{}", "{1,NULL,-3}"],
    "text[]": ["{}", '{NULL,"NULL","","a,b","{x}","q\\"q","ü"}'],
    "boolean[]": ["{t,f,NULL}"],
    "double precision[]": ["{0.1,NaN,-Infinity}"],
    "uuid[]": ["{ffffffff-ffff-ffff-ffff-ffffffffffff,NULL}"],
    "date[]": ["{2024-01-01,infinity}"],
}

# Types that arrive as text, which the sink casts back into a column of the type.
TEXTUAL = {
    "numeric": ["NaN", "Infinity", "1e-20", "1.10", "9" * 60 + ".5"],
    "numeric(50,10)": ["1234567890123456789012345678901234567890.0123456789", "NaN"],
    "numeric(3,-2)": ["1200"],
    "numeric(3,5)": ["0.00123"],
    "money": ["$12.34", "-$0.01"],
    "timetz": ["10:00:00.5+02", "24:00:00-12"],
    "bit(3)": ["101"],
    "bit varying": ["", "1011"],
    "inet": ["10.0.0.1", "fe80::1/64"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "int4range": ["[1,5)", "empty"],
    "tstzrange": ['["2024-01-01 00:00:00+00",)'],
    "tsvector": ["'a':1 'b':2"],
    "point": ["(1.5,-2)"],
    "box": ["(2,2),(1,1)"],
    "xml": ["<a/>"],
    "mood": ["sad", "happy"],
    "pair": ['(1,"a b")', "(,)"],
    "mood[]": ["{sad,NULL}"],
    "numeric(5,2)[]": ["{1.10,NaN}"],
    "timestamptz[]": ['{"2024-01-01 00:00:00+00"}'],
}

PREPARE = (
    "CREATE TYPE mood AS ENUM ('sad', 'happy')",
    "CREATE TYPE pair AS (n int, t text)",
    "CREATE DOMAIN cents AS numeric(12,2) CHECK (value >= 0)",
)


def make_typed(dsn: str, kinds: dict[str, list[str]], table: str = "typed") -> None:
    """A table with a column for each type, a row for each value, and one of NULLs."""
    rows = max(map(len, kinds.values()))
    with psycopg.connect(dsn, autocommit=True) as session:
        listed = ", ".join(f'"c{number}" {kind}' for number, kind in enumerate(kinds))
        session.execute(f"CREATE TABLE {table} ({listed})".encode())
        for row in range(rows + 1):
            texts = [texts[row] if row < len(texts) else None for texts in kinds.values()]
            casts = ", ".join(f"%s::text::{kind}" for kind in kinds)
            session.execute(f"INSERT INTO {table} SELECT {casts}".encode(), texts)


@pytest.mark.parametrize("kinds", [EXACT, TEXTUAL], ids=["exact", "textual"])
def test_no_value_changes_from_table_to_dataset_to_table(
    database: str, tmp_path: Path, kinds: dict[str, list[str]]
) -> None:
    run(database, *PREPARE)
    make_typed(database, kinds)
    if kinds is TEXTUAL:
        run(database, "CREATE TABLE target (LIKE typed)")
    load(job(tmp_path), source(database, table="typed"), Replace())
    deliver(job(tmp_path), sink(database), Append())
    assert shown(database) == shown(database, "SELECT * FROM typed")


def finite(kinds: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without the dates and timestamps that Arrow cannot hold."""
    dated = ("date", "timestamp", "timestamptz", "date[]")
    return {
        kind: [text for text in texts if kind not in dated or "infinity" not in text] for kind, texts in kinds.items()
    }


def test_batches_hold_the_same_rows_as_the_relation(database: str) -> None:
    run(database, *PREPARE)
    kinds = finite(EXACT) | TEXTUAL
    make_typed(database, kinds)
    assert batched(source(database, table="typed")) == staged(source(database, table="typed"))


def test_a_target_written_in_batches_is_the_same(database: str, tmp_path: Path) -> None:
    run(database, *PREPARE)
    make_typed(database, EXACT)
    load(job(tmp_path), source(database, table="typed"), Replace())
    written(sink(database), job(tmp_path).dataset, Append(), mark(1), as_batches=True)
    assert shown(database) == shown(database, "SELECT * FROM typed")


def test_a_domain_arrives_as_what_it_is_made_of(database: str) -> None:
    run(
        database, *PREPARE, "CREATE TABLE t AS SELECT 1.10::cents AS c, 'x'::name AS n, 7::oid AS o, 'ab'::char(5) AS p"
    )
    stream = next(source(database, table="t").streams())
    assert stream.schema is not None
    assert [str(kind) for kind in stream.schema.types] == ["decimal128(12, 2)", "string", "int64", "string"]
    assert staged(source(database, table="t"))[0] == [("1.10", "x", "7", "ab")]


BEYOND = [
    ("numeric(12,2)", "NaN"),
    ("timestamp", "294247-06-01 00:00:00"),
    ("timestamptz", "294247-06-01 00:00:00+00"),
    ("interval", "1000000000:00:00"),
    ("integer[]", "{{1,2},{3,4}}"),
    ("integer[]", "[0:1]={1,2}"),
    ("text[]", "{{a}}"),
]


def test_a_value_beyond_the_type_is_an_error_that_names_it_and_never_another_value(
    database: str, tmp_path: Path
) -> None:
    for number, (kind, value) in enumerate(BEYOND):
        table = f"t{number}"
        run(database, f"CREATE TABLE {table} AS SELECT 1 AS id, '{value}'::{kind} AS odd")
        with pytest.raises(DataError, match='"odd" holds') as raised:
            run_relation(source(database, table=table))
        assert "as_text: [odd]" in raised.value.mend
        assert value.split("=")[-1] in raised.value.what
        with pytest.raises(DataError, match='"odd" holds'):
            batched(source(database, table=table))
        assert staged(source(database, table=table, as_text="odd"))[0] == [("1", value)]
    with pytest.raises(DataError, match='"odd" holds NaN'):
        load(job(tmp_path), source(database, table="t0"), Replace())


def test_infinity_stays_infinity_or_is_an_error(database: str) -> None:
    for kind in ("date", "timestamp", "timestamptz"):
        run(database, f"CREATE TABLE t_{kind} AS SELECT 'infinity'::{kind} AS i")
        assert staged(source(database, table=f"t_{kind}"))[0] == [("infinity",)]
        with pytest.raises(DataError, match='"i" holds infinity'):
            batched(source(database, table=f"t_{kind}"))


def test_null_and_empty_stay_apart(database: str) -> None:
    run(database, "CREATE TABLE t (a text, b text)", "INSERT INTO t VALUES ('', NULL), (NULL, ''), ('NULL', 'null')")
    assert staged(source(database, table="t"))[0] == [(None, ""), ("", None), ("NULL", "null")]


def documented(heading: str) -> list[tuple[str, str]]:
    """The pairs of types in the table below a heading of docs/types.md; rows that only describe are left out."""
    page = (Path(__file__).parents[2] / "docs/types.md").read_text()
    lines = page.split(f"### {heading}\n")[1].split("\n### ")[0].split("\n## ")[0].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:3] for line in lines if line.startswith("| `")]
    found = [tuple(re.findall("`([^`]+)`", cell) for cell in pair) for pair in cells]
    return [
        (one, other) for left, right in found if len(left) == len(right) for one, other in zip(left, right, strict=True)
    ]


def test_the_page_on_types_is_true_of_reading(database: str) -> None:
    told = documented("From a table or query to a dataset")
    assert len(told) > 30
    listed = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(told))
    run(database, f"CREATE TABLE t ({listed})")
    with one_duck() as duck:
        read = source(database, table="t").relation(duck, next(source(database, table="t").streams()), None)
        assert read is not None
        kinds = [str(kind) for kind in duck.sql(read.query).types]
    assert [(kind, own) for (kind, _), own in zip(told, kinds, strict=True)] == told


def test_the_page_on_types_is_true_of_writing(database: str) -> None:
    told = documented("From a dataset to a table")
    assert len(told) > 30
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS c{number}" for number, (kind, _) in enumerate(told))
    written(sink(database), f"SELECT {nulls}", Append(), mark(1))
    assert made(database) == [landed for _, landed in told]


def made(dsn: str) -> list[str | None]:
    """The types of the target's columns."""
    with psycopg.connect(dsn) as session:
        rows = session.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'target'::regclass AND attnum > 0 ORDER BY attnum"
        )
        return [kind for (kind,) in rows.fetchall()]


# ---------------------------------------------------------------------------------------------- what is read


def test_a_stream_tells_columns_and_primary_key(database: str) -> None:
    run(database, "CREATE TABLE t (b int, a uuid, j jsonb, PRIMARY KEY (b, a))")
    stream = next(source(database, table="t").streams())
    assert stream.schema is not None
    assert (stream.name, stream.keys, stream.schema.names) == ("public.t", ("b", "a"), ["b", "a", "j"])
    assert stream.schema.field("a").metadata == {b"databrokkr.type": b"UUID"}
    assert next(source(database, table="t", columns=["j", "b"]).streams()).keys == ()


def test_odd_names_are_found_and_kept(database: str) -> None:
    run(
        database,
        'CREATE SCHEMA "my.schema"',
        'CREATE TABLE "my.schema"."my ""table" ("select" int, "a b" int, "ü🎉" text, "Mixed" int, "q""x" int)',
        'INSERT INTO "my.schema"."my ""table" VALUES (1, 2, \'z\', 3, 4)',
    )
    row = [("1", "2", "z", "3", "4")]
    assert staged(source(database, schema="my.schema", table='my "table'))[0] == row
    assert staged(source(database, table='"my.schema"."my ""table"'))[0] == row
    named = source(database, schema="my.schema", table='my "table', cursor="ü🎉", columns=["ü🎉", 'q"x'])
    rows, cursor = staged(named)
    assert rows == [("z", "4")]
    assert staged(named, cursor)[0] == []
    query = 'SELECT * FROM (VALUES (1, \'z\')) AS v("select", "ü🎉 ""x""")'
    for how in (Replace(), Merge(("select",))):
        written(sink(database, schema="my.schema", table='new "table'), query, how, mark(1), node=str(how))
    assert shown(database, 'SELECT * FROM "my.schema"."new ""table"')[0] == ("1", "z")


def test_a_query_is_read_as_it_is(database: str) -> None:
    query = "WITH x AS (SELECT generate_series(1, 3) AS n) SELECT n, '%' || n AS \"per cent\" FROM x -- three"
    assert staged(source(database, query=query))[0] == [("1", "%1"), ("2", "%2"), ("3", "%3")]


def test_views_partitions_and_empty_tables_are_read(database: str) -> None:
    run(
        database,
        "CREATE TABLE p (id int, d date) PARTITION BY RANGE (d)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
        "INSERT INTO p SELECT g, '2024-06-01'::date + g * 100 FROM generate_series(1, 4) g",
        "CREATE VIEW v AS SELECT id FROM p WHERE id > 2",
        "CREATE TABLE empty (id int)",
        "CREATE TABLE nothing ()",
    )
    assert len(staged(source(database, table="p"))[0]) == 4
    assert staged(source(database, table="v"))[0] == [("3",), ("4",)]
    assert staged(source(database, table="empty")) == ([], None)
    assert batched(source(database, table="empty")) == ([], None)
    with pytest.raises(SpecError, match="no columns"):
        next(source(database, table="nothing").streams())


def test_columns_that_differ_only_in_case_are_refused(database: str) -> None:
    run(database, 'CREATE TABLE t (a int, "A" int)')
    with pytest.raises(SpecError, match="one name but for its case"):
        next(source(database, table="t").streams())


def test_the_external_tables_are_named_without_asking_the_network() -> None:
    nowhere = connection("postgresql://u:secret@nohost:1/db?sslmode=require")
    by_table = PostgresSourceSettings(type="postgres", connection="shop", table="sales.orders")
    assert by_table.origins(nowhere) == (Origin(("shop", "sales", "orders"), "postgres", "postgres://nohost:1/db"),)
    query = "WITH orders AS (SELECT * FROM orders) SELECT * FROM orders JOIN sales.items USING (id)"
    by_query = PostgresSourceSettings(type="postgres", connection="shop", query=query)
    assert sorted(origin.key for origin in by_query.origins(nowhere)) == [
        ("shop", "public", "orders"),
        ("shop", "sales", "items"),
    ]
    target = PostgresSinkSettings(type="postgres", connection="shop", input="x", table="orders")
    assert target.origin(nowhere).key == ("shop", "public", "orders")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of `table`"),
        ({"table": "t", "query": "SELECT 1"}, "give one of `table`"),
        ({"table": "a.b.c"}, "`schema:` beside it"),
        ({"query": "SELECT 1", "schema": "s"}, "belongs to `table`"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PostgresSourceSettings(type="postgres", connection="shop", **given)


def test_reading_a_big_table_that_was_never_analyzed_takes_little_memory(database: str, tmp_path: Path) -> None:
    run(
        database,
        "CREATE TABLE big (id bigint, note text, amount numeric(12,2)) WITH (autovacuum_enabled = false)",
        "INSERT INTO big SELECT g, md5(g::text) || md5((g + 1)::text), g / 7.0 FROM generate_series(1, 600000) g",
    )
    assert shown(database, "SELECT relpages FROM pg_class WHERE relname = 'big'") == [("0",)]
    code = f"""
from pathlib import Path
from databrokkr_assets.core.disposition import Replace
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.loading import load
from tests.connectors.carrying import job
from tests.connectors.test_postgres import source
from tests.memory import peak_kilobytes
assert load(job(Path({str(tmp_path)!r})), source({database!r}, table="big"), Replace()).rows_out == 600_000
print(peak_kilobytes() // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 500


# ------------------------------------------------------------------------------------------ only what is new


def test_a_cursor_reads_what_is_new_and_late_rows_of_the_same_value_each_once(database: str) -> None:
    run(database, "CREATE TABLE t (at timestamptz, what text)")
    new = source(database, table="t", cursor="at")
    assert isinstance(PostgresSourceSettings(type="postgres", connection="c", table="t", cursor="at").how, Append)
    assert staged(new) == ([], None)

    run(database, "INSERT INTO t VALUES (NULL, 'n'), ('2024-01-01', 'a'), ('2024-01-02', 'b'), ('2024-01-02', 'b')")
    rows, cursor = staged(source(database, table="t", cursor="at"))
    assert [row[1] for row in rows] == ["n", "a", "b", "b"]
    assert staged(source(database, table="t", cursor="at"), cursor) == ([], cursor)

    late = "INSERT INTO t VALUES ('2024-01-02', 'b'), ('2024-01-02', 'c'), (NULL, 'm')"
    run(database, late)
    rows, cursor = staged(source(database, table="t", cursor="at"), cursor)
    assert [row[1] for row in rows] == ["b", "c"]
    assert staged(source(database, table="t", cursor="at"), cursor) == ([], cursor)

    run(database, late, "INSERT INTO t VALUES ('2024-01-03', 'd')")
    rows, cursor = staged(source(database, table="t", cursor="at"), cursor)
    assert [row[1] for row in rows] == ["b", "c", "d"]
    assert staged(source(database, table="t", cursor="at"), cursor) == ([], cursor)


def test_a_column_added_meanwhile_does_not_bring_seen_rows_again(database: str) -> None:
    run(database, "CREATE TABLE t (id int, what text)", "INSERT INTO t VALUES (1, 'a'), (1, 'b')")
    _, cursor = staged(source(database, table="t", cursor="id"))
    run(database, "ALTER TABLE t ADD COLUMN more int", "INSERT INTO t VALUES (1, 'c', 5)")
    assert staged(source(database, table="t", cursor="id"), cursor)[0] == [("1", "c", "5")]


ORDERED = [
    ("numeric(20,3)", "1.001", "1.002"),
    ("double precision", "0.1", "0.30000000000000004"),
    ("date", "2024-01-01", "2024-01-02"),
    ("timestamp", "2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002"),
    ("timestamptz", "2024-01-01 00:00:00.000001+00", "2024-01-01 00:00:00.000002+00"),
    ("uuid", "00000000-0000-0000-0000-000000000001", "80000000-0000-0000-0000-000000000000"),
    ("text", "B", "a"),
    ('text COLLATE "en-x-icu"', "B", "a"),
    ("varchar(9)", "a''", "a'b"),
]


def test_a_cursor_of_any_ordered_type_is_exact(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as session:
        for number, (kind, low, high) in enumerate(ORDERED):
            session.execute(f"CREATE TABLE t{number} (c {kind})".encode())
            cursor = None
            for value in (low, high):
                session.execute(f"INSERT INTO t{number} VALUES (%s)".encode(), [value])
                rows, cursor = staged(source(database, table=f"t{number}", cursor="c"), cursor)
                assert len(rows) == 1, kind
            assert staged(source(database, table=f"t{number}", cursor="c"), cursor) == ([], cursor), kind
            assert batched(source(database, table=f"t{number}", cursor="c"), cursor) == ([], cursor), kind


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), max_size=4), max_size=5))
def test_whatever_comes_in_which_order_of_values_not_below_the_last_is_read_once(
    database: str, loads: list[list[tuple[int, str]]]
) -> None:
    run(database, "DROP TABLE IF EXISTS t", "CREATE TABLE t (n int, what text)")
    cursors: dict[str, Any] = {"relation": None, "batches": None}
    got: dict[str, list[Row]] = {"relation": [], "batches": []}
    with psycopg.connect(database, autocommit=True) as session:
        floor = 0
        for rows in loads:
            fresh = [(floor + step, what) for step, what in rows]
            floor = max([floor, *(number for number, _ in fresh)])
            session.cursor().executemany("INSERT INTO t VALUES (%s, %s)", fresh)
            for way, read in (("relation", staged), ("batches", batched)):
                found, cursors[way] = read(source(database, table="t", cursor="n"), cursors[way])
                got[way] += found
    want = shown(database, "SELECT * FROM t")
    assert in_order(got["relation"]) == want
    assert in_order(got["batches"]) == want
    assert cursors["relation"] == cursors["batches"]


def test_merged_rows_come_in_the_order_of_the_cursor(database: str, tmp_path: Path) -> None:
    run(database, "CREATE TABLE log (key int, at int)", "INSERT INTO log VALUES (1, 3), (1, 1), (1, 2)")
    given: dict[str, Any] = {"table": "log", "cursor": "at", "disposition": "merge", "keys": "key"}
    how = PostgresSourceSettings(type="postgres", connection="shop", **given).how
    load(job(tmp_path), source(database, **given), how)
    deliver(job(tmp_path), sink(database), Replace())
    assert shown(database) == [("1", "3")]


def test_a_cursor_that_cannot_work_is_refused(database: str) -> None:
    run(database, "CREATE TABLE t AS SELECT 1::numeric AS n, 'infinity'::timestamp AS i, '{}'::jsonb AS j, 1 AS id")
    for column in ("n", "j"):
        with pytest.raises(SpecError, match="cannot be a cursor"):
            staged(source(database, table="t", cursor=column))
    with pytest.raises(DataError, match="after which nothing can come"):
        staged(source(database, table="t", cursor="i"))
    with pytest.raises(SpecError) as raised:
        staged(source(database, table="t", cursor="idd"))
    assert raised.value.mend == 'did you mean "id"?'
    with pytest.raises(SpecError, match='by the cursor "id" so far'):
        staged(source(database, table="t", cursor="i"), {"column": "id", "value": "1", "columns": [], "boundary": {}})


def test_a_coarse_cursor_is_refused_unless_rows_are_merged(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.support.cursor.MOST_TIES", 5)
    run(database, "CREATE TABLE t AS SELECT 1 AS day, g AS id FROM generate_series(1, 6) g")
    with pytest.raises(DataError, match="6 rows share the newest value"):
        staged(source(database, table="t", cursor="day"))
    merged: dict[str, Any] = {"table": "t", "cursor": "day", "disposition": "merge", "keys": "id"}
    rows, cursor = staged(source(database, **merged))
    assert len(rows) == 6
    assert len(staged(source(database, **merged), cursor)[0]) == 6


# ------------------------------------------------------------------------------------------------- writing

ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")


def test_what_each_disposition_leaves(database: str) -> None:
    wanted: dict[Disposition, list[Row]] = {
        Append(): [("1", "a"), ("2", "B"), ("2", "b"), ("3", "c")],
        Replace(): [("2", "B"), ("3", "c")],
        Merge(("id",)): [("1", "a"), ("2", "B"), ("3", "c")],
    }
    for how, want in wanted.items():
        to = sink(database, f"t_{type(how).__name__}")
        assert written(to, ROWS, how, mark(1), node=str(how)).rows == 2
        written(to, MORE, how, mark(2, after=1), node=str(how))
        assert shown(database, f'SELECT * FROM "t_{type(how).__name__}"') == want


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",))], ids=str)
@pytest.mark.parametrize("as_batches", [False, True])
def test_a_load_that_comes_twice_is_applied_once(database: str, how: Any, as_batches: bool) -> None:
    to = sink(database)
    first = written(to, ROWS, how, mark(7), as_batches=as_batches)
    assert (first.rows, first.already) == (2, False)
    again = written(to, MORE, how, mark(7), as_batches=as_batches)
    assert (again.rows, again.already) == (0, True)
    assert shown(database) == [("1", "a"), ("2", "b")]
    last = to.last_load(target())
    assert last is not None
    assert (last.version, last.dataset, last.run_id) == (7, "orders-table", "run")


def target() -> Target:
    return Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))


def test_before_the_first_load_there_is_none(database: str) -> None:
    assert sink(database).last_load(target()) is None


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=6), max_size=3))
def test_merging_loads_gives_the_last_row_of_each_key_however_often_they_come(
    database: str, loads: list[list[tuple[int, int]]]
) -> None:
    run(database, "DROP TABLE IF EXISTS target, _databrokkr_loads")
    to = sink(database)
    want: dict[int, int] = {}
    for version, rows in enumerate(loads, 1):
        for _ in range(2):
            written(to, values(rows, "id n"), Merge(("id",)), mark(version, version - 1 or None))
        want |= dict(rows)
    if loads:
        assert shown(database) == in_order((str(key), str(value)) for key, value in want.items())


def test_of_two_loads_that_build_on_one_the_second_to_commit_writes_nothing(database: str) -> None:
    to = sink(database)
    written(to, ROWS, Append(), mark(1))
    with pytest.raises(Unavailable, match="another run"):
        written(to, MORE, Append(), mark(3, after=None))
    written(to, MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="names version 2"):
        written(to, MORE, Append(), mark(3, after=1))
    assert len(shown(database)) == 4
    assert leftovers(database) == []


def test_first_loads_at_the_same_moment_are_applied_once(database: str) -> None:
    outcomes: list[str] = []

    def go(version: int) -> None:
        try:
            with open_duck() as duck, sink(database).begin(target(), Append(), mark(version)) as load:
                assert isinstance(load, WritesRelation)
                load.write_relation(duck, ROWS)
                load.commit()
            outcomes.append("written")
        except Unavailable:
            outcomes.append("given up")

    threads = [threading.Thread(target=go, args=(version,)) for version in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["given up", "given up", "written"]
    assert len(shown(database)) == 2


def leftovers(dsn: str) -> list[Row]:
    return shown(dsn, "SELECT relname FROM pg_class WHERE relname LIKE '\\_databrokkr\\_stage%'")


@contextmanager
def opened(dsn: str, how: Any = None, version: int = 1, after: int | None = None) -> Iterator[Load]:
    """A load with its rows staged, to be committed."""
    with one_duck() as duck, sink(dsn).begin(target(), how or Append(), mark(version, after)) as load:
        assert isinstance(load, WritesRelation)
        load.write_relation(duck, ROWS)
        yield load


def test_leaving_without_commit_changes_nothing(database: str) -> None:
    with opened(database):
        assert len(leftovers(database)) == 1
    assert leftovers(database) == []
    assert shown(database, "SELECT to_regclass('target')") == [(None,)]
    assert sink(database).last_load(target()) is None


def test_what_a_load_that_died_left_is_swept_and_a_zombie_cannot_commit(database: str) -> None:
    with opened(database) as zombie:
        written(sink(database), ROWS, Append(), mark(2))
        with pytest.raises(Unavailable):
            zombie.commit()
    assert len(shown(database)) == 2
    assert leftovers(database) == []


def test_a_stage_emptied_by_a_crash_of_the_server_is_noticed(database: str, postgres: Postgres) -> None:
    with opened(database) as load:
        postgres.stop(crash=True)
        postgres.start()
        with pytest.raises(Unavailable, match="not there any more"):
            load.commit()
    assert sink(database).last_load(target()) is None


def test_an_empty_load_counts(database: str) -> None:
    with sink(database).begin(target(), Replace(), mark(1)) as load:
        assert load.commit().rows == 0
    assert shown(database) == []
    assert sink(database).last_load(target()) is not None


def test_readers_see_the_old_rows_until_the_new_ones_are_there(database: str) -> None:
    written(sink(database), ROWS, Replace(), mark(1))
    with psycopg.connect(database) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        written(sink(database), MORE, Replace(), mark(2, after=1))
        assert reader.execute("SELECT id FROM target ORDER BY 1").fetchall() == [(1,), (2,)]
    assert shown(database) == [("2", "B"), ("3", "c")]


def test_replacing_never_cascades(database: str) -> None:
    run(
        database,
        "CREATE TABLE target (id int PRIMARY KEY, what text)",
        "CREATE TABLE child (id int REFERENCES target ON DELETE CASCADE)",
    )
    with pytest.raises(SpecError, match="rows of child"):
        written(sink(database), ROWS, Replace(), mark(1))


def test_a_merge_makes_the_index_it_needs_or_uses_the_one_there(database: str) -> None:
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'target'::regclass"
    written(sink(database), ROWS, Merge(("id",)), mark(1))
    written(sink(database), MORE, Merge(("id",)), mark(2, 1))
    assert shown(database, indexes) == [("1",)]
    run(database, "DROP TABLE target", "CREATE TABLE target (what text, id int, UNIQUE (what, id))")
    written(sink(database), ROWS, Merge(("id", "what")), mark(3, 2))
    assert shown(database, indexes) == [("1",)]
    run(database, "DROP TABLE target", "CREATE TABLE target AS SELECT 1 AS id, 'x' AS what FROM generate_series(1, 2)")
    with pytest.raises(DataError, match="several rows with one key"):
        written(sink(database), ROWS, Merge(("id",)), mark(4, 3))


def test_new_columns_are_added_and_missing_ones_stay_null(database: str) -> None:
    written(sink(database), ROWS, Append(), mark(1))
    written(sink(database), values([(3, 1.5)], "id more"), Append(), mark(2, 1))
    assert shown(database, "SELECT id, what, more FROM target")[-1] == ("3", None, "1.5")
    with pytest.raises(SpecError, match='has no column "other"'):
        written(sink(database, create=False), values([(1, 2)], "id other"), Append(), mark(3, 2))


def test_names_that_differ_in_case_meet(database: str) -> None:
    run(database, "CREATE TABLE target (id int, what text)")
    written(sink(database), values([(1, "'x'")], "ID What"), Merge(("Id",)), mark(1))
    assert shown(database) == [("1", "x")]


FITS = [
    ("integer", "1.5::DECIMAL(3,1)", False),
    ("integer", "2.0::DECIMAL(3,1)", True),
    ("smallint", "40000", False),
    ("varchar(2)", "'abc'", False),
    ("varchar(2)", "'ab'", True),
    ("numeric(4,2)", "1.005::DOUBLE", False),
    ("numeric(4,2)", "'1.005'", False),
    ("numeric(4,2)", "'1.00'", True),
    ("real", "0.1::DOUBLE", False),
    ("real", "0.5::DOUBLE", True),
    ("date", "TIMESTAMP '2024-01-01 10:00:00'", False),
    ("date", "TIMESTAMP '2024-01-01 00:00:00'", True),
    ("date", "'2024-01-01 10:00'", False),
    ("timestamp", "'2024-01-01 10:00+02'", False),
    ("timestamp", "TIMESTAMP_NS '2024-01-01 10:00:00.123456789'", False),
    ("timestamptz", "'2024-01-01 10:00+02'", True),
    ("integer", "'x'", False),
    ("uuid", "'x'", False),
    ("jsonb", "'{'", False),
    ("jsonb", "{'a': [1, NULL]}", True),
    ("mood", "'sad'", True),
    ("mood", "'glad'", False),
    ("varchar(2)[]", "['abc']", False),
    ("text[]", "['abc', NULL]", True),
    ("boolean", "2", False),
    ("cents", "-1", False),
]


def test_a_value_that_the_column_would_change_is_an_error(database: str) -> None:
    run(database, *PREPARE)
    for number, (kind, value, fits) in enumerate(FITS):
        run(database, f"CREATE TABLE t{number} (id int, odd {kind})")
        query, to = f"SELECT 1 AS id, {value} AS odd", sink(database, f"t{number}")
        if fits:
            assert written(to, query, Append(), mark(1), node=kind + value).rows == 1
        else:
            with pytest.raises(DataError, match=r"odd|cents"):
                written(to, query, Append(), mark(1), node=kind + value)
            assert shown(database, f"SELECT * FROM t{number}") == [], (kind, value)


LANDED = [
    ("(-128)::TINYINT", "-128"),
    ("18446744073709551615::UBIGINT", "18446744073709551615"),
    ("'-170141183460469231731687303715884105728'::HUGEINT", "-170141183460469231731687303715884105728"),
    ("'0.999999999'::DECIMAL(9,9)", "0.999999999"),
    ("'-0.999999999999999999'::DECIMAL(18,18)", "-0.999999999999999999"),
    ("'9.99999999999999999'::DECIMAL(18,17)", "9.99999999999999999"),
    ("'0.0000000000000000000000000000000000001'::DECIMAL(38,37)", "0.0000000000000000000000000000000000001"),
    ("[1.10, NULL]::DECIMAL(4,2)[]", "{1.10,NULL}"),
    ("['a b', NULL, '', 'NULL']", '{"a b",NULL,"","NULL"}'),
    ("[]::INTEGER[]", "{}"),
    ("[1, 2]::INTEGER[2]", "{1,2}"),
    ("[TIME '10:00:00', NULL]", "{10:00:00,NULL}"),
    ("[[1], [2, 3], NULL]", "[[1],[2,3],null]"),
    ("{'a': 1, 'b': NULL}", '{"a":1,"b":null}'),
    ("MAP {'k': 1}", '{"k":1}'),
    ("'a'::ENUM('a', 'b')", "a"),
    ("TIMESTAMP_NS '2024-01-01 00:00:00.123456789'", "2024-01-01 00:00:00.123456789"),
    ("TIMESTAMP_S '2024-01-01 00:00:01'", "2024-01-01 00:00:01"),
    ("""'{"a": 1.0}'::JSON""", '{"a": 1.0}'),
]


@pytest.mark.parametrize("as_batches", [False, True])
def test_values_of_types_that_postgresql_has_not_are_kept(database: str, as_batches: bool) -> None:
    timetz = "TIMETZ '10:00:00+02'"
    if as_batches:
        with pytest.raises(SpecError, match="batches of rows cannot carry"):
            written(sink(database), f"SELECT {timetz} AS c", Append(), mark(1), as_batches=True)
    else:
        written(sink(database, "other"), f"SELECT {timetz} AS c", Append(), mark(1), node="other")
        assert shown(database, "SELECT * FROM other") == [("10:00:00+02",)]
    columns = ", ".join(f"{value} AS c{number}" for number, (value, _) in enumerate(LANDED))
    written(sink(database), f"SELECT {columns}", Append(), mark(1), as_batches=as_batches)
    assert shown(database) == [tuple(text for _, text in LANDED)]


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_text_with_a_nul_is_an_error_that_names_the_column(database: str, as_batches: bool) -> None:
    query = "SELECT 1 AS id, 'a' || chr(0) AS bad, 'b' AS good"
    with pytest.raises(DataError, match='"bad" holds a text with a NUL'):
        written(sink(database), query, Append(), mark(1), as_batches=as_batches)
    assert leftovers(database) == []


# -------------------------------------------------------------------------------------------------- errors


def attempts(dsn: str, **more: Any) -> Iterator[tuple[str, Any]]:
    """Every way in which the server is first asked."""
    yield "streams", lambda: next(source(dsn, table="t", **more).streams())
    yield "relation", lambda: staged(source(dsn, table="t", **more))
    yield "read", lambda: batched(source(dsn, table="t", **more))
    yield "last_load", lambda: sink(dsn).last_load(target())
    yield "write", lambda: written(sink(dsn), ROWS, Append(), mark(1))


def test_a_wrong_password_names_the_connection_and_is_not_shown(database: str, postgres: Postgres) -> None:
    wrong = database.replace(postgres.password, "hush-hush")
    for what, attempt in attempts(wrong):
        with pytest.raises(AccessError) as raised:
            attempt()
        assert "authentication failed" in raised.value.what, what
        assert "connection shop" in raised.value.mend
        assert "hush" not in str(raised.value)
    assert "hush" not in repr(connection(wrong)) + repr(connection(wrong).server("shop"))
    with one_duck() as duck, pytest.raises(AccessError) as raised:
        connection(wrong, retries=1).server("shop").attach(duck, read_only=True)
    assert "hush" not in str(raised.value)


def test_no_database_and_a_url_that_is_none(database: str) -> None:
    with pytest.raises(AccessError, match='"nowhere" does not exist'):
        sink(database.rsplit("/", 1)[0] + "/nowhere").last_load(target())
    with pytest.raises(SpecError) as raised:
        sink("postgresql://user:pass word@h/d").last_load(target())
    assert "pass" not in raised.value.what
    with pytest.raises(ValueError, match="must begin with postgresql") as refused:
        connection("mysql://u:hush@h/d")
    assert "hush" not in str(refused.value)
    with pytest.raises(ValueError, match="not both"):
        connection(database, host="h")
    with pytest.raises(ValueError, match="give `url`, or"):
        PostgresConnection(type="postgres", host="h")


def test_a_password_of_any_characters_works(database: str, postgres: Postgres) -> None:
    password = "p'w \"d\\ x=é$1%"
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS odd")
        session.execute(pg.SQL("CREATE ROLE odd LOGIN SUPERUSER PASSWORD {}").format(password))
    parts = {"host": postgres.host, "port": postgres.port, "database": database.rsplit("/", 1)[1]}
    given = PostgresConnection.model_validate({"type": "postgres", "user": "odd", "password": password, **parts})
    assert given.uri() == f"postgres://{postgres.host}:{postgres.port}/{database.rsplit('/', 1)[1]}"
    query = PostgresSourceSettings(type="postgres", connection="shop", query="SELECT current_user::text AS u")
    assert staged(query.open(given, PLACE))[0] == [("odd",)]
    assert batched(query.open(given, PLACE))[0] == [("odd",)]


def test_a_server_that_is_down_is_tried_again(
    database: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, "CREATE TABLE t AS SELECT 1 AS id")
    postgres.stop()
    for what, attempt in attempts(database):
        with pytest.raises(Unavailable) as raised:
            attempt()
        assert f"{postgres.host}:{postgres.port}" in raised.value.mend, what
    pauses: list[float] = []

    def mended(pause: float) -> None:
        pauses.append(pause)
        postgres.start()

    monkeypatch.setattr("resources.support.retry.time", SimpleNamespace(sleep=mended))
    patient = PostgresSourceSettings(type="postgres", connection="shop", table="t")
    assert staged(patient.open(connection(database), PLACE))[0] == [("1",)]
    assert len(pauses) == 1


def test_a_server_that_dies_while_rows_come_is_unavailable(database: str, postgres: Postgres, tmp_path: Path) -> None:
    run(database, "CREATE TABLE t AS SELECT g AS id, repeat('x', 500) AS x FROM generate_series(1, 200000) g")
    slow = source(database, query="SELECT id, x, CASE WHEN id > 5000 THEN pg_sleep(0.001)::text END AS s FROM t")
    crash = threading.Timer(0.7, lambda: postgres.stop(crash=True))
    crash.start()
    try:
        with pytest.raises(Unavailable):
            load(job(tmp_path), slow, Replace())
    finally:
        crash.join()
        postgres.start()
    assert job(tmp_path).dataset.open() is None


def test_a_table_or_column_that_is_not_there_is_suggested(database: str) -> None:
    run(
        database, "CREATE TABLE orders (id int, amount int)", "CREATE SCHEMA sales", "CREATE TABLE sales.items (id int)"
    )
    for wrong, right in {"ordres": "public.orders", "sales.item": "sales.items", "sale.items": "sales.items"}.items():
        with pytest.raises(SpecError, match="there is no table") as raised:
            next(source(database, table=wrong).streams())
        assert raised.value.mend == f'did you mean "{right}"?'
    with pytest.raises(SpecError) as raised:
        next(source(database, table="orders", columns=["id", "amuont"]).streams())
    assert (raised.value.what, raised.value.mend) == ('there is no column "amuont"', 'did you mean "amount"?')
    with pytest.raises(SpecError, match="there is no table") as raised:
        next(source(database, query="SELECT * FROM public.order").streams())
    assert raised.value.mend == 'did you mean "public.orders"?'
    with pytest.raises(SpecError, match='column "amuont" does not exist'):
        next(source(database, query="SELECT amuont FROM orders").streams())
    with pytest.raises(SpecError, match="syntax error"):
        next(source(database, query="SELEKT 1").streams())
    with pytest.raises(DataError, match="division by zero"):
        run(database, "INSERT INTO orders VALUES (0, 0)")
        run_relation(source(database, query="SELECT 1 / id AS x FROM orders"))
    with pytest.raises(SpecError, match="there is no schema"):
        written(sink(database, "nowhere.t"), ROWS, Append(), mark(1))
    with pytest.raises(SpecError, match="there is no table"):
        written(sink(database, "ordres", create=False), ROWS, Append(), mark(1))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(database), ROWS, Merge(("ident",)), mark(1))


def test_a_missing_grant_says_which(database: str, postgres: Postgres) -> None:
    run(
        database,
        "DROP ROLE IF EXISTS poor",
        "CREATE ROLE poor LOGIN PASSWORD 'poor'",
        "CREATE TABLE t (id int)",
        "CREATE TABLE target (id int, what text)",
        "GRANT CREATE, USAGE ON SCHEMA public TO poor",
    )
    poor = database.replace(f"{postgres.user}:{postgres.password}", "poor:poor")
    with pytest.raises(AccessError, match="permission denied for table t") as raised:
        next(source(poor, table="t").streams())
    assert raised.value.mend == 'as its owner: GRANT SELECT ON "public"."t" TO "poor"'
    with pytest.raises(AccessError, match="permission denied for table target") as raised:
        written(sink(poor), ROWS, Append(), mark(1))
    assert "connection shop" in raised.value.mend
    run(database, "DROP OWNED BY poor", "DROP ROLE poor")


def test_without_the_extension_rows_take_the_other_way(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **more: object) -> None:
        raise SpecError("not installed", mend="install it")

    run(database, "CREATE TABLE t AS SELECT 1 AS id, 2.50::numeric(5,2) AS n")
    monkeypatch.setattr(libpq, "load_extension", absent)
    given = source(database, table="t")
    with one_duck() as duck:
        assert given.relation(duck, next(given.streams()), None) is None
    assert batched(given)[0] == [("1", "2.50")]
    written(sink(database), ROWS, Append(), mark(1))
    assert shown(database) == [("1", "a"), ("2", "b")]


def test_the_connector_is_found_by_name() -> None:
    found = connector("postgres")
    assert (found.connection, found.source, found.sink) == (
        PostgresConnection,
        PostgresSourceSettings,
        PostgresSinkSettings,
    )

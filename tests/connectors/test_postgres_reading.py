"""What PostgreSQL sources can be like: odd types, rows that come late, standbys, and what a connection can tell."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from databrokkr_assets.core.disposition import Append, Replace
from databrokkr_assets.core.errors import AccessError, SpecError
from databrokkr_assets.core.spec import Finding
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from tests import services
from tests.connectors.carrying import batched, in_order, job, mark, one_duck, staged, written
from tests.connectors.test_postgres import PLACE, ROWS, connection, make_typed, run, shown, sink, source
from tests.services import Postgres

PREPARE = (
    "CREATE EXTENSION IF NOT EXISTS hstore",
    "CREATE EXTENSION IF NOT EXISTS citext",
    "CREATE TYPE mood AS ENUM ('sad', 'o k', 'ha''p\"py')",
    "CREATE TYPE pair AS (n int, t text)",
    "CREATE TYPE deep AS (p pair, ps pair[], m mood)",
    "CREATE DOMAIN cents AS numeric(12,2) CHECK (value >= 0)",
    "CREATE DOMAIN less AS cents",
    "CREATE DOMAIN ints AS int[]",
    "CREATE DOMAIN feeling AS mood",
    "CREATE DOMAIN two AS pair",
    "CREATE DOMAIN span AS int4range",
    "CREATE TYPE floats AS RANGE (subtype = float8)",
)

# Every value as PostgreSQL text, by type; each column has a NULL, too.
ODD = {
    "mood": ["sad", "o k", "ha'p\"py"],
    "mood[]": ['{sad,NULL,"o k"}', "{}"],
    "integer[][]": ["{{1,2},{3,NULL}}", "{}", "{1}", "[0:1]={1,2}", "{{{1}}}"],
    "text[][]": ['{{"a,b","NULL"},{NULL,""}}'],
    "numeric[]": ["{1.10,NaN,NULL}"],
    "bytea[]": ['{"\\\\x00ff",NULL}'],
    "jsonb[]": ['{"{\\"a\\": 1}",null}'],
    "interval[]": ['{"1 year 2 mons",NULL}'],
    "cents": ["0.00", "9999999999.99"],
    "less": ["1.10"],
    "cents[]": ["{1.10,NULL}"],
    "ints": ["{1,2}", "{}"],
    "feeling": ["sad"],
    "two": ['(1,"a b")', "(,)"],
    "span": ["[1,5)", "empty"],
    "pair": ['(1,"a b")', "(,)", '(-1,"q""u\\\\o")'],
    "pair[]": ['{"(1,a)",NULL}'],
    "deep": ['("(1,x)","{""(2,y)""}",sad)'],
    "int4range": ["[1,5)", "(,)", "empty", "(,-2147483648)"],
    "numrange": ["[1.10,2.20]", "(,1)"],
    "daterange": ["[2024-01-01,infinity)"],
    "tstzrange": ['["2024-01-01 00:00:00+00",)'],
    "floats": ["[0.1,Infinity)"],
    "int8multirange": ["{[1,3),[5,9)}", "{}"],
    "tsmultirange": ['{["2024-01-01 00:00:00","2024-02-01 00:00:00")}'],
    "json": ['{"n": 1' + "0" * 400 + ', "x": "\\u0000"}', "[1e400, -0.0, 1.10]", '{"a":1,"a":2}', " null "],
    "jsonb": ['{"n": 1' + "0" * 400 + "}", "123456789012345678901234567890.1234567890", '"ü🎉\\n"', "null", "{}"],
    "jsonpath": ['$."a"[*]'],
    "tsvector": ["'a':1A,2 'b c':3", ""],
    "tsquery": ["'a' & !'b'"],
    "bytea": ["\\x", "\\x00ff275c"],
    "numeric": ["NaN", "Infinity", "-Infinity", "-" + "9" * 1000 + "." + "9" * 500, "0.000", "1E-400"],
    "numeric(1000,500)": ["1" * 500 + "." + "2" * 500],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 00:00:00 BC", "294246-12-31 23:59:59.999999"],
    "timestamptz[]": ['{"2024-01-01 00:00:00+00",infinity}'],
    "interval": ["-178000000 years", "1 mon -1 days +00:00:00.000001", "-999999999:59:59.999999"],
    "timetz": ["00:00:00+15:59:59", "24:00:00-12"],
    "money": ["$92,233,720,368,547,758.07", "-$0.01"],
    "bit(3)": ["101", "000"],
    "bit varying": ["", "1" * 100],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1", "fe80::1/64"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "xml": ["<a b='1'>ü</a>", "text only", ""],
    "hstore": ['"a"=>"1", "b c"=>NULL', ""],
    "citext": ["MiXed", ""],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
    "oid": ["0", "4294967295"],
    "xid8": ["18446744073709551615"],
    "pg_lsn": ["FFFFFFFF/FFFFFFFF"],
    '"char"': ["a", ""],
    "name": ["x" * 63],
    "char(5)": ["ab", ""],
    "regclass": ["pg_class"],
    "point": ["(0.1,-1e+300)"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "circle": ["<(0,0),5>"],
}


def test_no_value_of_any_type_changes_from_table_to_dataset_to_table(database: str, tmp_path: Path) -> None:
    run(database, *PREPARE)
    make_typed(database, ODD)
    run(database, "CREATE TABLE target (LIKE typed)")
    load(job(tmp_path), source(database, table="typed"), Replace())
    deliver(job(tmp_path), sink(database), Append())
    got, want = shown(database), shown(database, "SELECT * FROM typed")
    for number, kind in enumerate(ODD):
        assert in_order((row[number],) for row in got) == in_order((row[number],) for row in want), kind
    assert got == want


def test_what_is_no_table_is_read_as_one(database: str) -> None:
    run(
        database,
        "CREATE TABLE p (id int, up int GENERATED ALWAYS AS (id + 1) STORED) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5) PARTITION BY RANGE (id)",
        "CREATE TABLE p11 PARTITION OF p1 DEFAULT",
        "CREATE TABLE p2 PARTITION OF p DEFAULT",
        "INSERT INTO p VALUES (1), (9)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM p",
        "CREATE TABLE base (id int, up int)",
        "CREATE TABLE heir () INHERITS (base)",
        "INSERT INTO base VALUES (1, 2)",
        "INSERT INTO heir VALUES (9, 10)",
        "CREATE UNLOGGED TABLE u AS SELECT * FROM p",
    )
    for name in ("p", "m", "base", "u"):
        for read in (staged, batched):
            assert read(source(database, table=name))[0] == [("1", "2"), ("9", "10")], name


def test_a_table_that_changes_meanwhile_is_read_as_it_was(database: str) -> None:
    run(database, "CREATE TABLE t AS SELECT g AS id, 0 AS n FROM generate_series(1, 20000) g")
    stop = threading.Event()

    def change() -> None:
        with psycopg.connect(database, autocommit=True) as session:
            while not stop.is_set():
                session.execute("UPDATE t SET n = n + 1")

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for read in (staged, batched):
            rows, _ = read(source(database, table="t"))
            assert len(rows) == 20000
            assert len({row[1] for row in rows}) == 1
    finally:
        stop.set()
        writer.join()


def test_late_rows_and_rows_without_a_value_come_again_where_they_meet_by_key(database: str) -> None:
    run(database, "CREATE TABLE t (id int, at timestamptz)", "INSERT INTO t VALUES (1, '2024-01-05'), (2, NULL)")
    again: dict[str, Any] = {"disposition": "merge", "keys": "id", "lookback": "2 days", "cursor_nulls": "always"}
    given: dict[str, Any] = {"table": "t", "cursor": "at", **again}
    rows, cursor = staged(source(database, **given))
    assert [row[0] for row in rows] == ["1", "2"]
    run(database, "INSERT INTO t VALUES (3, '2024-01-03'), (4, '2024-01-02 23:59:59'), (5, NULL)")
    for read in (staged, batched):
        rows, after = read(source(database, **given), cursor)
        assert [row[0] for row in rows] == ["1", "2", "3", "5"]
        assert after == cursor
    with pytest.raises(SpecError, match='lookback "5 apples" does not fit'):
        staged(source(database, **given | {"lookback": "5 apples"}))


def test_what_the_server_leaves_to_fresh_is_left_out_by_it_alone(database: str) -> None:
    run(database, "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 3) g")
    _, cursor = staged(source(database, table="t", cursor="id"))
    with one_duck() as duck:
        given = source(database, table="t", cursor="id")
        read = given.relation(duck, next(given.streams()), cursor)
        assert read is not None
        assert duck.execute(read.query).fetchall() == [(3,)]
        assert duck.execute(read.fresh(read.query)).fetchall() == []


def test_a_standby_is_read_and_not_written() -> None:
    with services.postgres() as server:
        run(server.dsn(), "CREATE TABLE t AS SELECT 1 AS id")
        folder = Path(shown(server.dsn(), "SELECT current_setting('data_directory')")[0][0] or "")
        server.stop()
        (folder / "standby.signal").touch()
        (folder / "standby.signal").chmod(0o666)
        server.start()
        for read in (staged, batched):
            assert read(source(server.dsn(), table="t"))[0] == [("1",)]
        with pytest.raises(AccessError) as raised:
            written(sink(server.dsn()), ROWS, Append(), mark(1))
        assert "at the primary" in raised.value.mend
        found = list(connection(server.dsn()).check_access("shop", PLACE))
        assert "a standby" in found[1].says
        assert found[-1] == Finding("may create tables", True, "nowhere: it is a standby")


# --------------------------------------------------------------------------------------------- what there is


def test_a_connection_says_what_is_reachable_and_allowed(database: str, postgres: Postgres) -> None:
    run(
        database,
        "DROP ROLE IF EXISTS guest",
        "CREATE ROLE guest LOGIN PASSWORD 'guest'",
        "CREATE TABLE t (id int)",
        "CREATE TABLE hidden (id int)",
        "CREATE SCHEMA own AUTHORIZATION guest",
    )
    guest = database.replace(f"{postgres.user}:{postgres.password}", "guest:guest")
    found = {one.what: one for one in connection(guest).check_access("shop", PLACE)}
    assert not found["may read"].ok
    assert "GRANT SELECT" in found["may read"].mend
    run(database, "GRANT SELECT (id) ON t TO guest")
    found = {one.what: one for one in connection(guest).check_access("shop", PLACE)}
    assert list(found) == ["reachable", "server", "user", "TLS", "may read", "may create tables"]
    assert all(one.ok for one in found.values())
    assert found["reachable"].says.startswith(f"{postgres.host}:{postgres.port}/")
    assert found["server"].says.startswith("PostgreSQL ")
    assert (found["user"].says, found["may read"].says) == ("guest", "1 of 2 tables and views")
    assert found["may create tables"].says == "in own"
    assert found["TLS"].says.startswith("none")
    assert [one.name for one in connection(guest).list_streams("shop", PLACE)] == ["t"]
    run(database, "DROP OWNED BY guest", "DROP ROLE guest")
    (refused,) = connection(guest, retries=1).check_access("shop", PLACE)
    assert (refused.what, refused.ok) == ("reachable", False)
    assert "authentication failed" in refused.says
    assert "guest:guest" not in str(refused)


def test_a_connection_lists_what_the_database_holds(database: str) -> None:
    run(
        database,
        *PREPARE,
        "CREATE TABLE t (b uuid, a less, m int[][], PRIMARY KEY (b, a))",
        "INSERT INTO t SELECT gen_random_uuid(), 1, NULL FROM generate_series(1, 500)",
        "CREATE TABLE p (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE p1 PARTITION OF p DEFAULT",
        "INSERT INTO p SELECT generate_series(1, 300)",
        "CREATE VIEW v AS SELECT b FROM t",
        "CREATE MATERIALIZED VIEW m AS SELECT b FROM t",
        'CREATE SCHEMA "Ä.s"',
        'CREATE TABLE "Ä.s"."ein ""t" (id int)',
        "ANALYZE t, p, p1, m",
    )
    written(sink(database, "made"), ROWS, Append(), mark(1))
    streams = list(connection(database).list_streams("shop", PLACE))
    assert [(one.namespace, one.name, one.kind, one.keys, one.rows) for one in streams] == [
        ("public", "m", "materialized view", (), 500),
        ("public", "made", "table", (), None),
        ("public", "p", "partitioned table", (), 300),
        ("public", "t", "table", ("b", "a"), 500),
        ("public", "v", "view", (), None),
        ("Ä.s", 'ein "t', "table", (), None),
    ]
    assert streams[3].schema == next(source(database, table="t").streams()).schema

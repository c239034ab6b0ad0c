"""MySQL's connector on a real MariaDB: no value changes on the way, no row is lost or doubled, and errors say how to
mend them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pymysql
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import DeletesRows, Load, Target, WritesRelation
from databrokkr_assets.core.spec import Origin, Place, Range
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.loading import load
from resources.connectors.mysql import (
    MySQLConnection,
    MySQLSink,
    MySQLSinkSettings,
    MySQLSource,
    MySQLSourceSettings,
)
from resources.registry import connector
from resources.support import mysql_server
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, one_duck, staged, values, written
from tests.services import MariaDB
from tests.services import mariadb as mariadb_server

PLACE = Place(Path("/nowhere"))


def connection(url: str, **more: Any) -> MySQLConnection:
    # To offer encryption, which the server has not, would cost a twentieth of a second for each session.
    plain = {} if "ssl_mode" in url else {"ssl_mode": "disabled"}
    return MySQLConnection.model_validate({"type": "mysql", "url": url, **plain, **more})


def source(url: str, **more: Any) -> MySQLSource:
    given = MySQLSourceSettings(type="mysql", connection="shop", **more)
    return given.open(connection(url, retries=1), PLACE)


def sink(url: str, table: str = "target", *, local_infile: bool = False, **more: Any) -> MySQLSink:
    given = MySQLSinkSettings(type="mysql", connection="shop", input="orders", table=table, **more)
    return given.open(connection(url, retries=1, local_infile=local_infile), PLACE)


@contextmanager
def session(url: str) -> Iterator[Any]:
    """A cursor of a plain session that lets in what MySQL lets in, in UTC."""
    parts = urlsplit(url)
    where = {"host": parts.hostname, "port": parts.port, "database": unquote(parts.path[1:]), "autocommit": True}
    login = {"user": unquote(parts.username or ""), "password": unquote(parts.password or "")}
    mode = "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00'"
    with (
        pymysql.connect(**where, **login, init_command=mode, ssl_disabled=True) as connected,
        connected.cursor() as cursor,
    ):
        yield cursor


def run(url: str, *statements: str) -> None:
    with session(url) as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with session(url) as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def shown(url: str, query: str = "SELECT * FROM target") -> list[Row]:
    """The rows of a query, sorted, every value as the server keeps it."""
    with session(url) as cursor:
        cursor.execute(f"SELECT * FROM ({query}) AS q LIMIT 0")
        # A float's own text has six digits; a string in hexadecimal shows every byte.
        exact = {4: "{} * 1e0", 16: "{} + 0", 252: "HEX({})", 253: "HEX({})", 254: "HEX({})", 255: "HEX({})"}
        asked = [
            f"CAST({exact.get(kind, '{}').format('`' + name.replace('`', '``') + '`')} AS CHAR)"
            for name, kind, *_ in cursor.description
        ]
        cursor.execute(f"SELECT {', '.join(asked)} FROM ({query}) AS q")
        return in_order(cursor.fetchall())


def plain(url: str, query: str = "SELECT * FROM target") -> list[Row]:
    """The rows of a query, sorted, as text."""
    return in_order([tuple(None if one is None else str(one) for one in row) for row in rows(url, query)])


def run_relation(given: MySQLSource) -> None:
    """Run the relation's query as the engine does, with its errors explained."""
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        assert read is not None
        try:
            duck.execute(f"CREATE TEMP TABLE staged AS {read.query}")
        except duckdb.Error as error:
            raise read.explain(error) or error from error


# ------------------------------------------------------------------------------------------------- types

# Every value as SQL, by type. Columns are nullable, and each has a NULL, too.
EXACT = {
    "tinyint(1)": ["0", "1", "2", "-128", "127"],
    "tinyint unsigned": ["255"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int(5) unsigned zerofill": ["42", "4294967295"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["18446744073709551615"],
    "float": ["0.1", "-3.4028234663852886e38", "1.401298464324817e-45", "16777217"],
    "double": ["0.1", "1.7976931348623157e308", "5e-324", "0.30000000000000004"],
    "float(7,2)": ["1.23"],
    "decimal(12,2)": ["0", "-0.01", "9999999999.99"],
    "decimal(10,0)": ["9999999999", "-9999999999"],
    "decimal(10,2) unsigned": ["99999999.99"],
    "decimal(38,10)": ["9999999999999999999999999999.9999999999"],
    "decimal(30,30)": ["0.123456789012345678901234567890"],
    "date": ["'0001-01-01'", "'1000-01-01'", "'9999-12-31'"],
    "time(6)": ["'00:00:00'", "'23:59:59.999999'"],
    "time": ["'10:11:12'"],
    "datetime(6)": ["'0001-01-01 00:00:00'", "'9999-12-31 23:59:59.999999'", "'2024-03-31 02:30:00.000001'"],
    "datetime": ["'2024-01-01 10:00:00'"],
    "timestamp(6) null": ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07.999999'", "'2024-03-31 02:30:00.123456'"],
    "year": ["1901", "0", "2155"],
    "bit(1)": ["b'0'", "b'1'"],
    "bit(64)": ["0xffffffffffffffff", "b'101'"],
    "char(5)": ["''", "'ab'"],
    "varchar(20)": [
        "''",
        "'NULL'",
        "' x '",
        r"'a\tb\nc\\\\d\"e\'f'",
        "'ünï🎉'",
        r"'\\N'",
        "'a,b'",
        "concat('a', char(0), 'b')",
    ],
    "varchar(10) character set latin1": ["'üé'"],
    "varchar(10) character set utf16": ["'ü🎉'"],
    "varchar(10) collate utf8mb4_bin": ["'ü🎉'"],
    "longtext": ["''", "repeat('ü', 70000)", r"'\"'", r"'a\r\n,\"\"\",'"],
    "binary(4)": ["0x00ff0000"],
    "varbinary(10)": ["''", "0x00ff27", "'NULL'"],
    "longblob": ["''", "0x00ff5c22"],
    "point": ["point(1, 2)"],
}

# Types of the server's own that arrive as text, which the sink writes back into a column of the type.
TEXTUAL = {
    "decimal(65,30)": ["99999999999999999999999999999999999.999999999999999999999999999999", "0"],
    "enum('x','ü')": ["'x'", "'ü'"],
    "set('a','b')": ["''", "'a'", "'a,b'"],
    "json": ['\'{"b": 1.0, "a":2,  "a": 3}\''],
    "uuid": ["'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "inet6": ["'fe80::1'"],
}


def make_typed(url: str, kinds: dict[str, list[str]], table: str = "typed") -> None:
    """A table with a column for each type, a row for each value, and one of NULLs."""
    listed = ", ".join(f"c{number} {kind}" for number, kind in enumerate(kinds))
    with session(url) as cursor:
        cursor.execute(f"CREATE TABLE {table} ({listed}) CHARACTER SET utf8mb4")
        for row in range(max(map(len, kinds.values())) + 1):
            listed = ", ".join(one[row] if row < len(one) else "NULL" for one in kinds.values())
            cursor.execute(f"INSERT INTO {table} VALUES ({listed})")


@pytest.mark.parametrize("kinds", [EXACT, TEXTUAL], ids=["exact", "textual"])
@pytest.mark.parametrize("local_infile", [False, True], ids=["inserted", "piped"])
def test_no_value_changes_from_table_to_dataset_to_table(
    mydatabase: str, tmp_path: Path, kinds: dict[str, list[str]], local_infile: bool
) -> None:
    make_typed(mydatabase, kinds)
    run(mydatabase, "CREATE TABLE target LIKE typed")
    load(job(tmp_path), source(mydatabase, table="typed"), Replace())
    deliver(job(tmp_path), sink(mydatabase, local_infile=local_infile), Append())
    assert shown(mydatabase) == shown(mydatabase, "SELECT * FROM typed")


def test_a_table_made_by_us_holds_the_same_values(mydatabase: str, tmp_path: Path) -> None:
    make_typed(mydatabase, {kind: texts for kind, texts in EXACT.items() if kind != "bit(1)"})
    load(job(tmp_path), source(mydatabase, table="typed"), Replace())
    deliver(job(tmp_path), sink(mydatabase), Append())
    assert staged(source(mydatabase, table="target"))[0] == staged(source(mydatabase, table="typed"))[0]


def test_batches_hold_the_same_rows_as_the_relation(mydatabase: str) -> None:
    make_typed(mydatabase, EXACT | TEXTUAL)
    assert batched(source(mydatabase, table="typed")) == staged(source(mydatabase, table="typed"))


ODD = [
    ("date", "0000-00-00"),
    ("date", "2024-00-00"),
    ("date", "2024-02-30"),
    ("datetime(6)", "0000-00-00 00:00:00.000000"),
    ("timestamp", "0000-00-00 00:00:00"),
    ("time(6)", "-838:59:59.999999"),
    ("time", "-00:00:01"),
    ("time", "838:59:59"),
]


def test_a_value_beyond_the_type_is_an_error_that_names_it_and_never_another_value(mydatabase: str) -> None:
    for number, (kind, value) in enumerate(ODD):
        table = f"t{number}"
        run(mydatabase, f"CREATE TABLE {table} (id int, odd {kind})", f"INSERT INTO {table} VALUES (1, '{value}')")
        with pytest.raises(DataError, match='"odd" holds') as raised:
            run_relation(source(mydatabase, table=table))
        assert value in raised.value.what and "as_text: [odd]" in raised.value.mend
        with pytest.raises(DataError, match='"odd" holds'):
            batched(source(mydatabase, table=table))
        assert staged(source(mydatabase, table=table, as_text="odd"))[0] == [("1", value)]


def test_values_beyond_go_back_as_text_into_their_own_types(mydatabase: str) -> None:
    odd = [(kind, value) for kind, value in ODD if value != "2024-02-30"]
    listed = ", ".join(f"c{number} {kind} NULL" for number, (kind, _) in enumerate(odd))
    run(mydatabase, f"CREATE TABLE target ({listed})")
    texts = ", ".join(f"'{value}' AS c{number}" for number, (_, value) in enumerate(odd))
    written(sink(mydatabase), f"SELECT {texts}", Append(), mark(1))
    assert staged(source(mydatabase, table="target", as_text=[f"c{number}" for number in range(len(odd))]))[0] == [
        tuple(value for _, value in odd)
    ]


def test_dates_that_are_no_day_become_null_where_asked_for(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (d date, t timestamp)", "INSERT INTO t VALUES (0, 0), ('2024-02-00', NULL)")
    assert staged(source(mydatabase, table="t", zero_dates="as_null"))[0] == [(None, None), (None, None)]
    run(mydatabase, "CREATE TABLE l (t time)", "INSERT INTO l VALUES ('25:00:00')")
    with pytest.raises(DataError, match="25:00:00"):
        batched(source(mydatabase, table="l", zero_dates="as_null"))


def test_as_text_shows_any_type(mydatabase: str) -> None:
    run(
        mydatabase,
        "CREATE TABLE t (z int(5) zerofill, b blob, i bit(3), g point, f float)",
        "INSERT INTO t VALUES (42, 0x00ff, b'101', point(1, 2), 0.5)",
    )
    given = source(mydatabase, table="t", as_text=["z", "b", "i", "g", "f"])
    assert staged(given)[0] == batched(given)[0] == [("00042", "00FF", "5", "POINT(1 2)", "0.5")]


def test_instants_do_not_depend_on_the_servers_zone(mydatabase: str, mariadb: MariaDB) -> None:
    run(mydatabase, "CREATE TABLE t (t timestamp)", "INSERT INTO t VALUES ('2024-07-01 12:00:00')")
    run(mydatabase, "SET GLOBAL time_zone = '-05:00'")
    try:
        found = [staged(source(mydatabase, table="t"))[0], batched(source(mydatabase, table="t"))[0]]
        written(sink(mydatabase), "SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00' AS t", Append(), mark(1))
    finally:
        run(mydatabase, "SET GLOBAL time_zone = 'SYSTEM'")
    assert found == [[("2024-07-01 12:00:00+00",)]] * 2
    assert plain(mydatabase) == [("2024-07-01 12:00:00",)]


def test_null_and_empty_stay_apart(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (a text, b blob)", "INSERT INTO t VALUES ('', NULL), (NULL, ''), ('NULL', 'null')")
    assert staged(source(mydatabase, table="t"))[0] == [(None, ""), ("", None), ("NULL", "null")]


def documented(heading: str) -> list[tuple[str, str]]:
    """The pairs of types in the table below a heading of docs/types.md; rows that only describe are left out."""
    page = (Path(__file__).parents[2] / "docs/types.md").read_text().split("\n## MySQL and MariaDB\n")[1]
    lines = page.split(f"### {heading}\n")[1].split("\n### ")[0].split("\n## ")[0].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:3] for line in lines if line.startswith("| `")]
    found = [tuple(re.findall("`([^`]+)`", cell) for cell in pair) for pair in cells]
    return [
        (one, other) for left, right in found if len(left) == len(right) for one, other in zip(left, right, strict=True)
    ]


def test_the_page_on_types_is_true_of_reading(mydatabase: str) -> None:
    told = documented("From a MySQL table or query to a dataset")
    assert len(told) > 30
    run(mydatabase, f"CREATE TABLE t ({', '.join(f'c{number} {kind}' for number, (kind, _) in enumerate(told))})")
    given = source(mydatabase, table="t")
    with one_duck() as duck:
        read = given.relation(duck, next(given.streams()), None)
        assert read is not None
        kinds = [str(kind) for kind in duck.sql(read.query).types]
    assert [(kind, own) for (kind, _), own in zip(told, kinds, strict=True)] == told


def test_the_page_on_types_is_true_of_writing(mydatabase: str) -> None:
    told = documented("From a dataset to a MySQL table")
    assert len(told) > 25
    nulls = ", ".join(f"CAST(NULL AS {kind}) AS c{number}" for number, (kind, _) in enumerate(told))
    written(sink(mydatabase), f"SELECT {nulls}", Append(), mark(1))
    made = [kind for (_, kind, *_) in rows(mydatabase, "SHOW COLUMNS FROM target")]
    plain = [kind if kind == "tinyint(1)" else re.sub(r"int\(\d+\)", "int", kind) for kind in made]
    assert plain == [landed for _, landed in told]


# ---------------------------------------------------------------------------------------------- what is read


def test_a_stream_tells_columns_and_primary_key(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (b int, a bigint unsigned, j json, PRIMARY KEY (b, a))")
    stream = next(source(mydatabase, table="t").streams())
    assert stream.schema is not None
    assert (stream.keys, stream.schema.names) == (("b", "a"), ["b", "a", "j"])
    assert stream.schema.field("a").type == pa.uint64()
    assert next(source(mydatabase, table="t", columns=["j", "b"]).streams()).keys == ()


LONG = "ü" * 60 + "`'\"%"


def test_odd_names_are_found_and_kept(mydatabase: str, mariadb: MariaDB) -> None:
    schema = "my `odd.\"s'x"
    mariadb.create_database(schema)
    there = schema.replace("`", "``")
    try:
        run(
            mydatabase,
            f'CREATE TABLE `{there}`.`{LONG.replace("`", "``")}` (`select` int, `a b` int, `ü"` text, `q``x%` int)',
            f"INSERT INTO `{there}`.`{LONG.replace('`', '``')}` VALUES (1, 2, 'z', 4)".replace("%", "%"),
        )
        named = source(mydatabase, schema=schema, table=LONG)
        assert staged(named)[0] == batched(named)[0] == [("1", "2", "z", "4")]
        by = source(mydatabase, schema=schema, table=LONG, cursor='ü"', columns=['ü"', "q`x%"])
        found, cursor = staged(by)
        assert found == [("z", "4")]
        assert staged(by, cursor)[0] == []
        query = 'SELECT * FROM (VALUES (1, \'z\')) AS v("select", "ü%s ""`x\\")'
        for how in (Replace(), Merge(("select",)), History(("select",))):
            to = sink(mydatabase, schema=schema, table=f"n`\"'{how.name}")
            written(to, query, how, mark(1), node=how.name)
            written(to, query, how, mark(2, 1), node=how.name)
            assert staged(source(mydatabase, schema=schema, table=f"n`\"'{how.name}", columns=["select"]))[0] == [
                ("1",)
            ]
    finally:
        mariadb.drop_database(schema)


@pytest.mark.parametrize("name", ["x" * 65, "🎉"])
def test_a_name_that_mysql_cannot_have_is_refused(mydatabase: str, name: str) -> None:
    with pytest.raises(SpecError, match="cannot be a name in MySQL"):
        source(mydatabase, table=name)
    with pytest.raises(SpecError, match="cannot be a name in MySQL"):
        sink(mydatabase, name)
    with pytest.raises(SpecError, match="cannot be a name in MySQL"):
        written(sink(mydatabase), f'SELECT 1 AS "{name}"', Append(), mark(1))


def test_a_query_is_read_as_it_is(mydatabase: str) -> None:
    query = "WITH x AS (SELECT 1 AS n UNION ALL SELECT 2) SELECT n, concat('%', n) AS `per cent` FROM x -- two"
    assert staged(source(mydatabase, query=query))[0] == [("1", "%1"), ("2", "%2")]
    assert batched(source(mydatabase, query=query))[0] == [("1", "%1"), ("2", "%2")]


def test_views_and_empty_tables_are_read(mydatabase: str) -> None:
    run(
        mydatabase,
        "CREATE TABLE p (id int, twice int AS (id * 2)) PARTITION BY HASH (id) PARTITIONS 3",
        "INSERT INTO p (id) VALUES (1), (2), (3)",
        "CREATE VIEW v AS SELECT * FROM p WHERE id > 2",
        "CREATE TABLE empty (id int)",
    )
    assert len(staged(source(mydatabase, table="p"))[0]) == 3
    assert staged(source(mydatabase, table="v"))[0] == [("3", "6")]
    assert staged(source(mydatabase, table="empty")) == batched(source(mydatabase, table="empty")) == ([], None)


def test_the_external_tables_are_named_without_asking_the_network() -> None:
    nowhere = connection("mysql://u:secret@nohost/shop")
    by_table = MySQLSourceSettings(type="mysql", connection="shop", table="orders")
    assert by_table.origins(nowhere) == (Origin(("shop", "shop", "orders"), "mysql", "mysql://nohost:3306/shop"),)
    by_query = MySQLSourceSettings(type="mysql", connection="shop", query="SELECT * FROM `a b` JOIN sales.items")
    assert sorted(origin.key[1:] for origin in by_query.origins(nowhere)) == [("sales", "items"), ("shop", "a b")]
    target = MySQLSinkSettings(type="mysql", connection="shop", input="x", table="orders")
    assert target.origin(nowhere).key == ("shop", "shop", "orders")
    with pytest.raises(SpecError, match="in which database orders is"):
        target.origin(connection("mysql://u:secret@nohost"))


@pytest.mark.parametrize("table", [True, False], ids=["relation", "batches"])
def test_reading_a_big_table_takes_little_memory(mydatabase: str, tmp_path: Path, table: bool) -> None:
    count = 600_000 if table else 100_000
    run(
        mydatabase,
        "CREATE TABLE big (id bigint, note varchar(64) character set ascii)",
        f"INSERT INTO big SELECT seq, concat(md5(seq), md5(seq + 1)) FROM seq_1_to_{count}",
    )
    code = f"""
from pathlib import Path
from databrokkr_assets.core.disposition import Replace
from databrokkr_assets.engine.loading import load
from resources.connectors.mysql import MySQLSource
from tests.connectors.carrying import job
from tests.connectors.test_mysql import source
from tests.memory import peak_kilobytes
if not {table}:
    MySQLSource.relation = lambda *given: None
assert load(job(Path({str(tmp_path)!r})), source({mydatabase!r}, table="big"), Replace()).rows_out == {count}
print(peak_kilobytes() // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 350


# ------------------------------------------------------------------------------------------ only what is new


def test_a_cursor_reads_what_is_new_and_late_rows_of_the_same_value_each_once(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (at timestamp(6) NULL, what text)")
    assert staged(source(mydatabase, table="t", cursor="at")) == ([], None)
    first = "(NULL, 'n'), ('2024-01-01', 'a'), ('2024-01-02', 'b'), ('2024-01-02', 'b')"
    run(mydatabase, f"INSERT INTO t VALUES {first}")
    found, cursor = staged(source(mydatabase, table="t", cursor="at"))
    assert [row[1] for row in found] == ["n", "a", "b", "b"]
    assert staged(source(mydatabase, table="t", cursor="at"), cursor) == ([], cursor)

    late = "INSERT INTO t VALUES ('2024-01-02', 'b'), ('2024-01-02', 'c'), (NULL, 'm')"
    run(mydatabase, late, "INSERT INTO t VALUES ('2024-01-03', 'd')")
    found, cursor = staged(source(mydatabase, table="t", cursor="at"), cursor)
    assert [row[1] for row in found] == ["b", "c", "d"]
    assert batched(source(mydatabase, table="t", cursor="at"), cursor) == ([], cursor)


def test_a_lookback_reads_late_rows_and_null_cursors_again_where_rows_meet_by_key(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (id int primary key, at datetime)", "INSERT INTO t VALUES (1, '2024-01-10')")
    given: dict[str, Any] = {"table": "t", "cursor": "at", "disposition": "merge", "keys": "id", "lookback": "2 days"}
    _, cursor = staged(source(mydatabase, **given))
    run(mydatabase, "INSERT INTO t VALUES (2, '2024-01-09'), (3, '2024-01-07'), (4, NULL)")
    assert [row[0] for row in staged(source(mydatabase, **given), cursor)[0]] == ["1", "2"]
    always = source(mydatabase, **given, cursor_nulls="always")
    assert [row[0] for row in staged(always, cursor)[0]] == ["1", "2", "4"]


ORDERED = [
    ("decimal(20,3)", "1.001", "1.002"),
    ("bigint unsigned", "9223372036854775807", "18446744073709551615"),
    ("double", "0.1", "0.30000000000000004"),
    ("date", "2024-01-01", "2024-01-02"),
    ("datetime(6)", "2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002"),
    ("timestamp(6) null", "2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002"),
    ("year", "1999", "2000"),
    ("text", "B", "a"),
    ("varchar(9) character set latin1", "a'\\", "ä"),
    ("varchar(9)", "a", "a "),
]


def test_a_cursor_of_any_ordered_type_is_exact(mydatabase: str) -> None:
    with session(mydatabase) as cursor:
        for number, (kind, low, high) in enumerate(ORDERED):
            cursor.execute(f"CREATE TABLE t{number} (c {kind})")
            where = None
            for value in (low, high):
                cursor.execute(f"INSERT INTO t{number} VALUES (%s)", [value])
                found, where = staged(source(mydatabase, table=f"t{number}", cursor="c"), where)
                assert len(found) == 1, kind
            assert staged(source(mydatabase, table=f"t{number}", cursor="c"), where) == ([], where), kind
            assert batched(source(mydatabase, table=f"t{number}", cursor="c"), where) == ([], where), kind


def test_a_cursor_that_cannot_work_is_refused(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (n decimal(50,2), f float, b blob, id int)")
    for column in ("n", "f", "b"):
        with pytest.raises(SpecError, match="cannot be a cursor"):
            staged(source(mydatabase, table="t", cursor=column))
    with pytest.raises(SpecError) as raised:
        staged(source(mydatabase, table="t", cursor="idd"))
    assert raised.value.mend == 'did you mean "id"?'


def test_a_range_is_read_again_by_a_query_in_backticks(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE t (`i d` int)", "INSERT INTO t VALUES (1), (2), (3)")
    given = MySQLSourceSettings(type="mysql", connection="shop", table="t", cursor="i d")
    part, condition = given.within(Range("2", "3"))
    opened = part.open(connection(mydatabase), PLACE)
    assert (staged(opened)[0], condition) == ([("2",)], "\"i d\" >= '2' AND \"i d\" < '3'")


# ------------------------------------------------------------------------------------------------- writing

ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")


@pytest.mark.parametrize("local_infile", [False, True], ids=["inserted", "piped"])
def test_what_each_disposition_leaves(mydatabase: str, local_infile: bool) -> None:
    wanted: dict[Disposition, list[Row]] = {
        Append(): [("1", "a"), ("2", "B"), ("2", "b"), ("3", "c")],
        Replace(): [("2", "B"), ("3", "c")],
        Merge(("id",)): [("1", "a"), ("2", "B"), ("3", "c")],
    }
    for how, want in wanted.items():
        to = sink(mydatabase, f"t_{how.name}", local_infile=local_infile)
        assert written(to, ROWS, how, mark(1), node=how.name).rows == 2
        written(to, MORE, how, mark(2, after=1), node=how.name)
        assert plain(mydatabase, f"SELECT * FROM t_{how.name}") == want


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",)), History(("id",))], ids=str)
@pytest.mark.parametrize("as_batches", [False, True])
def test_a_load_that_comes_twice_is_applied_once(mydatabase: str, how: Any, as_batches: bool) -> None:
    to = sink(mydatabase)
    first = written(to, ROWS, how, mark(7), as_batches=as_batches)
    assert (first.rows, first.already) == (2, False)
    again = written(to, MORE, how, mark(7), as_batches=as_batches)
    assert (again.rows, again.already) == (0, True)
    assert plain(mydatabase, "SELECT id, what FROM target") == [("1", "a"), ("2", "b")]
    last = to.last_load(target())
    assert last is not None
    assert (last.version, last.dataset, last.run_id) == (7, "orders-table", "run")


def target() -> Target:
    return Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))


def test_before_the_first_load_there_is_none(mydatabase: str) -> None:
    assert sink(mydatabase).last_load(target()) is None


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=6), max_size=3))
def test_merging_loads_gives_the_last_row_of_each_key_however_often_they_come(
    mydatabase: str, loads: list[list[tuple[int, int]]]
) -> None:
    run(mydatabase, "DROP TABLE IF EXISTS target, _databrokkr_loads")
    to = sink(mydatabase)
    want: dict[int, int] = {}
    for version, some in enumerate(loads, 1):
        for _ in range(2):
            written(to, values(some, "id n"), Merge(("id",)), mark(version, version - 1 or None))
        want |= dict(some)
    if loads:
        assert plain(mydatabase) == in_order((str(key), str(value)) for key, value in want.items())


def test_a_history_keeps_each_version_and_ends_what_comes_no_more(mydatabase: str) -> None:
    to, how = sink(mydatabase), History(("id",))
    run(mydatabase, "CREATE TABLE target (id int, what varchar(9) COLLATE utf8mb4_general_ci)")
    first = written(to, values([(1, "'a'"), (2, "'b'"), (3, "NULL")], "id what"), how, mark(1))
    second = written(to, values([(1, "'A'"), (3, "NULL"), (4, "'d'")], "id what"), how, mark(2, 1))
    assert (first.rows, second.rows, dict(second.facts)) == (3, 2, {"rows_closed": 2})
    current = "SELECT id, what FROM target WHERE valid_to IS NULL"
    assert plain(mydatabase, current) == [("1", "A"), ("3", None), ("4", "d")]
    over = "SELECT old.id, new.id FROM target old LEFT JOIN target new ON new.id = old.id AND "
    over += "new.valid_from = old.valid_to WHERE old.valid_to IS NOT NULL"
    assert plain(mydatabase, over) == [("1", "1"), ("2", None)]


def test_a_merge_deletes_what_is_gone(mydatabase: str) -> None:
    written(sink(mydatabase), values([(1, "'a'"), (2, "'b'"), (3, "'c'")], "id what"), Merge(("id",)), mark(1))
    with one_duck() as duck, sink(mydatabase).begin(target(), Merge(("id",)), mark(2, 1)) as opened:
        assert isinstance(opened, WritesRelation) and isinstance(opened, DeletesRows)
        opened.write_relation(duck, values([(1, "'A'")], "id what"))
        opened.delete(pa.RecordBatch.from_pydict({"id": pa.array([2, 9], pa.int32())}))
        receipt = opened.commit()
    assert dict(receipt.facts) == {"rows_deleted": 1}
    assert plain(mydatabase) == [("1", "A"), ("3", "c")]


def test_of_two_loads_that_build_on_one_the_second_to_commit_writes_nothing(mydatabase: str) -> None:
    to = sink(mydatabase)
    written(to, ROWS, Append(), mark(1))
    with pytest.raises(Unavailable, match="another run"):
        written(to, MORE, Append(), mark(3, after=None))
    written(to, MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="names version 2"):
        written(to, MORE, Append(), mark(3, after=1))
    assert len(plain(mydatabase)) == 4


def test_first_loads_at_the_same_moment_are_applied_once(mydatabase: str) -> None:
    outcomes: list[str] = []

    def go(version: int) -> None:
        try:
            with open_duck() as duck, sink(mydatabase).begin(target(), Append(), mark(version)) as opened:
                assert isinstance(opened, WritesRelation)
                opened.write_relation(duck, ROWS)
                opened.commit()
            outcomes.append("written")
        except Unavailable:
            outcomes.append("given up")

    threads = [threading.Thread(target=go, args=(version,)) for version in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["given up", "given up", "written"]
    assert len(plain(mydatabase)) == 2


@contextmanager
def opened(url: str, how: Any = None, version: int = 1, after: int | None = None) -> Iterator[Load]:
    """A load with its rows given, to be committed."""
    with one_duck() as duck, sink(url).begin(target(), how or Append(), mark(version, after)) as given:
        assert isinstance(given, WritesRelation)
        given.write_relation(duck, ROWS)
        yield given


def test_leaving_without_commit_changes_nothing(mydatabase: str) -> None:
    with opened(mydatabase):
        pass
    assert plain(mydatabase, "SHOW TABLES") == [("_databrokkr_loads",)]
    assert sink(mydatabase).last_load(target()) is None


def test_a_zombie_that_wakes_after_its_successor_commits_nothing(mydatabase: str) -> None:
    with opened(mydatabase) as zombie:
        written(sink(mydatabase), ROWS, Append(), mark(2))
        with pytest.raises(Unavailable):
            zombie.commit()
    assert len(plain(mydatabase)) == 2
    assert plain(mydatabase, "SHOW TABLES") == [("_databrokkr_loads",), ("target",)]


def test_a_row_beyond_the_servers_packet_says_what_to_raise(mydatabase: str) -> None:
    big = "SELECT repeat('x', 20_000_000) AS what"
    with pytest.raises(AccessError, match="max_allowed_packet"):
        written(sink(mydatabase), big, Append(), mark(1))
    assert written(sink(mydatabase, local_infile=True), big, Append(), mark(1)).rows == 1


def test_where_the_server_allows_no_local_infile_rows_are_inserted(mydatabase: str) -> None:
    run(mydatabase, "SET GLOBAL local_infile = OFF")
    try:
        written(sink(mydatabase, local_infile=True), ROWS, Append(), mark(1))
    finally:
        run(mydatabase, "SET GLOBAL local_infile = ON")
    assert plain(mydatabase) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("local_infile", [False, True], ids=["inserted", "piped"])
def test_an_error_of_the_rows_themselves_is_passed_on_and_writes_nothing(mydatabase: str, local_infile: bool) -> None:
    broken = "SELECT CASE WHEN range > 5000 THEN error('boom') ELSE 'x' END AS what FROM range(10000)"
    with pytest.raises(duckdb.Error, match="boom"):
        written(sink(mydatabase, local_infile=local_infile), broken, Append(), mark(1))
    assert plain(mydatabase, "SHOW TABLES") == [("_databrokkr_loads",)]


@pytest.mark.parametrize("reply", ["before", "after"])
def test_a_lost_reply_neither_loses_nor_doubles(mydatabase: str, monkeypatch: pytest.MonkeyPatch, reply: str) -> None:
    from pymysql.connections import Connection

    commit = Connection.commit

    def lost(session: Any) -> None:
        if reply == "after":
            commit(session)
        session._sock.close()
        raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "commit", lost)
        with pytest.raises(Unavailable):
            written(sink(mydatabase), ROWS, Append(), mark(1))
    again = written(sink(mydatabase), ROWS, Append(), mark(1))
    assert again.already is (reply == "after")
    assert plain(mydatabase) == [("1", "a"), ("2", "b")]


def test_an_empty_load_counts(mydatabase: str) -> None:
    with sink(mydatabase).begin(target(), Replace(), mark(1)) as given:
        assert given.commit().rows == 0
    assert plain(mydatabase) == []
    assert sink(mydatabase).last_load(target()) is not None


def test_readers_see_the_old_rows_until_the_new_ones_are_there(mydatabase: str) -> None:
    written(sink(mydatabase), ROWS, Replace(), mark(1))
    with session(mydatabase) as reader:
        reader.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        written(sink(mydatabase), MORE, Replace(), mark(2, after=1))
        reader.execute("SELECT id FROM target ORDER BY 1")
        assert list(reader.fetchall()) == [(1,), (2,)]
    assert plain(mydatabase) == [("2", "B"), ("3", "c")]


def test_replacing_never_cascades(mydatabase: str) -> None:
    run(
        mydatabase,
        "CREATE TABLE target (id int PRIMARY KEY, what text)",
        "CREATE TABLE child (id int, FOREIGN KEY (id) REFERENCES target (id) ON DELETE CASCADE)",
    )
    with pytest.raises(SpecError, match=r"rows of .*\.child"):
        written(sink(mydatabase), ROWS, Replace(), mark(1))


def test_a_table_without_transactions_is_refused(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE target (id int, what text) ENGINE = MyISAM")
    with pytest.raises(SpecError, match="MyISAM table, which has no transactions"):
        written(sink(mydatabase), ROWS, Append(), mark(1))


def test_a_merge_makes_the_index_it_needs_or_uses_the_one_there(mydatabase: str) -> None:
    def count() -> int:
        return len({row[2] for row in rows(mydatabase, "SHOW INDEX FROM target")})

    written(sink(mydatabase), ROWS, Merge(("id",)), mark(1))
    written(sink(mydatabase), MORE, Merge(("id",)), mark(2, 1))
    assert count() == 1
    run(mydatabase, "DROP TABLE target", "CREATE TABLE target (what varchar(9), id int, UNIQUE (what, id))")
    written(sink(mydatabase), ROWS, Merge(("id", "what")), mark(3, 2))
    assert count() == 1
    run(mydatabase, "DROP TABLE target", "CREATE TABLE target AS SELECT 1 AS id, 'x' AS what UNION ALL SELECT 1, 'y'")
    with pytest.raises(DataError, match="several rows with one key"):
        written(sink(mydatabase), ROWS, Merge(("id",)), mark(4, 3))


def test_a_merge_by_text_tells_keys_by_their_bytes(mydatabase: str) -> None:
    keys = values([("'a'", 1), ("'A'", 2), ("'a '", 3), ("'ä'", 4)], "key n")
    written(sink(mydatabase), keys, Merge(("key",)), mark(1))
    written(sink(mydatabase), values([("'A'", 5)], "key n"), Merge(("key",)), mark(2, 1))
    assert plain(mydatabase) == [("A", "5"), ("a", "1"), ("a ", "3"), ("ä", "4")]
    run(mydatabase, "CREATE TABLE folds (`key` varchar(9) COLLATE utf8mb4_general_ci PRIMARY KEY, n int)")
    written(sink(mydatabase, "folds"), values([("'a'", 1)], "key n"), Merge(("key",)), mark(1), node="folds")
    with pytest.raises(DataError, match="Duplicate entry 'A'"):
        written(sink(mydatabase, "folds"), values([("'A'", 5)], "key n"), Merge(("key",)), mark(2, 1), node="folds")
    assert plain(mydatabase, "SELECT * FROM folds") == [("a", "1")]


def test_a_merge_never_changes_a_row_that_another_unique_index_finds(mydatabase: str) -> None:
    run(
        mydatabase,
        "CREATE TABLE target (id int PRIMARY KEY, what varchar(9) UNIQUE)",
        "INSERT INTO target VALUES (9, 'a')",
    )
    with pytest.raises(DataError, match="Duplicate entry 'a'"):
        written(sink(mydatabase), ROWS, Merge(("id",)), mark(1))
    assert plain(mydatabase) == [("9", "a")]


def test_new_columns_are_added_and_missing_ones_stay_null(mydatabase: str) -> None:
    written(sink(mydatabase), ROWS, Append(), mark(1))
    written(sink(mydatabase), values([(3, 1.5)], "id more"), Append(), mark(2, 1))
    assert plain(mydatabase, "SELECT id, what, more FROM target")[-1] == ("3", None, "1.5")
    with pytest.raises(SpecError, match="has no column `other`"):
        written(sink(mydatabase, create=False), values([(1, 2)], "id other"), Append(), mark(3, 2))


def test_names_that_differ_in_case_meet(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE target (id int, what text)")
    written(sink(mydatabase), values([(1, "'x'")], "ID What"), Merge(("Id",)), mark(1))
    assert plain(mydatabase) == [("1", "x")]


def test_zero_and_null_stay_what_they_are_in_a_column_that_counts(mydatabase: str) -> None:
    run(mydatabase, "CREATE TABLE target (id int AUTO_INCREMENT PRIMARY KEY, what text)")
    written(sink(mydatabase), values([(0, "'x'")], "id what"), Append(), mark(1))
    assert plain(mydatabase) == [("0", "x")]
    with pytest.raises(DataError, match='"id" is NOT NULL, and 1 of its values are NULL'):
        written(sink(mydatabase), "SELECT NULL::INTEGER AS id, 'y' AS what", Append(), mark(2, 1))
    with pytest.raises(DataError, match='"id" is a key'):
        written(sink(mydatabase, "other"), "SELECT NULL::INTEGER AS id", Merge(("id",)), mark(1), node="other")


FITS = [
    ("int", "1.5::DECIMAL(3,1)", False),
    ("int", "2.0::DECIMAL(3,1)", True),
    ("smallint", "40000", False),
    ("tinyint unsigned", "-1", False),
    ("varchar(2)", "'abc'", False),
    ("varchar(2)", "'ab '", False),
    ("varchar(2)", "'ab'", True),
    ("char(3)", "'ab '", False),
    ("char(3)", "'ab'", True),
    ("varchar(9) character set latin1", "'🎉'", False),
    ("varchar(9) character set latin1", "'ü'", True),
    ("decimal(4,2)", "1.005::DOUBLE", False),
    ("decimal(4,2)", "'1.005'", False),
    ("decimal(4,2)", "'1.00'", True),
    ("float", "0.1::DOUBLE", False),
    ("float", "0.5::DOUBLE", True),
    ("double", "1234567890.12345678901234567890::DECIMAL(38,20)", False),
    ("date", "TIMESTAMP '2024-01-01 10:00:00'", False),
    ("date", "TIMESTAMP '2024-01-01 00:00:00'", True),
    ("date", "'2024-01-01 10:00'", False),
    ("datetime", "TIMESTAMP '2024-01-01 10:00:00.5'", False),
    ("datetime(6)", "TIMESTAMPTZ '9999-12-31 10:00:00+00'", True),
    ("timestamp(6)", "TIMESTAMPTZ '2039-01-01 10:00:00+00'", False),
    ("datetime(6)", "TIMESTAMP_NS '2024-01-01 10:00:00.123456789'", False),
    ("time", "INTERVAL '-30 hours'", True),
    ("time", "INTERVAL '1 month'", False),
    ("int", "'x'", False),
    ("int", "'1abc'", False),
    ("json", "'{'", False),
    ("json", "{'a': [1, NULL]}", True),
    ("enum('sad')", "'sad'", True),
    ("enum('sad')", "'glad'", False),
    ("year", "70", False),
    ("year", "1970", True),
    ("bit(1)", "true", True),
    ("binary(4)", "'\\xFF'::BLOB", False),
    ("varbinary(4)", "'\\xFF'::BLOB", True),
    ("uuid", "'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID", True),
]


def test_a_value_that_the_column_would_change_is_an_error(mydatabase: str) -> None:
    for number, (kind, value, fits) in enumerate(FITS):
        run(mydatabase, f"CREATE TABLE t{number} (id int, odd {kind} NULL)")
        query, to = f"SELECT 1 AS id, {value} AS odd", sink(mydatabase, f"t{number}")
        if fits:
            assert written(to, query, Append(), mark(1), node=kind + value).rows == 1, (kind, value)
        else:
            with pytest.raises(DataError, match="odd"):
                written(to, query, Append(), mark(1), node=kind + value)
            assert plain(mydatabase, f"SELECT * FROM t{number}") == [], (kind, value)


LANDED = [
    ("true", "1"),
    ("(-128)::TINYINT", "-128"),
    ("18446744073709551615::UBIGINT", "18446744073709551615"),
    ("'-170141183460469231731687303715884105728'::HUGEINT", "-170141183460469231731687303715884105728"),
    ("'0.12345678901234567890123456789012345678'::DECIMAL(38,38)", ".12345678901234567890123456789012345678"),
    ("[1.10, NULL]::DECIMAL(4,2)[]", "[1.1,null]"),
    ("{'a': 1, 'b': NULL}", '{"a":1,"b":null}'),
    ("MAP {'k': 1}", '{"k":1}'),
    ("'a'::ENUM('a', 'b')", "a"),
    ("TIMESTAMP_NS '2024-01-01 00:00:00.123456789'", "2024-01-01 00:00:00.123456789"),
    ("INTERVAL '1 month -2 days 03:00:00.5'", "1 month -2 days 03:00:00.5"),
    ("'0f0e0d0c-0b0a-0908-0706-050403020100'::UUID", "0f0e0d0c-0b0a-0908-0706-050403020100"),
    ("""'{"a": 1.0}'::JSON""", '{"a": 1.0}'),
]


@pytest.mark.parametrize("as_batches", [False, True])
def test_values_of_types_that_mysql_has_not_are_kept(mydatabase: str, as_batches: bool) -> None:
    listed = ", ".join(f"{value} AS c{number}" for number, (value, _) in enumerate(LANDED))
    written(sink(mydatabase), f"SELECT {listed}", Append(), mark(1), as_batches=as_batches)
    assert plain(mydatabase) == [tuple(text for _, text in LANDED)]


BEYOND = ["'NaN'::DOUBLE", "'-Infinity'::FLOAT", "DATE '10000-01-01'", "DATE '0044-03-15 (BC)'", "TIMESTAMP 'infinity'"]
BEYOND += ["TIMESTAMPTZ '2039-01-01 00:00:00+00'", "TIMESTAMPTZ '1969-12-31 00:00:00+00'", "TIMESTAMPTZ '-infinity'"]


@pytest.mark.parametrize("local_infile", [False, True], ids=["inserted", "piped"])
def test_a_value_that_mysql_cannot_hold_is_an_error_that_names_the_column(mydatabase: str, local_infile: bool) -> None:
    for number, value in enumerate(BEYOND):
        to = sink(mydatabase, f"t{number}", local_infile=local_infile)
        with pytest.raises(DataError, match='"odd" holds'):
            written(to, f"SELECT {value} AS odd", Append(), mark(1), node=value)
    with pytest.raises(DataError, match="column 'key'"):
        to = sink(mydatabase, "t", local_infile=local_infile)
        written(to, "SELECT repeat('x', 256) AS key", Merge(("key",)), mark(1), node="t")


@pytest.mark.parametrize("local_infile", [False, True], ids=["inserted", "piped"])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(st.one_of(st.none(), st.text("aN\\\"',`\n\r\t\0Zü🎉% ;", max_size=6)), min_size=1, max_size=40))
def test_any_text_arrives_as_it_is(mydatabase: str, local_infile: bool, given: list[str | None]) -> None:
    run(mydatabase, "DROP TABLE IF EXISTS target, _databrokkr_loads")
    table = pa.table(
        {"t": pa.array(given, pa.string()), "b": pa.array([one and one.encode() for one in given], pa.binary())}
    )
    with one_duck() as duck:
        duck.register("texts", table)
        with sink(mydatabase, local_infile=local_infile).begin(Target(NODE, table.schema), Append(), mark(1)) as opened:
            assert isinstance(opened, WritesRelation)
            opened.write_relation(duck, "SELECT * FROM texts")
            opened.commit()
        duck.unregister("texts")
    found = [
        (one, None if other is None else other.decode()) for one, other in rows(mydatabase, "SELECT t, b FROM target")
    ]
    assert in_order(found) == in_order((one, one) for one in given)


# -------------------------------------------------------------------------------------------------- errors


def attempts(url: str, **more: Any) -> Iterator[tuple[str, Any]]:
    """Every way in which the server is first asked."""
    yield "streams", lambda: next(source(url, table="t", **more).streams())
    yield "relation", lambda: staged(source(url, table="t", **more))
    yield "read", lambda: batched(source(url, table="t", **more))
    yield "last_load", lambda: sink(url).last_load(target())
    yield "write", lambda: written(sink(url), ROWS, Append(), mark(1))


def test_a_wrong_password_names_the_connection_and_is_not_shown(mydatabase: str, mariadb: MariaDB) -> None:
    wrong = mydatabase.replace(mariadb.password, "hush-hush")
    for what, attempt in attempts(wrong):
        with pytest.raises(AccessError) as raised:
            attempt()
        assert "Access denied" in raised.value.what, what
        assert "connection shop" in raised.value.mend
        assert "hush" not in str(raised.value)
    assert "hush" not in repr(connection(wrong)) + repr(connection(wrong).server("shop"))
    with one_duck() as duck, pytest.raises(AccessError) as raised:
        connection(wrong, retries=1).server("shop").attach(duck)
    assert "hush" not in str(raised.value)


def test_no_database_and_a_url_that_is_none(mydatabase: str) -> None:
    with pytest.raises(AccessError, match="Unknown database 'nowhere'"):
        sink(mydatabase.rsplit("/", 1)[0] + "/nowhere").last_load(target())
    for url, said in {
        "postgres://u:hush@h/d": "must begin with mysql",
        "mysql://u:hu sh@h:x/d": "cannot be read",
        "mysql://u:hush@h/d?ssl=1": "`ssl_mode`|ssl_",
        "mysql://u:hush@h/d?ssl_mode=verify_ca": "needs `ssl_ca`",
    }.items():
        with pytest.raises(ValueError, match=said) as refused:
            connection(url)
        assert "hush" not in str(refused.value)
    with pytest.raises(ValueError, match="not both"):
        connection(mydatabase, host="h")
    with pytest.raises(ValueError, match="give `url`, or"):
        MySQLConnection(type="mysql", host="h")


@pytest.mark.parametrize("way", ["host", "localhost", "socket", "url"])
def test_a_password_of_any_characters_works_by_every_way(mydatabase: str, mariadb: MariaDB, way: str) -> None:
    from urllib.parse import quote

    password = "p'w \"d\\ x=é$1%"
    with session(mydatabase) as cursor:
        cursor.execute("CREATE OR REPLACE USER odd IDENTIFIED BY %s", [password])
        cursor.execute("GRANT SELECT ON *.* TO odd")
    login = {"type": "mysql", "user": "odd", "password": password, "database": mydatabase.rsplit("/", 1)[1]}
    settings = {
        "host": login | {"host": mariadb.host, "port": mariadb.port},
        "localhost": login | {"host": "localhost", "port": mariadb.port},
        "socket": login | {"socket": str(mariadb.socket)},
        "url": {"type": "mysql", "url": f"mysql://odd:{quote(password)}@{mariadb.host}:{mariadb.port}/mysql"},
    }
    given = MySQLConnection.model_validate(settings[way])
    query = MySQLSourceSettings(type="mysql", connection="shop", query="SELECT substring_index(user(), '@', 1) AS u")
    assert staged(query.open(given, PLACE))[0] == [("odd",)]
    assert batched(query.open(given, PLACE))[0] == [("odd",)]
    run(mydatabase, "DROP USER odd")


def certificates(folder: Path) -> None:
    """An authority, and the certificate of a server called localhost that it signed."""
    key = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    for command in (
        [*key, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"],
        [*key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"],
        ["openssl", "x509", "-req", "-in", "server.csr", *signing, "-days", "2", "-out", "server.pem"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    for file in folder.iterdir():
        file.chmod(0o644)


@pytest.mark.usefixtures("mariadb")  # which skips where there is none
def test_encryption_is_asked_for_and_certificates_are_verified(mydatabase: str) -> None:
    query = MySQLSourceSettings(type="mysql", connection="shop", query="SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    asked = MySQLSourceSettings(type="mysql", connection="shop", query="SELECT 1 AS one")

    def ways(url: str) -> list[Any]:
        opened = connection(url, retries=1)
        return [lambda: batched(asked.open(opened, PLACE)), lambda: opened.server("shop").attach(duck)]

    with tempfile.TemporaryDirectory(dir="/tmp") as made, one_duck() as duck:
        folder = Path(made)
        folder.chmod(0o755)
        certificates(folder)
        files = {"ssl_cert": f"{made}/server.pem", "ssl_key": f"{made}/server.key", "ssl_ca": f"{made}/ca.pem"}
        # The client of DuckDB's scanner takes 127.0.0.1 for localhost, whatever the certificate says.
        with mariadb_server(bind_address="127.0.0.1,127.0.0.2", **files) as server:
            url = server.url().replace(server.host, "localhost")
            for right in ("required", f"verify_ca&ssl_ca={made}/ca.pem", f"verify_identity&ssl_ca={made}/ca.pem"):
                for attempt in ways(f"{url}?ssl_mode={right}"):
                    attempt()
                with connection(f"{url}?ssl_mode={right}").server("shop").session() as encrypted:
                    assert mysql_server.rows(encrypted, query.query or "")[0][1]
            other = f"{server.url().replace(server.host, '127.0.0.2')}?ssl_mode=verify_identity&ssl_ca={made}/ca.pem"
            stranger = f"{url}?ssl_mode=verify_ca&ssl_ca=/etc/ssl/certs/ca-certificates.crt"
            for wrong in (f"{mydatabase}?ssl_mode=required", other, stranger):
                for attempt in ways(wrong):
                    with pytest.raises(AccessError) as raised:
                        attempt()
                    assert "SSL" in raised.value.mend


def test_a_server_that_is_down_is_tried_again(
    mydatabase: str, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mydatabase, "CREATE TABLE t AS SELECT 1 AS id")
    mariadb.stop()
    for what, attempt in attempts(mydatabase):
        with pytest.raises(Unavailable) as raised:
            attempt()
        assert f"{mariadb.host}:{mariadb.port}" in raised.value.mend, what
    pauses: list[float] = []

    def mended(pause: float) -> None:
        pauses.append(pause)
        mariadb.start()

    monkeypatch.setattr("resources.support.retry.time", SimpleNamespace(sleep=mended))
    patient = MySQLSourceSettings(type="mysql", connection="shop", table="t")
    assert staged(patient.open(connection(mydatabase), PLACE))[0] == [("1",)]
    assert len(pauses) == 1


@pytest.mark.parametrize("by_relation", [True, False], ids=["relation", "batches"])
def test_a_server_that_dies_while_rows_come_is_unavailable(
    mydatabase: str, mariadb: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_relation: bool
) -> None:
    slow = source(mydatabase, query="SELECT seq AS id, repeat('x', 500) AS x, sleep(0.001) AS s FROM seq_1_to_200000")
    if not by_relation:
        monkeypatch.setattr(MySQLSource, "relation", lambda *given: None)
    crash = threading.Timer(0.7, lambda: mariadb.stop(crash=True))
    crash.start()
    try:
        with pytest.raises(Unavailable):
            load(job(tmp_path), slow, Replace())
    finally:
        crash.join()
        mariadb.start()
    assert job(tmp_path).dataset.open() is None


def test_a_server_that_dies_while_rows_go_is_unavailable_and_nothing_is_lost(mydatabase: str, mariadb: MariaDB) -> None:
    many = "SELECT range AS id, repeat('x', 300) AS what FROM range(400000)"
    crash = threading.Timer(0.4, lambda: mariadb.stop(crash=True))
    crash.start()
    try:
        with pytest.raises(Unavailable):
            written(sink(mydatabase), many, Append(), mark(1))
    finally:
        crash.join()
        mariadb.start()
    assert sink(mydatabase).last_load(target()) is None
    assert written(sink(mydatabase), ROWS, Append(), mark(1)).rows == 2
    assert len(plain(mydatabase)) == 2


def test_a_table_or_column_that_is_not_there_is_suggested(mydatabase: str) -> None:
    own = mydatabase.rsplit("/", 1)[1]
    run(mydatabase, "CREATE TABLE orders (id int, amount int)")
    with pytest.raises(SpecError, match="there is no table") as raised:
        next(source(mydatabase, table="ordres").streams())
    assert raised.value.mend == f'did you mean "{own}.orders"?'
    with pytest.raises(SpecError, match="there is no table"):
        next(source(mydatabase, table="nowhere.orders").streams())
    with pytest.raises(SpecError) as raised:
        next(source(mydatabase, table="orders", columns=["id", "amuont"]).streams())
    assert (raised.value.what, raised.value.mend) == ('there is no column "amuont"', 'did you mean "amount"?')
    with pytest.raises(SpecError, match="there is no table") as raised:
        next(source(mydatabase, query="SELECT * FROM `order`").streams())
    assert raised.value.mend == f'did you mean "{own}.orders"?'
    with pytest.raises(SpecError, match="Unknown column 'amuont'"):
        next(source(mydatabase, query="SELECT amuont FROM orders").streams())
    with pytest.raises(SpecError, match="error in your SQL syntax"):
        next(source(mydatabase, query="SELEKT 1").streams())
    with pytest.raises(SpecError, match="there is no database"):
        written(sink(mydatabase, "nowhere.t"), ROWS, Append(), mark(1))
    with pytest.raises(SpecError, match="there is no table"):
        written(sink(mydatabase, "ordres", create=False), ROWS, Append(), mark(1))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(mydatabase), ROWS, Merge(("ident",)), mark(1))


@contextmanager
def poor(url: str, mariadb: MariaDB, *grants: str) -> Iterator[str]:
    """The url of a user who has these grants on the database only."""
    own = url.rsplit("/", 1)[1]
    run(url, "CREATE OR REPLACE USER poor IDENTIFIED BY 'poor'")
    run(url, *(f"GRANT {grant.replace('.', f'`{own}`.')} TO poor" for grant in grants))
    yield url.replace(f"{mariadb.user}:{mariadb.password}", "poor:poor")
    run(url, "DROP USER poor")


def test_a_missing_grant_says_which(mydatabase: str, mariadb: MariaDB) -> None:
    run(mydatabase, "CREATE TABLE t (id int)", "CREATE TABLE target (id int, what text)")
    with poor(mydatabase, mariadb, "SELECT, CREATE, INSERT ON .target", "CREATE ON .*") as url:
        with pytest.raises(AccessError, match="SELECT command denied") as raised:
            next(source(url, table="t").streams())
        assert raised.value.mend.startswith("as an administrator: GRANT SELECT ON `")
        with pytest.raises(AccessError, match="denied"):
            written(sink(url), ROWS, Append(), mark(1))


def test_a_read_only_server_is_an_access_error(mydatabase: str, mariadb: MariaDB) -> None:
    grants = "ALL ON .*"
    with poor(mydatabase, mariadb, grants) as url:
        run(mydatabase, "SET GLOBAL read_only = ON")
        try:
            with pytest.raises(AccessError, match="read-only"):
                written(sink(url), ROWS, Append(), mark(1))
            findings = list(connection(url).check_access("shop", PLACE))
        finally:
            run(mydatabase, "SET GLOBAL read_only = OFF")
    assert [(one.what, one.ok) for one in findings if not one.ok] == [("may read", False), ("may write", False)]


def test_a_test_of_the_connection_says_what_is_reachable_and_allowed(mydatabase: str, mariadb: MariaDB) -> None:
    run(mydatabase, "CREATE TABLE t (id int)")
    found = {one.what: one for one in connection(mydatabase).check_access("shop", PLACE)}
    assert all(one.ok for one in found.values()), found
    assert "MariaDB" in found["server"].says
    with poor(mydatabase, mariadb, "SELECT ON .*") as url:
        found = {one.what: one for one in connection(url).check_access("shop", PLACE)}
    assert found["may read"].ok and not found["may write"].ok
    assert "GRANT INSERT" in found["may write"].mend
    wrong = list(connection(mydatabase.replace(mariadb.password, "x")).check_access("shop", PLACE))
    assert [(one.what, one.ok) for one in wrong] == [("reachable", False)]


def test_streams_are_listed_with_columns_keys_and_rows(mydatabase: str) -> None:
    run(
        mydatabase,
        "CREATE TABLE orders (b int unsigned, a decimal(10,2), t timestamp, PRIMARY KEY (b))",
        "INSERT INTO orders VALUES (1, 1, NOW())",
        "CREATE VIEW named AS SELECT b FROM orders",
    )
    written(sink(mydatabase, "other"), ROWS, Append(), mark(1))
    found = {one.name: one for one in connection(mydatabase).list_streams("shop", PLACE)}
    assert list(found) == ["named", "orders", "other"]
    orders = found["orders"]
    assert (orders.kind, orders.keys, orders.namespace, orders.rows) == ("table", ("b",), "", 1)
    assert orders.schema is not None
    assert orders.schema.equals(next(source(mydatabase, table="orders").streams()).schema)
    assert found["named"].kind == "view"
    several: dict[str, Any] = {"tables": ["o*"], "exclude": ["other"]}
    given = MySQLSourceSettings(type="mysql", connection="shop", **several)
    parts = given.expanded(list(found.values()))
    assert [part.open(connection(mydatabase), PLACE).__class__ for part in parts.values()] == [MySQLSource]
    assert list(parts) == ["orders"]


def test_without_the_extension_rows_take_the_other_way(mydatabase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **more: object) -> None:
        raise SpecError("not installed", mend="install it")

    run(mydatabase, "CREATE TABLE t AS SELECT 1 AS id, CAST(2.5 AS decimal(5,2)) AS n")
    monkeypatch.setattr(mysql_server, "load_extension", absent)
    given = source(mydatabase, table="t")
    with one_duck() as duck:
        assert given.relation(duck, next(given.streams()), None) is None
    assert batched(given)[0] == [("1", "2.50")]


def test_the_connector_is_found_by_name() -> None:
    found = connector("mysql")
    assert (found.connection, found.source, found.sink) == (MySQLConnection, MySQLSourceSettings, MySQLSinkSettings)

"""What PostgreSQL targets can be like, histories and deletions, and a server that goes down half way."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg
import pytest

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.errors import DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Load, LoadMark, WritesRelation
from resources.connectors.postgres import PostgresSinkSettings
from tests import services
from tests.connectors.carrying import NODE, in_order, mark, one_duck, values, written
from tests.connectors.test_postgres import MORE, PLACE, ROWS, connection, leftovers, run, shown, sink, target
from tests.services import Postgres

# ---------------------------------------------------------------------------------------- history and deletes

VERSIONS = "SELECT id, what, valid_from, valid_to FROM target"


def at(day: int) -> str:
    """A day as a history shows it."""
    return f"2024-01-{day:02} 00:00:00+00"


def on(day: int, after: int | None = None) -> LoadMark:
    """The load of a day, which is its version."""
    return replace(mark(day, after), at=datetime(2024, 1, day, tzinfo=UTC))


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_history_keeps_each_version_with_its_time(database: str, as_batches: bool) -> None:
    to, how = sink(database), History(("id",))
    old, new = values([(1, "'a'"), (2, "'b'"), (3, "NULL")], "id what"), values([(3, "NULL"), (2, "'B'")], "id what")
    assert written(to, old, how, on(1), as_batches=as_batches).rows == 3
    receipt = written(to, new, how, on(2, 1), as_batches=as_batches)
    assert (receipt.rows, receipt.facts) == (1, {"rows_closed": 2})
    assert written(to, new, how, on(2, 1), as_batches=as_batches).already
    receipt = written(to, new, how, on(3, 2), as_batches=as_batches)
    assert (receipt.rows, receipt.facts) == (0, {"rows_closed": 0})
    written(to, old, how, on(4, 3), as_batches=as_batches)
    assert shown(database, VERSIONS) == in_order(
        [
            ("1", "a", at(1), at(2)),
            ("1", "a", at(4), None),
            ("2", "b", at(1), at(2)),
            ("2", "B", at(2), at(4)),
            ("2", "b", at(4), None),
            ("3", None, at(1), None),
        ]
    )
    assert leftovers(database) == []


def test_a_history_of_doubles_keeps_the_last_and_of_new_columns_the_change(database: str) -> None:
    to, how = sink(database), History(("id",))
    written(to, values([(1, "'a'"), (1, "'z'")], "id what"), how, on(1))
    written(to, "SELECT 1 AS ID, 'z' AS what, [1.5, 'nan'::DOUBLE] AS more, 'run 2' AS _load_id", how, on(2, 1))
    written(to, "SELECT 1 AS ID, 'z' AS what, [1.5, 'nan'::DOUBLE] AS more, 'run 3' AS _load_id", how, on(3, 2))
    assert shown(database, VERSIONS) == [("1", "z", at(1), at(2)), ("1", "z", at(2), None)]


def test_a_history_compares_values_that_have_no_equals_sign(database: str) -> None:
    run(database, "CREATE TABLE target (id numeric, j json, p point, x xml, n numeric, valid_from timestamptz)")
    to, how = sink(database), History(("id",))
    row = "SELECT {id} AS id, '{{\"a\": 1}}' AS j, '(1,2)' AS p, '<a/>' AS x, '{n}' AS n"
    assert written(to, row.format(id=1, n="1.0"), how, on(1)).rows == 1
    assert written(to, row.format(id=1, n="1.0"), how, on(2, 1)).rows == 0
    assert written(to, row.format(id=1, n="1.00"), how, on(3, 2)).facts == {"rows_closed": 1}
    assert shown(database, "SELECT n, valid_to FROM target") == [("1.0", at(3)), ("1.00", None)]


def test_a_history_refuses_what_would_make_it_wrong(database: str) -> None:
    with pytest.raises(SpecError, match='adds the column "VALID_TO"'):
        written(sink(database), 'SELECT 1 AS id, now() AS "VALID_TO"', History(("id",)), mark(1))
    run(database, "CREATE TABLE target (id int, valid_from date)")
    with pytest.raises(SpecError, match="is date, but a history needs timestamp with time zone"):
        written(sink(database), "SELECT 1 AS id", History(("id",)), mark(1))
    by_key: tuple[Disposition, ...] = (History(("id",)), Merge(("id",)))
    for how in by_key:
        with pytest.raises(DataError, match='the key "id" is NULL in 1 rows'):
            written(sink(database, "other"), values([(1,), ("NULL",)], "id"), how, mark(1))
    with pytest.raises(SpecError, match='the key "ident" is no column'):
        written(sink(database), ROWS, History(("ident",)), mark(1))


@pytest.mark.parametrize("as_batches", [False, True])
def test_a_merge_deletes_rows_by_their_keys(database: str, as_batches: bool) -> None:
    run(database, "CREATE TABLE target (b uuid, a smallint, what text, PRIMARY KEY (a, b))")
    unique = "uuid 'ffffffff-ffff-ffff-ffff-ffffffffffff'"
    how, rows = Merge(("a", "b")), values([(number, unique, "'x'") for number in range(5)], "a b what")
    gone = f"SELECT n::INTEGER AS a, {unique} AS b FROM range(1, 4) AS r(n)"
    assert written(sink(database), rows, how, mark(1)).facts == {}
    receipt = written(sink(database), f"{rows} WHERE a = 0", how, mark(2, 1), as_batches=as_batches, gone=gone)
    assert (receipt.rows, receipt.facts) == (1, {"rows_deleted": 3})
    assert shown(database, "SELECT a FROM target") == [("0",), ("4",)]
    assert leftovers(database) == []


def test_a_key_that_the_column_would_change_deletes_nothing(database: str) -> None:
    run(database, "CREATE TABLE target (id integer)", "INSERT INTO target VALUES (2)")
    with pytest.raises(DataError, match='the column "id" is integer'):
        written(sink(database), "SELECT 1.0 AS id", Merge(("id",)), mark(1), gone="SELECT 1.5 AS id")
    assert shown(database) == [("2",)]


# ------------------------------------------------------------------------------------- what targets can be like

EVERY: tuple[Disposition, ...] = (Append(), Replace(), Merge(("id",)))


def test_columns_that_the_server_fills_are_left_to_it(database: str) -> None:
    run(
        database,
        "CREATE TABLE target (row_number int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, what text, "
        "loud text GENERATED ALWAYS AS (upper(what)) STORED, seen int GENERATED BY DEFAULT AS IDENTITY, "
        "state text NOT NULL DEFAULT 'new')",
    )
    for version, how in enumerate(EVERY, 1):
        written(sink(database), ROWS if version < 3 else MORE, how, mark(version, version - 1 or None))
        run(database, "UPDATE target SET state = 'kept' WHERE id = 1") if version == 2 else None
    assert shown(database, "SELECT id, what, loud, state FROM target") == [
        ("1", "a", "A", "kept"),
        ("2", "B", "B", "new"),
        ("3", "c", "C", "new"),
    ]
    for name in ("loud", "row_number"):
        with pytest.raises(SpecError, match=f'the column "{name}" of public.target is GENERATED ALWAYS'):
            written(sink(database), f"SELECT 9 AS id, '1' AS {name}", Append(), mark(4, 3))
    written(sink(database), "SELECT 9 AS id, 77 AS seen", Append(), mark(4, 3))
    assert shown(database, "SELECT seen FROM target WHERE id = 9") == [("77",)]


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_what_the_target_forbids_is_an_error_and_nothing_is_written(database: str, how: Disposition) -> None:
    run(
        database,
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE target (id int PRIMARY KEY, what text NOT NULL CHECK (what <> 'bad'), up int REFERENCES parent)",
    )
    wrongs = {
        "SELECT 1 AS id": 'null value in column "what"',
        "SELECT 1 AS id, NULL::VARCHAR AS what": 'null value in column "what"',
        "SELECT 1 AS id, 'bad' AS what": "violates check constraint",
        "SELECT 1 AS id, 'x' AS what, 5 AS up": "violates foreign key constraint",
    }
    for query, said in wrongs.items():
        with pytest.raises(DataError, match=said):
            written(sink(database), query, how, mark(1))
    assert shown(database) == []
    assert leftovers(database) == []


def test_triggers_fire_in_the_load_and_can_refuse_it(database: str) -> None:
    run(
        database,
        "CREATE TABLE target (id int PRIMARY KEY, what text)",
        "CREATE TABLE log (id int, op text)",
        """CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.what = 'bad' THEN RAISE EXCEPTION 'no bad rows'; END IF;
            INSERT INTO log VALUES (NEW.id, TG_OP); RETURN NEW; END $$""",
        "CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON target FOR EACH ROW EXECUTE FUNCTION noted()",
    )
    written(sink(database), ROWS, Append(), mark(1))
    written(sink(database), MORE, Merge(("id",)), mark(2, 1))
    with pytest.raises(DataError, match="no bad rows"):
        written(sink(database), values([(4, "'x'"), (5, "'bad'")], "id what"), Append(), mark(3, 2))
    # An upsert fires the trigger for the insert that it tries first, too.
    assert shown(database, "SELECT DISTINCT * FROM log") == in_order(
        [("1", "INSERT"), ("2", "INSERT"), ("2", "UPDATE"), ("3", "INSERT")]
    )
    assert len(shown(database)) == 3


def test_a_partitioned_target_takes_rows_where_they_belong(database: str) -> None:
    run(
        database,
        "CREATE TABLE target (id int, what text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF target FOR VALUES FROM (0) TO (2)",
        "CREATE TABLE high PARTITION OF target FOR VALUES FROM (2) TO (9)",
    )
    for version, how in enumerate((*EVERY, Merge(("id",))), 1):
        written(sink(database), MORE if version == 4 else ROWS, how, mark(version, version - 1 or None))
    assert shown(database, "SELECT * FROM low") == [("1", "a")]
    assert shown(database, "SELECT * FROM high") == [("2", "B"), ("3", "c")]
    with pytest.raises(DataError, match="no partition"):
        written(sink(database), values([(99, "'x'")], "id what"), Append(), mark(5, 4))


def test_replacing_what_others_refer_to_is_an_error(database: str) -> None:
    run(
        database,
        "CREATE TABLE target (id int PRIMARY KEY, what text)",
        "INSERT INTO target VALUES (1, 'old')",
        "CREATE TABLE child (id int REFERENCES target)",
        "INSERT INTO child VALUES (1)",
    )
    with pytest.raises(DataError, match='on table "child"'):
        written(sink(database), ROWS, Replace(), mark(1))
    written(sink(database), ROWS, Merge(("id",)), mark(1))
    assert shown(database) == [("1", "a"), ("2", "b")]


KINDS = (
    "CREATE TYPE mood AS ENUM ('sad', 'happy')",
    "CREATE TYPE pair AS (n int, t text)",
    "CREATE DOMAIN cents AS numeric(12,2) CHECK (value >= 0)",
    "CREATE DOMAIN less AS cents",
    "CREATE DOMAIN word AS varchar(3)",
    "CREATE DOMAIN words AS word[]",
    "CREATE DOMAIN feeling AS mood",
    "CREATE DOMAIN span AS int4range",
)

# The type of a column, a value as text, and what becomes of it there; None: refused.
LANDING: list[tuple[str, str, str | None]] = [
    ("word", "abc", "abc"),
    ("word", "abcd", None),
    ("less", "1.50", "1.50"),
    ("less", "1.505", None),
    ("less", "-1", None),
    ("word[]", "{abc,NULL}", "{abc,NULL}"),
    ("word[]", "{abcd}", None),
    ("words", "{abc}", "{abc}"),
    ("words", "{abcd}", None),
    ("cents[]", "{1.50}", "{1.50}"),
    ("cents[]", "{1.505}", None),
    ("feeling", "sad", "sad"),
    ("feeling", "glad", None),
    ("mood[]", "{{sad,happy},{happy,NULL}}", "{{sad,happy},{happy,NULL}}"),
    ("span", "[1,4]", "[1,5)"),
    ("pair", '(1,"a b")', '(1,"a b")'),
    ("bit(3)", "101", "101"),
    ("bit(3)", "1011", None),
    ("bit(3)", "10", None),
    ("bit varying(3)", "1011", None),
    ("char(3)", "abcd", None),
    ("name", "x" * 64, None),
    ('"char"', "ab", None),
    ("money", "$1,234.50", "$1,234.50"),
    ("money", "1.5", "$1.50"),
    ("money", "1.505", None),
    ("real", "0.25", "0.25"),
    ("real", "0.123456789012", None),
    ("double precision", "0.1", "0.1"),
    ("double precision", "-Infinity", "-Infinity"),
    ("double precision", "0.12345678901234567890", None),
    ("time(0)", "10:00:00", "10:00:00"),
    ("time(0)", "10:00:00.5", None),
    ("time", "10:00:00+02", None),
    ("timetz", "10:00:00+02", "10:00:00+02"),
    ("timestamp(0)", "2024-01-01 00:00:00.5", None),
    ("interval(0)", "1.5 s", None),
    ("interval", "1.0000001 s", None),
    ("interval day", "1 day 02:00", None),
    ("oid", "-1", None),
    ("numeric", "9" * 1000 + ".5", "9" * 1000 + ".5"),
    ("numeric", "Infinity", "Infinity"),
    ("xml", "<a>", None),
    ("jsonb", '{"a": 1e400}', '{"a": 1' + "0" * 400 + "}"),
    ("jsonb", '"\\u0000"', None),
]


def test_a_text_lands_as_it_is_or_is_refused_whatever_the_column(database: str) -> None:
    run(database, *KINDS)
    for number, (kind, text, want) in enumerate(LANDING):
        run(database, f"CREATE TABLE t{number} (v {kind})")
        to, query = sink(database, f"t{number}"), f"SELECT '{text}' AS v"
        if want is None:
            with pytest.raises(DataError, match=r'"v" is'):
                written(to, query, Append(), mark(1), node=f"n{number}")
                raise AssertionError((kind, text))
        else:
            written(to, query, Append(), mark(1), node=f"n{number}")
            assert shown(database, f"SELECT * FROM t{number}") == [(want,)], kind


# ------------------------------------------------------------------------------- a server that goes down half way


@contextmanager
def staged_load(dsn: str, how: Disposition, node: str = NODE) -> Iterator[Load]:
    """A load with its rows staged, on a connection that tries three times."""
    given = PostgresSinkSettings(type="postgres", connection="shop", input="orders", table="target")
    to = given.open(connection(dsn), PLACE)
    with one_duck() as duck, to.begin(replace(target(), node=node), how, mark(1)) as load:
        assert isinstance(load, WritesRelation)
        load.write_relation(duck, ROWS)
        yield load


def until(dsn: str, condition: str) -> None:
    """Wait until a query gives a row."""
    for _ in range(400):
        if shown(dsn, condition):
            return
        time.sleep(0.02)
    raise AssertionError(f"never came true: {condition}")


BUSY = "SELECT pid FROM pg_stat_activity WHERE application_name = 'databrokkr' AND datname = current_database()"


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_a_commit_that_is_broken_off_is_tried_again(database: str, how: Disposition) -> None:
    run(database, "CREATE TABLE target (id int, what text)")
    with staged_load(database, how) as load, psycopg.connect(database) as other:
        other.execute("LOCK TABLE target")
        with ThreadPoolExecutor(1) as pool:
            receipt = pool.submit(load.commit)
            until(database, f"{BUSY} AND wait_event_type = 'Lock'")
            run(database, f"SELECT pg_terminate_backend(pid) FROM ({BUSY}) AS busy")
            other.rollback()
            assert (receipt.result().rows, receipt.result().already) == (2, False)
    assert shown(database) == [("1", "a"), ("2", "b")]
    assert leftovers(database) == []


class Loss:
    """Where the way to a server breaks, once: after a client has sent `word`, so that the reply is lost."""

    word: bytes | None = None
    happened = False


@contextmanager
def lossy(dsn: str) -> Iterator[tuple[str, Loss]]:
    """The dsn of a way to the server that can break."""
    there = urlsplit(dsn)
    loss = Loss()

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((there.hostname, there.port)) as server:
                back = threading.Thread(target=self._carry, args=(server, self.request))
                back.start()
                self._carry(self.request, server)
                back.join()

        def _carry(self, one: socket.socket, other: socket.socket) -> None:
            with suppress(OSError):
                while sent := one.recv(65536):
                    if loss.word and loss.word in sent and not loss.happened:
                        loss.happened = True
                        self.request.shutdown(socket.SHUT_RDWR)
                    other.sendall(sent)
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    with socketserver.ThreadingTCPServer((services.HOST, 0), Way) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield dsn.replace(f":{there.port}/", f":{server.server_address[1]}/"), loss
        finally:
            server.shutdown()


@pytest.mark.parametrize("how", [*EVERY, History(("id",))], ids=str)
def test_a_commit_whose_reply_is_lost_is_not_done_twice(database: str, how: Disposition) -> None:
    with lossy(database) as (way, loss), staged_load(way, how) as load:
        loss.word = b"COMMIT\0"
        receipt = load.commit()
        assert loss.happened
    assert (receipt.rows, receipt.already) == (2, False)
    assert shown(database, "SELECT id, what FROM target") == [("1", "a"), ("2", "b")]


def test_staging_that_is_broken_off_begins_anew(database: str) -> None:
    for version, word in enumerate((b"PGCOPY\n", b"COMMIT"), 1):
        written(sink(database), MORE, Replace(), mark(version, version - 1 or None))
        with lossy(database) as (way, loss):
            loss.word = word
            with staged_load(way, Append(), node=f"other/{version}") as load:
                assert loss.happened
                assert load.commit().rows == 2
        assert len(shown(database)) == 4
    assert leftovers(database) == []


def test_a_server_that_stays_down_is_unavailable_and_nothing_is_written(postgres: Postgres, database: str) -> None:
    with staged_load(database, Append()) as load:
        postgres.stop()
        with pytest.raises(Unavailable) as raised:
            load.commit()
        assert "start the server" in raised.value.mend
    postgres.start()
    assert shown(database, "SELECT to_regclass('target')") == [(None,)]


def test_a_server_that_is_restarted_in_between_is_no_matter(postgres: Postgres, database: str) -> None:
    with staged_load(database, Append()) as load:
        postgres.stop()
        postgres.start()
        assert load.commit().rows == 2
    assert shown(database) == [("1", "a"), ("2", "b")]

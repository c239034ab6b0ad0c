"""PostgreSQL, for real: no value changes on the way, no row is lost or doubled, and errors say how to mend them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql as pg

from databrokkr_assets.core.disposition import Append, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Load
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
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, staged, values, written
from tests.services import Postgres

PLACE = Place(Path("/nowhere"))


def connection(dsn: str, **more: Any) -> PostgresConnection:
    return PostgresConnection(type="postgres", url=dsn, **more)


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
        texts = pg.SQL("SELECT {} FROM ({}) AS q").format(pg.SQL(", ").join(names), pg.SQL(query))  # type: ignore[arg-type]
        return in_order(session.execute(texts).fetchall())


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
    "pair": ["(1,\"a b\")", "(,)"],
    "mood[]": ["{sad,NULL}"],
    "numeric(5,2)[]": ["{1.10,NaN}"],
    "timestamptz[]": ['{"2024-01-01 00:00:00+00"}'],
    "integer[][]": None,
}
TEXTUAL = {kind: texts for kind, texts in TEXTUAL.items() if texts}

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

"""A SQLite file that carries the rows of a load to the file that takes them over.

DuckDB's scanner fills it, twice as fast as Python's driver could; where that extension is missing, the driver does.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.engine.duckdb import load_extension
from resources.support.fitting import Place, fitted
from resources.support.sqlite_file import EXTRA
from resources.support.sqlite_types import Wire

ROWS, KEYS = "staged_rows", "staged_keys"
_AT_ONCE = 20_000


def own_types(duck: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    """The columns of a query with their DuckDB types."""
    found = duck.sql(query)
    return dict(zip(found.columns, map(str, found.types), strict=True))


def fill(
    duck: duckdb.DuckDBPyConnection, path: Path, table: str, query: str, wires: Sequence[Wire], keys: Sequence[str]
) -> None:
    """Make `table` in the file, with the rows of `query` as the wires carry them.

    Raises a duckdb.Error, which `fitting.refusals` explains, for a value that SQLite would change and for a NULL in one
    of the `keys`.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = off")
        listed = ", ".join(f"{quoted(one.name)} {one.staged}" for one in wires)
        database.execute(f"CREATE TABLE {table} ({listed})")
    rows = _carried(own_types(duck, query), query, wires, keys)
    try:
        load_extension(duck, "sqlite_scanner", extra=EXTRA)
    except SpecError:
        _insert(duck, path, table, rows, len(wires))
        return
    alias = f"databrokkr_stage_{secrets.token_hex(4)}"
    duck.execute(f"ATTACH {literal(str(path))} AS {alias} (TYPE sqlite)")
    try:
        duck.execute(f"INSERT INTO {alias}.{table} {rows}")
    finally:
        duck.execute(f"DETACH {alias}")


def _carried(own: Mapping[str, str], query: str, wires: Sequence[Wire], keys: Sequence[str]) -> str:
    folded = {key.casefold() for key in keys}
    fit = fitted(own, [Place(one.name, one.own, required=one.name.casefold() in folded) for one in wires])
    return f"SELECT {', '.join(one.value for one in wires)} FROM (SELECT {fit} FROM ({query}))"


def _insert(duck: duckdb.DuckDBPyConnection, path: Path, table: str, rows: str, width: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = off")
        database.execute("BEGIN")
        for some in _fetched(duck.execute(rows)):
            database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", some)
        database.execute("COMMIT")


def _fetched(found: duckdb.DuckDBPyConnection) -> Iterator[Iterator[tuple[object, ...]]]:
    for records in found.to_arrow_reader(_AT_ONCE):
        yield zip(*(column.to_pylist() for column in records.columns), strict=True)

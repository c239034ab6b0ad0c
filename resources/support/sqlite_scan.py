"""Reading a table through DuckDB's own scanner, where it changes no value.

The scanner is twice as fast as Python's driver, but drops the offset of a timestamp, the time of a DATE and digits of
an integer in a NUMERIC column, takes a number for a blob, leaves out generated columns, and ends the load at a value
that is not of its column's type. So the table is surveyed first, by SQLite itself: it is scanned only when each value
is stored as the scanner reads it right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import duckdb

from databrokkr_assets.core.names import quoted
from resources.support.sqlite_rows import Reading
from resources.support.sqlite_types import EXACT_DIGITS, decimal_digits

_TIME = "substr({c}, 1, 19) = datetime({c}) AND (length({c}) = 19 OR {fraction})"
_FRACTION = "substr({c}, 20, 1) = '.' AND length({c}) BETWEEN 21 AND 26 AND substr({c}, 21) NOT GLOB '*[^0-9]*'"
_STORED = {
    "BIGINT": ("BIGINT", "typeof({c}) = 'integer'"),
    "BOOLEAN": ("BIGINT", "typeof({c}) = 'integer' AND {c} IN (0, 1)"),
    "DOUBLE": (
        "DOUBLE",
        f"typeof({{c}}) = 'real' OR typeof({{c}}) = 'integer' AND {{c}} BETWEEN -{1 << 53} AND {1 << 53}",
    ),
    "VARCHAR": ("VARCHAR", "typeof({c}) = 'text'"),
    "BLOB": ("BLOB", "typeof({c}) = 'blob'"),
    "DATE": ("DATE", "typeof({c}) = 'text' AND {c} = date({c})"),
    "TIMESTAMP": ("TIMESTAMP", f"typeof({{c}}) = 'text' AND {_TIME.replace('{fraction}', _FRACTION)}"),
}
"""By kind: the type in which the scanner gives the column, and the values that it gives right, as SQL of SQLite."""

_CHANGED = ("Mismatch Type Error", "Failure in decode", "Unimplemented SQLite type", "Conversion Error")


def _stored(one: Reading) -> tuple[str, str] | None:
    digits = decimal_digits(one.own)
    if digits and digits[0] <= EXACT_DIGITS:
        whole = 10 ** (digits[0] - digits[1])
        rounded = f"{{c}} = CAST(printf('%.{digits[1]}f', {{c}}) AS REAL)"
        return "DOUBLE", f"typeof({{c}}) IN ('integer', 'real') AND {{c}} > -{whole} AND {{c}} < {whole} AND {rounded}"
    return None if one.any_type else _STORED.get(one.own)


def scannable(duck: duckdb.DuckDBPyConnection, alias: str, table: str, found: Sequence[Reading]) -> bool:
    """Whether the scanner gives each column in the type that is wanted of it."""
    rows = duck.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND lower(table_name) = lower(?)",
        [alias, table],
    ).fetchall()
    given = dict(rows)
    # The scanner asks for ranges of `rowid`, and takes a column of this name for it.
    if any(name.casefold() == "rowid" for name in given):
        return False
    wanted = {one.name: _stored(one) for one in found}
    return all(stored is not None and given.get(name) == stored[0] for name, stored in wanted.items())


def has_misfits(database: sqlite3.Connection, table: str, found: Sequence[Reading]) -> bool:
    """Whether a value of the table is stored in another way than the scanner reads it right."""
    tests = []
    for one in found:
        stored = _stored(one)
        column = quoted(one.name)
        if stored is None:
            return True
        tests.append(f"{column} IS NOT NULL AND NOT coalesce({stored[1].replace('{c}', column)}, false)")
    query = f"SELECT 1 FROM {quoted(table)} WHERE {' OR '.join(f'({test})' for test in tests)} LIMIT 1"
    return database.execute(query).fetchone() is not None


def scan(alias: str, table: str, found: Sequence[Reading]) -> str:
    """The rows of the table as a query of DuckDB, in one snapshot when scans use one thread.

    A text that is not UTF-8 raises: nothing else would notice it before it stands in a file.
    """
    listed = ", ".join(
        f"decode(encode({quoted(one.name)})) AS {quoted(one.name)}" if one.own == "VARCHAR" else one.local
        for one in found
    )
    return f"SELECT {listed} FROM {alias}.{quoted(table)}"


def is_misfit(error: Exception) -> bool:
    """Whether the scanner ended at a value that it could not read."""
    return any(words in str(error) for words in _CHANGED)

"""The types in which columns of SQLite arrive: as declared or, where that tells nothing, as their values are."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence

from databrokkr_assets.core.names import quoted
from resources.support.sqlite_file import Column
from resources.support.sqlite_rows import EXACT_INTEGERS, Reading
from resources.support.sqlite_types import ANY, kind

_AT_ONCE = 200
_ASSIGNED = {"NUM", "BLOB"}
"""What SQLite declares for an expression that may give anything."""


def readings(
    database: sqlite3.Connection, rows: str, chosen: Sequence[Column], as_text: Collection[str], *, computed: bool
) -> tuple[Reading, ...]:
    """How to read the columns of `rows`, a table or query as SQL; those of a query may be `computed`.

    Columns without a telling type cost one look at all rows.
    """
    kinds = {one.name: ANY if computed and one.declared in _ASSIGNED else kind(one.declared) for one in chosen}
    untold = [name for name, own in kinds.items() if own == ANY and name not in as_text]
    held = {name: own for some in _parts(untold) for name, own in _held(database, rows, some).items()}
    return tuple(
        Reading(one.name, one.declared, "VARCHAR", any_type=True)
        if one.name in as_text or held.get(one.name, "") is None
        else Reading(one.name, one.declared, held.get(one.name) or kinds[one.name])
        for one in chosen
    )


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _held(database: sqlite3.Connection, rows: str, names: Sequence[str]) -> dict[str, str | None]:
    """By name the type that all values of a column have; `None` when they have several."""
    tests = []
    for column in map(quoted, names):
        tests += [f"max(typeof({column}) = '{stored}')" for stored in ("integer", "real", "text", "blob")]
        tests.append(
            f"max(typeof({column}) = 'integer' AND {column} NOT BETWEEN -{EXACT_INTEGERS} AND {EXACT_INTEGERS})"
        )
    found = database.execute(f"SELECT {', '.join(tests)} FROM {rows}").fetchone()
    return {name: _common(*found[5 * at : 5 * at + 5]) for at, name in enumerate(names)}


def _common(integer: int, real: int, text: int, blob: int, large: int) -> str | None:
    match bool(integer), bool(real), bool(text), bool(blob):
        case True, False, False, False:
            return "BIGINT"
        case _, True, False, False if not large:
            return "DOUBLE"
        case False, False, _, False:
            return "VARCHAR"
        case False, False, False, True:
            return "BLOB"
        case _:
            return None

"""Rows into a table that is there: each value in the table's type, or an error that names the column and the value.

The check is part of the query that writes the rows, so they are read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.names import literal, quoted

_MARK = "databrokkr refuses: "


@dataclass(frozen=True)
class Place:
    """A column of the target: its name there, its SQL type, and whether it takes NULL."""

    name: str
    type: str
    required: bool = False


def fitted(own: Mapping[str, str], places: Iterable[Place]) -> str:
    """The select list that gives the columns `own` (name to SQL type) the types of their places.

    Columns are matched without regard to case; places that no column fills are left out. Running the query raises a
    duckdb.Error for a value that would change, or a NULL that is not taken: `refusals` turns it into a DataError.
    """
    by_name = {name.casefold(): (name, kind) for name, kind in own.items()}
    known = [(*by_name[place.name.casefold()], place) for place in places if place.name.casefold() in by_name]
    return ", ".join(f"{_carried(name, kind, place)} AS {quoted(place.name)}" for name, kind, place in known)


def _carried(name: str, kind: str, place: Place) -> str:
    column = quoted(name)
    value = column if kind == place.type else _cast(name, kind, place.type)
    if not place.required:
        return value
    refusal = literal(f'{_MARK}the column "{place.name}" takes no NULL, and some rows have none in it')
    return f"CASE WHEN {column} IS NULL THEN error({refusal}) ELSE {value} END"


def _cast(name: str, before: str, after: str) -> str:
    column = quoted(name)
    cast = f"TRY_CAST({column} AS {after})"
    bent = f"{column} IS NOT NULL AND TRY_CAST({cast} AS {before}) IS DISTINCT FROM {column}"
    refusal = literal(f'{_MARK}the column "{name}" is {after}, which would change the value ')
    return f"CASE WHEN {bent} THEN error({refusal} || left(CAST({column} AS VARCHAR), 100)) ELSE {cast} END"


def refused_value(name: str, condition: str, why: str) -> str:
    """A column as it is, but that rows which meet `condition` are refused because of `why`."""
    refusal = literal(f'{_MARK}the column "{name}" {why}')
    return f"CASE WHEN {condition} THEN error({refusal}) ELSE {quoted(name)} END"


@contextmanager
def refusals(target: str) -> Iterator[None]:
    """Within the block, a value that does not fit raises DataError, which names the target."""
    try:
        yield
    except duckdb.Error as error:
        _, found, what = str(error).partition(_MARK)
        if not found:
            raise
        mend = "give the table's column a wider type, or clean the values in a transform"
        raise DataError(what.splitlines()[0], mend=mend, where=target) from error

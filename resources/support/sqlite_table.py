"""The table of a SQLite file that a sink writes: how it takes the rows, and what it lacks for them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import columns, literal, quoted
from resources.support.sqlite_file import Column
from resources.support.sqlite_types import ANY, Wire, declaration, kind

_MOMENT = "TIMESTAMP WITH TIME ZONE"


@dataclass(frozen=True)
class SqliteTable:
    """A table, and the columns that it has; none before it is made. Names are found without regard to case."""

    name: str
    present: tuple[Column, ...]

    @property
    def sql(self) -> str:
        """The table as SQL names it."""
        return f"main.{quoted(self.name)}"

    def wires(self, own: Mapping[str, str]) -> list[Wire]:
        """How columns of DuckDB types go into the table, those that it lacks included."""
        there = {one.name.casefold(): one for one in self.present}
        found = [(name, kind_, there.get(name.casefold())) for name, kind_ in own.items()]
        return [
            Wire(column.name, kind_ if kind(column.declared) == ANY else kind(column.declared), column.declared)
            if column
            else Wire(name, kind_, declaration(kind_))
            for name, kind_, column in found
        ]

    def missing(self, wires: Iterable[Wire], how: Disposition, *, create: bool) -> list[Column]:
        """The columns that the table lacks.

        Raises SpecError when there are some and `create` is false, or for columns of a history that are others.
        """
        there = {one.name.casefold(): one for one in self.present}
        history = [Column(VALID_FROM, "TIMESTAMPTZ"), Column(VALID_TO, "TIMESTAMPTZ")]
        wanted = [Column(one.name, one.declared) for one in wires] + (history if isinstance(how, History) else [])
        for one in history if isinstance(how, History) else ():
            other = there.get(one.name)
            if other and kind(other.declared) != _MOMENT:
                what = f'the column "{one.name}" is declared {other.declared}, but a history needs TIMESTAMPTZ'
                raise SpecError(what, mend="rename it, or write the history to another table", where=self.name)
        lacking = [one for one in wanted if one.name.casefold() not in there]
        if lacking and not create:
            what = f"has no column {columns([one.name for one in lacking])}" if there else "does not exist"
            raise SpecError(f"{self.name} {what}", mend="create it, or set `create: true`", where=self.name)
        return lacking

    def add(self, database: sqlite3.Connection, lacking: Sequence[Column], how: Disposition) -> None:
        """Make the table, or add columns to it, and the index by which a history finds what is current."""
        listed = [f"{quoted(one.name)} {one.declared}" for one in lacking]
        if listed and not self.present:
            database.execute(f"CREATE TABLE {self.sql} ({', '.join(listed)})")
        elif listed:
            for one in listed:
                database.execute(f"ALTER TABLE {self.sql} ADD COLUMN {one}")
        if isinstance(how, History):
            token = hashlib.md5(repr((self.name, how.keys)).encode()).hexdigest()[:12]
            database.execute(
                f"CREATE INDEX IF NOT EXISTS main._databrokkr_key_{token} ON {quoted(self.name)} ({columns(how.keys)}) "
                f"WHERE {quoted(VALID_TO)} IS NULL"
            )


def moment(at: datetime) -> str:
    """A moment as SQL, in the form in which a TIMESTAMPTZ is stored."""
    return literal(f"{at.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S.%f')}+00")


def same(left: Sequence[str], right: Sequence[str]) -> str:
    """The condition that two lists of columns hold the same values, byte by byte."""
    return " AND ".join(f"{one} IS {other} COLLATE BINARY" for one, other in zip(left, right, strict=True)) or "true"

"""Scans CSV files as text: what type each column has, and whether a declared type would change a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from databrokkr_assets.core.names import literal, quoted
from resources.support.csv_records import Dialect
from resources.support.csv_salvage import Salvaged
from resources.support.csv_types import INTEGER, NUMBERS, TEXT, Shapes, digits, holds, kinds
from resources.support.found_files import FoundFile

_FILE = "__file"
_SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class CsvFile:
    """One file, ready for DuckDB. `plain` is in its own encoding, `path` is what DuckDB reads."""

    file: FoundFile
    plain: Path
    path: Path
    names: tuple[str, ...]
    dialect: Dialect
    header: bool
    salvaged: Salvaged | None = None

    @property
    def kin(self) -> tuple[object, ...]:
        """Files with the same can be read by one scan."""
        return self.names, self.dialect, self.salvaged is None


def texts(kin: list[CsvFile]) -> str:
    """SQL: the fields of kindred files as texts `c0`, `c1` …"""
    if kin[0].salvaged:
        return f"read_parquet({_paths(kin)}, filename={literal(_FILE)}, hive_partitioning=false)"
    return typed(kin, ["VARCHAR"] * len(kin[0].names))


def typed(kin: list[CsvFile], types: list[str]) -> str:
    """SQL: the same in types. DuckDB's strict reader is told everything, so that it guesses nothing."""
    dialect = kin[0].dialect
    columns = ", ".join(f"'c{index}': {literal(kind)}" for index, kind in enumerate(types))
    quote = literal(dialect.quote)
    return (
        f"read_csv({_paths(kin)}, auto_detect=false, strict_mode=true, header={kin[0].header}, "
        f"delim={literal(dialect.delimiter)}, quote={quote}, escape={quote}, "
        f"nullstr=[{', '.join(map(literal, sorted(dialect.nulls)))}], allow_quoted_nulls={dialect.quoted_nulls}, "
        f"columns={{{columns}}}, filename={literal(_FILE)}, hive_partitioning=false)"
    )


def _paths(kin: Iterable[CsvFile]) -> str:
    return f"[{', '.join(literal(str(part.path)) for part in kin)}]"


@dataclass(frozen=True)
class Survey:
    """What a scan found in a file: rows, shapes of inferred columns, rows that a declared type would change."""

    rows: int = 0
    misfits: int = 0
    shapes: Mapping[str, Shapes] = field(default_factory=dict)


class Surveyor:
    """Scans files. Columns are called by their folded names; `declared` holds the types that need no finding."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, declared: Mapping[str, str]) -> None:
        self._duck, self._declared = duck, declared
        self._ahead: Mapping[str, Shapes] = {}

    def look_ahead(self, part: CsvFile) -> None:
        """Look at the first rows, so that the long scans need not: what is text there is text."""
        try:
            self._ahead = self.scan([part], f"LIMIT {_SAMPLE_ROWS}")[0].shapes
        except duckdb.Error:
            self._ahead = {}

    def measured(self, families: list[list[CsvFile]], shapes: Mapping[str, Shapes]) -> dict[str, Shapes]:
        """The shapes with the digits of those columns that turned out to be numbers in the scan only."""
        unknown = {name for name, shape in shapes.items() if shape.needs_digits and not self._measures(name)}
        found = dict(shapes)
        for kin in families:
            names = [name for name in _folded(kin[0]) if name in unknown]
            if names:
                query = ", ".join(f"{', '.join(digits(_place(kin[0], name)))}" for name in names)
                row = self._duck.execute(f"SELECT {query} FROM {texts(kin)}").fetchone() or ()
                for name, sizes in zip(names, _in(3, row), strict=True):
                    found[name] |= Shapes(0, *(size or 0 for size in sizes))
        return found

    def all_hold(self, part: CsvFile) -> str:
        """SQL: whether a row fits all declared types."""
        return " AND ".join(f"({hold})" for _, hold in self.misfits(part)) or "true"

    def misfits(self, part: CsvFile) -> Iterator[tuple[str, str]]:
        """SQL, for each declared column: the reason of a misfit, and whether the value fits."""
        for index, name in enumerate(part.names):
            kind = self._declared.get(name.casefold(), "VARCHAR")
            if kind != "VARCHAR":
                column = literal(f"column {quoted(name)}: ")
                reason = f"concat({column}, '\"', left(c{index}, 200), '\" does not fit {kind} exactly')"
                yield reason, holds(f"c{index}", kind)

    def scan(self, kin: list[CsvFile], rows: str = "") -> list[Survey]:
        """One survey a file. Raises duckdb.Error when a file breaks the grammar."""
        names = [name for name in _folded(kin[0]) if self._is_open(name)]
        aggregates = [f"count(*) FILTER (NOT ({self.all_hold(kin[0])}))"]
        for name in names:
            aggregates += self._aggregates(name, _place(kin[0], name))
        query = f"SELECT {_FILE}, count(*), {', '.join(aggregates)} FROM (FROM {texts(kin)} {rows}) GROUP BY {_FILE}"
        found = {path: _survey(names, *numbers) for path, *numbers in self._duck.execute(query).fetchall()}
        return [found.get(str(part.path), Survey()) for part in kin]

    def _aggregates(self, name: str, text: str) -> list[str]:
        """Digits cost as much as the kinds, so they are counted only where the first rows show numbers with a point."""
        likely = self._ahead.get(name, Shapes()).kinds
        return [kinds(text, likely), *(digits(text) if self._measures(name) else ["0", "0", "0"])]

    def _measures(self, name: str) -> bool:
        return bool(self._ahead.get(name, Shapes()).kinds & NUMBERS & ~INTEGER)

    def _is_open(self, name: str) -> bool:
        return name not in self._declared and not self._ahead.get(name, Shapes()).kinds & TEXT


def _folded(part: CsvFile) -> list[str]:
    return [name.casefold() for name in part.names]


def _place(part: CsvFile, name: str) -> str:
    return f"c{_folded(part).index(name)}"


def _survey(names: list[str], rows: int, misfits: int, *numbers: int | None) -> Survey:
    shapes = (Shapes(*(number or 0 for number in some)) for some in _in(4, numbers))
    return Survey(rows, misfits, dict(zip(names, shapes, strict=True)))


def _in(size: int, numbers: Sequence[int | None]) -> Iterator[Sequence[int | None]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))

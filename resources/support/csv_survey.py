"""Scans CSV files as text: what type each column has, and whether a declared type would change a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from databrokkr_assets.core.names import literal, quoted
from resources.support.csv_layout import Layout
from resources.support.csv_records import BOM, Dialect, Fields
from resources.support.csv_salvage import Judge
from resources.support.csv_types import INTEGER, NUMBERS, TEXT, Shapes, digits, holds, kinds
from resources.support.found_files import FoundFile
from resources.support.line_numbers import Grammar, LineNumbers
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import LIMIT, decoded, end_of_lines

_FILE = "__file"
_SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class CsvFile:
    """One file, ready for DuckDB. `plain` is in its own encoding, `path` is what DuckDB reads.

    `header` tells whether `path` begins with one. A salvaged file has its rejects. `numbers` are the lines of the rows,
    where rows are to tell them.
    """

    file: FoundFile
    plain: Path
    path: Path
    encoding: str
    names: tuple[str, ...]
    dialect: Dialect
    layout: Layout
    header: bool
    rejects: RejectSpool | None = None
    numbers: LineNumbers | None = None

    @property
    def kin(self) -> tuple[object, ...]:
        """Files with the same can be read by one scan."""
        return self.names, self.dialect, self.header, self.rejects is None

    @property
    def grammar(self) -> Grammar:
        """How its records are told."""
        end, dialect = next(map(end_of_lines, decoded(self.path, "utf-8")))[-1:] or "\n", self.dialect
        alone = len(self.names) == 1
        return Grammar(end, dialect.quote, dialect.escape, dialect.delimiter, keeps_empty=alone)


def texts(kin: list[CsvFile]) -> str:
    """SQL: the fields of kindred files as texts `c0`, `c1` …"""
    return typed(kin, ["VARCHAR"] * len(kin[0].names))


def typed(kin: list[CsvFile], types: list[str]) -> str:
    """SQL: the same in types. DuckDB's strict reader is told everything, so that it guesses nothing."""
    dialect = kin[0].dialect
    columns = ", ".join(f"'c{index}': {literal(kind)}" for index, kind in enumerate(types))
    quote, escape = dialect.quote, dialect.quote and (dialect.escape or dialect.quote)
    return (
        f"read_csv([{', '.join(literal(str(part.path)) for part in kin)}], auto_detect=false, strict_mode=true, "
        f"header={kin[0].header}, delim={literal(dialect.delimiter)}, quote={literal(quote)}, "
        f"escape={literal(escape)}, "
        f"nullstr=[{', '.join(map(literal, sorted(dialect.nulls)))}], allow_quoted_nulls={dialect.quoted_nulls}, "
        f"columns={{{columns}}}, max_line_size={LIMIT}, buffer_size={4 * LIMIT}, "
        f"filename={literal(_FILE)}, hive_partitioning=false)"
    )


@dataclass(frozen=True)
class Survey:
    """What a scan found in a file: rows, those that cannot be taken as they are, shapes of inferred columns."""

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

    def judge(self, part: CsvFile, head: bytes, scratch: Path) -> Judge:
        """What DuckDB says of blocks of the file, each of which is written to `scratch` below the line `head`."""
        block = replace(part, path=scratch, header=True)
        reasons = [f"CASE WHEN NOT ({hold}) THEN {reason} END" for reason, hold in self._misfits(part)]

        def good_rows(data: bytes) -> int:
            scratch.write_bytes(head + data)
            try:
                (survey,) = self.scan([block], shapes=False)
            except duckdb.Error:
                return 0
            return 0 if survey.misfits else survey.rows

        def misfits(rows: list[Fields]) -> dict[int, str]:
            if not reasons:
                return {}
            columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
            table = pa.table([*columns, range(len(rows))], [*(f"c{index}" for index in range(len(columns))), "place"])
            found = self._duck.from_arrow(table).query(
                "rows",
                f"SELECT place, concat_ws('; ', {', '.join(reasons)}) FROM rows WHERE NOT ({self._all_hold(part)})",
            )
            return dict(found.fetchall())

        return Judge(good_rows, misfits)

    def _all_hold(self, part: CsvFile) -> str:
        """SQL: whether a row fits all declared types."""
        return " AND ".join(f"({hold})" for _, hold in self._misfits(part)) or "true"

    def _misfits(self, part: CsvFile) -> Iterator[tuple[str, str]]:
        """SQL, for each declared column: the reason of a misfit, and whether the value fits."""
        for index, name in enumerate(part.names):
            kind = self._declared.get(name.casefold(), "VARCHAR")
            if kind != "VARCHAR":
                column = literal(f"column {quoted(name)}: ")
                reason = f"concat({column}, '\"', left(c{index}, 200), '\" does not fit {kind} exactly')"
                yield reason, holds(f"c{index}", kind)

    def scan(self, kin: list[CsvFile], rows: str = "", *, shapes: bool = True) -> list[Survey]:
        """One survey a file. Raises duckdb.Error when a file breaks the grammar."""
        names = [name for name in _folded(kin[0]) if shapes and self._is_open(name)]
        # every field is counted, because DuckDB does not decode the fields that nobody asks for
        touched = " + ".join(f"count(c{index})" for index in range(len(kin[0].names)))
        odd = " OR ".join([f"NOT ({self._all_hold(kin[0])})", *_oddities(kin[0])])
        aggregates = [touched, f"count(*) FILTER ({odd})"]
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


def _oddities(part: CsvFile) -> Iterator[str]:
    """SQL: whether a record may not be what DuckDB takes it for.

    A mark at the beginning of a line is that of a file that was appended; DuckDB knows escapes within quotes only.
    """
    yield f"coalesce(starts_with(c0, {literal(BOM)}), false)"
    if escape := part.dialect.escape:
        for index in range(len(part.names)):
            yield f"coalesce(contains(c{index}, {literal(escape)}), false)"


def _folded(part: CsvFile) -> list[str]:
    return [name.casefold() for name in part.names]


def _place(part: CsvFile, name: str) -> str:
    return f"c{_folded(part).index(name)}"


def _survey(names: list[str], rows: int, touched: int, misfits: int, *numbers: int | None) -> Survey:
    shapes = (Shapes(*(number or 0 for number in some)) for some in _in(4, numbers))
    return Survey(rows, misfits, dict(zip(names, shapes, strict=True)))


def _in(size: int, numbers: Sequence[int | None]) -> Iterator[Sequence[int | None]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))

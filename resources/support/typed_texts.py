"""Tables of texts, out of formats that know no types, as a DuckDB query with types that change no value.

A column gets the type that is declared for it, or else the narrowest that all its texts are written in, as in CSV.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Reject, RelationRead
from resources.support.csv_types import Shapes, digits, holds, kinds
from resources.support.file_formats import Reading
from resources.support.provenance import told
from resources.support.reject_spool import RejectSpool

POSITION = "__databrokkr_position"
"""The column with the number of each row's line or row in its file."""

WIDER = {frozenset({"BIGINT", "DOUBLE"}): "DOUBLE", frozenset({"DATE", "TIMESTAMP"}): "TIMESTAMP"}
"""The type that holds the values of two."""


@dataclass(frozen=True)
class TextTable:
    """A Parquet file of texts with their `POSITION`, for the file, or part of one, that errors call `key`.

    `types` are those of columns whose format knows them, `None` for one without values. `rejects` are the rows that
    were set aside when it was made.
    """

    key: str
    path: Path
    names: tuple[str, ...]
    rejects: RejectSpool
    types: Mapping[str, str | None] = field(default_factory=dict)


@dataclass
class _Column:
    """A column of all tables, by its first spelling."""

    name: str
    declared: str | None
    known: set[str] = field(default_factory=set)
    shapes: Shapes = field(default_factory=Shapes)
    is_text: bool = False

    @property
    def sql_type(self) -> str:
        if self.declared:
            return self.declared
        if self.is_text:
            return "VARCHAR" if self.known else self.shapes.sql_type
        return next(iter(self.known)) if len(self.known) == 1 else WIDER.get(frozenset(self.known), "VARCHAR")


class TypedTexts:
    """The tables of one load, whose misfits are rejected as `rule`.type."""

    def __init__(self, reading: Reading, tables: Sequence[TextTable], rule: str) -> None:
        self._duck, self._work, self._tables, self._rule = reading.duck, reading.work, tables, rule
        self._provenance = reading.provenance
        self._columns = _union(tables, reading.settings.columns)
        if reading.first:
            _refuse_unknown(reading.settings.columns, self._columns)

    def relation(self) -> RelationRead | None:
        """The rows of the tables, in their order; `None` when there is no column.

        Raises SpecError for a declared column that no table has when nothing was read before.
        """
        if not self._columns:
            return None
        self._find_shapes()
        values = ", ".join(
            f"TRY_CAST({quoted(column.name)} AS {column.sql_type}) AS {quoted(column.name)}"
            for column in self._columns.values()
        )
        query = f"SELECT {values}{self._told()} FROM {_reader(self._tables)} WHERE {_all_hold(self._declared)}"
        return RelationRead(query, rejects=lambda: chain.from_iterable(self._spools()))

    def _told(self) -> str:
        if not self._provenance:
            return ""
        keys, names = [table.key for table in self._tables], [column.name for column in self._columns.values()]
        return f", {told(names, keys, quoted(POSITION))}"

    @property
    def _declared(self) -> list[_Column]:
        return [column for column in self._columns.values() if column.declared not in (None, "VARCHAR")]

    def _find_shapes(self) -> None:
        """Find what the texts of columns without a type look like: two scans, the second over numbers only."""
        open_ones = [column for column in self._columns.values() if column.is_text and not column.declared]
        if not open_ones:
            return
        found = self._aggregated([kinds(quoted(column.name)) for column in open_ones])
        for column, seen in zip(open_ones, found, strict=True):
            column.shapes = Shapes(seen or 0)
        numbers = [column for column in open_ones if column.shapes.needs_digits]
        if numbers:
            sizes = iter(self._aggregated([one for column in numbers for one in digits(quoted(column.name))]))
            for column, *three in zip(numbers, sizes, sizes, sizes, strict=True):
                column.shapes |= Shapes(0, *(size or 0 for size in three))

    def _aggregated(self, aggregates: list[str]) -> list[int | None]:
        row = self._duck.execute(f"SELECT {', '.join(aggregates)} FROM {_reader(self._tables)}").fetchone()
        return list(row or ())

    def _spools(self) -> Iterator[RejectSpool]:
        for table in self._tables:
            yield table.rejects
            yield self._misfits(table)

    def _misfits(self, table: TextTable) -> RejectSpool:
        """The rows with a value that does not fit its declared type, as JSON."""
        spool = RejectSpool(self._work.new(".rejects"))
        names = {name.casefold() for name in table.names}
        declared = [column for column in self._declared if column.name.casefold() in names]
        if declared:
            payload = ", ".join(f"{quoted(name)} := {quoted(name)}" for name in table.names)
            found = self._duck.execute(
                f"SELECT {quoted(POSITION)}, concat_ws('; ', {', '.join(map(_misfit, declared))}), "
                f"to_json(struct_pack({payload}))::VARCHAR FROM {_reader([table])} "
                f"WHERE NOT ({_all_hold(declared)}) ORDER BY 1"
            )
            while row := found.fetchone():
                spool.add(Reject(row[1], f"{self._rule}.type", f"{table.key}:{row[0]}", row[2]))
        spool.close()
        return spool


def _union(tables: Sequence[TextTable], declared: Mapping[str, str]) -> dict[str, _Column]:
    """The columns of all tables by their folded names, in the order and spelling of their first appearance."""
    types = {name.casefold(): kind for name, kind in declared.items()}
    columns: dict[str, _Column] = {}
    for table in tables:
        for name in table.names:
            column = columns.setdefault(name.casefold(), _Column(name, types.get(name.casefold())))
            if name not in table.types:
                column.is_text = True
            elif kind := table.types[name]:
                column.known.add(kind)
    return columns


def _refuse_unknown(declared: Mapping[str, str], columns: Mapping[str, _Column]) -> None:
    for name in declared:
        if name.casefold() not in columns:
            what = f'the column "{name}" is declared, but no file has it'
            raise SpecError(what, mend=did_you_mean(name, [column.name for column in columns.values()]))


def _all_hold(columns: Sequence[_Column]) -> str:
    """SQL: whether a row fits all declared types."""
    tests = (f"({holds(quoted(column.name), column.sql_type)})" for column in columns)
    return " AND ".join(tests) or "true"


def _misfit(column: _Column) -> str:
    """SQL: why a row does not fit a declared type, else NULL."""
    name, kind = quoted(column.name), column.sql_type
    reason = f"concat({literal(f'column {name}: ')}, '\"', left({name}, 200), '\" does not fit {kind} exactly')"
    return f"CASE WHEN NOT ({holds(name, kind)}) THEN {reason} END"


def _reader(tables: Sequence[TextTable]) -> str:
    listed = ", ".join(literal(str(table.path)) for table in tables)
    return f"read_parquet([{listed}], union_by_name=true, hive_partitioning=false)"

"""Naming: identifiers of every kind are quoted right and never injected."""

from __future__ import annotations

import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import Append, Disposition
from databrokkr_assets.core.errors import DatabrokkrError

from .bench import Bench, mark, read, written
from .case import Reads, Writes
from .theme import Theme, needs
from .values import table, told

VICTIM = "victim"

NAMES = (
    "two words",
    'dou"ble',
    "sin'gle",
    "back`tick",
    "select",
    "Mixed",
    "dot.ted",
    "per%s cent",
    "br[ack]et{0}",
    "$1:x ?",
    "ünï",
    "🎉",
    f'"; DROP TABLE {VICTIM}; --',
    f"'; DROP TABLE {VICTIM}; --",
)
"""What people and adversaries call columns and tables; none has a slash, which no file's name can have."""


class Naming(Theme):
    """Names of tables and columns."""

    title = "Names"

    @needs(Writes)
    def test_columns_of_any_name_are_written(self, bench: Bench, how: Disposition) -> None:
        """Columns called by spaces, quotes, keywords, SQL, emoji or at greatest length are written as they are."""
        rows = _wide(bench)
        bench.case.put(VICTIM, table(id=[1]))
        written(bench.sink("orders", how), rows, how, mark(1))
        written(bench.sink("orders", how), rows, how, mark(2, after=1))
        got = [{name: row[name] for name in rows.column_names} for row in bench.case.get("orders")]
        assert told(got) == told([*rows.to_pylist()] * (2 if isinstance(how, Append) else 1))
        assert len(bench.case.get(VICTIM)) == 1

    @needs(Reads)
    @pytest.mark.parametrize("by_batches", [False, True], ids=["fast", "batches"])
    def test_columns_of_any_name_are_read(self, bench: Bench, by_batches: bool) -> None:
        """Such columns are read as they are."""
        rows = _wide(bench)
        bench.case.put("orders", rows)
        bench.case.put(VICTIM, table(id=[1]))
        got, _ = read(bench.source("orders"), by_batches=by_batches)
        assert got.column_names == rows.column_names
        assert told(got) == told(rows)
        assert len(bench.case.get(VICTIM)) == 1

    @needs(Reads)
    def test_keys_of_any_name(self, bench: Bench) -> None:
        """Such columns are keys of a merge in a pipeline."""
        rows = _wide(bench).slice(0, 1)
        bench.case.put("orders", rows)
        bench.case.put(VICTIM, table(id=[1]))
        for _ in range(2):
            bench.load("orders", disposition="merge", keys=rows.column_names)
            assert told(bench.stored()) == told(rows)
        assert len(bench.case.get(VICTIM)) == 1

    @needs(Reads)
    def test_tables_of_any_name_are_read(self, bench: Bench) -> None:
        """Tables or files of such names are read, and no other."""
        bench.case.put(VICTIM, table(id=[1]))
        for number, name in enumerate(_names(bench, of_tables=True)):
            bench.case.put(name, table(id=[number]))
            got, _ = read(bench.source(name))
            assert got.column("id").to_pylist() == [number], name
        assert len(bench.case.get(VICTIM)) == 1

    @needs(Writes)
    def test_tables_of_any_name_are_written(self, bench: Bench) -> None:
        """Tables or files of such names are written, and no other."""
        bench.case.put(VICTIM, table(id=[1]))
        for number, name in enumerate(_names(bench, of_tables=True)):
            written(bench.sink(name, Append()), table(id=[number]), Append(), mark(1), node=f"contract/{number}")
            assert [row["id"] for row in bench.case.get(name)] == [number], name
        assert len(bench.case.get(VICTIM)) == 1

    @needs(Writes)
    def test_a_name_that_cannot_be_is_refused(self, bench: Bench) -> None:
        """A name that is too long for the system, or that it cannot have, is refused, never cut or changed."""
        longer = "n" * (bench.case.longest_name + 1)
        for number, names in enumerate([[longer, longer + "m"], *([name] for name in bench.case.unnameable)]):
            rows = pa.table({"id": [1], **{name: ["a"] for name in names}})
            to = f"orders_{number}"
            try:
                written(bench.sink(to, Append()), rows, Append(), mark(1), node=to)
            except DatabrokkrError as error:
                assert error.mend
                assert bench.case.get(to) == []
            else:
                assert told(bench.case.get(to)) == told(rows)


def _names(bench: Bench, *, of_tables: bool = False) -> list[str]:
    left_out = bench.case.unnameable | (bench.case.no_table if of_tables else frozenset())
    return [*(name for name in NAMES if name not in left_out), "n" * bench.case.longest_name]


def _wide(bench: Bench) -> pa.Table:
    """Rows with a column of each name."""
    return pa.table({"id": [1, 2], **{name: [name, None] for name in _names(bench)}})

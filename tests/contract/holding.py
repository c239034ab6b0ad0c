"""Holding: values of every type come back as they were, and memory does not grow with the rows."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.disposition import Append, Replace
from databrokkr_assets.core.errors import DataError

from .bench import Bench, mark, read, written
from .case import HoldsTypes, Reads, Writes
from .child import Run, run_in_child
from .theme import Theme, needs
from .values import TYPES, of_type, table, told

MEMORY = "64MB"
"""What DuckDB may use, so that what is moved is more."""

EXAMPLES = settings(
    max_examples=6,
    phases=[Phase.generate],  # to shrink a failure would take minutes, and it names its column
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Holding(Theme):
    """Values, there and back."""

    title = "Types"
    abilities = (HoldsTypes,)

    @pytest.mark.parametrize("by_batches", [False, True], ids=["fast", "batches"])
    def test_values_come_back(self, bench: Bench, by_batches: bool) -> None:
        """Usual values of each type it claims come back as they were; null, zero and empty stay apart."""
        columns = {name: [*TYPES[name].usual, None] for name in sorted(bench.able(HoldsTypes).holds)}
        _there_and_back(bench, columns, "values", by_batches=by_batches)

    def test_any_value_comes_back(self, bench: Bench) -> None:
        """Any value of such a type comes back as it was, extremes too; one beyond what a type holds is refused."""
        case = bench.able(HoldsTypes)
        number = iter(range(10_000))

        @EXAMPLES
        @given(st.fixed_dictionaries({name: _some(name) for name in sorted(case.holds)}).map(_Columns))
        def come_back(columns: _Columns) -> None:
            whole = {name: values for name, values in columns.values.items() if name not in case.bounded}
            _there_and_back(bench, whole, f"values_{next(number)}")
            for name in case.bounded:
                try:
                    _there_and_back(bench, {name: columns.values[name]}, f"values_{next(number)}")
                except DataError as error:
                    assert name in str(error) and error.mend

        come_back()


def _some(name: str) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | TYPES[name].any, min_size=20, max_size=20)


@dataclass(frozen=True)
class _Columns:
    """Values by type; a failure tells the column that is wrong, and not all of them."""

    values: dict[str, list[Any]] = field(repr=False)


def _there_and_back(bench: Bench, columns: dict[str, list[Any]], name: str, *, by_batches: bool = False) -> None:
    length = max(map(len, columns.values()))
    arrays = {kind: of_type(kind, values + [None] * (length - len(values))) for kind, values in columns.items()}
    rows = pa.table({"id": list(range(length)), **arrays})
    written(bench.sink(name, Replace()), rows, Replace(), mark(1), node=f"contract/{name}", by_batches=by_batches)
    got, _ = read(bench.source(name), by_batches=by_batches)
    in_order = got.sort_by("id")
    for column in rows.column_names:
        back, given_ = told(in_order.select(["id", column])), told(rows.select(["id", column]))
        assert back == given_, f"{column} came back otherwise"


class Bounded(Theme):
    """Memory."""

    title = "Memory"

    @needs(Reads, Writes)
    def test_memory_does_not_grow_with_rows(self, bench: Bench) -> None:
        """Peak memory is independent of the number of rows, when writing and when reading."""
        few, many = _peaks(bench, 0, 400_000), _peaks(bench, 400_000, 1_600_000)
        more = [high - low for low, high in zip(few, many, strict=True)]
        # Both moved 50 to 70 megabytes more than before, and far more than that once they are objects of Python.
        assert max(more) < 45, f"megabytes for writing and reading: {few}, and {many} for four times the rows"


def _peaks(bench: Bench, first: int, end: int) -> tuple[int, int]:
    """Megabytes used at most by adding rows of 60 bytes, numbered `first` to `end`, and by reading all there are."""
    text = random.Random(1).randbytes(25).hex()
    turned = [text[number:] + text[:number] for number in range(len(text))]
    whats = [turned[number % len(text)] for number in range(first, end)]
    bench.publish(table(id=list(range(first, end)), what=whats), Append())
    wrote = run_in_child(Run(bench.writing("orders", Append()), "out", memory=MEMORY))
    reading = replace(bench.reading("orders", disposition="replace"), folder=bench.folder / "apart")
    got = run_in_child(Run(reading, "rows", memory=MEMORY))
    assert (wrote.error, got.error) == (None, None), wrote.says + got.says
    assert got.outcome is not None and got.outcome.rows_out == end
    return wrote.peak, got.peak

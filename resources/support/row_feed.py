"""Rows of a Python driver as Arrow batches, a column at a time; those with a value that does not fit are set aside."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import Reject, RelationRead
from resources.support.reject_spool import RejectSpool

Row = Sequence[Any]
Check = Callable[[pa.RecordBatch], Mapping[int, int]]
"""Which rows of a batch do not fit after all, each with the place of the column."""

MOST_ROWS = 20_000
_BYTES = 8 << 20


class FedColumn(ABC):
    """How the values of a column become Arrow: its name, and the DuckDB type `own` in which it arrives."""

    name: str
    own: str

    @property
    @abstractmethod
    def carrier(self) -> pa.DataType:
        """The Arrow type in which the values come."""

    @abstractmethod
    def array(self, values: Sequence[Any]) -> pa.Array | None:
        """The values as the carrier; `None` when one of them does not fit."""

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Whether one value fits."""

    @abstractmethod
    def misfit(self, value: Any) -> str:
        """Why a value does not fit, without the value."""

    @abstractmethod
    def shown(self, value: Any) -> Any:
        """A value as JSON takes it."""

    @property
    def local(self) -> str:
        """The column in its own type, as SQL of DuckDB over the carrier."""
        return f"CAST({quoted(self.name)} AS {self.own}) AS {quoted(self.name)}"


class RowFeed:
    """The rows of one statement, read once. `error` is what reading raised.

    `rows` gives them in lists; a row begins with the values of the columns `found`. `position` tells a row, of which it
    is also given the number.
    """

    def __init__(
        self,
        rows: Callable[[], Iterator[list[Any]]],
        found: Sequence[FedColumn],
        position: Callable[[Row, int], str],
        check: Check = lambda records: {},
    ) -> None:
        self.error: Exception | None = None
        self._rows = rows
        self._found = found
        self._position = position
        self._check = check
        self._seen = 0
        self._schema = pa.schema([(one.name, one.carrier) for one in found])

    def relation(self, duck: DuckDBPyConnection) -> RelationRead:
        """The rows as a query over `duck`, whose spill folder keeps those that are set aside."""
        spill = duck.execute("SELECT current_setting('temp_directory')").fetchone()
        assert spill is not None
        name = f"databrokkr_rows_{secrets.token_hex(4)}"
        rejects = RejectSpool(Path(spill[0]) / f"{name}.parquet")
        duck.register(name, pa.RecordBatchReader.from_batches(self._schema, self._batches(rejects)))
        query = f"SELECT {', '.join(one.local for one in self._found)} FROM {name}"
        return RelationRead(query, rejects=lambda: iter(rejects), explain=lambda error: self.error)

    def _batches(self, rejects: RejectSpool) -> Iterator[pa.RecordBatch]:
        try:
            for rows in self._rows():
                records, bad = self._batch(rows)
                for at, column in sorted(bad.items()):
                    rejects.add(self._reject(rows[at], self._seen + at, column))
                self._seen += len(rows)
                yield records
            rejects.close()
        except Exception as error:
            self.error = error  # DuckDB, which pulls the rows, would keep only its text.
            raise

    def _batch(self, rows: list[Any]) -> tuple[pa.RecordBatch, dict[int, int]]:
        """The rows that fit, and the others by number, each with the place of the column."""
        bad: dict[int, int] = {}
        arrays = self._arrays(rows)
        if any(array is None for array in arrays):
            bad = self._misfits(rows)
            arrays = self._arrays([row for at, row in enumerate(rows) if at not in bad])
        records = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        also = self._check(records)
        if also:
            kept = [at for at in range(len(rows)) if at not in bad]
            bad |= {kept[at]: column for at, column in also.items()}
            records = records.take(pa.array([at for at in range(len(kept)) if at not in also], pa.int64()))
        return records, bad

    def _arrays(self, rows: list[Any]) -> list[pa.Array | None]:
        by_column = list(zip(*rows, strict=True)) if rows else [()] * len(self._found)
        return [one.array(values) for one, values in zip(self._found, by_column, strict=False)]

    def _misfits(self, rows: list[Any]) -> dict[int, int]:
        found = {}
        for at, row in enumerate(rows):
            column = next((place for place, one in enumerate(self._found) if not one.fits(row[place])), None)
            if column is not None:
                found[at] = column
        return found

    def _reject(self, row: Row, number: int, column: int) -> Reject:
        one = self._found[column]
        held = {each.name: each.shown(value) for each, value in zip(self._found, row, strict=False)}
        payload = json.dumps(held, ensure_ascii=False)
        return Reject(one.misfit(row[column]), f"type.{one.name}", self._position(row, number), payload)


def in_lists(fetch: Callable[[int], Sequence[Any]]) -> Iterator[list[Any]]:
    """What `fetch` gives for a number of rows, in lists of a bounded size, told by the size of the rows before."""
    wanted = 64
    while rows := list(fetch(wanted)):
        yield rows
        size = sum(len(value) for row in rows for value in row if isinstance(value, str | bytes)) / len(rows)
        wanted = max(1, min(MOST_ROWS, wanted * 8, int(_BYTES / (size + 16 * len(rows[0]) + 1))))

"""Rows of SQLite as Arrow batches, typed by their columns; rows with a value of another type are set aside.

Values come as Python's driver gives them, which tells an integer from a text that looks like one. Numbers, texts and
blobs go into Arrow as they are; dates, decimals and the like go as text, and whether the text is one is checked in
DuckDB, a batch at a time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import Reject
from resources.support.csv_types import holds
from resources.support.reject_spool import RejectSpool
from resources.support.sqlite_types import decimal_digits

_MOST_ROWS = 20_000
_BYTES = 8 << 20
EXACT_INTEGERS = 1 << 53
"""Up to this number a double holds every integer."""

_STORAGE = {int: "an integer", float: "a real", str: "a text", bytes: "a blob"}
_ENDLESS = "('infinity', '-infinity')"


@dataclass(frozen=True)
class Reading:
    """How a column is read: its name, its declared type, and the DuckDB type `own` in which it arrives.

    `any_type` takes a value of any type, as text.
    """

    name: str
    declared: str
    own: str
    any_type: bool = False

    @property
    def carrier(self) -> pa.DataType:
        """The Arrow type in which the values come."""
        plain = {"BIGINT": pa.int64(), "BOOLEAN": pa.int64(), "DOUBLE": pa.float64(), "BLOB": pa.binary()}
        return plain.get(self.own, pa.string())

    @property
    def local(self) -> str:
        """The column in its own type, as SQL of DuckDB over the carrier."""
        return f"CAST({quoted(self.name)} AS {self.own}) AS {quoted(self.name)}"

    @property
    def checked(self) -> str | None:
        """SQL of DuckDB: whether the carried value is one of the type; `None` where each is."""
        column = quoted(self.name)
        if self.own in ("BIGINT", "DOUBLE", "BLOB", "VARCHAR"):
            return None
        if self.own == "BOOLEAN":
            return f"{column} IN (0, 1)"
        timeless = self.own.startswith(("DATE", "TIMESTAMP"))
        return f"{column} IN {_ENDLESS} OR {holds(column, self.own)}" if timeless else holds(column, self.own)

    def fits(self, value: Any) -> bool:
        """Whether SQLite stores the value as this type is stored."""
        if value is None or self.any_type:
            return True
        if isinstance(value, str) and not _is_utf8(value):
            return False
        return type(value) in self._types and not (self.own == "DOUBLE" and isinstance(value, int) and _large(value))

    def array(self, values: Sequence[Any]) -> pa.Array | None:
        """The values as the carrier; `None` when one of them does not fit."""
        found = set(map(type, values)) - {type(None)}
        if self.any_type:
            values = [None if value is None else as_text(value) for value in values]
        elif not found <= self._types:
            return None
        elif decimal_digits(self.own) or self.own == "HUGEINT":
            values = [value if value is None or isinstance(value, str) else repr(value) for value in values]
        try:
            return pa.array(values, self.carrier)
        except (pa.ArrowInvalid, UnicodeEncodeError):
            return None

    @property
    def _types(self) -> set[type]:
        if decimal_digits(self.own) or self.own == "HUGEINT":
            return {int, float, str}
        stored: dict[str, set[type]] = {
            "BIGINT": {int},
            "BOOLEAN": {int},
            "DOUBLE": {int, float},
            "BLOB": {bytes},
        }
        return stored.get(self.own, {str})


def _is_utf8(value: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in value) if not value.isascii() else True


def _large(value: int) -> bool:
    return not -EXACT_INTEGERS <= value <= EXACT_INTEGERS


def as_text(value: Any) -> str:
    """A value of any type as SQLite's SQL writes it, but for the quotes of a text."""
    if isinstance(value, bytes):
        return f"X'{value.hex().upper()}'"
    if isinstance(value, str):
        return value if _is_utf8(value) else as_text(value.encode(errors="surrogateescape"))
    return repr(value)


class RowFeed:
    """The rows of one statement, read once. `error` is what reading raised, `rejects` the rows that were set aside.

    The first `len(found)` columns of the statement are those of `found`; one more is the position, where `numbered`.
    """

    def __init__(
        self,
        run: Callable[[], Iterator[sqlite3.Cursor]],
        found: Sequence[Reading],
        rejects: RejectSpool,
        *,
        numbered: bool,
    ) -> None:
        self.error: Exception | None = None
        self.rejects = rejects
        self._run = run
        self._found = found
        self._numbered = numbered
        self._seen = 0
        self._checks = [(at, one.checked) for at, one in enumerate(found) if one.checked]
        self._schema = pa.schema([(one.name, one.carrier) for one in found])

    def reader(self) -> pa.RecordBatchReader:
        """The rows; whoever pulls them, pulls one batch at a time."""
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            with duckdb.connect() as duck:
                duck.execute("SET TimeZone = 'UTC'")
                for cursor in self._run():
                    for rows in _chunks(cursor):
                        yield self._batch(duck, rows)
                        self._seen += len(rows)
            self.rejects.close()
        except Exception as error:
            self.error = error  # DuckDB, which pulls the rows, would keep only its text.
            raise

    def _batch(self, duck: duckdb.DuckDBPyConnection, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        listed = list(zip(*rows, strict=True))
        arrays = [one.array(values) for one, values in zip(self._found, listed, strict=False)]
        bad: dict[int, int] = {}
        if any(array is None for array in arrays):
            bad = self._misfits(rows)
            good = [row for at, row in enumerate(rows) if at not in bad]
            listed = list(zip(*good, strict=True)) if good else [()] * len(self._found)
            arrays = [one.array(values) for one, values in zip(self._found, listed, strict=False)]
        else:
            good = rows
        records = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        for at, column in bad.items():
            self._reject(rows[at], self._seen + at, column)
        return self._without_unreadable(duck, records, good)

    def _misfits(self, rows: list[tuple[Any, ...]]) -> dict[int, int]:
        """The rows that hold a value of another type, each with the first such column."""
        found = {}
        for at, row in enumerate(rows):
            for column, one in enumerate(self._found):
                if not one.fits(row[column]):
                    found[at] = column
                    break
        return found

    def _without_unreadable(
        self, duck: duckdb.DuckDBPyConnection, records: pa.RecordBatch, rows: list[tuple[Any, ...]]
    ) -> pa.RecordBatch:
        """The records but those with a text that is not what its column's type wants."""
        if not self._checks or not rows:
            return records
        numbered = pa.Table.from_batches([records]).append_column("databrokkr_at", pa.array(range(len(rows))))
        whens = " ".join(
            f"WHEN {quoted(self._found[at].name)} IS NOT NULL AND NOT coalesce({check}, false) THEN {at}"
            for at, check in self._checks
        )
        query = f"SELECT databrokkr_at, CASE {whens} END AS bad FROM databrokkr_rows WHERE bad IS NOT NULL ORDER BY 1"
        with duck.cursor() as here:
            here.register("databrokkr_rows", numbered)
            bad = dict(here.execute(query).fetchall())
        for at, column in bad.items():
            self._reject(rows[at], self._seen + at, column)
        return records.take(pa.array([at for at in range(len(rows)) if at not in bad])) if bad else records

    def _reject(self, row: tuple[Any, ...], number: int, column: int) -> None:
        one, value = self._found[column], row[column]
        what = _STORAGE[type(value)] if one.declared else "a value of another type"
        if one.fits(value):
            what = f"{what} that is no {one.own}"
        reason = f'"{one.name}" is declared {one.declared or "without a type"} and holds {what}'
        position = f"rowid {row[-1]}" if self._numbered else f"row {number + 1}"
        named = zip((one.name for one in self._found), row, strict=False)
        payload = json.dumps({name: _shown(held) for name, held in named}, ensure_ascii=False)
        self.rejects.add(Reject(reason, f"type.{one.name}", position, payload))


def _shown(value: Any) -> Any:
    """A value as JSON takes it; a blob, and a text that is not UTF-8, as SQL writes a blob."""
    return as_text(value) if isinstance(value, bytes | str) else value


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in lists of a bounded size, by the size of the rows before."""
    wanted = 64
    while rows := cursor.fetchmany(wanted):
        yield rows
        size = sum(len(value) for row in rows for value in row if isinstance(value, str | bytes)) / len(rows)
        wanted = max(1, min(_MOST_ROWS, wanted * 8, int(_BYTES / (size + 16 * len(rows[0])))))


def select_list(found: Sequence[Reading]) -> str:
    """The columns in their own types, as SQL of DuckDB over the batches."""
    return ", ".join(one.local for one in found)

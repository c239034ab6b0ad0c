"""Values of SQLite as Arrow, typed by their columns.

They come as Python's driver gives them, which tells an integer from a text that looks like one. Numbers, texts and
blobs go into Arrow as they are; dates, decimals and the like go as text, and whether the text is one is checked in
DuckDB, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from databrokkr_assets.core.names import quoted
from resources.support.csv_types import holds
from resources.support.row_feed import Check, FedColumn
from resources.support.sqlite_types import decimal_digits

EXACT_INTEGERS = 1 << 53
"""Up to this number a double holds every integer."""

_STORAGE = {int: "an integer", float: "a real", str: "a text", bytes: "a blob"}
_ENDLESS = "('infinity', '-infinity')"


@dataclass(frozen=True)
class Reading(FedColumn):
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

    def misfit(self, value: Any) -> str:
        """Why a value does not fit."""
        held = _STORAGE[type(value)] + (f" that is no {self.own}" if self.fits(value) else "")
        return f'"{self.name}" is declared {self.declared or "without a type"} and holds {held}'

    def shown(self, value: Any) -> Any:
        """A value as JSON takes it; a blob, and a text that is not UTF-8, as SQL writes a blob."""
        return as_text(value) if isinstance(value, bytes | str) else value

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


def checks(found: Sequence[Reading]) -> Check:
    """Which rows of a batch have a text that is not what its column's type wants."""
    whens = " ".join(
        f"WHEN {quoted(one.name)} IS NOT NULL AND NOT coalesce({one.checked}, false) THEN {at}"
        for at, one in enumerate(found)
        if one.checked
    )
    if not whens:
        return lambda records: {}
    query = f"SELECT databrokkr_at, CASE {whens} END AS bad FROM databrokkr_rows WHERE bad IS NOT NULL"

    def unreadable(records: pa.RecordBatch) -> Mapping[int, int]:
        numbers = pa.array(range(records.num_rows), pa.int64())
        with duckdb.connect() as duck:
            duck.execute("SET TimeZone = 'UTC'")
            rows = pa.Table.from_batches([records]).append_column("databrokkr_at", numbers)
            duck.register("databrokkr_rows", rows)
            return dict(duck.execute(query).fetchall())

    return unreadable

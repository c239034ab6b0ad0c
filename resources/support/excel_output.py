"""Writes rows as an Excel workbook of one sheet, in bounded memory. What Excel would change is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

import duckdb

from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.plugins import missing_extra
from resources.support.file_formats import Writing
from resources.support.file_output import as_text

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

_ROWS_AT_ONCE = 5_000
MOST_ROWS = 1_048_576
"""Rows of a sheet, with its header."""

_MOST_COLUMNS = 16_384
_MOST_CHARACTERS = 32_767
_FIRST_DAY = date(1900, 3, 1)
"""Excel believes in a 29th of February 1900, and programs disagree about the days before."""

_NUMBERS = {"float", "double", "decimal", "hugeint", "uhugeint"}
_NUMBERS |= {f"{sign}{name}" for sign in ("", "u") for name in ("tinyint", "smallint", "integer", "bigint")}
_DATES = {"date", "timestamp", "timestamp_s", "timestamp_ms"}
_PLAIN = {*_NUMBERS, "boolean", "time", "varchar"}
_SHOWN = {date: "yyyy-mm-dd", datetime: "yyyy-mm-dd hh:mm:ss.000", time: "hh:mm:ss.000"}


class _Exact(float):
    """A number that is written with all its digits; the library would leave out the seventeenth."""

    def __format__(self, how: str) -> str:
        return repr(float(self))


def write(writing: Writing) -> int:
    """Write a workbook whose first row names the columns.

    Types that Excel lacks are written as text, as in CSV; an empty text is an empty cell. Raises DataError for more
    rows, columns or characters than Excel takes, and for a number, date or time that it would change.
    """
    try:
        from xlsxwriter import Workbook
        from xlsxwriter.exceptions import FileCreateError
    except ImportError as error:
        raise missing_extra("formats", "writing Excel workbooks") from error

    if writing.packing:
        raise SpecError("a workbook is packed already", mend="remove `compression`")
    options = {"constant_memory": True, "tmpdir": str(writing.path.parent), "nan_inf_to_errors": False}
    try:
        with Workbook(str(writing.path), options) as workbook:
            return _Sheet(workbook).fill(writing)
    except FileCreateError as error:
        raise error.args[0] if isinstance(error.args[0], OSError) else error from None


class _Sheet:
    """The one sheet of a workbook."""

    def __init__(self, workbook: Any) -> None:
        self._sheet = workbook.add_worksheet()
        self._formats = {kind: workbook.add_format({"num_format": shown}) for kind, shown in _SHOWN.items()}

    def fill(self, writing: Writing) -> int:
        """Write the rows and give their number."""
        relation = writing.duck.sql(writing.query)
        names, types = relation.columns, relation.types
        if len(names) > _MOST_COLUMNS:
            raise _refusal(f"Excel takes {_MOST_COLUMNS:,} columns, and these are {len(names):,}")
        for column, name in enumerate(names):
            self._write(0, column, name, name)
        values = ", ".join(_value(quoted(name), kind) for name, kind in zip(names, types, strict=True))
        number = 0
        for number, row in enumerate(_rows(writing.duck, f"SELECT {values} FROM ({writing.query})"), start=1):
            if number >= MOST_ROWS:
                raise _refusal(f"Excel takes {MOST_ROWS:,} rows, with the header, and these are more")
            for column, value in enumerate(row):
                if value is not None:
                    self._write(number, column, value, names[column])
        return number

    def _write(self, row: int, column: int, value: Any, name: str) -> None:
        match value:
            case bool():
                self._sheet.write_boolean(row, column, value)
            case str():
                self._write_text(row, column, value, name)
            case int() | float() | Decimal():
                self._sheet.write_number(row, column, _number(value, name))
            case _:
                self._sheet.write_datetime(row, column, _moment(value, name), self._formats[type(value)])

    def _write_text(self, row: int, column: int, text: str, name: str) -> None:
        # counted as Excel does, in units of UTF-16
        if len(text) > _MOST_CHARACTERS // 2 and len(text.encode("utf-16-le")) // 2 > _MOST_CHARACTERS:
            raise _refusal(
                f'the column "{name}" has a text of {len(text):,} characters; Excel takes {_MOST_CHARACTERS:,}'
            )
        self._sheet.write_string(row, column, text)


def _rows(duck: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    try:
        found = duck.execute(query)
        while some := found.fetchmany(_ROWS_AT_ONCE):
            yield from some
    except duckdb.InvalidInputException as error:
        raise _refusal(str(error).removeprefix("Invalid Input Error: ")) from error


def _value(column: str, kind: DuckDBPyType) -> str:
    """SQL: a column as values that become cells."""
    if kind.id in _DATES:
        infinite = f"error('the column {column.replace(chr(39), chr(39) * 2)} holds an infinite date')"
        return f"CASE WHEN isfinite({column}) THEN {column} WHEN {column} IS NOT NULL THEN {infinite} END"
    return column if kind.id in _PLAIN else f"({as_text(column, kind)})::VARCHAR"


def _number(value: int | float | Decimal, name: str) -> _Exact:
    """The number as Excel's double. Raises DataError for one that would not stay what it is."""
    stored = _Exact(value)
    if not isfinite(stored):
        raise _refusal(f'the column "{name}" holds {value}, which is no number in Excel')
    if not isinstance(value, float) and Decimal(repr(float(stored))) != value:
        raise _refusal(f'the column "{name}" holds {value}, which has more digits than Excel keeps')
    return stored


def _moment(value: date | datetime | time, name: str) -> date | datetime | time:
    if isinstance(value, datetime | time) and value.microsecond % 1000:
        raise _refusal(f'the column "{name}" holds {value}; Excel keeps milliseconds')
    day = value.date() if isinstance(value, datetime) else value
    if isinstance(day, date) and day < _FIRST_DAY:
        raise _refusal(f'the column "{name}" holds {value}; Excel keeps dates from {_FIRST_DAY} on')
    return value


def _refusal(what: str) -> DataError:
    return DataError(what, mend="cast the column to VARCHAR in a transform, or write `format: parquet` or `csv`")

"""Reads the sheets of a workbook into tables of texts with the types of their cells; in the child process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import Reject
from resources.support.excel_errors import Errors, column_of, errors_of
from resources.support.reject_spool import RejectSpool
from resources.support.typed_texts import POSITION, WIDER

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

_ROWS_AT_ONCE = 5_000
_EXACT = 2**53
_AREA = re.compile("([A-Za-z]*)([0-9]*):([A-Za-z]*)([0-9]*)")

Cells = list[Any]


def store(source: str, name: str, folder: str, layout: dict[str, Any], nulls: list[str]) -> list[dict[str, Any]]:
    """Write each sheet that is asked for as a Parquet file of texts in the folder, with its rejects beside it.

    Gives of each sheet its name, path, the types of its columns (`None` for one without values), and its rejects.
    """
    from python_calamine import CalamineError, PasswordError, load_workbook

    try:
        with load_workbook(source) as workbook:
            sheets = _chosen(workbook, layout["sheet"])
            errors = errors_of(Path(source), sheets)
            found = []
            for number, sheet in enumerate(sheets):
                opened = workbook.get_sheet_by_name(sheet)
                table = _Table(f"{name}!{sheet}", layout, frozenset(nulls), errors.get(sheet, {}))
                found.append({"sheet": sheet, **table.store(opened, Path(folder) / f"{number:04d}")})
            return found
    except PasswordError as error:
        raise DataError("is protected by a password", mend="save it without a password; nothing was loaded") from error
    except CalamineError as error:
        mend = "save it again or move it away; nothing was loaded"
        raise DataError(f"is no whole workbook: {error}", mend=mend) from error


def _chosen(workbook: CalamineWorkbook, asked: int | list[str]) -> list[str]:
    names = workbook.sheet_names
    if isinstance(asked, int):
        if not 1 <= asked <= len(names):
            raise DataError(f"has no sheet {asked}; it has {len(names)}", mend="correct `excel: {sheet: …}`")
        return [names[asked - 1]]
    if "*" in asked:
        return names
    for name in asked:
        if name not in names:
            what = f'has no sheet "{name}"; it has {", ".join(names)}'
            raise DataError(what, mend="correct `excel: {sheet: …}`")
    return list(asked)


@dataclass(frozen=True)
class _Area:
    """The cells to read; rows and columns count from 0, `None` is as far as there are cells."""

    top: int
    left: int
    bottom: int | None
    right: int | None

    @classmethod
    def of(cls, text: str | None) -> _Area:
        found = _AREA.fullmatch(text or ":")
        assert found, "the settings have been checked"
        left, top, right, bottom = found.groups()
        return cls(
            max(int(top or 1) - 1, 0),
            column_of(left or "A"),
            int(bottom) - 1 if bottom else None,
            column_of(right) if right else None,
        )


class _Table:
    """One sheet on its way into a table. `errors` are the cells that hold an error, by row and column from 0."""

    def __init__(self, key: str, layout: Mapping[str, Any], nulls: frozenset[str], errors: Errors) -> None:
        self._key, self._layout, self._nulls, self._errors = key, layout, nulls, errors
        self._area = _Area.of(layout["range"])
        self._names: list[str] = []
        self._kinds: list[str | None] = []

    def store(self, sheet: CalamineSheet, path: Path) -> dict[str, Any]:
        """Write the sheet. Raises DataError for a header that names a column twice."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        target, rejects = path.with_suffix(".parquet"), RejectSpool(path.with_suffix(".rejects"))
        rows = self._rows(sheet)
        header = next(rows, None) if self._layout["header"] else None
        self._names = self._named(sheet, header)
        self._kinds = [None] * len(self._names)
        schema = pa.schema([*((name, pa.string()) for name in self._names), (POSITION, pa.int64())])
        good = self._sorted(rows, rejects)
        with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as stored:
            while some := list(islice(good, _ROWS_AT_ONCE)):
                columns = zip(zip(*some, strict=True), schema.types, strict=True)
                stored.write_batch(pa.record_batch([pa.array(column, kind) for column, kind in columns], schema=schema))
        rejects.close()
        named = [bool(text) for text in map(_text, header[1])] if header else [True] * len(self._names)
        kept = zip(self._names, self._kinds, named, strict=True)
        types = {name: kind for name, kind, is_named in kept if is_named or kind}
        return {"path": str(target), "types": types, "rejects": str(rejects.path), "count": rejects.count}

    def _width(self, sheet: CalamineSheet) -> int:
        last = sheet.end[1] if sheet.end else -1
        return max(min(last, last if self._area.right is None else self._area.right) - self._area.left + 1, 0)

    def _rows(self, sheet: CalamineSheet) -> Iterator[tuple[int, Cells]]:
        """The rows of the area that hold something, with their numbers from 0."""
        before = [""] * (sheet.start[1] if sheet.start else 0)
        left, width = self._area.left, self._width(sheet)
        merged = _Merged(sheet if self._layout["fill_merged"] else None)
        for number, found in enumerate(sheet.iter_rows()):
            if self._area.bottom is not None and number > self._area.bottom:
                return
            cells = merged.filled(number, before + found)[left : left + width]
            if number >= self._area.top and (number in self._errors or any(cell != "" for cell in cells)):
                yield number, cells + [""] * (width - len(cells))

    def _named(self, sheet: CalamineSheet, header: tuple[int, Cells] | None) -> list[str]:
        """The names in the header; a column without one is called by its place."""
        cells = map(_text, header[1]) if header else [None] * self._width(sheet)
        names = [(text or "").strip() or f"column{index}" for index, text in enumerate(cells)]
        seen: set[str] = set()
        for name in names:
            if name.casefold() in seen:
                what = f'the header, row {header[0] + 1 if header else 0}, names a column twice: "{name}"'
                raise DataError(what, mend="rename one in the file, or say `excel: {header: false}`", where=self._key)
            seen.add(name.casefold())
        return names

    def _sorted(self, rows: Iterator[tuple[int, Cells]], rejects: RejectSpool) -> Iterator[list[Any]]:
        """The rows as texts with their number at the end; those with an error go to `rejects`."""
        for number, cells in rows:
            texts = [self._null(_text(cell)) for cell in cells]
            wrong = {name: text for name, text in self._wrong(number).items() if text not in self._nulls}
            if wrong:
                reason = "; ".join(f'column "{name}": {text}' for name, text in wrong.items())
                payload = {**dict(zip(self._names, texts, strict=True)), **wrong}
                position = f"{self._key}:{number + 1}"
                rejects.add(Reject(reason, "excel.error", position, json.dumps(payload, ensure_ascii=False)))
                continue
            for index, (cell, text) in enumerate(zip(cells, texts, strict=True)):
                if text is not None:
                    self._kinds[index] = _wider(self._kinds[index], _kind(cell))
            yield [*texts, number + 1]

    def _wrong(self, number: int) -> dict[str, str]:
        """The errors in a row, by the names of their columns."""
        found = self._errors.get(number, {})
        places = ((column - self._area.left, text) for column, text in found.items())
        return {self._names[place]: text for place, text in places if 0 <= place < len(self._names)}

    def _null(self, text: str | None) -> str | None:
        return None if text in self._nulls else text


class _Merged:
    """Gives each of the cells that were merged the value of the first one."""

    def __init__(self, sheet: CalamineSheet | None) -> None:
        ranges = (sheet.merged_cell_ranges or []) if sheet else []
        self._starts = sorted(ranges, reverse=True)
        self._open: list[tuple[int, int, int, Any]] = []

    def filled(self, number: int, cells: Cells) -> Cells:
        """The cells of a row; rows are given in their order."""
        while self._starts and self._starts[-1][0][0] <= number:
            (_, left), (bottom, right) = self._starts.pop()
            self._open.append((bottom, left, right, cells[left] if left < len(cells) else ""))
        self._open = [one for one in self._open if one[0] >= number]
        for _, left, right, value in self._open:
            cells += [""] * (right + 1 - len(cells))
            cells[left : right + 1] = [value] * (right + 1 - left)
        return cells


def _text(cell: Any) -> str | None:
    """A cell as the text that its type is written in; `None` for an empty one."""
    match cell:
        case "":
            return None
        case str():
            return cell
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer() and abs(cell) <= _EXACT:
            return str(int(cell))
        case datetime():
            return cell.isoformat(" ")
        case date() | time():
            return cell.isoformat()
        case timedelta():
            return f"{cell.days} days {cell.seconds} seconds {cell.microseconds} microseconds"
        case _:
            return repr(cell)


def _kind(cell: Any) -> str:
    match cell:
        case bool():
            return "BOOLEAN"
        case float():
            return "BIGINT" if cell.is_integer() and abs(cell) <= _EXACT else "DOUBLE"
        case int():
            return "BIGINT"
        case datetime():
            return "TIMESTAMP"
        case date():
            return "DATE"
        case time():
            return "TIME"
        case timedelta():
            return "INTERVAL"
        case _:
            return "VARCHAR"


def _wider(one: str | None, other: str) -> str:
    return other if one in (None, other) else WIDER.get(frozenset({str(one), other}), "VARCHAR")

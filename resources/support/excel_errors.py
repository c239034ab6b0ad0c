"""Finds the cells of a workbook that hold an error, such as `#N/A`; the library that reads cells shows them as empty.

Only the formats that are XML tell, xlsx and ods. In the child process.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

Errors = Mapping[int, Mapping[int, str]]
"""The errors of a sheet by row and column, both counted from 0."""

_PLACE = re.compile("([A-Z]+)[0-9]+")
_PIECE = 1 << 20


def errors_of(path: Path, sheets: Iterable[str]) -> dict[str, Errors]:
    """The errors in the sheets that have any."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as packed:
        parts = set(packed.namelist())
        if "xl/workbook.xml" in parts:
            of_sheets = _parts(packed)
            return {sheet: _of_xlsx(packed, of_sheets[sheet]) for sheet in sheets if of_sheets.get(sheet) in parts}
        if "content.xml" in parts and _holds(packed, "content.xml", b'value-type="error"'):
            return _of_ods(packed)
    return {}


def column_of(letters: str) -> int:
    """The number of a column, counted from 0: `A` is 0, `AA` is 26."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _holds(packed: zipfile.ZipFile, part: str, sign: bytes) -> bool:
    """Whether the bytes are in a part; in most they are not, and then this is all that is done."""
    rest = b""
    with packed.open(part) as stream:
        while piece := stream.read(_PIECE):
            if sign in rest + piece:
                return True
            rest = piece[-len(sign) :]
    return False


def _parts(packed: zipfile.ZipFile) -> dict[str, str]:
    """The part of the archive in which each sheet stands."""
    with packed.open("xl/_rels/workbook.xml.rels") as stream:
        targets = {one.get("Id"): one.get("Target", "") for _, one in _elements(stream, "Relationship")}
    with packed.open("xl/workbook.xml") as stream:
        found = {one.get("name"): targets.get(_attribute(one, "id"), "") for _, one in _elements(stream, "sheet")}
    return {name: target.lstrip("/") if target[:1] == "/" else f"xl/{target}" for name, target in found.items()}


def _of_xlsx(packed: zipfile.ZipFile, part: str) -> Errors:
    errors: dict[int, dict[int, str]] = {}
    if not _holds(packed, part, b't="e"'):
        return errors
    number = -1
    with packed.open(part) as stream:
        for _, row in _elements(stream, "row"):
            number = int(row.get("r") or number + 2) - 1
            column = -1
            for cell in row:
                place = _PLACE.fullmatch(cell.get("r", ""))
                column = column_of(place[1]) if place else column + 1
                if cell.get("t") == "e":
                    errors.setdefault(number, {})[column] = "".join(cell.itertext("{*}v"))
    return errors


def _of_ods(packed: zipfile.ZipFile) -> dict[str, Errors]:
    found: defaultdict[str, dict[int, dict[int, str]]] = defaultdict(dict)
    sheet, number = "", 0
    with packed.open("content.xml") as stream:
        for event, element in _elements(stream, "table", "table-row", events=("start", "end")):
            if _local(element.tag) == "table":
                sheet, number = _attribute(element, "name") or "", 0
            elif event == "end":
                repeated = int(_attribute(element, "number-rows-repeated") or 1)
                if errors := _in_row(element):
                    found[sheet].update(dict.fromkeys(range(number, number + repeated), errors))
                number += repeated
    return dict(found)


def _in_row(row: Any) -> dict[int, str]:
    errors: dict[int, str] = {}
    column = 0
    for cell in row:
        repeated = int(_attribute(cell, "number-columns-repeated") or 1)
        if "error" in (value for name, value in cell.attrib.items() if _local(name) == "value-type"):
            text = "".join(cell.itertext("{*}p"))
            errors.update(dict.fromkeys(range(column, column + repeated), text))
        column += repeated
    return errors


def _attribute(element: Any, name: str) -> str | None:
    """The attribute of this name, of whatever namespace."""
    return next((str(value) for key, value in element.attrib.items() if _local(key) == name), None)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _elements(stream: IO[bytes], *names: str, events: tuple[str, ...] = ("end",)) -> Iterator[tuple[str, Any]]:
    """The elements of these names, each gone when the next is asked for."""
    from lxml import etree

    found = etree.iterparse(
        stream,
        events=events,
        tag=[f"{{*}}{name}" for name in names],
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
    )
    for event, element in found:
        yield event, element
        if event == "end":
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]

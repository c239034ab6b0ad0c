"""XML documents: elements as rows, their attributes and children as columns.

A child that is there once and holds nothing but text is that text; one that repeats, or has attributes or children of
its own, is JSON. So two scans are needed: the first finds the columns of all files, the second writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.typed_texts import TextTable, TypedTexts

RULE = "xml"


def read(reading: Reading) -> RelationRead | None:
    """The rows of the documents; an element without text and an attribute without a value are NULL.

    Raises DataError for a document that is broken or declares entities.
    """
    layout = reading.settings.xml
    assert layout, "the settings have been checked"
    given = {"row": layout.row, "namespaces": dict(layout.namespaces)}
    sources = {file: str(reading.plain(file).absolute()) for file in reading.files}
    found = [reading.child.call("xml_rows:survey", file.key, source=path, **given) for file, path in sources.items()]
    columns = _united(found)
    tables = [_table(reading, file, path, given, columns) for file, path in sources.items()] if columns else []
    return TypedTexts(reading, tables, RULE).relation()


@dataclass(frozen=True)
class _Column:
    """A column: the part of a row that it holds, `@name` for an attribute, and whether it is JSON in any file."""

    part: str
    is_nested: bool


def _united(found: Iterable[Mapping[str, bool]]) -> dict[str, _Column]:
    """The columns of all files by their names. An attribute keeps its `@` only where a child has the same name.

    Raises DataError for names that differ only by case.
    """
    nested: dict[str, bool] = {}
    for parts in found:
        for part, is_nested in parts.items():
            nested[part] = nested.get(part, False) or is_nested
    columns: dict[str, _Column] = {}
    for part, is_nested in nested.items():
        plain = part.removeprefix("@")
        columns[part if plain in nested else plain] = _Column(part, is_nested)
    _refuse_alike(columns)
    return columns


def _refuse_alike(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if seen.setdefault(name.casefold(), name) != name:
            what = f'the elements "{seen[name.casefold()]}" and "{name}" differ only by case'
            raise DataError(what, mend="rename one of them in the files; a table cannot have both")


def _table(
    reading: Reading, file: FoundFile, source: str, given: dict[str, Any], columns: Mapping[str, _Column]
) -> TextTable:
    path = reading.work.new(".parquet")
    reading.child.call(
        "xml_rows:store",
        file.key,
        source=source,
        target=str(path),
        columns={name: (column.part, column.is_nested) for name, column in columns.items()},
        nulls=list(reading.settings.null_values),
        **given,
    )
    types = {name: "JSON" for name, column in columns.items() if column.is_nested}
    return TextTable(file.key, path, tuple(columns), RejectSpool(reading.work.new(".rejects")), types)

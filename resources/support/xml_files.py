"""XML documents: elements as rows, their attributes and children as columns.

A child that is there once and holds nothing but text is that text; one that repeats, or has attributes or children of its
own, is JSON. So two scans are needed: the first finds the columns of all files, the second writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.typed_texts import TextTable, TypedTexts

RULE = "xml"


def read(reading: Reading) -> RelationRead | None:
    """The rows of the documents; an element without text and an attribute without a value are NULL.

    Raises SpecError without `xml`, DataError for a document that is broken or declares entities.
    """
    layout = reading.settings.xml
    if layout is None:
        raise SpecError("XML files do not say which elements are rows", mend="add e.g. `xml: {row: orders/order}`")
    given = {"row": layout.row, "namespaces": dict(layout.namespaces)}
    sources = {file: str(reading.plain(file).absolute()) for file in reading.files}
    found = [reading.child.call("xml_rows:survey", file.key, source=path, **given) for file, path in sources.items()]
    nested = _united(found)
    tables = [_table(reading, file, path, given, nested) for file, path in sources.items()] if nested else []
    return TypedTexts(reading, tables, RULE).relation()


def _united(found: Iterable[dict[str, bool]]) -> dict[str, bool]:
    """The columns of all files, each with whether it is JSON in any of them."""
    nested: dict[str, bool] = {}
    for columns in found:
        for name, is_nested in columns.items():
            nested[name] = nested.get(name, False) or is_nested
    return nested


def _table(reading: Reading, file: FoundFile, source: str, given: dict[str, Any], nested: dict[str, bool]) -> TextTable:
    path = reading.work.new(".parquet")
    nulls = list(reading.settings.null_values)
    reading.child.call("xml_rows:store", file.key, source=source, target=str(path), nested=nested, nulls=nulls, **given)
    types = {name: "JSON" for name, is_nested in nested.items() if is_nested}
    return TextTable(file.key, path, tuple(nested), RejectSpool(reading.work.new(".rejects")), types)

"""Excel workbooks: xlsx, xlsm, xlsb and xls, and those of OpenDocument, ods."""

from __future__ import annotations

from pathlib import Path

from databrokkr_assets.core.ports import RelationRead
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.typed_texts import TextTable, TypedTexts

RULE = "excel"


def read(reading: Reading) -> RelationRead | None:
    """The rows of the sheets, in the order of the files and sheets. An empty cell is NULL, an empty row no row.

    Raises DataError for a file that is no workbook, a protected one, and a sheet that is not there.
    """
    tables = [table for file in reading.files for table in _tables(reading, file)]
    return TypedTexts(reading, tables, RULE).relation()


def _tables(reading: Reading, file: FoundFile) -> list[TextTable]:
    folder = reading.work.new(".sheets")
    folder.mkdir()
    layout = reading.settings.excel
    found = reading.child.call(
        "excel_rows:store",
        file.key,
        source=str(reading.plain(file).absolute()),
        name=file.key,
        folder=str(folder),
        layout=layout.model_dump(),
        nulls=list(reading.settings.null_values),
    )
    return [_table(file, **sheet) for sheet in found]


def _table(file: FoundFile, sheet: str, path: str, types: dict[str, str | None], rejects: str, count: int) -> TextTable:
    return TextTable(f"{file.key}!{sheet}", Path(path), tuple(types), RejectSpool(Path(rejects), count), types)

"""Formats that know no types, or types of their own: fixed width, text lines, XML and Excel."""

from __future__ import annotations

import io
import zipfile
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter

from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.engine.duckdb import open_duck
from resources.support import excel_output
from tests.connectors.carrying import mark
from tests.connectors.files_reading import read, write
from tests.connectors.test_files_sink import put

# --- fixed width and lines ---

WIDE: dict[str, Any] = {
    "format": "fixed_width",
    "fixed_width": {"columns": {"id": [1, 3], "name": [5, 6], "n": [11, 4]}, "skip_lines": 1},
}


def test_fixed_width(tmp_path: Path) -> None:
    text = "HEADER\n001 Anne  12.5\r\n\n 02 Zoë    9.9 and more\n003 X\n004 n/a       \n".encode()
    found = read(write(tmp_path / "o.dat", text + b"005 \xff\xff    1.00\n006 last   7.0"), null_values="n/a", **WIDE)
    assert found.types == {"id": "VARCHAR", "name": "VARCHAR", "n": "DECIMAL(18,1)"}
    assert found.rows == [
        ("001", "Anne", Decimal("12.5")),
        ("02", "Zoë", Decimal("9.9")),
        ("004", None, None),
        ("006", "last", Decimal("7.0")),
    ]
    assert sorted(found.refused) == [
        ("fixed_width.encoding", "o.dat:7", "005 \\xff\\xff    1.00"),
        ("fixed_width.short", "o.dat:5", "003 X"),
    ]


def test_fixed_width_with_declared_types_and_short_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "o.dat", "head\n1   ä     12.5\n2   ö     13\n3\n".encode("cp1252"))
    settings = WIDE | {"fixed_width": {**WIDE["fixed_width"], "short_lines": "pad", "trim": False}}
    found = read(path, columns={"id": "INTEGER", "n": "INTEGER"}, encoding="cp1252", **settings)
    assert found.rows == [(2, "ö     ", 13), (3, None, None)]
    assert found.refused == [("fixed_width.type", "o.dat:2", '{"id":"1  ","name":"ä     ","n":"12.5"}')]
    with pytest.raises(SpecError, match='"nme" is declared, but no file has it'):
        read(path, columns={"nme": "INTEGER"}, encoding="cp1252", **settings)


def test_lines(tmp_path: Path) -> None:
    text = 'größe, "a\r\n\n\tb\0c\n'.encode() + b"\xff\n" + b"x" * 9_000_000 + b"\nlast"
    found = read(write(tmp_path / "o.log", text), format="text")
    assert found.rows == [('größe, "a', 1), ("", 2), ("\tb\0c", 3), ("last", 6)]
    assert [refused[:2] for refused in found.refused] == [("text.encoding", "o.log:4"), ("text.length", "o.log:5")]
    assert read(write(tmp_path / "mac.log", "a\rb"), format="text").rows == [("a", 1), ("b", 2)]
    assert read(write(tmp_path / "wide.log", "ä\nb\n".encode("utf-16")), format="text", encoding="utf-16").rows == [
        ("ä", 1),
        ("b", 2),
    ]


def test_many_lines_keep_their_numbers(tmp_path: Path) -> None:
    count = 400_000
    write(tmp_path / "o.log", "".join(f"line {number}\n" for number in range(1, count + 1)))
    found = read(tmp_path / "o.log", format="text")
    assert len(found.rows) == count
    assert all(line == f"line {number}" for line, number in found.rows)


# --- XML ---

ORDERS = """<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE o:orders>
<o:orders xmlns:o="urn:o" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <!-- not a row -->
  <o:order id="1" state="new"><id>7</id><price>1.50</price><item sku="a">x</item><item sku="b"/></o:order>
  <o:order id="2"><id/><price xsi:nil="true"/><note>h\xe9llo <b>bold</b> &amp; tail</note></o:order>
  <other><order id="9"/></other>
</o:orders>""".encode("latin-1")


def test_xml(tmp_path: Path) -> None:
    write(tmp_path / "1.xml", ORDERS)
    write(tmp_path / "2.xml", "<orders><order><id>8</id><item>plain</item></order></orders>")
    found = read(tmp_path / "*.xml", xml={"row": "orders/order"})
    assert found.types == {
        "id": "BIGINT",
        "price": "DECIMAL(18,2)",
        "item": "JSON",
        "@id": "BIGINT",
        "state": "VARCHAR",
        "note": "JSON",
    }
    assert found.rows == [
        (7, Decimal("1.50"), '[{"@sku": "a", "#text": "x"}, {"@sku": "b"}]', 1, "new", None),
        (None, None, None, 2, None, '{"b": "bold", "#text": "héllo  & tail"}'),
        (8, None, '"plain"', None, None, None),
    ]


def test_rows_of_xml(tmp_path: Path) -> None:
    path = write(tmp_path / "1.xml", ORDERS)
    assert len(read(path, xml={"row": "//order"}).rows) == 3
    assert len(read(path, xml={"row": "*/*/order"}).rows) == 1
    declared = {"price": "DOUBLE", "state": "INTEGER"}
    named = read(path, xml={"row": "a:orders/a:order", "namespaces": {"a": "urn:o"}}, columns=declared)
    assert [row[:2] for row in named.rows] == [(None, None)]
    ((rule, position, _),) = named.refused
    assert (rule, position) == ("xml.type", "1.xml:5")
    with pytest.raises(DataError, match=r"begins with <orders>, and .* with lines"):
        read(path, xml={"row": "lines/line"})


def test_broken_xml(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad\.xml: is no whole XML document: line 3: .* mismatch"):
        read(write(tmp_path / "bad.xml", "<a>\n<b>1</b>\n<b>2</c></a>"), xml={"row": "a/b"})
    with pytest.raises(DataError, match='"x" and "X" differ only by case'):
        read(write(tmp_path / "case.xml", "<a><b><x>1</x><X>2</X></b></a>"), xml={"row": "a/b"})


# --- Excel ---

Cell = Any


def workbook(path: Path, sheets: dict[str, list[list[Cell]]], merged: str = "") -> Path:
    shown = {date: "yyyy-mm-dd", datetime: "yyyy-mm-dd hh:mm:ss.000", time: "hh:mm:ss", timedelta: "[h]:mm:ss"}
    with xlsxwriter.Workbook(path) as book:
        formats = {kind: book.add_format({"num_format": text}) for kind, text in shown.items()}
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                for column, cell in enumerate(row):
                    if type(cell) in formats:
                        sheet.write_datetime(number, column, cell, formats[type(cell)])
                    elif isinstance(cell, str) and cell.startswith("#"):
                        sheet.write_formula(number, column, "=1/0", value=cell)
                    elif cell is not None:
                        sheet.write(number, column, cell)
            if merged:
                sheet.merge_range(merged, "merged")
    return path


def test_cells_of_every_kind(tmp_path: Path) -> None:
    rows: list[list[Cell]] = [
        ["i", "f", "d", "t", "clock", "span", "b", "mixed", "zip"],
        [12, 0.5, date(2013, 1, 2), datetime(2013, 1, 2, 3, 4, 5, 678000), time(1, 2, 3), timedelta(2), True, 1, "007"],
        [],
        [13, 2, date(2014, 1, 2), date(2014, 1, 2), None, timedelta(0, 5400), False, "x", None],
    ]
    found = read(workbook(tmp_path / "o.xlsx", {"S": rows}))
    assert list(found.types.values()) == [
        "BIGINT",
        "DOUBLE",
        "DATE",
        "TIMESTAMP",
        "TIME",
        "INTERVAL",
        "BOOLEAN",
        "VARCHAR",
        "VARCHAR",
    ]
    assert found.rows[0] == (*rows[1][:7], "1", "007")
    assert found.rows[1] == (13, 2.0, rows[3][2], datetime(2014, 1, 2), None, timedelta(0, 5400), False, "x", None)


def test_errors_and_misfits_are_set_aside(tmp_path: Path) -> None:
    rows: list[list[Cell]] = [["a", "n"], [1, "12"], [2, "#DIV/0!"], [3, "#N/A"], [4, "x"], [5, 7]]
    path = workbook(tmp_path / "o.xlsx", {"first": [["x"], [1]], "A b": rows})
    found = read(path, excel={"sheet": "A b"}, columns={"n": "INTEGER"}, null_values=["#N/A"])
    assert found.rows == [(1, 12), (3, None), (5, 7)]
    assert found.refused == [
        ("excel.error", "o.xlsx!A b:3", '{"a": "2", "n": "#DIV/0!"}'),
        ("excel.type", "o.xlsx!A b:5", '{"a":"4","n":"x"}'),
    ]


def test_sheets(tmp_path: Path) -> None:
    path = workbook(tmp_path / "o.xlsx", {"Jan": [["a"], [1]], "Feb": [["A", "b"], [2, "x"]], "none": []})
    assert read(path).rows == [(1,)]
    assert read(path, excel={"sheet": 2}).rows == [(2, "x")]
    assert read(path, excel={"sheet": "*"}).rows == [(1, None), (2, "x")]
    assert read(path, excel={"sheet": ["Feb", "Jan"]}).rows == [(2, "x"), (1, None)]
    with pytest.raises(DataError, match=r'o\.xlsx: has no sheet "Mar"; it has Jan, Feb, none'):
        read(path, excel={"sheet": "Mar"})
    with pytest.raises(DataError, match="has no sheet 4"):
        read(path, excel={"sheet": 4})
    with pytest.raises(DataError, match="is empty, so its columns are unknown"):
        read(path, excel={"sheet": 3})


def test_ranges_headers_and_merged_cells(tmp_path: Path) -> None:
    rows: list[list[Cell]] = [["Report"], [], [None, "a", None, "c"], [None, 1, "left", 2], [None, 3], ["total", 4]]
    path = workbook(tmp_path / "o.xlsx", {"S": rows}, merged="D4:D5")
    assert read(path, excel={"range": "B3:D5"}).rows == [(1, "left", "merged"), (3, None, None)]
    filled = read(path, excel={"range": "B3:D5", "fill_merged": True})
    assert filled.rows == [(1, "left", "merged"), (3, None, "merged")]
    assert list(filled.types) == ["a", "column1", "c"]
    assert read(path, excel={"range": "B4:B", "header": False}).rows == [(1,), (3,), (4,)]
    with pytest.raises(DataError, match=r'o\.xlsx!S: the header, row 1, names a column twice: "A"'):
        read(workbook(tmp_path / "o.xlsx", {"S": [["a", "A"], [1, 2]]}))


ODS = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"
><office:body><office:spreadsheet><table:table table:name="S">
<table:table-row><table:table-cell office:value-type="string"><text:p>a</text:p></table:table-cell></table:table-row>
<table:table-row table:number-rows-repeated="2"><table:table-cell office:value-type="float" office:value="1.5"/>
</table:table-row><table:table-row><table:table-cell office:value-type="string" calcext:value-type="error"
><text:p>#REF!</text:p></table:table-cell></table:table-row>
<table:table-row table:number-rows-repeated="1000000"><table:table-cell/></table:table-row>
</table:table></office:spreadsheet></office:body></office:document-content>"""


def test_ods(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
        archive.writestr("content.xml", ODS.replace(">\n<", "><"))
    found = read(write(tmp_path / "o.ods", packed.getvalue()))
    assert (found.rows, found.refused) == ([(1.5,), (1.5,)], [("excel.error", "o.ods!S:4", '{"a": "#REF!"}')])


def test_a_workbook_comes_back(tmp_path: Path) -> None:
    query = """SELECT * FROM (VALUES
        (1::BIGINT, 0.1::DOUBLE + 0.2, 12345678901234.5::DECIMAL(18,1), DATE '9999-12-31',
         TIMESTAMP '2013-01-01 10:00:00.123', TIME '10:00:01', true, '=1+1',
         '_x0041_ größe' || chr(10) || chr(1) || '😀', [1, 2]),
        (-9007199254740992, 1e300, -0.5, DATE '1900-03-01', NULL, NULL, false, '007', ' x ', NULL)
        ) AS given(i, f, d, day, t, clock, b, s, odd, l)"""
    put(tmp_path / "o.xlsx", query, mark(1))
    found = read(tmp_path / "o.xlsx", columns={"d": "DECIMAL(18,1)"})
    with open_duck() as duck:
        expected = duck.execute(f"SELECT * REPLACE (to_json(l)::VARCHAR AS l) FROM ({query})").fetchall()
    assert found.rows == expected
    assert found.types["day"] == "DATE"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("9007199254740993::BIGINT", "more digits than Excel keeps"),
        ("12345678901234567.89::DECIMAL(19,2)", "more digits than Excel keeps"),
        ("TIMESTAMP '2013-01-01 00:00:00.000001'", "Excel keeps milliseconds"),
        ("TIME '00:00:00.000001'", "Excel keeps milliseconds"),
        ("DATE '1900-02-28'", "dates from 1900-03-01 on"),
        ("DATE 'infinity'", "holds an infinite date"),
        ("'nan'::DOUBLE", "is no number in Excel"),
        ("repeat('x', 32768)", "text of 32,768 characters; Excel takes 32,767"),
        ("repeat('😀', 16384)", "text of 16,384 characters"),
    ],
)
def test_what_excel_would_change_is_refused(tmp_path: Path, value: str, problem: str) -> None:
    with pytest.raises(DataError, match=f'the column "x" .*{problem}'):
        put(tmp_path / "o.xlsx", f"SELECT {value} AS x", mark(1))
    assert not (tmp_path / "o.xlsx").exists()


def test_more_rows_than_excel_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel_output, "MOST_ROWS", 11)  # to write a million takes too long here
    put(tmp_path / "o.xlsx", "SELECT true AS x FROM range(10)", mark(1))
    with pytest.raises(DataError, match=r"Excel takes 11 rows, with the header, and these are more"):
        put(tmp_path / "o.xlsx", "SELECT true AS x FROM range(11)", mark(2, 1))
    assert len(read(tmp_path / "o.xlsx").rows) == 10

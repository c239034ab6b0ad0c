"""How a CSV file is written is found out, or said; whatever it is, no row is lost and no value changes."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from databrokkr_assets.core.errors import DataError
from resources.connectors.files import FilesSource
from resources.support.csv_layout import start_of_footer, without_footer
from resources.support.csv_records import Dialect, records
from resources.support.csv_salvage import fitted
from resources.support.text_encodings import encoding_of
from resources.support.text_lines import lines
from tests.connectors.files_reading import Read, read, write

slowly = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def file_of(content: str | bytes, name: str = "f.csv") -> Iterator[Path]:
    """A file in a folder of its own, for tests that make many."""
    with tempfile.TemporaryDirectory() as folder:
        yield write(Path(folder) / name, content)


def read_text(content: str | bytes, **settings: Any) -> Read:
    with file_of(content) as path:
        return read(path, **settings)


def names(found: Read) -> list[str]:
    return list(found.types)


# --- what a writer writes, the reader finds out ---

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)
TRICKY = st.text(st.sampled_from("ab ,;\t|\"'\\\n#é"), max_size=8)


@slowly
@given(
    rows=st.lists(st.tuples(WORDS | TRICKY, WORDS | TRICKY), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@example([("a'b", "\\")], ";", "\n", csv.QUOTE_ALL, "utf-8")
def test_what_a_writer_writes_comes_back(
    rows: list[tuple[str, str]], delimiter: str, end: str, quoting: Any, encoding: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["id", "first", "second"])
    writer.writerows([number, *row] for number, row in enumerate(rows))
    with file_of(out.getvalue().encode(encoding)) as path:
        assume(encoding_of(path, "f", "auto") in {"utf-8", "utf-16"})
        found = read(path, encoding="auto", columns={"first": "VARCHAR", "second": "VARCHAR"})
    assert not found.rejects
    assert found.rows == [(number, *row) for number, row in enumerate(rows)]


@slowly
@given(
    rows=st.lists(st.tuples(TRICKY, TRICKY), min_size=1, max_size=8),
    quote=st.sampled_from("\"'"),
    delimiter=st.sampled_from(",;\t|"),
)
def test_a_writer_that_escapes_comes_back(rows: list[tuple[str, str]], quote: str, delimiter: str) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(
        out, delimiter=delimiter, lineterminator="\n", quotechar=quote, escapechar="\\", doublequote=False
    )
    writer.writerow(["id", "first", "second"])
    writer.writerows([number, *row] for number, row in enumerate(rows))
    found = read_text(
        out.getvalue(),
        delimiter=delimiter,
        quote=quote,
        escape="\\",
        columns={"id": "INTEGER", "first": "VARCHAR", "second": "VARCHAR"},
    )
    assert not found.rejects
    # an empty field is NULL: Python does not tell the two apart
    assert [tuple(value or "" for value in row[1:]) for row in found.rows] == rows


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("id;x\n1;'a;b'\n2;'it''s'\n", [(1, "a;b"), (2, "it's")]),
        ("id,x\n1,'a'\n2,'b'\n", [(1, "a"), (2, "b")]),
        ("id,x\n1,'tis\n2,rock 'n'\n", [(1, "'tis"), (2, "rock 'n'")]),
        ('id,x\n1,"say \\"hi\\", she said"\n2,b\n', [(1, 'say "hi", she said'), (2, "b")]),
        ('id,x\n1,"C:\\dir\\"\n2,"b"\n', [(1, "C:\\dir\\"), (2, "b")]),
        ('id,x\n1,"{""a"": ""\\""""}"\n2,"b"\n', [(1, '{"a": "\\""}'), (2, "b")]),
        ('id,x\n1,6" nail\n2,b\n', [(1, '6" nail'), (2, "b")]),
    ],
)
def test_quotes_and_escapes_are_found(content: str, rows: list[Any]) -> None:
    found = read_text(content)
    assert (found.rows, found.rejects) == (rows, [])


def test_what_databases_write() -> None:
    content = b'1\tx\\ty\\\\\tplain\n2\t\\N\tline\\\nend\n3\ta\\\tb\t"quoted"\n'
    declared = {"id": "INTEGER", "a": "VARCHAR", "b": "VARCHAR"}
    said = {"delimiter": "\t", "quote": "", "escape": "\\", "header": False, "columns": declared}
    found = read_text(content, null_values=["\\N"], **said)
    assert found.rows == [(1, "xty\\", "plain"), (2, None, "line\nend"), (3, "a\tb", '"quoted"')]
    assert read_text(content, **said).rows[1][1] == "\\N"


@pytest.mark.parametrize("delimiter", ["||", "::", "<=>", "¦¦", "~|~", "§§"])
def test_delimiters_of_several_characters(delimiter: str) -> None:
    rows = [("id", "x"), ("1", f'"a{delimiter}b"'), ("2", f"{delimiter[0]}c"), ("3", "d")]
    content = "".join(delimiter.join(row) + "\n" for row in rows)
    found = read_text(content + f"4{delimiter}\n5\n", delimiter=delimiter)
    assert found.rows == [(1, f"a{delimiter}b"), (2, f"{delimiter[0]}c"), (3, "d"), (4, None)]
    assert found.refused == [("csv.columns", "f.csv:6", "5")]


PIECES = st.lists(st.sampled_from(['"', "|", "~", "|~", "|~", "\n", " ", "a", '""', '"x"', '"a|~b"', "é"]), max_size=20)


@settings(deadline=None, max_examples=100)
@given(PIECES.map("".join), st.sampled_from(["|~", "~~", "|~|"]))
def test_the_salvage_splits_as_duckdb_does(body: str, delimiter: str) -> None:
    with file_of(f"c0{delimiter}c1\n{body}") as path:
        try:
            theirs = duckdb.sql(
                f"FROM read_csv('{path}', auto_detect=false, header=true, delim='{delimiter}', quote='\"', "
                "escape='\"', nullstr=[''], allow_quoted_nulls=false, columns={c0: VARCHAR, c1: VARCHAR})"
            ).fetchall()
        except duckdb.Error:
            return
        dialect = Dialect(delimiter, '"', frozenset({""}), False)
        found = records(lines(path, "utf-8"), dialect)
        next(found)
        ours = [(tuple(fitted(record, 2, delimiter)), record.rule) for record in found if record.text]
    assert ours == [(row, "") for row in theirs] or dialect.is_foreign(body.encode())


def test_a_delimiter_that_is_no_ascii() -> None:
    found = read_text('id¦x\n1¦"a¦b"\n2¦§\n3\n', delimiter="¦")
    assert found.rows == [(1, "a¦b"), (2, "§")]
    assert found.refused == [("csv.columns", "f.csv:4", "3")]


# --- garbage ---

GARBAGE = st.lists(
    st.sampled_from([b"a", b"1", b",", b",", b"\n", b"\n", b"\r", b'"', b"\\", b"\0", b"\xff", b"\xc3\xa9", b"#", b" "])
    | st.binary(max_size=3),
    max_size=40,
).map(b"".join)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(GARBAGE)
@example(b"1\r\r2")
def test_garbage_is_kept_line_by_line(body: bytes) -> None:
    try:
        found = read_text(b"a,b\n" + body.replace(b"\r", b" "), quote="", delimiter=",", escape="", header=True)
    except DataError as error:
        assert "is no text" in str(error) or "utf-16" in str(error)
        return
    filled = sum(bool(line.lstrip(b"\xef\xbb\xbf")) for line in body.replace(b"\r", b" ").split(b"\n"))
    assert len(found.rows) + len(found.rejects) == filled


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(GARBAGE, st.sampled_from(["", "\\"]), st.sampled_from(["", "#"]))
def test_garbage_never_crashes_nor_vanishes(body: bytes, escape: str, comment: str) -> None:
    content = b"a,b\n" + body
    said = {"delimiter": ",", "quote": '"', "escape": escape, "comment": comment or None}
    try:
        found = read_text(content, header=True, **said)
    except DataError as error:
        assert "is no text" in str(error) or "utf-16" in str(error) or "header" in str(error)
        return
    dialect = Dialect(",", '"', frozenset({""}), False, escape, comment)
    with file_of(content) as path:
        expected = sum(bool(record.text or record.rule) for record in records(lines(path, "utf-8"), dialect)) - 1
    assert len(found.rows) + len(found.rejects) >= expected


# --- header ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,name\n1,Anna\n", ["id", "name"]),
        ("name,city\nAnna,Berlin\n", ["name", "city"]),
        ("country,2019,2020\nDE,5,7\n", ["country", "2019", "2020"]),
        ("country,2013-01-01,2013-02-01\nDE,5,7\n", ["country", "2013-01-01", "2013-02-01"]),
        (",0,1\na,5,7\n", ["column0", "0", "1"]),
        ("0,1,2\n5,6,7\n", ["0", "1", "2"]),
        ("1,Anna\n2,Bob\n", ["column0", "column1"]),
        ("Anna,5.5\nBob,7\n", ["column0", "column1"]),
        ("2013-01-01,up\n2013-01-02,down\n", ["column0", "column1"]),
        ("4711,x\n", ["column0", "column1"]),
        ("id,name\n", ["id", "name"]),
    ],
)
def test_a_header_is_told_from_a_row(content: str, expected: list[str]) -> None:
    found = read_text(content)
    assert names(found) == expected
    assert len(found.rows) == content.count("\n") - (expected[0] != "column0" or expected[1] == "0")


def test_files_that_do_not_tell_have_the_header_of_the_others(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "1,Anna\n2,Bob\n")
    write(tmp_path / "2.csv", "2019,Carl\n")
    assert read(tmp_path).rows == [(1, "Anna"), (2, "Bob"), (2019, "Carl")]


def test_declared_columns_tell_the_header() -> None:
    assert read_text("4711,x\n1,2\n", columns={"x": "BIGINT"}).rows == [(1, 2)]
    assert read_text("1,Anna\n", columns={"id": "BIGINT", "name": "VARCHAR"}).rows == [(1, "Anna")]
    with pytest.raises(DataError, match="looks like a row of 2 fields"):
        read_text("1,Anna\n", columns={"id": "BIGINT"})


def test_a_header_of_several_lines() -> None:
    found = read_text("id,Sales,,Costs,\n,Q1,Q2,Q1,Q2\n1,2,3,4,5\n6\n", header=2)
    assert names(found) == ["id", "Sales_Q1", "Sales_Q2", "Costs_Q1", "Costs_Q2"]
    assert found.rows == [(1, 2, 3, 4, 5)]
    assert found.refused == [("csv.columns", "f.csv:4", "6")]


# --- what stands around the rows ---


def test_lines_above_and_below() -> None:
    content = 'Report "sales\n\n"unclosed\nid;x\n1;a\n2\n3;b\nTotal;;2\n\nbye\n\n'
    found = read_text(content, skip_lines=3, skip_footer=2)
    assert (names(found), found.rows) == (["id", "x"], [(1, "a"), (3, "b")])
    assert found.refused == [("csv.columns", "f.csv:6", "2")]
    assert read_text(content.replace("\n", "\r\n"), skip_lines=3, skip_footer=2).rows == found.rows
    assert read_text(content.replace("\n", "\r"), skip_lines=3, skip_footer=2).rows == found.rows


def test_lines_above_are_found() -> None:
    content = "Sales, all of them\nmade by me\n\nid;x;y\n1;a;1,5\n2;b;2,5\n3;c;3,5\n"
    found = read_text(content, skip_lines="auto")
    assert names(found) == ["id", "x", "y"]
    assert found.rows == [(1, "a", "1,5"), (2, "b", "2,5"), (3, "c", "3,5")]
    above = [("csv.preamble", "f.csv:1", "Sales, all of them"), ("csv.preamble", "f.csv:2", "made by me")]
    assert found.refused == above
    assert read_text("id,x\n1,a\n", skip_lines="auto").rejects == []


def test_comments() -> None:
    content = '# made by me\nid,x\n#1,a\n2,"b\n#no comment"\n3,c # d\n#\n4\n'
    found = read_text(content, comment="#")
    assert found.rows == [(2, "b\n#no comment"), (3, "c # d")]
    assert found.refused == [("csv.columns", "f.csv:8", "4")]
    assert read_text("id,x\n#1,a\n").rows == [("#1", "a")]


@given(st.text("a \n", max_size=12), st.integers(0, 3))
def test_footers(text: str, footer: int) -> None:
    with file_of(text) as path:
        data = path.read_bytes()
        kept = [line.text for line in without_footer(lines(path, "utf-8"), footer) if line.text.strip()]
        start = start_of_footer(path, footer)
    assert [line for line in data[:start].decode().split("\n") if line.strip()] == kept
    filled = [line for line in text.split("\n") if line.strip()]
    assert kept == filled[: max(len(filled) - footer, 0)]


# --- lines ---


def test_files_that_were_put_together() -> None:
    bom = "\ufeff"
    found = read_text(f'{bom}id,x\n1,a\n{bom}id,x\n2,b\n{bom}"3","c,d"\n{bom}4\n5,"{bom}e"\n')
    assert found.rows == [(1, "a"), (2, "b"), (3, "c,d"), (5, f"{bom}e")]
    assert found.refused == [("csv.columns", "f.csv:6", f"{bom}4")]


@pytest.mark.parametrize(
    "content",
    [
        b"id,x\n1,a\r2,b\r\n3,c\n",
        b"id,x\r\n1,a\n2,b\r3,c\r\n",
        b"id,x\r\r\n1,a\r\r\n2,b\r\r\n3,c\r\r\n",
        b'id,x\n"1","a"\r"2","b"\n3,c\n',
        b"id,x\r1,a\r2,b\r3,c",
    ],
)
def test_line_ends_are_mixed(content: bytes) -> None:
    found = read_text(content)
    assert (found.rows, found.rejects) == ([(1, "a"), (2, "b"), (3, "c")], [])


def test_a_carriage_return_may_be_part_of_a_text() -> None:
    found = read_text(b"id,x\n1,a\rb\n2\r3,c,d\n")
    assert found.rows == [(1, "a\rb")]
    assert found.refused == [("csv.columns", "f.csv:3", "2\r3,c,d")]


def test_zeros() -> None:
    found = read_text(b"id,x\n1,a\0b\n2,\0\n\0\0\0\n3,c\n")
    assert found.rows == [(1, "a\0b"), (2, "\0"), (3, "c")]
    assert found.refused == [("csv.columns", "f.csv:4", "\0\0\0")]


def test_short_rows() -> None:
    content = 'id,x,y\n1,a,b\n2\n3,"c"\n4,a,b,c\n\n5,"open\n6,,\n'
    refused = [("csv.columns", "f.csv:5", "4,a,b,c"), ("csv.quotes", "f.csv:7", '5,"open')]
    found = read_text(content, short_rows="pad")
    assert found.rows == [(1, "a", "b"), (2, None, None), (3, "c", None), (6, None, None)]
    assert found.refused == refused
    assert [position for _, position, _ in read_text(content).refused] == [f"f.csv:{line}" for line in (3, 4, 5, 7)]


# --- encodings ---


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Müller,Zürich", "cp1252"),
        ("où ça,€ 5", "cp1252"),
        ("Москва,Санкт-Петербург", "cp1251"),
        ("Москва,Казань и область", "koi8_r"),
        ("田中太郎,東京都", "shift_jis"),
        ("北京市朝阳区,张伟", "gb18030"),
        ("Müller,Zürich", "utf-8"),
        ("Müller,Zürich", "utf-8-sig"),
        ("Müller,Zürich", "utf-16"),
        ("Müller,Zürich", "utf-16-le"),
    ],
)
def test_an_encoding_is_found(text: str, encoding: str) -> None:
    content = "id,name,city\n" + "".join(f"{number},{text}\n" for number in range(20))
    name, city = text.split(",")
    found = read_text(content.encode(encoding), encoding="auto")
    assert found.rows == [(number, name, city) for number in range(20)]


def test_an_encoding_is_found_by_what_comes_late() -> None:
    content = b"id,x\n" + b"1,plain\n" * 300_000 + "2,Köln\n3,Größe\n".encode("cp1252")
    assert read_text(content, encoding="auto").rows[-2:] == [(2, "Köln"), (3, "Größe")]
    (reason,) = {reject.reason for reject in read_text(content).rejects}
    assert reason == "not valid utf-8; the file looks like cp1252, so perhaps say `encoding: cp1252`"


# --- settings ---


@pytest.mark.parametrize(
    "said",
    [
        {"header": 99},
        {"header": "maybe"},
        {"skip_lines": -1},
        {"skip_footer": "auto"},
        {"delimiter": "abcde"},
        {"delimiter": "€€"},
        {"delimiter": '"'},
        {"delimiter": "\n"},
        {"comment": '"'},
        {"quote": "é"},
        {"quote": "'", "escape": "'"},
        {"short_rows": "drop"},
        {"encoding": "none"},
        {"format": "jsonl", "skip_lines": 1},
    ],
)
def test_settings_that_make_no_sense(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilesSource.model_validate({"type": "files", "path": "f.csv", **said})


# --- hostile ---

LONG_LINE = """
import sys
from pathlib import Path
from tests.connectors.files_reading import read
from tests.memory import peak_kilobytes
read(Path(sys.argv[1]) / "small.csv")
before = peak_kilobytes()
found = read(Path(sys.argv[1]) / "big.csv")
grown = peak_kilobytes() - before
print(len(found.rows), found.rejects[0].position, found.rejects[0].rule, len(found.rejects), grown // 1024)
"""


@pytest.mark.parametrize("opening", [b"2,", b'2,"'])
def test_a_line_of_many_megabytes_needs_little_memory(tmp_path: Path, opening: bytes) -> None:
    write(tmp_path / "small.csv", "id,x\n1,a\n2\n")
    with open(tmp_path / "big.csv", "wb") as out:
        out.write(b"id,x\n1,a\n" + opening)
        for _ in range(120):
            out.write(b"z" * 1_000_000)
        out.write(b"\n3,b\n")
    done = subprocess.run([sys.executable, "-c", LONG_LINE, str(tmp_path)], capture_output=True, text=True, check=True)
    rows, position, rule, rejects, grown = done.stdout.split()
    assert (rows, position, rule, rejects) == ("2", "big.csv:3", "csv.length", "1")
    assert int(grown) < 300

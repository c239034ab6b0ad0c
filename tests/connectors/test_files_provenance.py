"""Rows of files tell where they came from: their file, and their line or number in it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from databrokkr_assets.core.disposition import Append
from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.spec import Place
from databrokkr_assets.engine.job import Job
from databrokkr_assets.engine.loading import load
from databrokkr_assets.engine.shaping import Shape
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import Store
from resources.connectors.files import FilesSource
from resources.support import csv_salvage, line_numbers
from resources.support.file_formats import writable
from tests.connectors.carrying import mark
from tests.connectors.files_reading import read, write
from tests.connectors.test_files_sink import put
from tests.connectors.test_files_text import csv_of, file_of, slowly

Where = list[tuple[Any, ...]]


def where(path: Path | str, project: Path | None = None, **settings: Any) -> Where:
    """Of each row the first value, its file and its position."""
    found = read(path, project, provenance=True, **settings)
    assert list(found.types)[-2:] == ["_source", "_position"]
    assert (found.types["_source"], found.types["_position"]) == ("VARCHAR", "BIGINT")
    return [(row[0], *row[-2:]) for row in found.rows]


# --- every format ---


@pytest.mark.parametrize("form", writable())
def test_files_that_we_wrote(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"a.{form}" if form != "excel" else tmp_path / "a.xlsx", "SELECT unnest([5, 6, 7]) AS n", mark(1))
    put(tmp_path / f"b.{form}" if form != "excel" else tmp_path / "b.xlsx", "SELECT 8 AS n", mark(1))
    ending = "xlsx!Sheet1" if form == "excel" else form
    first = 2 if form in ("csv", "excel") else 1
    assert where(tmp_path) == [
        (5, f"a.{ending}", first),
        (6, f"a.{ending}", first + 1),
        (7, f"a.{ending}", first + 2),
        (8, f"b.{ending}", first),
    ]
    assert "_source" not in read(tmp_path).types


@pytest.mark.parametrize("form", ["parquet", "arrow", "avro"])
def test_files_with_other_columns(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"a.{form}", "SELECT 1 AS n, 'x' AS more", mark(1))
    put(tmp_path / f"b.{form}", "SELECT unnest([2, 3]) AS n", mark(1))
    assert where(tmp_path) == [(1, f"a.{form}", 1), (2, f"b.{form}", 1), (3, f"b.{form}", 2)]


def test_text_fixed_width_and_xml(tmp_path: Path) -> None:
    write(tmp_path / "t/a.log", b"one\nb\xffd\n\nthree\n")
    assert where(tmp_path / "t/a.log", tmp_path, format="text") == [
        ("one", "t/a.log", 1),
        ("", "t/a.log", 3),
        ("three", "t/a.log", 4),
    ]
    write(tmp_path / "a.fix", "head\n1 ann\n\n2\n3 bob\n")
    layout = {"columns": {"id": [1, 1], "name": [3, 3]}, "skip_lines": 1}
    assert where(tmp_path / "a.fix", format="fixed_width", fixed_width=layout) == [(1, "a.fix", 2), (3, "a.fix", 5)]
    write(tmp_path / "a.xml", "<o><r><a>x</a></r>\n<n/>\n<r><a>y</a></r></o>")
    assert where(tmp_path / "a.xml", xml={"row": "o/r"}) == [("x", "a.xml", 1), ("y", "a.xml", 3)]


def test_files_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/1.csv", "a\n1\n")
        archive.writestr("2.csv", "a\n2\n3\n")
    assert where(tmp_path) == [(1, "a.zip!in/1.csv", 2), (2, "a.zip!2.csv", 2), (3, "a.zip!2.csv", 3)]


# --- CSV: the line in which a row begins ---


def test_lines_between_which_others_were_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", 'a,b\n1,x\nbroken\n\n2,"two\nlines"\n3,x,y\n4,z\n')
    write(tmp_path / "2.csv", "a,b\n5,x\n\n6,y\n")
    write(tmp_path / "3.csv", 'b,a\n"x\r\n",7\ny,8')
    write(tmp_path / "4.csv", b"a,b\n9,x\n10,\xff\n11,x\n")
    found = read(tmp_path, provenance=True)
    assert [(row[0], *row[-2:]) for row in found.rows] == [
        *[(1, "1.csv", 2), (2, "1.csv", 5), (4, "1.csv", 8)],
        *[(5, "2.csv", 2), (6, "2.csv", 4)],
        *[(7, "3.csv", 2), (8, "3.csv", 4)],
        *[(9, "4.csv", 2), (11, "4.csv", 4)],
    ]
    assert [reject.position for reject in found.rejects] == ["1.csv:3", "1.csv:7", "4.csv:3"]


@pytest.mark.parametrize(
    ("content", "settings", "lines"),
    [
        ("\ufeffa,b\r\n1,x\r\n\r\n2,y\r\n", {}, [2, 4]),
        ("a,b\r1,x\r2,y\r", {}, [2, 3]),
        ("a\n1\n\n2\n", {}, [2, 3, 4]),
        ("1,x\n2,y\n", {"header": False, "columns": {"a": "BIGINT", "b": "VARCHAR"}}, [1, 2]),
        ('a,b\n1,"x \\" y\n"\n2,"z\\\\"\n3,"u"\n', {"escape": "\\", "quote": '"'}, [2, 4, 5]),
        ("# what\na,b\n1,x\n# more\n2,y\n", {"comment": "#"}, [3, 5]),
        ("title\n\na,b\n1,x\n2,y\nsum\n", {"skip_lines": 2, "skip_footer": 1}, [4, 5]),
        ('a,b\n1, "x\ny"\n2,u"v\n3,"w"\n', {}, [2, 4, 5]),
        ("a;b\n1;x\n2;'y\nz'\n3;\"\n", {"quote": "'", "delimiter": ";"}, [2, 3, 5]),
        ("a,b\n1,x\n2,y\n", {"encoding": "utf-16-le"}, [2, 3]),
        ("a,b\n1,x\nno,y\n3,z\n", {"columns": {"a": "BIGINT"}}, [2, 4]),
    ],
)
def test_lines_of_every_manner(tmp_path: Path, content: str, settings: dict[str, Any], lines: list[int]) -> None:
    file = write(tmp_path / "a.csv", content.encode(settings.get("encoding", "utf-8")))
    assert [position for _, _, position in where(file, **settings)] == lines


texts = st.text(st.sampled_from(' a,"\n\r'), max_size=4)


@given(st.lists(st.tuples(st.integers(0, 9).map(str), texts), min_size=1, max_size=8), st.integers(4, 64))
@slowly
def test_lines_of_any_rows_in_blocks_of_any_size(rows: list[tuple[str, str]], size: int) -> None:
    expected, content = [], "n,text\n"
    for row in rows:
        expected.append(content.count("\n") + 1)
        content += csv_of([row])
    with pytest.MonkeyPatch.context() as patch, file_of(content) as file:
        patch.setattr(line_numbers, "_BLOCK", size)
        patch.setattr(csv_salvage, "_SIZES", (size, size // 2))
        assert [position for _, _, position in where(file)] == expected


# --- JSON: the line of an object, the number of a record ---


def test_lines_and_records_of_json(tmp_path: Path) -> None:
    write(tmp_path / "l/1.jsonl", '{"a": 1}\nbroken\n\n{"a": 2}\n')
    write(tmp_path / "l/2.jsonl", '{"a": 3}\n\n{"a": 4}')
    write(tmp_path / "l/3.jsonl", '{"a": 5}\r\n{"a": 6}\r\n')
    assert where(tmp_path / "l", tmp_path) == [
        *[(1, "l/1.jsonl", 1), (2, "l/1.jsonl", 4)],
        *[(3, "l/2.jsonl", 1), (4, "l/2.jsonl", 3)],
        *[(5, "l/3.jsonl", 1), (6, "l/3.jsonl", 2)],
    ]
    write(tmp_path / "d/1.json", '[{"a": 1},\n\n {"a": 2},\n 7, {"a":\n 3}]')
    write(tmp_path / "d/2.json", '[{"a": 4},{"a": 5}]')
    assert where(tmp_path / "d", tmp_path) == [
        *[(1, "d/1.json", 1), (2, "d/1.json", 2), (3, "d/1.json", 4)],
        *[(4, "d/2.json", 1), (5, "d/2.json", 2)],
    ]


def test_declared_columns_of_json(tmp_path: Path) -> None:
    write(tmp_path / "1.jsonl", '{"a": 1}\n{"a": "x"}\n{"a": 3}\n')
    assert where(tmp_path, columns={"a": "BIGINT"}) == [(1, "1.jsonl", 1), (3, "1.jsonl", 3)]


# --- as the engine stores them ---


@pytest.mark.parametrize("name", ["_source", "_LOAD_ID", "file_index"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_of_such_a_name_is_refused(tmp_path: Path, form: str, name: str) -> None:
    put(tmp_path / f"a.{form}", f'SELECT 1 AS "{name}"', mark(1))
    with pytest.raises(DataError, match=f'"{name}" has a name that `provenance` needs'):
        read(tmp_path, provenance=True)
    assert read(tmp_path).rows == [(1,)]


def test_many_rows_are_stored_with_their_lines(tmp_path: Path) -> None:
    """More than one thread has at once, and in no order."""
    count = 400_000
    for file in "ab":
        rows = "\n".join(f"{number},text {number}" for number in range(count))
        write(tmp_path / f"in/{file}.csv", f"n,text\n{rows}\n")
    settings = FilesSource(type="files", path=("in",), provenance=True)
    lake = Store(str(tmp_path / "lake"))
    job = Job("p/n", Dataset(lake.child("n"), "p/n"), Dataset(lake.child("q"), "p/n"), shape=Shape(provenance=True))
    load(job, settings.open(None, Place(tmp_path)), Append())
    stored = job.dataset.open()
    assert stored is not None
    with job.duck() as duck:
        right = "count(*) FILTER (_position = n + 2 AND text = 'text ' || n)"
        query = f"SELECT _source, {right}, count(DISTINCT _load_id) FROM ({stored.query(duck)}) GROUP BY 1 ORDER BY 1"
        assert duck.sql(query).fetchall() == [("in/a.csv", count, 1), ("in/b.csv", count, 1)]

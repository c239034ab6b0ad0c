"""JSON documents of any form and size, and lines that are hostile: every record is read or set aside."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.errors import DataError
from resources.support import json_documents
from resources.support.json_documents import DEEPEST, Document
from tests.connectors.files_reading import Read, read, write


def read_text(content: str | bytes, name: str = "f.json", **settings: Any) -> Read:
    with tempfile.TemporaryDirectory() as folder:
        return read(write(Path(folder) / name, content), **settings)


def records_of(found: Read) -> list[dict[str, Any]]:
    return [dict(zip(found.types, row, strict=True)) for row in found.rows]


# --- documents ---

RECORDS = [{"id": 1, "s": "a"}, {"id": 2, "s": 'b "{[,'}, {"id": 3, "s": "c\\"}]
ROWS = [(1, "a"), (2, 'b "{[,'), (3, "c\\")]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "\ufeff" + json.dumps(RECORDS),
        "".join(map(json.dumps, RECORDS)),
        "\n".join(json.dumps(record, indent=2) for record in RECORDS),
        "\n".join(map(json.dumps, RECORDS)),
        ",\n".join(map(json.dumps, RECORDS)),
        json.dumps(RECORDS[:1]) + "\n" + json.dumps(RECORDS[1:], indent=1),
    ],
)
def test_documents_of_every_form(content: str) -> None:
    found = read_text(content)
    assert (found.rows, found.rejects) == (ROWS, [])
    assert read_text(content.encode("utf-16"), encoding="utf-16").rows == ROWS


def test_one_object_is_one_record() -> None:
    assert read_text('{\n  "id": 1,\n  "tags": ["x"]\n}\n').rows == [(1, ["x"])]


def test_records_at_a_path() -> None:
    page = {"n": "{[", "other": [{"id": 9}], "results": {"n": 1, "items": RECORDS, "next": None}, "items": [{"id": 8}]}
    assert read_text(json.dumps(page), records="results.items").rows == ROWS
    assert read_text(json.dumps(page, indent=1) * 2, records="results.items").rows == ROWS * 2
    assert read_text('{"results": {"items": {"id": 1}}}', records="results.items").rows == [(1,)]


@pytest.mark.parametrize(
    ("content", "records", "message"),
    [
        ('{"results": {"item": []}}', "results.items", 'did you mean "results.item"?'),
        ('{"items": 5}', "items", "what is at `records: items` is no array and no object"),
        ('[{"items": []}]', "items", "the document is no object with keys"),
        ('[{"a": 1},\n{"a": 2', None, "f.json:2: is not a whole JSON document: it ends before"),
        ('[{"a": 1},\n{"a": "2]', None, "f.json:2: is not a whole JSON document: it ends before"),
        ('[{"a": 1},\n{"a": 2}}]', None, "f.json:2: is not a whole JSON document: there is a `}` too many"),
        ("[1, 2]", None, "no line is a JSON object"),
        ('{"a": 1, "A": 2}', None, "differ only by case"),
    ],
)
def test_documents_that_cannot_be_read(content: str, records: str | None, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_text(content, records=records)
    assert message in str(error.value)


def test_a_bad_record_spoils_no_other() -> None:
    content = (
        '[{"a": 1},\n {"a": nul,\n  "b": 2},\n 5, "x", [6],\n {"a": 2, "a": 3}, {"a": "x\ny"},\n'
        ' {"a": 7} {"a": 8},\n {"a": "\\ud800"},\n {"a": 4}]\n garbage {"a": 5}'
    )
    found = read_text(content)
    assert found.rows == [(1,), (4,), (5,)]
    assert found.refused == [
        ("json.syntax", "f.json:2", '{"a": nul,\n  "b": 2}'),
        ("json.object", "f.json:4", "5"),
        ("json.object", "f.json:4", '"x"'),
        ("json.object", "f.json:4", "[6]"),
        ("json.duplicate", "f.json:5", '{"a": 2, "a": 3}'),
        ("json.syntax", "f.json:5", '{"a": "x\ny"}'),
        ("json.syntax", "f.json:7", '{"a": 7} {"a": 8}'),
        ("json.syntax", "f.json:8", '{"a": "\\ud800"}'),
        ("json.syntax", "f.json:10", "garbage"),
    ]


def test_bytes_of_a_record_stay_as_they_came() -> None:
    found = read_text(b'[{"a": "caf\xe9"},\n\n{"a": "\xc3\xa9"}]')
    assert found.rows == [("é",)]
    assert found.refused == [("json.encoding", "f.json:1", '{"a": "caf\\xe9"}')]


def test_misfits_of_declared_types_are_named() -> None:
    found = read_text('[{"n": 1}, {"n": 1.5},\n{"n": "x"}, {"n": 12345678901234567890}]', columns={"n": "BIGINT"})
    assert found.rows == [(1,)]
    assert found.refused == [
        ("json.type", "f.json:1", '{"n": 1.5}'),
        ("json.type", "f.json:2", '{"n": "x"}'),
        ("json.type", "f.json:2", '{"n": 12345678901234567890}'),
    ]


def test_lines_with_a_bad_one_may_be_called_json() -> None:
    found = read_text('{"a": 1}\n{"a": 2}\n{"a": \n{"a": 4}\n')
    assert found.rows == [(1,), (2,), (4,)]
    assert found.refused == [("json.syntax", "f.json:3", '{"a": ')]


@pytest.mark.parametrize("content", ["[]", " [ ] ", "[\n]"])
def test_a_document_without_records(content: str) -> None:
    with pytest.raises(DataError, match="its columns are unknown"):
        read_text(content)
    assert read_text(content, columns={"a": "BIGINT"}).rows == []


LEAVES = st.none() | st.booleans() | st.integers() | st.text('a"\\{}[],:é\n', max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["r", 'k"\\', "é"]), below, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(VALUES, max_size=4),
    around=VALUES,
    chunk=st.sampled_from([1, 2, 3, 7, 50]),
    indent=st.sampled_from([None, 1]),
    form=st.sampled_from(["array", "row", "path"]),
)
def test_documents_are_taken_apart_wherever_a_chunk_ends(
    values: list[Any], around: Any, chunk: int, indent: int | None, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: tuple[str, ...] = ()
    records = [{"r": value} for value in values]
    content = json.dumps(records, indent=indent)
    if form == "row":
        content = "".join(json.dumps(record, indent=indent, ensure_ascii=False) for record in records)
    if form == "path":
        keys = ("é", "list")
        content = json.dumps(
            {"a": around, "é": {"x": around, "list": records, "y": around}, "z": around}, indent=indent
        )
    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(json_documents, "CHUNK", chunk)
        document, out = Document(write(Path(folder) / "f", content), "f", keys), io.BytesIO()
        document.split(out)
        lines = [line for line in document.lines("wrong") if line.text]
    assert [json.loads(line) for line in out.getvalue().splitlines() if line.strip()] == records
    assert [json.loads(line.text) for line in lines] == records
    first = [line.text.split("\n")[0] for line in lines]
    assert all(text in content.split("\n")[line.number - 1] for text, line in zip(first, lines, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(['{"a":1}', "{", "}", "[", "]", ",", '"', "\\", "\n", " ", "null", "é", ":", "\0"])),
    st.sampled_from(["f.json", "f.jsonl"]),
)
def test_garbage_never_crashes_nor_vanishes(pieces: list[str], name: str) -> None:
    content = '{"a":0}\n' + "".join(pieces)
    try:
        found = read_text(content, name)
    except DataError as error:
        assert "whole JSON" in str(error) or "no text" in str(error) or "utf-16" in str(error)
        return
    kept = "".join(reject.payload for reject in found.rejects)
    read_ones = sum(row[0] is not None for row in found.rows)
    for mark in ("null", "é", ":1", "\0"):
        assert content.count(mark) <= kept.count(mark) + (read_ones if mark == ":1" else 0)


# --- values ---


def test_numbers_stay_exact() -> None:
    found = read_text('[{"n": 18446744073709551616, "d": 0.1, "x": 1e400, "l": [9007199254740993, 0.5]}]')
    assert found.types == {"n": "DECIMAL(38,0)", "d": "DOUBLE", "x": "VARCHAR", "l": "VARCHAR"}
    assert found.rows == [(Decimal("18446744073709551616"), 0.1, "1e400", "[9007199254740993,0.5]")]
    declared = read_text('[{"d": 12345678901234567.89}]', columns={"d": "DECIMAL(20,2)"})
    assert declared.rows == [(Decimal("12345678901234567.89"),)]


def test_numbers_that_are_none() -> None:
    found = read_text('[{"a": NaN, "b": 1}, {"a": 1.5, "b": Infinity}, {"a": -Infinity, "b": null}]')
    assert found.types == {"a": "DOUBLE", "b": "DOUBLE"}
    assert [str(row) for row in found.rows] == ["(nan, 1.0)", "(1.5, inf)", "(-inf, None)"]


def test_a_field_that_first_appears_late() -> None:
    found = read_text(json.dumps([{"a": 1}] * 30_000 + [{"late": {"b": [True]}}]))
    assert found.types == {"a": "BIGINT", "late": "STRUCT(b BOOLEAN[])"}
    assert found.rows[-1] == (None, {"b": [True]})


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
def test_a_field_that_stands_twice_within(name: str) -> None:
    bad = ['{"a": {"b": 1, "b": 2}}', '{"l": [{"c": {"x": 1}}, {"c": {"x": 1, "x": 1}}]}', '{"q\\"": {"x": 1, "x": 2}}']
    good = ['{"a": {"b": 1}}', '{"l": [{"c": {"x": 3}}]}', '{"t": 1}', '{"q\\"": {"x": 1}}']
    found = read_text("\n".join([*good, *bad, good[0]]), name)
    assert len(found.rows) == 5
    assert found.refused == [("json.duplicate", f"{name}:{line}", text) for line, text in enumerate(bad, 5)]


# --- hostile ---


@pytest.mark.parametrize("name", ["f.jsonl", "f.json"])
@pytest.mark.parametrize("shape", ["[", '{"a":', '{"a":['])
def test_records_that_are_nested_deep(name: str, shape: str) -> None:
    closing = shape.replace('"a":', "").translate(str.maketrans("{[", "}]"))[::-1]
    deep = '{"x": ' + shape * 100_000 + "1" + closing * 100_000 + "}"
    fair = '{"x": ' + shape * (DEEPEST // 2 // len(closing)) + "1" + closing * (DEEPEST // 2 // len(closing)) + "}"
    found = read_text(f'{{"id": 1}}\n{deep}\n{fair}\n{{"id": 2}}\n', name)
    assert [record["id"] for record in records_of(found)] == [1, None, 2]
    assert [(reject.rule, reject.position) for reject in found.rejects] == [("json.depth", f"{name}:2")]
    assert json.loads(fair)["x"] and found.rejects[0].payload == deep


def test_many_brackets_are_not_deep() -> None:
    shape = {"points": [[number, number] for number in range(1_000)]}
    found = read_text(json.dumps(shape) + "\n" + json.dumps(shape) + "\n", "f.jsonl")
    assert found.types == {"points": "BIGINT[][]"}
    assert found.rejects == []


def test_deep_brackets_that_are_never_closed() -> None:
    content = '{"id": 1}\n' + '{"x": ' + "[" * 1_000_000 + "\n"
    assert [reject.rule for reject in read_text(content, "f.jsonl").rejects] == ["json.depth"]
    with pytest.raises(DataError, match="it ends before what begins here is closed"):
        read_text("[" * 1_000_000)


LONG = """
import sys
from pathlib import Path
from tests.connectors.files_reading import read
from tests.memory import peak_kilobytes
folder, name = Path(sys.argv[1]), sys.argv[2]
read(folder / f"small.{name}")
before = peak_kilobytes()
found = read(folder / f"big.{name}")
grown = peak_kilobytes() - before
first = found.rejects[0]
print(len(found.rows), first.position.split(":")[1], first.rule, len(found.rejects), grown // 1024)
"""


@pytest.mark.parametrize("name", ["jsonl", "json"])
def test_a_record_of_many_megabytes_needs_little_memory(tmp_path: Path, name: str) -> None:
    opening, between, closing = ("[", ",", "]") if name == "json" else ("", "", "")
    write(tmp_path / f"small.{name}", f'{opening}{{"a": 1}}\n{between}{{"a": }}{closing}')
    with open(tmp_path / f"big.{name}", "w") as out:
        out.write(f'{opening}{{"a": 1}}\n{between}{{"a": "')
        for _ in range(120):
            out.write("z" * 1_000_000)
        out.write(f'"}}\n{between}{{"a": 2}}{closing}')
    command = [sys.executable, "-c", LONG, str(tmp_path), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows, line, rule, rejects, grown = done.stdout.split()
    assert (rows, line, rule, rejects) == ("2", "2", "json.length", "1")
    assert int(grown) < 300

"""CSV and JSON lines: no value changes, no line is lost, every line that cannot be read is named."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from databrokkr_assets.core.errors import DataError, SpecError
from resources.support import csv_records, csv_salvage, csv_survey, text_lines
from resources.support.csv_records import Dialect, records
from resources.support.csv_salvage import fitted
from resources.support.text_lines import lines
from tests.connectors.files_reading import Read, read, write

slowly = settings(
    deadline=None,
    max_examples=int(__import__("os").environ.get("N", "60")),
    suppress_health_check=[HealthCheck.too_slow],
)


@contextmanager
def file_of(content: str | bytes, name: str = "f.csv") -> Iterator[Path]:
    """A file in a folder of its own, for tests that make many."""
    with tempfile.TemporaryDirectory() as folder:
        yield write(Path(folder) / name, content)


def read_text(content: str | bytes, name: str = "f.csv", **settings: Any) -> Read:
    with file_of(content, name) as path:
        return read(path, **settings)


def csv_of(rows: list[tuple[str | None, ...]], end: str = "\n") -> str:
    """NULL is an empty field; a text without characters has quotes."""

    def field(value: str | None) -> str:
        if value is None:
            return ""
        if value == "" or set(value) & set(' ,"\r\n'):
            return '"' + value.replace('"', '""') + '"'
        return value

    return "".join(",".join(map(field, row)) + end for row in rows)


# --- CSV: values ---

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(' ,"\r\n;\t#'), max_size=8
)


@slowly
@given(st.lists(st.tuples(st.none() | TEXTS, st.none() | TEXTS), min_size=1), st.sampled_from(["\n", "\r\n"]))
@example([(None, ""), ("", None), ('"', "\r\n"), ("NULL", " ")], "\n")
def test_texts_come_back(rows: list[tuple[str | None, ...]], end: str) -> None:
    found = read_text(f"a,b{end}" + csv_of(rows, end), columns={"a": "VARCHAR", "b": "VARCHAR"}, delimiter=",")
    assert found.rows == rows
    assert not found.rejects


NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        [
            "007",
            "+49",
            "-0",
            "0",
            "1e400",
            "1E5",
            ".5",
            "5.",
            "NaN",
            "inf",
            "epoch",
            "infinity",
            "true",
            "False",
            "yes",
            "12:30",
        ]
    ),
    st.sampled_from(["", " 1", "1,5", "1_0", "٣", "0x10", "9" * 38, "9" * 39, "2013-02-30", "2013-01-01 00:00+02"]),
    st.sampled_from(["2013-01-01T00:00:00Z", "epoch", "infinity"]),
)
ALIKE = st.one_of(
    *(st.lists(kind, min_size=1, max_size=5) for kind in (st.integers().map(str), st.dates().map(str), NUMBERS))
)


def is_same(text: str, value: Any, kind: str) -> bool:
    """Whether a value of an inferred type is what the text says, shown as anybody would write it."""
    if kind == "VARCHAR":
        return bool(value == text)
    if kind == "DOUBLE":
        return bool(float(text) == value)
    if kind == "BOOLEAN":
        return text.lower() == str(value).lower()
    if kind in {"DATE", "BIGINT"}:
        return str(value) == text
    if kind.startswith("DECIMAL"):
        return bool(Decimal(text) == value)
    return bool(datetime.fromisoformat(text) == value)


@slowly
@given(ALIKE)
def test_an_inferred_type_changes_no_value(texts: list[str]) -> None:
    found = read_text(
        "id,x\n" + "".join(f"{i},{csv_of([(text,)], '')}\n" for i, text in enumerate(texts)), delimiter=","
    )
    assert [row[0] for row in found.rows] == list(range(len(texts)))
    for text, (_, value) in zip(texts, found.rows, strict=True):
        assert is_same(text, value, found.types["x"]), (text, value, found.types)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", ""], "BIGINT"),
        (["00123", "1"], "VARCHAR"),
        (["+1"], "VARCHAR"),
        (["1.50", "2", "-.5"], "DECIMAL(18,2)"),
        (["1234567890123456.789"], "DECIMAL(38,3)"),
        (["9223372036854775808", "1"], "DECIMAL(38,0)"),
        (["9" * 39], "VARCHAR"),
        (["1.5e3", "2.25"], "DOUBLE"),
        (["1.5e3", "12345678901234567890"], "VARCHAR"),
        (["1.5", "NaN"], "VARCHAR"),
        (["true", "FALSE"], "BOOLEAN"),
        (["yes", "no"], "VARCHAR"),
        (["2013-01-01", "2013-12-31"], "DATE"),
        (["2013-02-30"], "VARCHAR"),
        (["2013-01-01", "2013-01-01 10:00:00"], "VARCHAR"),
        (["2013-01-01 10:00:00.123456", "2013-01-01T10:00"], "TIMESTAMP"),
        (["2013-01-01 10:00:00.1234567"], "VARCHAR"),
        (["2013-01-01T10:00:00Z", "2013-01-01 10:00:00+02:00"], "TIMESTAMP WITH TIME ZONE"),
        (["", ""], "VARCHAR"),
        (['""', "1"], "VARCHAR"),
    ],
)
def test_inferred_types(texts: list[str], kind: str) -> None:
    content = "id,x\n" + "".join(f"{number},{text}\n" for number, text in enumerate(texts))
    assert read_text(content).types == {"id": "BIGINT", "x": kind}


def test_a_type_fits_what_comes_late_and_in_other_files(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "id,x,y\n" + "".join(f"{number},{number},1.5\n" for number in range(30_000)))
    write(tmp_path / "2.csv", "Y,id,z\n1.25,7,new\n")
    write(tmp_path / "3.csv", "id,x\n8,late\n")
    found = read(tmp_path)
    assert found.types == {"id": "BIGINT", "x": "VARCHAR", "y": "DECIMAL(18,2)", "z": "VARCHAR"}
    assert found.rows[29_999:] == [
        (29_999, "29999", Decimal("1.50"), None),
        (7, None, Decimal("1.25"), "new"),
        (8, "late", None, None),
    ]


def test_numbers_that_get_a_point_late() -> None:
    found = read_text("x\n" + "1\n" * 30_000 + "0.125\n")
    assert found.types == {"x": "DECIMAL(18,3)"}


KINDS = [
    "BIGINT",
    "SMALLINT",
    "DECIMAL(6,2)",
    "DOUBLE",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "BOOLEAN",
    "VARCHAR",
    "UUID",
]


@slowly
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.sampled_from(KINDS))
def test_a_declared_type_takes_a_value_exactly_or_not_at_all(texts: list[str], kind: str) -> None:
    content = "id,x\n" + "".join(f"{i},{csv_of([(text,)], '')}\n" for i, text in enumerate(texts))
    found = read_text(content, columns={"id": "INTEGER", "x": kind}, delimiter=",")
    assert len(found.rows) + len(found.rejects) == len(texts)
    assert {reject.rule for reject in found.rejects} <= {"csv.type"}
    for number, value in found.rows:
        text = texts[number]
        if kind in {"BIGINT", "SMALLINT", "DECIMAL(6,2)"}:
            assert Decimal(text) == value
        elif kind == "DOUBLE":
            assert float(text) == value or (value != value and text == "NaN")
        elif kind == "DATE":
            assert value == date.fromisoformat(text[:10])
            assert datetime.fromisoformat(text) == datetime.combine(value, datetime.min.time())
        elif kind == "TIMESTAMP":
            assert datetime.fromisoformat(text).utcoffset() in {None, timedelta(0)}
            assert value == datetime.fromisoformat(text).replace(tzinfo=None)


def test_misfits_of_declared_types_are_rejects() -> None:
    found = read_text(
        "id,price,day,n\n1,1.55,2013-01-01,7\n2,1.555,2013-01-01,7\n3,x,2013-01-01 10:00,\n4,,,99999\n"
        "5,2,2013-1-2,-1.0\n",
        columns={"price": "DECIMAL(6,2)", "day": "DATE", "n": "SMALLINT"},
    )
    assert found.rows == [(1, Decimal("1.55"), date(2013, 1, 1), 7), (5, Decimal("2.00"), date(2013, 1, 2), -1)]
    assert found.refused == [
        ("csv.type", "f.csv:3", "2,1.555,2013-01-01,7"),
        ("csv.type", "f.csv:4", "3,x,2013-01-01 10:00,"),
        ("csv.type", "f.csv:5", "4,,,99999"),
    ]
    assert found.rejects[1].reason == (
        'column "price": "x" does not fit DECIMAL(6,2) exactly; '
        'column "day": "2013-01-01 10:00" does not fit DATE exactly'
    )


def test_null_values() -> None:
    content = 'a,b\nNULL,"NULL"\n,""\nn/a,x\n'
    assert read_text(content, null_values=["NULL", "n/a"]).rows == [(None, "NULL"), (None, ""), (None, "x")]
    assert read_text(content, null_values=["NULL", "n/a", ""]).rows == [(None, None), (None, None), (None, "x")]


# --- CSV: lines that cannot be read ---


@pytest.mark.parametrize(
    ("content", "rows", "refused"),
    [
        pytest.param(
            b'a,b\n1,x\n2\n3,"y\nz",q\n4,w\n5\n',
            [(1, "x"), (4, "w")],
            [("csv.columns", 3, "2"), ("csv.columns", 4, '3,"y\nz",q'), ("csv.columns", 7, "5")],
            id="too few, too many",
        ),
        pytest.param(
            b'a,b\r\n1,"x\r\ny"\r\n2\r\n3,"\r\n"\r\n4,"\r',
            [(1, "x\r\ny"), (3, "\r\n")],
            [("csv.columns", 4, "2"), ("csv.quotes", 7, '4,"')],
            id="carriage returns",
        ),
        pytest.param(
            b'a,b\n1,x\n2,"abc\n3,d\n4,e\n5,"q"\n6,f\n',
            [(1, "x"), (3, "d"), (4, "e"), (5, "q"), (6, "f")],
            [("csv.quotes", 3, '2,"abc')],
            id="open quote",
        ),
        pytest.param(
            b'a,b\n1,x\n2,"abc"def\n3,d\n', [(1, "x"), (3, "d")], [("csv.quotes", 3, '2,"abc"def')], id="after a quote"
        ),
        pytest.param(
            b"a,b\n1,caf\xc3\xa9\n2,caf\xe9\n3,\xff\n4,z\n",
            [(1, "café"), (4, "z")],
            [("csv.encoding", 3, "2,caf\\xe9"), ("csv.encoding", 4, "3,\\xff")],
            id="not UTF-8",
        ),
        pytest.param(
            b"a,b\r\n1,x\n2,y\r\n3\r\n4,z\n",
            [(1, "x"), (2, "y"), (4, "z")],
            [("csv.columns", 4, "3")],
            id="mixed line ends",
        ),
        pytest.param(b"a,b\r\n1,x\n2,y\r\n", [(1, "x"), (2, "y")], [], id="mixed line ends only"),
        pytest.param(b'"a\r\nx",b\n1,x\n2,y\n', [(1, "x"), (2, "y")], [], id="another line end in the header"),
        pytest.param(b"a,b\r1,x\r2\r3,z\r", [(1, "x"), (3, "z")], [("csv.columns", 3, "2")], id="old line ends"),
        pytest.param(b"\xef\xbb\xbfa,b\n1,x\n2\n", [(1, "x")], [("csv.columns", 3, "2")], id="BOM"),
        pytest.param(b"\n\na,b\n\n1,x\n\n\n2\n", [(1, "x")], [("csv.columns", 8, "2")], id="empty lines"),
        pytest.param(
            b"a,b\n1,2,\n3,4\n5,6,,\n7,8,9\n", [(1, 2), (3, 4), (5, 6)], [("csv.columns", 5, "7,8,9")], id="end"
        ),
        pytest.param(b"a,b\n1,x\n2,y", [(1, "x"), (2, "y")], [], id="no line end at the end"),
    ],
)
def test_broken_lines(content: bytes, rows: list[Any], refused: list[tuple[str, int, str]]) -> None:
    found = read_text(content)
    assert found.rows == rows
    assert found.refused == [(rule, f"f.csv:{line}", payload) for rule, line, payload in refused]


@pytest.mark.parametrize("wrong", [b"\xff", b'"a"b', b'x"\n"y'])
def test_a_mistake_far_behind_in_a_text(wrong: bytes) -> None:
    content = b"a,b\n" + b"x,y\n" * 20_000 + wrong + b",y\nx,z\n"
    found = read_text(content, columns={"a": "VARCHAR", "b": "VARCHAR"})
    assert (len(found.rows), found.rows[-1]) == (20_001, ("x", "z"))
    assert found.rejects[0].position == "f.csv:20002"


def test_a_wrong_encoding_is_named() -> None:
    found = read_text("a,b\n1,Zürich\n2,Köln\n".encode("cp1252"))
    assert {reject.reason for reject in found.rejects} == {
        "not valid utf-8; the file looks like cp1252, so perhaps say `encoding: cp1252`"
    }
    assert read_text("a,b\n1,€\n2\n".encode("cp1252"), encoding="cp1252").rows == [(1, "€")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1", "shift_jis", "utf-8-sig"])
def test_encodings(encoding: str) -> None:
    text = 'a,b\n1,"x\ny"\n2,ÿ\n' if encoding != "shift_jis" else 'a,b\n1,"x\ny"\n2,表\n'
    found = read_text(text.encode(encoding), encoding=encoding)
    assert found.rows == [(1, "x\ny"), (2, text[-2])]
    if encoding.startswith("utf-16"):
        with pytest.raises(DataError, match=r"f\.csv: is utf-16"):
            read_text(text.encode(encoding))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)) * 20, "is no text; it looks like binary data"),
        (b"PK\x03\x04" + b"x" * 100, "looks like a ZIP archive"),
        (b"\x1f\x8b" + b"x" * 100, "say `compression: gzip`"),
        (b"PAR1" + b"x" * 100, "say `format: parquet`"),
        (b"a,b,B\n1,2,3\n", 'f.csv:1: the header names a column twice: "b" and "B"'),
        (b'a,"b\n1,2\n', "f.csv:1: the header cannot be read: a quote is opened but never closed"),
        (b"\n\n", "is empty, so its columns are unknown"),
    ],
)
def test_files_that_are_no_csv(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_text(content)
    assert message in str(error.value)


def test_headers() -> None:
    assert read_text("a,b\n").rows == []
    assert list(read_text("a,, b \n1,2,3\n").types) == ["a", "column1", "b"]
    assert read_text("1,x\n2,y\n", header=False).types == {"column0": "BIGINT", "column1": "VARCHAR"}
    named = read_text("1,x\n2\n", header=False, columns={"id": "INTEGER", "name": "VARCHAR"})
    assert (named.rows, named.refused) == ([(1, "x")], [("csv.columns", "f.csv:2", "2")])
    with pytest.raises(SpecError, match='did you mean "id"'):
        read_text("id\n1\n", columns={"idd": "BIGINT"})


@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_the_delimiter_is_found(delimiter: str) -> None:
    content = f'a{delimiter}b\n1{delimiter}"x,y;z"\n2{delimiter}q\n'
    assert read_text(content).rows == [(1, "x,y;z"), (2, "q")]


def test_a_zero_is_a_character() -> None:
    assert read_text("a,b\n1,x\0y\n").rows == [(1, "x\0y")]


def test_no_quotes() -> None:
    assert read_text('a|b\n1|6" nail\n2|"x\n', delimiter="|", quote="").rows == [(1, '6" nail'), (2, '"x')]


@pytest.mark.parametrize("content", ["a,b\n1,x\n{}\n2,y\n3\n", 'a,b\n1,x\n2,"{}"\n2,y\n3\n'])
def test_a_line_that_is_too_long(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_lines, csv_records, csv_salvage, csv_survey):
        monkeypatch.setattr(module, "LIMIT", 1 << 18)
    found = read_text(content.format("z" * 700_000))
    assert found.rows == [(1, "x"), (2, "y")]
    assert [(reject.rule, reject.position) for reject in found.rejects] == [
        ("csv.length", "f.csv:3"),
        ("csv.columns", "f.csv:5"),
    ]
    assert found.rejects[0].payload.endswith("zzz")


def test_a_quote_that_is_open_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (text_lines, csv_records, csv_salvage, csv_survey):
        monkeypatch.setattr(module, "LIMIT", 1 << 18)
    rows = "".join(f"{number},{'y' * 50}\n" for number in range(20_000))
    found = read_text(f'a,b\n-1,"x\n{rows}')
    assert [row[0] for row in found.rows] == list(range(20_000))
    assert found.refused == [("csv.quotes", "f.csv:2", '-1,"x')]


def test_a_thousand_bad_lines_of_a_hundred_thousand(tmp_path: Path) -> None:
    order = random.Random(7)
    bad = set(order.sample(range(2, 100_002), 1_000))
    kinds = [b"%d", b"%d,x,1.50,extra", b'%d,"open,1.50', b"%d,\xff,1.50", b'%d,"a"b,1.50', b"%d,x,1.505"]
    with open(tmp_path / "big.csv", "wb") as out:
        out.write(b"id,name,price\n")
        for line in range(2, 100_002):
            good = b'%d,"line ""%d""",1.50' if line % 2 else b"%d,line %d,1.50"
            out.write((order.choice(kinds) % line if line in bad else good % (line, line)) + b"\n")
    found = read(tmp_path, columns={"price": "DECIMAL(8,2)"})
    assert len(found.rows) + len(found.rejects) == 100_000
    assert {int(reject.position.split(":")[1]) for reject in found.rejects} == bad
    assert [row[0] for row in found.rows] == [line for line in range(2, 100_002) if line not in bad]


GRAMMAR = st.lists(
    st.sampled_from(['"', '"', ",", ",", "\n", "\n", " ", "a", "1", '""', '"x"', '"a\nb"', "é"]), max_size=25
)


DIALECT = Dialect(",", '"', frozenset({""}), False)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GRAMMAR.map("".join), st.sampled_from(["\n", "\r\n"]), st.sampled_from([(40, 10), (8,), (1,)]))
@example('1,"a\nb"\n2,"x\n3,5" pipe\n4,"\n', "\n", (4, 1))
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, body: str, end: str, sizes: tuple[int, ...]) -> None:
    content = f"a,b\n{body}".replace("\n", end) + "\xff"
    with monkeypatch.context() as patch:
        whole = read_text(content.encode("latin-1"), delimiter=",", columns={"a": "VARCHAR", "b": "VARCHAR"})
        patch.setattr(csv_salvage, "_SIZES", sizes)
        parts = read_text(content.encode("latin-1"), delimiter=",", columns={"a": "VARCHAR", "b": "VARCHAR"})
    assert (parts.rows, parts.rejects) == (whole.rows, whole.rejects)


@settings(deadline=None, max_examples=150)
@given(GRAMMAR.map("".join), st.integers(2, 3), st.sampled_from(["\n", "\r\n"]))
def test_the_salvage_reads_what_duckdb_reads(body: str, width: int, end: str) -> None:
    names = ",".join(f"c{index}" for index in range(width))
    with file_of(f"{names}\n{body}".replace("\n", end)) as path:
        columns = ", ".join(f"c{index}: VARCHAR" for index in range(width))
        try:
            theirs = duckdb.sql(
                f"FROM read_csv('{path}', auto_detect=false, header=true, delim=',', quote='\"', escape='\"', "
                f"nullstr=[''], allow_quoted_nulls=false, columns={{{columns}}})"
            ).fetchall()
        except duckdb.Error:
            return
        found = records(lines(path, "utf-8"), DIALECT)
        next(found)
        ours = [(tuple(fitted(record, width, ",")), record.rule) for record in found if record.text]
    assert ours == [(row, "") for row in theirs]


def test_python_writes_what_we_read() -> None:
    out = io.StringIO()
    rows = [["a", "b"], ['x "y"', "1\n2"], ["", "é,;"]]
    csv.writer(out).writerows(rows)
    assert read_text(out.getvalue()).rows == [('x "y"', "1\n2"), (None, "é,;")]


# --- JSON lines ---


def jsonl(*objects: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in objects)


KEYS = st.text("abc", min_size=1, max_size=2)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.sampled_from(["2013-01-01", "12", "true", "null", "{}", 9007199254740993, 10**40, -(2**63)]),
)
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=3),
    max_leaves=6,
)


def holds_same(value: Any, found: Any) -> bool:
    """Whether what was read says the same as what was written; a number must be the very number."""
    if isinstance(found, dict):
        return (
            isinstance(value, dict)
            and not value.keys() - found.keys()
            and all(holds_same(value.get(name), below) for name, below in found.items())
        )
    if isinstance(found, list):
        return isinstance(value, list) and len(value) == len(found) and all(map(holds_same, value, found))
    if isinstance(found, str):
        return (
            bool(found == value) or (not isinstance(value, str) and _loaded(found) == value) or _loaded(found) == value
        )
    if found is None or isinstance(found, bool) or isinstance(value, bool):
        return found is value or (found is None and value is None)
    return bool(found == value)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@slowly
@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), min_size=1, max_size=5))
@example([{"a": 2**64}, {"a": 1}])
@example([{"a": 9007199254740993}, {"a": 0.5}])
@example([{"a": {"b": 2**63}}, {"a": {"b": 1}}])
@example([{"a": {"b": 9007199254740993}}, {"a": {"b": 0.5}}])
@example([{"a": [1, "x"]}, {"a": []}, {"a": {}}])
def test_objects_come_back(objects: list[dict[str, Any]]) -> None:
    found = read_text(jsonl(*objects), "f.jsonl")
    assert not found.rejects
    assert len(found.rows) == len(objects)
    for written, row in zip(objects, found.rows, strict=True):
        got = dict(zip(found.types, row, strict=True))
        assert not written.keys() - got.keys()
        for name, value in got.items():
            assert holds_same(written.get(name), value), (name, written, got, found.types)


def test_json_types() -> None:
    found = read_text(
        jsonl(
            {
                "day": "2013-01-01",
                "n": 1,
                "f": 0.5,
                "mixed": 1,
                "s": {"x": 1},
                "l": [1],
                "id": "550e8400-e29b-41d4-a716",
            },
            {"mixed": "1", "s": {"y": {}}, "l": [0.5]},
            *[{"n": 2}] * 25_000,
            {"late": [{"deep": True}]},
        ),
        "f.jsonl",
    )
    assert found.types == {
        "day": "VARCHAR",
        "n": "BIGINT",
        "f": "DOUBLE",
        "mixed": "VARCHAR",
        "s": "STRUCT(x BIGINT, y VARCHAR)",
        "l": "DOUBLE[]",
        "id": "VARCHAR",
        "late": "STRUCT(deep BOOLEAN)[]",
    }
    names = list(found.types)
    assert found.rows[0][names.index("mixed")] == "1"
    assert found.rows[1][names.index("mixed")] == '"1"'
    assert found.rows[-1][names.index("late")] == [{"deep": True}]


def test_declared_json_types() -> None:
    content = (
        '{"id": 1, "price": 12345678901234567.89, "at": "2013-01-01T00:00:00Z", "tags": [1, 2]}\n'
        '{"id": 1.5, "price": 1}\n'
        '{"id": "7", "price": 1.555}\n'
        '{"id": "8", "price": "2.50", "tags": "x"}\n'
        '{"id": "9", "price": null, "more": true}\n'
    )
    types = {"id": "BIGINT", "price": "DECIMAL(20,2)", "at": "TIMESTAMPTZ", "tags": "INTEGER[]", "none": "DATE"}
    found = read_text(content, "f.jsonl", columns=types)
    names = ("id", "price", "tags", "more", "none")
    rows = [tuple(dict(zip(found.types, row, strict=True))[name] for name in names) for row in found.rows]
    assert rows == [(1, Decimal("12345678901234567.89"), [1, 2], None, None), (9, None, None, True, None)]
    assert found.refused == [("json.type", f"f.jsonl:{line}", content.splitlines()[line - 1]) for line in (2, 3, 4)]


def test_declared_parts_of_json_values() -> None:
    kind = "STRUCT(d DECIMAL(20,2), l INTEGER[], m MAP(VARCHAR, DATE))"
    good = '{"x": {"d": 123456789012345678.25, "l": [1, null], "m": {"a/b": "2013-01-01"}, "more": 1}}\n{"x": null}\n'
    bad = ['{"x": {"d": 1.555}}', '{"x": {"l": [1.5]}}', '{"x": {"m": {"k": "2013-01-01 10:00"}}}', '{"x": [1]}']
    found = read_text(good + "\n".join(bad), "f.jsonl", columns={"x": kind})
    kept = {"d": Decimal("123456789012345678.25"), "l": [1, None], "m": {"a/b": date(2013, 1, 1)}}
    assert found.rows == [(kept,), (None,)]
    assert [reject.payload for reject in found.rejects] == bad


def test_broken_objects() -> None:
    content = b'{"a": 1}\n{"a": \n\n5\n[1]\n{"a": 1, "a": 2}\n{"a": "\xff"}\n'
    content += b'{"a": 2} {"a": 3}\n{"a": "\\ud800"}\r\n {"a": 4}\n'
    found = read_text(content, "f.jsonl")
    assert found.rows == [(1,), (4,)]
    assert found.refused == [
        ("json.syntax", "f.jsonl:2", '{"a": '),
        ("json.object", "f.jsonl:4", "5"),
        ("json.object", "f.jsonl:5", "[1]"),
        ("json.duplicate", "f.jsonl:6", '{"a": 1, "a": 2}'),
        ("json.encoding", "f.jsonl:7", '{"a": "\\xff"}'),
        ("json.syntax", "f.jsonl:8", '{"a": 2} {"a": 3}'),
        ("json.syntax", "f.jsonl:9", '{"a": "\\ud800"}'),
    ]


def test_broken_files_among_many(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number:02}.jsonl", jsonl({"n": number}) + ("{\n" if number % 13 == 5 else ""))
        write(
            tmp_path / f"{number:02}.csv",
            f"n,{'x' if number % 2 else 'y'}\n{number},1\n" + ("1\n" if number == 7 else ""),
        )
    found = read("*.jsonl", tmp_path)
    assert found.rows == [(number,) for number in range(40)]
    assert [reject.position for reject in found.rejects] == ["05.jsonl:2", "18.jsonl:2", "31.jsonl:2"]
    found = read("*.csv", tmp_path)
    assert [row[0] for row in found.rows] == list(range(40))
    assert [reject.position for reject in found.rejects] == ["07.csv:3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1},\n{"a": 2}]\n', "this is an array"),
        ("[1, 2]\n", "this is an array"),
        ('{\n"a": 1\n}\n', "no line is a JSON object"),
        ('{"a": 1, "A": 2}\n', 'the fields "a" and "A" differ only by case'),
        ('{"a": 1}\n{"A": 2}\n', "differ only by case"),
        ('{"": 1}\n', "a field without a name"),
    ],
)
def test_files_that_are_no_json_lines(content: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read_text(content, "f.jsonl")
    assert message in str(error.value)


def test_json_with_a_mark_and_in_other_encodings() -> None:
    assert read_text(b'\xef\xbb\xbf{"a": 1}\n', "f.jsonl").rows == [(1,)]
    assert read_text('{"a": "é"}\n'.encode("utf-16"), "f.jsonl", encoding="utf-16").rows == [("é",)]

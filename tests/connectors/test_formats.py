"""The typed formats, read and written: what comes back of what we wrote, and what others wrote."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.engine.duckdb import open_duck
from resources.connectors.files import FilesSink
from resources.support.file_formats import FORMATS, FormatName
from resources.support.file_settings import Excel, FixedWidth, Limits, Xml
from tests.connectors.carrying import mark
from tests.connectors.files_reading import read, reader, write
from tests.connectors.test_files_sink import EVERYTHING, ODD, put

TYPED = ["avro", "orc", "arrow"]


def arrow_file(path: Path, table: pa.Table) -> Path:
    with pa.ipc.new_file(path, table.schema) as stored:
        stored.write_table(table)
    return path


# --- what we wrote ---


@pytest.mark.parametrize("form", TYPED)
def test_everything_comes_back(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"o.{form}", EVERYTHING, mark(1))
    with open_duck() as duck:
        expected = duck.execute(EVERYTHING)
        types = {column[0]: str(column[1]) for column in expected.description}
        found = read(tmp_path / f"o.{form}")
        assert found.rows == expected.fetchall()
    assert found.types == types


@pytest.mark.parametrize("form", ["parquet", *TYPED])
def test_odd_types_keep_their_value(tmp_path: Path, form: str) -> None:
    columns = ", ".join(f"{value} AS c{index}" for index, value in enumerate([*ODD, "[1, 2]::INTEGER[2]", "NULL"]))
    put(tmp_path / f"o.{form}", f"SELECT {columns}", mark(1))
    reading = reader(tmp_path / f"o.{form}", tmp_path)
    with open_duck() as duck:
        relation = reading.relation(duck, next(iter(reading.streams())), None)
        assert relation is not None
        texts = "SELECT COLUMNS(*)::VARCHAR FROM"
        given = duck.execute(f"{texts} (SELECT {columns})").fetchall()
        assert duck.execute(f"{texts} ({relation.query})").fetchall() == given


@pytest.mark.parametrize("form", [*TYPED, "excel"])
def test_no_rows_have_columns(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"o{FORMATS[form].extensions[0]}"  # type: ignore[index]
    put(path, "SELECT 1 AS a, 'x' AS b WHERE false", mark(1))
    found = read(path)
    assert (found.rows, list(found.types)) == ([], ["a", "b"])


def test_a_json_array(tmp_path: Path) -> None:
    put(tmp_path / "o.json", "SELECT unnest([1, 2]) AS a, 0.10::DECIMAL(9,2) AS d", mark(1))
    assert (tmp_path / "o.json").read_text().split() == ["[", '{"a":1,"d":0.10},', '{"a":2,"d":0.10}', "]"]


def test_what_avro_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='Avro cannot name a column "two words"'):
        put(tmp_path / "o.avro", 'SELECT 1 AS "two words"', mark(1))
    with pytest.raises(DataError, match="Avro has no type for m"):
        put(tmp_path / "o.avro", "SELECT MAP {1: 2} AS m", mark(1))
    with pytest.raises(SpecError, match="packed with deflate"):
        put(tmp_path, "SELECT 1 AS a", mark(1), format="avro", compression="zstd", disposition="append")
    assert not (tmp_path / "o.avro").exists()


# --- what others wrote ---


def test_avro_of_others(tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "orders",
        "fields": [
            {"name": "id", "type": ["int", "long"]},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
            {"name": "before", "type": ["null", "State"]},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2}},
            {"name": "huge", "type": {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 0}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
            {"name": "token", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "tags", "type": {"type": "map", "values": ["null", "string"]}},
            {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
            {
                "name": "items",
                "type": {
                    "type": "array",
                    "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]},
                },
            },
        ],
    }
    row: dict[str, Any] = {
        "id": 2**40,
        "state": "PAID",
        "before": None,
        "price": Decimal("123456789012345678901234567890123456.78"),
        "huge": Decimal(10**49),
        "day": date(2013, 1, 2),
        "at": datetime(2013, 1, 2, 3, 4, 5, 6000, UTC),
        "clock": time(1, 2, 3, 4000),
        "token": UUID("550e8400-e29b-41d4-a716-446655440000"),
        "tags": {"größe": "", "none": None},
        "hash": b"\x00\xff",
        "items": [{"sku": "a"}, {"sku": "ß"}],
    }
    with open(tmp_path / "o.avro", "wb") as out:
        fastavro.writer(out, fastavro.parse_schema(schema), [row], codec="bzip2")
    found = read(tmp_path / "o.avro")
    assert dict(zip(found.types, found.rows[0], strict=True)) == row | {"huge": "1" + "0" * 49}
    assert found.types["at"] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (["int", "string"], 1, "is a union of int, string"),
        ({"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}, {"r": None}, "within"),
    ],
)
def test_avro_that_is_no_table(tmp_path: Path, kind: Any, value: Any, problem: str) -> None:
    schema = {"type": "record", "name": "row", "fields": [{"name": "x", "type": kind}]}
    with open(tmp_path / "o.avro", "wb") as out:
        fastavro.writer(out, schema, [{"x": value}])
    with pytest.raises(DataError, match=f'o.avro: the column "x" .*{problem}'):
        read(tmp_path / "o.avro")


def test_arrow_streams_feather_and_its_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "d": pa.array([timedelta(days=1, microseconds=5), None], pa.duration("ns")),
            "i": pa.array([pa.MonthDayNano([1, 2, 3000]), None]),
            "half": pa.array([1.5, None], pa.float16()),
            "dict": pa.array(["a", None]).dictionary_encode(),
            "view": pa.array(["größe", ""], pa.string_view()),
            "big": pa.array([Decimal(10**50), None], pa.decimal256(60, 2)),
            "z": pa.array([1_000, None], pa.timestamp("ns", "Europe/Berlin")),
            "n": pa.array([1, None], pa.timestamp("ns")),
            "l": pa.array([[{"a": 1}], None], pa.large_list(pa.struct({"a": pa.uint64()}))),
        }
    )
    with pa.ipc.new_stream(tmp_path / "o.arrows", table.schema) as stream:
        stream.write_table(table)
    found = read(tmp_path / "o.arrows")
    assert found.types == {
        "d": "INTERVAL",
        "i": "INTERVAL",
        "half": "FLOAT",
        "dict": "VARCHAR",
        "view": "VARCHAR",
        "big": "VARCHAR",
        "z": "TIMESTAMP WITH TIME ZONE",
        "n": "TIMESTAMP_NS",
        "l": "STRUCT(a UBIGINT)[]",
    }
    assert found.rows[0][:2] == (timedelta(days=1, microseconds=5), timedelta(days=32, microseconds=3))
    assert found.rows[0][5:7] == ("1" + "0" * 50 + ".00", datetime(1970, 1, 1, 0, 0, 0, 1, UTC))
    assert found.rows[1] == (None, None, None, None, "", None, None, None, None)
    assert read(arrow_file(tmp_path / "o.feather", table)).rows == found.rows


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1], pa.timestamp("ns", "UTC")),
        pa.array([1], pa.time64("ns")),
        pa.array([1], pa.duration("ns")),
        pa.array([[timedelta(1)]], pa.list_(pa.duration("us"))),
        pa.array([{}], pa.struct([])),
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
    ],
)
def test_what_a_dataset_would_change_is_refused(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(DataError, match=r'o\.arrow: the column "x"'):
        read(arrow_file(tmp_path / "o.arrow", pa.table({"x": column})))


def test_parquet_that_duckdb_would_change(tmp_path: Path) -> None:
    table = pa.table(
        {
            "z": pa.array([1_000], pa.timestamp("ns", "UTC")),
            "big": pa.array([Decimal(10**50)], pa.decimal256(60, 2)),
            "d": pa.array([5], pa.duration("us")),
        }
    )
    pq.write_table(table, tmp_path / "1.parquet")
    pq.write_table(table.drop_columns(["d"]), tmp_path / "2.parquet")
    found = read(tmp_path / "*.parquet")
    row = (datetime(1970, 1, 1, 0, 0, 0, 1, UTC), "1" + "0" * 50 + ".00", timedelta(microseconds=5))
    assert found.rows == [row, (*row[:2], None)]
    pq.write_table(pa.table({"z": pa.array([1], pa.timestamp("ns", "UTC"))}), tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r'3.parquet: the column "z" holds a value that timestamp\[us'):
        read(tmp_path / "3.parquet")


def test_names_that_are_one_to_a_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='has the columns "a" and "A", which are one name'):
        read(arrow_file(tmp_path / "o.arrow", pa.table({"a": [1], "A": [2]})))


def test_several_stripes_and_files_with_other_columns(tmp_path: Path) -> None:
    big = pa.table({"a": list(range(100_000)), "s": [f"{number:040}" for number in range(100_000)]})
    orc.write_table(big, tmp_path / "1.orc", stripe_size=100_000, compression="snappy")
    orc.write_table(pa.table({"s": ["last"], "b": [True]}), tmp_path / "2.orc")
    assert orc.ORCFile(tmp_path / "1.orc").nstripes > 1
    found = read(tmp_path / "*.orc")
    assert (len(found.rows), found.rows[-2:]) == (100_001, [(99_999, f"{99_999:040}", None), (None, "last", True)])


def test_only_new_files_are_read_again(tmp_path: Path) -> None:
    arrow_file(tmp_path / "1.arrow", pa.table({"a": [1]}))
    first = read(tmp_path)
    arrow_file(tmp_path / "2.arrow", pa.table({"a": [2]}))
    second = read(tmp_path, after=first.cursor)
    assert (first.rows, second.rows) == ([(1,)], [(2,)])
    again = read(tmp_path, after=second.cursor)
    assert (again.rows, again.types) == ([], first.types)


@pytest.mark.parametrize("form", ["avro", "orc", "arrow", "parquet", "xlsx", "xls", "ods", "xml"])
def test_files_that_are_not_of_their_format(tmp_path: Path, form: str) -> None:
    more: dict[str, Any] = {"xml": {"row": "a/b"}} if form == "xml" else {}
    for content in (b"", bytes(range(256)) * 40):
        with pytest.raises(DataError, match=rf"1\.{form}: "):
            read(write(tmp_path / f"1.{form}", content), **more)


@pytest.mark.parametrize("form", ["avro", "orc", "arrow", "parquet", "xlsx"])
def test_files_that_are_cut_off(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"1.{form}", "SELECT i AS a, i::VARCHAR AS b FROM range(20000) AS given(i)", mark(1))
    whole = (tmp_path / f"1.{form}").read_bytes()
    with pytest.raises(DataError, match=rf"1\.{form}: "):
        read(write(tmp_path / f"1.{form}", whole[: len(whole) - 3]))


# --- settings ---


def test_keys_of_another_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="`excel` is for Excel, and the files are CSV; remove `excel`"):
        reader("a.csv", tmp_path, excel={"sheet": 2})
    with pytest.raises(ValidationError, match=r"does not say where its columns stand; add `fixed_width: \{columns"):
        reader("a.txt", tmp_path, format="fixed_width")
    arrow_file(tmp_path / "1.arrow", pa.table({"a": [1]}))
    with pytest.raises(SpecError, match=r"`columns` is for CSV, .*, and the files are Arrow"):
        read(tmp_path, columns={"a": "INTEGER"})
    assert read(tmp_path, quote=None, columns={}).rows == [(1,)]


def test_formats_that_are_only_read() -> None:
    for path in ("o.xml", "o.xls", "o.ods", "o.csv.bz2", "o.csv.zip"):
        with pytest.raises(ValidationError, match="can only be read; write "):
            FilesSink(type="files", input="i", path=path)
    with pytest.raises(ValidationError, match=r"packed within; leave out \.gz"):
        FilesSink(type="files", input="i", path="o.avro.gz")


def test_the_page_names_every_format_and_key() -> None:
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    keys = {key for model in (Excel, FixedWidth, Limits, Xml) for key in model.model_fields}
    endings = {ending for form in FORMATS.values() for ending in (*form.extensions, *form.read_only)}
    assert [word for word in keys | endings | set(FORMATS) if f"`{word}`" not in page] == []
    assert set(FORMATS) == set(get_args(FormatName))


def test_a_parquet_file_without_rows_is_no_lie(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": ["x"]}).slice(0, 0), tmp_path / "none.parquet")
    found = read(tmp_path / "none.parquet")
    assert (found.rows, list(found.types)) == ([], ["a", "b"])

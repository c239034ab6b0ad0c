"""Files as a sink: whole or not at all, the same after a repeated load, and read back as they were written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Delivery, LoadMark, Receipt, Sink, Target
from databrokkr_assets.core.spec import Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.connectors.files import FilesSink, FilesSource
from resources.support.file_ledger import FileLedger
from tests.connectors.carrying import NODE, mark, staged, written
from tests.connectors.files_reading import powerless, read, write

TARGET = Target(NODE, pa.schema([("a", pa.int64())]))
APPEND: dict[str, Any] = {"disposition": "append", "format": "parquet"}


def sink(path: Path, **settings: Any) -> Sink:
    given = FilesSink(type="files", input="orders", path=str(path), **settings)
    return given.open(None, Place(path.parent))


def put(path: Path, query: str, load: LoadMark, how: Disposition | None = None, **settings: Any) -> Receipt:
    return written(sink(path, **settings), query, how or (Append() if settings else Replace()), load)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is written ---

EVERYTHING = """
SELECT * FROM (VALUES
    (1::BIGINT, 'a', 123456789012345.67::DECIMAL(18,2), DATE '2013-01-01', TIMESTAMP '2013-01-01 10:00:00.5',
     TIMESTAMPTZ '2013-01-01 10:00:00+02', '\\x00\\xFF'::BLOB, true, 0.1::DOUBLE,
     {'x': 1, 'd': 123456789012345.678::DECIMAL(18,3)}, [1, NULL]),
    (-9223372036854775808, '', NULL, NULL, NULL, NULL, NULL, NULL, 1e300, NULL, []),
    (NULL, NULL, -0.01, NULL, NULL, NULL, ''::BLOB, false, NULL, {'x': NULL, 'd': NULL}, NULL)
) AS given(i, s, d, day, t, z, b, o, f, x, l)"""
TYPES = {
    "i": "BIGINT",
    "s": "VARCHAR",
    "d": "DECIMAL(18,2)",
    "day": "DATE",
    "t": "TIMESTAMP",
    "z": "TIMESTAMPTZ",
    "b": "VARCHAR",
    "o": "BOOLEAN",
    "f": "DOUBLE",
}


NESTED = {"x": "STRUCT(x INTEGER, d DECIMAL(18,3))", "l": "INTEGER[]"}


@pytest.mark.parametrize("name", ["o.csv", "o.csv.gz", "o.csv.zst", "o.jsonl", "o.jsonl.gz", "o.parquet"])
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    put(tmp_path / name, EVERYTHING, mark(1))
    shown = {
        "csv": "to_base64(b) AS b, to_json(x)::VARCHAR AS x, to_json(l)::VARCHAR AS l",
        "jsonl": "to_base64(b) AS b",
    }
    columns = {"csv": TYPES, "jsonl": TYPES | NESTED}
    form = name.split(".")[1]
    with open_duck() as duck:
        expected = duck.execute(f"SELECT * REPLACE ({shown.get(form, 'b AS b')}) FROM ({EVERYTHING})").fetchall()
    assert read(tmp_path / name, columns=columns.get(form, {})).rows == expected


ODD = [
    "170141183460469231731687303715884105::HUGEINT",
    "18446744073709551615::UBIGINT",
    "INTERVAL '1 month 2 days 3.000001 seconds'",
    "TIMETZ '10:00:00+02'",
    "TIME '10:00:00.123456'",
    "UUID '550e8400-e29b-41d4-a716-446655440000'",
    "TIMESTAMP_NS '2013-01-01 10:00:00.123456789'",
    "'{\"a\": 1.50}'::JSON",
    "{'h': 170141183460469231731687303715884105::HUGEINT, 'i': [INTERVAL '0.000001 seconds']}",
    "MAP {'a': 123456789012345.678::DECIMAL(18,3)}",
    "0.1::FLOAT",
    "'x'::ENUM('x', 'y')",
]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("value", ODD)
def test_odd_types_keep_their_value(tmp_path: Path, value: str, form: str) -> None:
    path = tmp_path / f"o.{form}"
    put(path, f"SELECT {value} AS x", mark(1))
    with open_duck() as duck:
        (expected,) = duck.execute(f"SELECT ({value})::VARCHAR").fetchall()[0]
        kind = str(duck.sql(f"SELECT {value}").types[0])
    nested = form != "parquet" and kind.startswith(("STRUCT", "MAP"))
    columns = {} if form == "parquet" else {"x": "VARCHAR" if nested or kind == "JSON" else kind}
    rows, _ = staged(FilesSource(type="files", path=(str(path),), columns=columns).open(None, Place(tmp_path)))
    ((text,),) = rows
    assert text == (_exact_json(str(text), expected) if nested else expected)


def _exact_json(text: str, expected: str) -> str:
    """The JSON text, where it has every digit of the value."""
    digits = [
        word for word in expected.replace("}", " ").replace("]", " ").replace(",", " ").split() if word[0].isdigit()
    ]
    return text if all(word in text for word in digits) else f"{expected} in full"


def test_csv_as_others_see_it(tmp_path: Path) -> None:
    put(tmp_path / "o.csv", EVERYTHING, mark(1))
    assert (tmp_path / "o.csv").read_text() == (
        "i,s,d,day,t,z,b,o,f,x,l\n"
        "1,a,123456789012345.67,2013-01-01,2013-01-01T10:00:00.5,2013-01-01T08:00:00Z,AP8=,true,0.1,"
        '"{""x"":1,""d"":123456789012345.678}","[1,null]"\n'
        '-9223372036854775808,"",,,,,,,1e+300,,[]\n'
        ',,-0.01,,,,"",false,,"{""x"":null,""d"":null}",\n'
    )


def test_json_as_others_see_it(tmp_path: Path) -> None:
    put(tmp_path / "o.jsonl", EVERYTHING, mark(1))
    first, _, _ = (tmp_path / "o.jsonl").read_text().splitlines()
    assert '"d":123456789012345.67,' in first
    assert '"x":{"x":1,"d":123456789012345.678}' in first
    assert json.loads(first)["z"] == "2013-01-01T08:00:00Z"
    put(tmp_path / "n.jsonl", "SELECT unnest(['nan', '-inf', '0.5', NULL]::DOUBLE[]) AS f", mark(1))
    assert (tmp_path / "n.jsonl").read_text() == '{"f":"NaN"}\n{"f":"-Infinity"}\n{"f":0.5}\n{"f":null}\n'


TEXTS = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(' ,"\r\n;\t#\\'), max_size=6
)
COLUMNS = {"a": pa.string(), "n": pa.int64(), "f": pa.float64(), "d": pa.decimal128(38, 5)}
ROWS = st.tuples(
    TEXTS,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.decimals(-(10**30), 10**30, places=5),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=5), st.sampled_from(["csv", "jsonl", "parquet"]), st.booleans())
def test_round_trips(rows: list[Any], form: str, as_batches: bool) -> None:
    table = pa.table([list(column) for column in zip(*rows, strict=True)], schema=pa.schema(list(COLUMNS.items())))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"o.{form}"
        with open_duck() as duck, sink(path).begin(Target(NODE, table.schema), Replace(), mark(1)) as opened:
            duck.execute("SET preserve_insertion_order = true")
            duck.register("given", table)
            if as_batches:
                for batch in table.to_batches(max_chunksize=2):
                    opened.write(batch)
            else:
                opened.write_relation(duck, "FROM given")  # type: ignore[attr-defined]
            assert opened.commit().rows == len(rows)
        types = {"a": "VARCHAR", "n": "BIGINT", "f": "DOUBLE", "d": "DECIMAL(38,5)"}
        told: dict[str, Any] = {"parquet": {}, "jsonl": {"columns": types}, "csv": {"columns": types, "delimiter": ","}}
        found = read(path, **told[form])
    assert (found.rows, found.rejects) == (rows, [])


# --- replace ---


def test_replace(tmp_path: Path) -> None:
    path = tmp_path / "out/report.csv"
    receipt = put(path, "SELECT 1 AS a", mark(1))
    assert (receipt.rows, receipt.target, receipt.already) == (1, str(path), False)
    assert receipt.facts == {"file": "report.csv", "bytes": path.stat().st_size}
    put(path, "SELECT 2 AS a WHERE false", mark(2, 1))
    assert path.read_text() == "a\n"
    assert names(path.parent) == ["_databrokkr_loads.json", "report.csv"]
    assert sink(path).last_load(TARGET) == mark(2, 1)
    assert sink(path).last_load(Target("other/node", TARGET.schema)) is None
    assert sink(path.with_name("other.csv")).last_load(TARGET) is None
    path.unlink()
    assert sink(path).last_load(TARGET) is None


def test_no_rows_at_all_have_the_columns_of_the_target(tmp_path: Path) -> None:
    with sink(tmp_path / "o.csv").begin(TARGET, Replace(), mark(1)) as opened:
        opened.commit()
    assert (tmp_path / "o.csv").read_text() == "a\n"


def test_leaving_without_commit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    put(path, "SELECT 1 AS a", mark(1))
    before = path.read_bytes()
    with open_duck() as duck, sink(path).begin(TARGET, Replace(), mark(2, 1)) as opened:
        opened.write_relation(duck, "SELECT 2 AS a")  # type: ignore[attr-defined]
    with pytest.raises(KeyError), sink(path).begin(TARGET, Replace(), mark(2, 1)) as opened:
        opened.write(pa.record_batch({"a": [2]}))
        raise KeyError
    assert path.read_bytes() == before
    assert names(tmp_path) == ["_databrokkr_loads.json", "o.parquet"]


def test_a_failing_query_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    put(path, "SELECT 1 AS a", mark(1))
    with pytest.raises(duckdb.Error, match="boom"):
        put(path, "SELECT error('boom') AS a FROM range(3)", mark(2, 1))
    assert path.read_text() == "a\n1\n"
    assert names(tmp_path) == ["_databrokkr_loads.json", "o.csv"]


# --- append ---


def test_append_writes_one_file_a_load(tmp_path: Path) -> None:
    folder = tmp_path / "changes"
    assert put(folder, "SELECT 1 AS a", mark(3), **APPEND).facts["file"].startswith("000000000000-")
    put(folder, "SELECT 2 AS a", mark(7, 3), **APPEND)
    put(folder, "SELECT 3 AS a WHERE false", mark(9, 7), **APPEND)
    assert [name[:12] for name in names(folder)] == ["000000000000", "000000000004", "_databrokkr_"]
    assert read(folder).rows == [(1,), (2,)]
    assert sink(folder, **APPEND).last_load(TARGET) == mark(9, 7)


def test_two_nodes_append_to_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "changes"
    written(sink(folder, **APPEND), "SELECT 1 AS a", Append(), mark(1), node="shop/one")
    written(sink(folder, **APPEND), "SELECT 2 AS a", Append(), mark(1), node="shop/two")
    assert sorted(read(folder).rows) == [(1,), (2,)]


@pytest.mark.parametrize(("form", "packing", "ending"), [("csv", "gzip", ".csv.gz"), ("jsonl", "zstd", ".jsonl.zst")])
def test_appended_names(tmp_path: Path, form: str, packing: str, ending: str) -> None:
    folder = tmp_path / "changes"
    put(folder, "SELECT 1 AS a", mark(1), disposition="append", format=form, compression=packing)
    assert names(folder)[0].endswith(ending)
    assert read(folder).rows == [(1,)]


# --- once more ---


@contextmanager
def crash_before_the_ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "write", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            yield


def test_a_load_that_the_ledger_holds_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    put(path, "SELECT 1 AS a", mark(1))
    assert put(path, "SELECT 2 AS a", mark(1)).already
    assert path.read_text() == "a\n1\n"
    assert names(tmp_path) == ["_databrokkr_loads.json", "o.csv"]


def test_a_crash_before_the_ledger_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "changes"
    put(folder, "SELECT 1 AS a", mark(1), **APPEND)
    with crash_before_the_ledger(monkeypatch):
        put(folder, "SELECT 2 AS a", mark(2, 1), **APPEND)
    assert sink(folder, **APPEND).last_load(TARGET) == mark(1)
    put(folder, "SELECT unnest([2, 3]) AS a", mark(3, 1), **APPEND)  # the dataset has gone on meanwhile
    assert read(folder).rows == [(1,), (2,), (3,)]
    with crash_before_the_ledger(monkeypatch):
        put(folder, "SELECT 4 AS a", mark(4, 3), **APPEND)
    put(folder, "SELECT 4 AS a WHERE false", mark(5, 3), **APPEND)  # what was appended has been taken back
    assert read(folder).rows == [(1,), (2,), (3,)]


def test_a_worker_that_wakes_up_late_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    put(path, "SELECT 1 AS a", mark(1))
    put(path, "SELECT 2 AS a", mark(2, 1))
    with pytest.raises(Unavailable, match="another load of shop/orders was written in the meantime"):
        put(path, "SELECT 3 AS a", mark(3, 1))
    assert path.read_text() == "a\n2\n"


def test_what_dead_processes_staged_is_removed_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    old, young = write(tmp_path / ".o.csv.dead.tmp", "x"), write(tmp_path / ".o.csv.alive.tmp", "x")
    os.utime(old, (1, 1))
    put(path, "SELECT 1 AS a", mark(1))
    assert not old.exists()
    assert young.exists()


# --- what may go wrong ---

FILL = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from databrokkr_assets.core.errors import AccessError
from tests.connectors.carrying import mark
from tests.connectors.test_files_sink import put
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    put(Path({path!r}), "SELECT range AS a, hash(range)::VARCHAR AS b FROM range(200000)", mark(2, 1))
except AccessError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    put(path, "SELECT 1 AS a", mark(1))
    before = path.read_bytes()
    root = str(Path(__file__).parents[2])
    script = FILL.format(root=root, path=str(path))
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True).stdout
    assert "cannot be written" in said
    assert f"free space on the disk of {tmp_path}" in said
    assert path.read_bytes() == before
    assert names(tmp_path) == ["_databrokkr_loads.json", name]


def test_a_folder_that_may_not_be_written() -> None:
    with powerless() as folder:
        path = write(folder / "out/o.csv", "a\n1\n")
        path.parent.chmod(0o500)
        with pytest.raises(AccessError, match=r"o\.csv.* cannot be written"):
            put(path, "SELECT 2 AS a", mark(1))
        with pytest.raises(AccessError, match="cannot be written"):
            put(folder / "out/more/o.csv", "SELECT 2 AS a", mark(1))
        assert path.read_text() == "a\n1\n"
        path.parent.chmod(0o700)


def test_a_ledger_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "_databrokkr_loads.json", "{")
    with pytest.raises(DataError, match="the ledger cannot be read"):
        sink(tmp_path / "o.csv").last_load(TARGET)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "out"}, "tells no format"),
        ({"path": "out", "format": "csv"}, "looks like a folder"),
        ({"path": "out/o.csv", "disposition": "append"}, "give a folder"),
        ({"path": "out/o.csv", "disposition": "merge", "keys": "id"}, "cannot be merged into"),
        ({"path": "gs://out/o.csv"}, "local files only"),
    ],
)
def test_settings_are_refused_early(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FilesSink(type="files", input="orders", **given)


def test_what_it_offers(tmp_path: Path) -> None:
    offered = sink(tmp_path / "o.csv")
    assert (offered.dispositions, offered.delivery) == (frozenset({Append, Replace}), Delivery.AT_LEAST_ONCE)
    with pytest.raises(SpecError, match="cannot be written by merge"):
        put(tmp_path / "o.csv", "SELECT 1 AS a", mark(1), Merge(("a",)))
    origin = FilesSink(type="files", input="orders", path="/out/o.csv").origin(None)
    assert (origin.key, origin.uri) == (("files", "out", "o_csv"), "file:///out/o.csv")
    assert FilesSource(type="files", path=("/out/o.csv",)).origins(None) == (origin,)


def test_parquet_is_compressed(tmp_path: Path) -> None:
    put(tmp_path / "o.parquet", "SELECT 1 AS a", mark(1))
    assert pq.ParquetFile(tmp_path / "o.parquet").metadata.row_group(0).column(0).compression == "ZSTD"

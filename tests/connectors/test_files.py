"""Files as a source: which are read, each once, none half; the formats' own tests are in test_files_text.py."""

from __future__ import annotations

import gzip
import os
import time
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from databrokkr_assets.core.disposition import Append, Merge
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.spec import Place
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.loading import load
from resources.connectors.files import FilesSource
from resources.registry import connector
from tests.connectors.carrying import job
from tests.connectors.files_reading import powerless, read, reader, write


def later(path: Path, seconds: float = 10) -> None:
    """Give the file another time."""
    now = path.stat().st_mtime_ns
    os.utime(path, ns=(now, now + int(seconds * 1e9)))


def packed(data: bytes, codec: str) -> bytes:
    if codec == "gzip":
        return gzip.compress(data)
    compressed = pa.compress(data, codec, asbytes=True)
    assert isinstance(compressed, bytes)
    return compressed


def source(path: Path | str, **settings: Any) -> FilesSource:
    return FilesSource(type="files", path=(str(path),), **settings)


# --- which files ---


def test_a_file_a_glob_and_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.csv", "a/deep/1.csv", "3.csv", "_tmp/4.csv", ".5.csv", "notes.txt"):
        write(tmp_path / name, f"name\n{name}\n")
    assert read("3.csv", tmp_path).rows == [("3.csv",)]
    assert read("**/*.csv", tmp_path).rows == [("3.csv",), ("_tmp/4.csv",), ("a/deep/1.csv",), ("b/2.csv",)]
    whole = read(".", tmp_path)
    assert whole.rows == [("3.csv",), ("a/deep/1.csv",), ("b/2.csv",)]
    assert whole.cursor is not None
    assert sorted(whole.cursor["files"]) == ["3.csv", "a/deep/1.csv", "b/2.csv"]


def test_brackets_in_a_name_are_no_glob(tmp_path: Path) -> None:
    write(tmp_path / "g1.csv", "name\ndecoy\n")
    there = write(tmp_path / "g[1].csv", "name\nit's\n")
    assert read(there).rows == [("it's",)]
    assert len(read(tmp_path).rows) == 2


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"no file matches .*nothing/\*\.csv"):
        read("nothing/*.csv", tmp_path)
    with pytest.raises(AccessError, match="no file matches"):
        read("*.csv", tmp_path, {"files": {"old.csv": [1, 2]}}, disposition="replace")


def test_formats_are_told_by_extension_and_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "a\n1\n")
    write(tmp_path / "b.jsonl.gz", gzip.compress(b'{"a": 1}\n'))
    with pytest.raises(SpecError, match=r"a\.csv is csv and b\.jsonl\.gz is jsonl"):
        read(tmp_path)
    with pytest.raises(SpecError, match="tells no format"):
        read(write(tmp_path / "c.dat", "a\n1\n"))
    assert read(tmp_path / "c.dat", format="csv").rows == [(1,)]


# --- each once ---


def test_only_new_and_changed_files(tmp_path: Path) -> None:
    one = write(tmp_path / "1.csv", "a\n1\n")
    first = read(tmp_path)
    write(tmp_path / "2.csv", "a\n2\n")
    second = read(tmp_path, after=first.cursor)
    assert second.rows == [(2,)]
    one.unlink()
    write(one, "a\n1\n3\n")
    assert read(tmp_path, after=second.cursor).rows == [(1,), (3,)]


def test_nothing_new_has_the_columns_of_the_last_load(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", "a,b\n1,x\n")
    first = read(tmp_path)
    file.unlink()
    for _ in range(2):
        again = read(tmp_path, after=first.cursor)
        assert (again.rows, again.types, again.cursor) == ([], first.types, first.cursor)


def test_a_file_without_bytes_is_not_there_yet(tmp_path: Path) -> None:
    blank = write(tmp_path / "1.csv", "")
    with pytest.raises(DataError, match="is empty, so its columns are unknown"):
        read(tmp_path)
    write(tmp_path / "2.csv", "a\n2\n")
    first = read(tmp_path)
    write(blank, "a\n1\n")
    assert read(tmp_path, after=first.cursor).rows == [(1,)]


def test_seen_by_hash(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", "a\n1\n")
    first = read(tmp_path, seen_by="hash")
    later(file)
    touched = read(tmp_path, after=first.cursor, seen_by="hash")
    assert (touched.rows, touched.cursor) == ([], first.cursor)
    before = file.stat()
    file.write_text("a\n2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(tmp_path, after=first.cursor, seen_by="hash").rows == [(2,)]
    assert read(tmp_path, after=first.cursor, seen_by="mtime").rows == [(2,)]


def test_seen_by_may_be_changed_without_reading_again(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a\n1\n")
    assert read(tmp_path, after=read(tmp_path).cursor, seen_by="hash").rows == []


def test_replace_reads_everything(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "a\n1\n")
    first = read(tmp_path, disposition="replace")
    assert read(tmp_path, after=first.cursor, disposition="replace").rows == [(1,)]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", "a\n1\n")
    reading = reader(file, tmp_path)
    with open_duck() as duck:
        relation = reading.relation(duck, next(iter(reading.streams())), None)
        assert relation is not None
        duck.execute(relation.query).fetchall()
        file.write_text("a\n1\n2\n")
        with pytest.raises(Unavailable, match=r"changed while being read: 1\.csv"):
            relation.rejects()
        with pytest.raises(Unavailable):
            relation.advance(lambda expression: None)
        file.unlink()
        assert isinstance(relation.explain(FileNotFoundError()), Unavailable)


# --- through the engine ---


def test_loads_append_and_set_aside(tmp_path: Path) -> None:
    project, lake = tmp_path / "project", tmp_path / "lake"
    write(project / "in/1.csv", "id,name\n1,a\n2\n")
    settings = source("in/*.csv")

    def run() -> tuple[int, int, int | None]:
        outcome = load(job(lake), settings.open(None, Place(project)), settings.how)
        return outcome.rows_out, outcome.quarantined, outcome.total_rows

    assert settings.how == Append()
    assert run() == (1, 1, 1)
    assert run() == (0, 0, 1)
    write(project / "in/2.csv", "id,name\n3,c\n")
    assert run() == (1, 0, 2)
    for file in (project / "in").iterdir():
        file.unlink()
    assert run() == (0, 0, 2)


def test_merge_takes_the_last_line_of_the_last_file(tmp_path: Path) -> None:
    write(tmp_path / "in/1.csv", "id,name\n1,a\n2,b\n1,c\n")
    write(tmp_path / "in/2.csv", "id,name\n2,d\nbroken\n2,e\n")
    settings = source("in", disposition="merge", keys="id")
    mine = job(tmp_path / "lake")
    assert load(mine, settings.open(None, Place(tmp_path)), Merge(("id",))).rows_out == 2
    snapshot = mine.dataset.open()
    assert snapshot is not None
    with open_duck() as duck:
        assert duck.execute(f"SELECT id, name FROM ({snapshot.query(duck)}) ORDER BY id").fetchall() == [
            (1, "c"),
            (2, "e"),
        ]


def test_batches_hold_the_same(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "id,name\n1,a\n2\n3,c\n")
    reading = reader(tmp_path, tmp_path)
    batches = list(reading.read(next(iter(reading.streams())), None))
    assert [row for batch in batches for row in batch.records.to_pylist()] == [
        {"id": 1, "name": "a"},
        {"id": 3, "name": "c"},
    ]
    assert [reject.position for batch in batches for reject in batch.rejects] == ["1.csv:3"]
    assert batches[-1].cursor == read(tmp_path).cursor
    assert [batch.cursor for batch in batches[:-1]] == [None] * (len(batches) - 1)


# --- compression ---


@pytest.mark.parametrize(("codec", "ending"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_compressed_files(tmp_path: Path, codec: str, ending: str) -> None:
    data = b"a,b\n" + b"".join(b"%d,x\n" % number for number in range(50_000))
    write(tmp_path / f"1.csv{ending}", packed(data, codec))
    write(tmp_path / "2.csv", "a,b\n-1,y\n")
    found = read(tmp_path)
    assert len(found.rows) == 50_001
    assert found.rows[-1] == (-1, "y")
    renamed = write(tmp_path / "x/1.packed", packed(b'{"a": 1}\n{\n', codec))
    lines = read(renamed, format="jsonl", compression=codec)
    assert (lines.rows, [reject.position for reject in lines.rejects]) == ([(1,)], ["1.packed:2"])


@pytest.mark.parametrize(("codec", "ending"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_half_a_compressed_file(tmp_path: Path, codec: str, ending: str) -> None:
    data = packed(b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * 7919 % 10007) for n in range(50_000)), codec)
    write(tmp_path / f"1.csv{ending}", data[: len(data) // 2])
    with pytest.raises(DataError, match=f"not a whole {codec} file") as error:
        read(tmp_path)
    assert "1.csv" in str(error.value)


def test_a_flipped_bit_in_a_compressed_file(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"a\n" + b"1\n" * 50_000 + os.urandom(50_000).hex().encode()))
    data[len(data) // 2] ^= 1
    with pytest.raises(DataError, match="not a whole gzip file"):
        read(write(tmp_path / "1.csv.gz", bytes(data)))


# --- Parquet ---

EXACT = pa.table(
    {
        "i": pa.array([2**63 - 1, None], pa.int64()),
        "small": pa.array([1, -1], pa.int16()),
        "d": pa.array([Decimal("12345678901234567890123456789012345.678"), None], pa.decimal128(38, 3)),
        "s": pa.array(["", None]),
        "b": pa.array([b"\x00\xff", None]),
        "t": pa.array([datetime(2013, 1, 1, 1, 2, 3, 456789), None], pa.timestamp("us")),
        "z": pa.array([datetime(2013, 1, 1), None], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2013, 1, 1), None]),
        "l": pa.array([[1, None], None], pa.list_(pa.int32())),
        "x": pa.array([{"a": 1, "b": "x"}, None]),
        "f": pa.array([0.1, None]),
    }
)


def test_parquet_types_arrive_exactly(tmp_path: Path) -> None:
    pq.write_table(EXACT, tmp_path / "1.parquet")
    reading = reader(tmp_path, tmp_path)
    with open_duck() as duck:
        relation = reading.relation(duck, next(iter(reading.streams())), None)
        assert relation is not None
        assert duck.execute(relation.query).to_arrow_table().cast(EXACT.schema).equals(EXACT)


def test_parquet_files_with_other_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "d": pa.array([Decimal("1.5")])}), tmp_path / "1.parquet")
    pq.write_table(
        pa.table({"b": ["x"], "a": pa.array([2**40], pa.int64()), "d": pa.array([Decimal("9999.25")])}),
        tmp_path / "2.parquet",
    )
    pq.write_table(pa.table({"b": pa.nulls(1)}), tmp_path / "3.parquet")
    found = read(tmp_path)
    assert found.rows == [(1, Decimal("1.5"), None), (2**40, Decimal("9999.25"), "x"), (None, None, None)]


def test_parquet_types_that_do_not_fit_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [2**60]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [0.5]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r'2\.parquet: the column "a" is DOUBLE here, but BIGINT in 1\.parquet'):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1", b"truncated"])
def test_a_file_that_is_not_whole_parquet(tmp_path: Path, content: bytes) -> None:
    pq.write_table(EXACT, tmp_path / "1.parquet")
    if content == b"truncated":
        content = (tmp_path / "1.parquet").read_bytes()[:-100]
    write(tmp_path / "2.parquet", content)
    with pytest.raises(DataError, match=r"2\.parquet: is not a whole Parquet file"):
        read(tmp_path)


def test_a_damaged_page_publishes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "in/1.parquet", b"")
    pq.write_table(pa.table({"a": [os.urandom(16).hex() for _ in range(20_000)]}), file)
    data = bytearray(file.read_bytes())
    data[1000:1400] = b"\x07" * 400
    file.write_bytes(bytes(data))
    mine = job(tmp_path / "lake")
    settings = source("in")
    with pytest.raises(DataError) as error:
        load(mine, settings.open(None, Place(tmp_path)), settings.how)
    assert "1.parquet" in str(error.value)
    assert mine.dataset.open() is None


# --- arrivals ---


def test_arrivals(tmp_path: Path) -> None:
    place = Place(tmp_path)
    settings = source("in/*.csv", settle=0)
    assert settings.arrivals(place, None).paths == []
    one = write(tmp_path / "in/1.csv", "a\n1\n")
    write(tmp_path / "in/2.csv", "")
    first = settings.arrivals(place, None)
    assert first.paths == [str(one)]
    assert settings.arrivals(place, first.cursor).paths == []
    later(one)
    two = write(tmp_path / "in/2.csv", "a\n2\n")
    second = settings.arrivals(place, first.cursor)
    assert second.paths == [str(one), str(two)]
    assert settings.arrivals(place, second.cursor).paths == []


def test_a_file_that_is_still_being_written_has_not_arrived(tmp_path: Path) -> None:
    file = write(tmp_path / "1.csv", "a\n1\n")
    settings = source("1.csv", settle=60)
    assert settings.arrivals(Place(tmp_path), None).paths == []
    old = time.time() - 61
    os.utime(file, (old, old))
    assert settings.arrivals(Place(tmp_path), None).paths == [str(file)]


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "s3://bucket/x.csv"}, "local files only"),
        ({"path": "x.csv", "columns": {"a": "NUMBR"}}, 'the column "a".*NUMBR'),
        ({"path": "x.csv", "encoding": "utf-9"}, 'no encoding "utf-9"'),
        ({"path": "x.csv", "delimiter": "abcde"}, "at most 4 characters"),
    ],
)
def test_settings_are_refused_early(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FilesSource(type="files", **settings)


@pytest.mark.parametrize(
    ("path", "key", "uri"),
    [
        ("/data/in/flights-2013.csv", ("files", "data", "in", "flights_2013_csv"), "file:///data/in/flights-2013.csv"),
        ("/data/in/**/*.csv", ("files", "data", "in"), "file:///data/in"),
        ("in/x.csv", ("files", "in", "x_csv"), "file:in/x.csv"),
    ],
)
def test_origins(path: str, key: tuple[str, ...], uri: str) -> None:
    (origin,) = source(path).origins(None)
    assert (origin.key, origin.kind, origin.uri) == (key, "file", uri)


def test_the_connector_is_registered() -> None:
    assert connector("files").source is FilesSource


def test_a_file_that_may_not_be_read() -> None:
    with powerless() as folder:
        file = write(folder / "1.csv", "a\n1\n")
        file.chmod(0)
        with pytest.raises(AccessError, match=r"1\.csv cannot be read: Permission denied"):
            read(file)


def test_only_the_columns_that_are_wanted(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "id,name,note\n1,Ann,x\n")
    found = read(tmp_path / "a.csv", select=["note", "ID"])
    assert (found.rows, list(found.types)) == ([("x", 1)], ["note", "id"])
    with pytest.raises(SpecError, match='no file has the column "nam"') as refused:
        read(tmp_path / "a.csv", select=["nam"])
    assert 'did you mean "name"' in refused.value.mend

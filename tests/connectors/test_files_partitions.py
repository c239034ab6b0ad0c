"""Files of a folder, split by partition and size: they count from one moment on, and are read back by the manifest."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import SecretStr, ValidationError

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import LoadMark, Receipt, Sink, Target
from databrokkr_assets.core.spec import Place
from resources.connectors.files import FilesSink, FilesSource
from resources.connectors.s3 import S3Connection
from resources.support import file_manifest
from resources.support.file_folders import DiskFolder
from resources.support.file_manifest import MANIFEST
from tests.connectors.carrying import NODE, Row, in_order, mark, staged, values, written
from tests.connectors.files_reading import reader
from tests.services import S3

TARGET = Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))
ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'b'"), (3, "'c'")], "id what")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder that is written."""
    return tmp_path / "out" / "orders"


def sink(path: Path, how: Disposition, **more: Any) -> Sink:
    given = {"format": "parquet", "partition_by": "what", "disposition": how.name} | more
    return FilesSink(type="files", input="orders", path=str(path), **given).open(None, Place(path.parent))


def put(path: Path, rows: str, how: Disposition, load: LoadMark, **more: Any) -> Receipt:
    return written(sink(path, how, **more), rows, how, load)


def seen(path: Path) -> list[Row]:
    return staged(reader(path, path.parent))[0]


def names(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != MANIFEST)


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Append(), [("1", "a"), ("2", "b"), ("2", "b"), ("3", "c")]),
        (Replace(), [("2", "b"), ("3", "c")]),
    ],
)
@pytest.mark.parametrize("as_batches", [False, True])
def test_loads_meet_the_folder(path: Path, how: Disposition, expected: list[Row], form: str, as_batches: bool) -> None:
    given = sink(path, how, format=form)
    for _ in range(2):
        written(given, ROWS, how, mark(1), as_batches=as_batches)
    for _ in range(2):
        receipt = written(given, MORE, how, mark(2, after=1), as_batches=as_batches)
    assert receipt.already
    assert seen(path) == expected
    last = given.last_load(TARGET)
    assert last is not None and (last.dataset, last.version, last.load_id) == ("orders-table", 2, "load-2-after-1")
    assert {Path(name).parent.name for name in names(path)} == {"what=a", "what=b", "what=c"}


def test_values_become_folders_and_come_back(path: Path) -> None:
    odd = ["'a b/ü=%'", "''", "NULL", "'..'", "'it''s'"]
    put(path, values([(value, number) for number, value in enumerate(odd)], "what id"), Replace(), mark(1))
    expected = in_order([("a b/ü=%", "0"), ("", "1"), (None, "2"), ("..", "3"), ("it's", "4")])
    assert seen(path) == expected
    hive = duckdb.sql(f"SELECT what, id::VARCHAR FROM read_parquet('{path}/**/*.parquet', hive_partitioning = true)")
    assert [row for row in in_order(hive.fetchall()) if row[0]] == [row for row in expected if row[0]]
    assert all(file.is_relative_to(path) for file in path.parent.rglob("*.parquet"))


def test_files_are_of_the_wanted_size(path: Path) -> None:
    rows = "SELECT i AS id, i % 2 AS what, md5(i::VARCHAR) AS text FROM range(300000) t(i)"
    receipt = put(path, rows, Append(), mark(1), target_size="1MB")
    sizes = [(path / name).stat().st_size for name in names(path)]
    assert receipt.rows == 300000 and receipt.facts == {"files": len(sizes), "bytes": sum(sizes)}
    assert len(sizes) >= 4 and max(sizes) < 3_000_000
    put(path.with_name("flat"), rows, Append(), mark(1), target_size="1MB", partition_by=())
    assert all("/" not in name for name in names(path.with_name("flat")))
    assert duckdb.sql(f"SELECT count(DISTINCT id) FROM '{path.with_name('flat')}/*.parquet'").fetchall() == [(300000,)]


def test_types_keep_their_values(path: Path) -> None:
    query = "SELECT 170141183460469231731687303715884105::HUGEINT AS h, TIME '10:00' AS t, 'x' AS what, 1.5 AS d"
    put(path, query, Replace(), mark(1), format="csv")
    (name,) = names(path)
    assert (path / name).read_text() == "h,t,what,d\n170141183460469231731687303715884105,10:00:00,x,1.5\n"


def test_a_reader_sees_the_old_files_or_the_new(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the manifest is replaced, the old ones count; what is superseded stays for an hour, then goes."""
    put(path, ROWS, Replace(), mark(1))
    write = DiskFolder.write

    def look_and_write(folder: DiskFolder, content: bytes, name: str, over: None) -> bool:
        assert seen(path) == [("1", "a"), ("2", "b")]
        return write(folder, content, name, over)

    with monkeypatch.context() as patched:
        patched.setattr(DiskFolder, "write", look_and_write)
        put(path, MORE, Replace(), mark(2, after=1))
    assert seen(path) == [("2", "b"), ("3", "c")]
    assert len(names(path)) == 4
    put(path, MORE, Replace(), mark(3, after=2))
    monkeypatch.setattr(file_manifest, "_GRACE", -1)
    put(path, MORE, Replace(), mark(4, after=3))
    put(path, MORE, Replace(), mark(5, after=4))
    assert seen(path) == [("2", "b"), ("3", "c")]
    assert len(names(path)) == 4, "those that count, and those that the last load superseded"


def test_a_load_that_dies_counts_for_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, ROWS, Append(), mark(1))

    def die(*given: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DiskFolder, "write", die)
        with pytest.raises(KeyboardInterrupt):
            put(path, MORE, Append(), mark(2, after=1))
    assert seen(path) == [("1", "a"), ("2", "b")]
    assert not list(path.glob(".databrokkr*")), "nothing is left of the staging"
    old = path / ".databrokkr-dead"
    old.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    put(path, MORE, Append(), mark(2, after=1))
    assert len(seen(path)) == 4
    assert not old.exists()
    with pytest.raises(Unavailable, match="in the meantime"):
        put(path, MORE, Append(), mark(3, after=1))


def test_a_manifest_that_lies_is_noticed(path: Path) -> None:
    put(path, ROWS, Replace(), mark(1))
    manifest = path / MANIFEST
    told = json.loads(manifest.read_text())
    (path / told["files"][0]["path"]).unlink()
    with pytest.raises(DataError, match="which counts, is gone"):
        seen(path)
    told["files"][0]["path"] = "../../secret.parquet"
    manifest.write_text(json.dumps(told))
    with pytest.raises(DataError, match="leads out of the folder"):
        seen(path)
    manifest.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        sink(path, Append()).last_load(TARGET)


def test_on_s3(s3: S3) -> None:
    bucket = s3.create_bucket("partitions")
    connection = S3Connection(
        type="s3",
        bucket=bucket,
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id=s3.access_key,
        secret_access_key=SecretStr(s3.secret_key),
    )
    for number, rows in enumerate((ROWS, MORE), 1):
        given = FilesSink(
            type="files", input="o", connection="s", path="out", format="parquet", partition_by=("what",)
        ).open(connection, Place(Path("/")))
        written(given, rows, Replace(), mark(number, after=number - 1 or None))
    source = FilesSource(type="files", connection="s", path=("out",)).open(connection, Place(Path("/")))
    assert staged(source)[0] == [("2", "b"), ("3", "c")]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"path": "out/x.parquet"}, "need a folder"),
        ({"format": None}, "tells no format"),
        ({"target_size": "1kB"}, "greater than or equal to 1000000"),
    ],
)
def test_settings_that_cannot_be(more: dict[str, Any], says: str) -> None:
    given = {"type": "files", "input": "o", "path": "out", "format": "parquet", "partition_by": "what"} | more
    with pytest.raises(ValidationError, match=says):
        FilesSink(**given)


def test_a_partition_that_is_no_column(path: Path) -> None:
    with pytest.raises(SpecError, match='did you mean "what"'):
        put(path, ROWS, Append(), mark(1), partition_by="whot")

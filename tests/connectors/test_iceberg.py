"""Iceberg tables: exactly once under a catalog's optimistic commits, read back by pyiceberg's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestWriter,
    ManifestWriterV2,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import DeletesRows, LoadMark, ReadsAsRelation, Receipt, Sink, Source, Target
from databrokkr_assets.core.spec import Origin, Place
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from resources.connectors.iceberg import IcebergConnection, IcebergSinkSettings, IcebergSourceSettings
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, one_duck, staged, values, written
from tests.services import S3

TARGET = Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))
ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")
PLACE = Place(Path("/"))


class Shop:
    """A catalog in a file with a warehouse beside it, as an author and as another engine reach it."""

    def __init__(self, folder: Path, **more: str) -> None:
        here = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse"}
        (folder / "warehouse").mkdir(exist_ok=True)
        self.folder = folder
        self.connection = IcebergConnection(type="iceberg", catalog=here | more)

    def sink(self, table: str = "shop.orders", **more: Any) -> Sink:
        given = IcebergSinkSettings(type="iceberg", connection="lake", input="orders", table=table, **more)
        return given.open(self.connection, PLACE)

    def source(self, table: str = "shop.orders", **more: Any) -> Source:
        given = IcebergSourceSettings(type="iceberg", connection="lake", table=table, **more)
        return given.open(self.connection, PLACE)

    def put(self, rows: str, how: Disposition, load: LoadMark, **more: Any) -> Receipt:
        return written(self.sink(**more), rows, how, load)

    def catalog(self) -> Catalog:
        return load_catalog("lake", **self.connection.catalog)

    def table(self, name: str = "shop.orders") -> Table:
        return self.catalog().load_table(name)

    def seen(self, name: str = "shop.orders", **scan: Any) -> list[Row]:
        """The rows as pyiceberg's own reader gives them."""
        rows = self.table(name).scan(**scan).to_arrow()
        with one_duck() as duck:
            return in_order(duck.from_arrow(rows).project("CAST(COLUMNS(*) AS VARCHAR)").fetchall())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


# ------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Append(), [("1", "a"), ("2", "B"), ("2", "b"), ("3", "c")]),
        (Replace(), [("2", "B"), ("3", "c")]),
        (Merge(("id",)), [("1", "a"), ("2", "B"), ("3", "c")]),
    ],
)
@pytest.mark.parametrize(("partition_by", "as_batches"), [((), True), (("what",), False)])
def test_loads_meet_the_table(
    shop: Shop, how: Disposition, expected: list[Row], partition_by: tuple[str, ...], as_batches: bool
) -> None:
    given = shop.sink(partition_by=partition_by)
    for _ in range(2):
        written(given, ROWS, how, mark(1), as_batches=as_batches)
    for _ in range(2):
        receipt = written(given, MORE, how, mark(2, after=1), as_batches=as_batches)
    assert receipt.already
    assert shop.seen() == staged(shop.source())[0] == expected
    assert len(shop.table().snapshots()) == 2, "a load is one snapshot"
    assert given.last_load(TARGET) == LoadMark("load-2-after-1", "orders-table", 2, run_id="run")


def test_a_merge_removes_deleted_keys_and_keeps_the_last(shop: Shop) -> None:
    shop.put(values([(1, "'x'"), (1, "'a'"), (2, "'b'")], "id what"), Merge(("id",)), mark(1))
    with shop.sink().begin(TARGET, Merge(("id",)), mark(2, after=1)) as opened:
        assert isinstance(opened, DeletesRows)
        opened.delete(pa.RecordBatch.from_pydict({"id": pa.array([1], pa.int32())}))
        opened.commit()
    assert shop.seen() == [("2", "b")]


def test_a_load_that_is_left_changes_nothing(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    before = sorted((shop.folder / "warehouse").rglob("*"))
    with shop.sink().begin(TARGET, Append(), mark(2, after=1)) as opened:
        opened.write(pa.RecordBatch.from_pylist([{"id": 9, "what": "x"}], TARGET.schema))
    with pytest.raises(DataError, match="which would change the value 3000000000"):
        shop.put(values([(3000000000, "'x'")], "id what"), Append(), mark(2, after=1))
    assert sorted((shop.folder / "warehouse").rglob("*")) == before


def test_a_worker_thought_dead_writes_nothing(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    shop.put(MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="in the meantime"):
        shop.put(MORE, Append(), mark(3, after=1))
    assert len(shop.seen()) == 4


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",))])
@pytest.mark.parametrize("other", ["a foreign writer", "our successor"])
def test_who_commits_in_between(shop: Shop, how: Disposition, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading of the ledger and the commit, somebody else commits; once, then no more."""
    shop.put(ROWS, Append(), mark(1))
    commit, others = SqlCatalog.commit_table, iter([5])

    def commit_late(catalog: SqlCatalog, table: Table, *given: Any) -> Any:
        for id in others:
            if other == "our successor":
                shop.put(values([(id, "'other'")], "id what"), Append(), mark(3, after=1))
            else:
                shop.table().append(pa.table({"id": pa.array([id], pa.int32()), "what": ["other"]}))
        return commit(catalog, table, *given)

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_late)
    if other == "our successor":
        with pytest.raises(Unavailable, match="in the meantime"):
            shop.put(MORE, how, mark(2, after=1))
        assert {row[0] for row in shop.seen()} == {"1", "2", "5"}
    else:
        shop.put(MORE, how, mark(2, after=1))
        kept = {"append": {"1", "2", "3", "5"}, "replace": {"2", "3"}, "merge": {"1", "2", "3", "5"}}
        assert {row[0] for row in shop.seen()} == kept[how.name]


@pytest.mark.parametrize("says", [CommitFailedException("lost"), ConnectionError("lost")])
def test_a_lost_reply_is_found_in_the_table(shop: Shop, says: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.put(ROWS, Append(), mark(1))
    commit = SqlCatalog.commit_table

    def commit_and_lose(*given: Any) -> Any:
        commit(*given)
        raise says

    with monkeypatch.context() as patched:
        patched.setattr(SqlCatalog, "commit_table", commit_and_lose)
        if isinstance(says, CommitFailedException):
            assert shop.put(MORE, Append(), mark(2, after=1)).already
        else:
            with pytest.raises(AccessError, match="lost"):
                shop.put(MORE, Append(), mark(2, after=1))
    assert shop.put(MORE, Append(), mark(2, after=1)).already
    assert len(shop.seen()) == 4, "the files of the commit are still there"


def test_an_empty_load_moves_the_ledger_and_is_fenced(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    shop.put(f"SELECT * FROM ({ROWS}) WHERE false", Append(), mark(2, after=1))
    assert shop.put(ROWS, Append(), mark(2, after=1)).already
    shop.put(f"SELECT * FROM ({ROWS}) WHERE false", Replace(), mark(3, after=2))
    assert shop.seen() == []
    shop.put(ROWS, Replace(), mark(4, after=3))
    assert len(shop.seen()) == 2


TIMES = values(
    [
        ("DATE '2024-02-29'", "TIMESTAMPTZ '2024-01-01 00:30:00+02'", "'a b/ü=%'", 1),
        ("DATE '1969-12-31'", "TIMESTAMPTZ '1969-12-31 23:30:00+00'", "''", 2),
        ("NULL", "NULL", "NULL", 3),
    ],
    "day at word id",
)


def test_partitions_are_what_iceberg_computes(shop: Shop) -> None:
    words = ("day", "year(day)", "month(at)", "day(at)", "hour(at)", "word")
    shop.put(TIMES, Append(), mark(1), partition_by=words)
    table = shop.table()
    found = {task.file.partition for task in table.scan().plan_files()}
    expected = set()
    for row in table.scan().to_arrow().to_pylist():
        columns = [table.schema().find_field(field.source_id) for field in table.spec().fields]
        expected.add(
            tuple(
                field.transform.transform(column.field_type)(_physical(row[column.name]))
                for field, column in zip(table.spec().fields, columns, strict=True)
            )
        )
    assert {tuple(record[i] for i in range(len(words))) for record in found} == expected
    for condition, id in [("at < '1970-01-01T00:00:00+00:00'", "2"), ("word = ''", "2"), ("day is null", "3")]:
        assert [row[3] for row in shop.seen(row_filter=condition)] == [id]
    shop.put(values([("'a b/ü=%'", 9)], "word id"), Merge(("word",)), mark(2, after=1))
    assert [(row[2], row[3]) for row in shop.seen()] == [(None, "3"), ("a b/ü=%", "9"), ("", "2")]


def _physical(value: Any) -> Any:
    from pyiceberg.utils.datetime import date_to_days, datetime_to_micros

    if hasattr(value, "hour"):
        return datetime_to_micros(value.replace(tzinfo=None))
    return date_to_days(value) if hasattr(value, "day") else value


@pytest.mark.parametrize(
    ("words", "says"),
    [("week(day)", 'no partition "week"'), ("dai", 'did you mean "day"'), ("at", "cannot be written")],
)
def test_partitions_that_cannot_be(shop: Shop, words: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        shop.put(TIMES, Append(), mark(1), partition_by=words)


def test_files_are_of_the_wanted_size(shop: Shop) -> None:
    rows = "SELECT i AS id, i % 2 AS p, md5(i::VARCHAR) AS what FROM range(400000) t(i)"
    shop.put(rows, Append(), mark(1), partition_by="p", target_size="2MB")
    files = [task.file for task in shop.table().scan().plan_files()]
    assert len(files) >= 4 and max(file.file_size_in_bytes for file in files) < 6_000_000
    assert sum(file.record_count for file in files) == 400000 == shop.table().scan().count()
    assert len(list((shop.folder / "warehouse").rglob("*.parquet"))) == len(files), "nothing is left over"
    assert len(shop.seen(row_filter="id >= 399990")) == 10


def test_new_columns_are_added(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    more = "SELECT 3 AS ID, TIME '10:00' AS at, {'x': [1]} AS s"
    with pytest.raises(SpecError, match='no column "at", "s"'):
        shop.put(more, Append(), mark(2, after=1), create=False)
    shop.put(more, Append(), mark(2, after=1))
    expected: list[Row] = [("1", "a", None, None), ("2", "b", None, None), ("3", None, "10:00:00", "{'x': [1]}")]
    assert shop.seen() == staged(shop.source())[0] == expected
    with pytest.raises(SpecError, match="no such table"):
        shop.put(ROWS, Append(), mark(1), create=False, table="shop.none")


EVERY_TYPE = """SELECT true AS a, 255::UTINYINT AS b, 4294967295::UINTEGER AS c, 0.1::FLOAT AS d, 'nan'::DOUBLE AS e,
    (-0.01)::DECIMAL(38,2) AS f, '' AS g, '\\x00'::BLOB AS h, DATE '0001-01-01' AS i, TIME '23:59:59.999999' AS j,
    TIMESTAMP_MS '2020-01-01 00:00:00.1' AS k, TIMESTAMPTZ '2020-06-01 12:00:00.000001+02' AS l, [1, NULL] AS m,
    {'a': 1::UTINYINT, 'b c': [TIME '01:00']} AS n, MAP {'k': 1.25} AS o, 'x'::ENUM('x') AS p, '{"a": 1}'::JSON AS q,
    'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID AS r, 1.5::DECIMAL(9,1) AS s"""


def test_no_value_changes_there_and_back(shop: Shop, tmp_path: Path) -> None:
    nothing = f"SELECT {', '.join(['NULL'] * 19)}"
    shop.put(f"{EVERY_TYPE} UNION ALL {nothing}", Append(), mark(1))
    with one_duck() as duck:
        query = f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({EVERY_TYPE} UNION ALL {nothing})"
        expected = in_order(duck.execute(query).fetchall())
        given = shop.source()
        assert isinstance(given, ReadsAsRelation)
        read = given.relation(duck, next(iter(given.streams())), None)
        assert read is not None
        assert [str(kind) for kind in duck.sql(read.query).types][:4] == ["BOOLEAN", "INTEGER", "BIGINT", "FLOAT"]
    assert staged(shop.source())[0] == batched(shop.source())[0] == expected
    load(job(tmp_path), shop.source(), Replace())
    assert deliver(job(tmp_path), shop.sink("shop.copy"), Append()).published
    assert not deliver(job(tmp_path), shop.sink("shop.copy"), Append()).published
    assert staged(shop.source("shop.copy"))[0] == expected


@pytest.mark.parametrize(
    "value",
    ["1::UBIGINT", "1::HUGEINT", "TIMESTAMP_NS '2020-01-01'", "TIMETZ '10:00+02'", "INTERVAL '1 day'", "[1::HUGEINT]"],
)
def test_types_that_iceberg_has_not_are_refused(shop: Shop, value: str) -> None:
    with pytest.raises(SpecError, match='the column "x" is'):
        shop.put(f"SELECT {value} AS x", Append(), mark(1))


@pytest.mark.parametrize("value", ["DATE 'infinity'", "TIMESTAMP '-infinity'", "TIME '24:00'"])
def test_values_that_iceberg_has_not_are_refused(shop: Shop, value: str) -> None:
    with pytest.raises(DataError, match="Iceberg cannot hold"):
        shop.put(f"SELECT {value} AS x", Append(), mark(1))


# --------------------------------------------------------------------------------- tables of other engines


def test_renamed_columns_and_files_of_another_engine(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    with shop.table().update_schema() as schema:
        schema.rename_column("what", "word")
    shop.table().append(pa.table({"id": pa.array([3], pa.int32()), "word": ["c"]}))
    expected: list[Row] = [("1", "a"), ("2", "b"), ("3", "c")]
    assert staged(shop.source())[0] == batched(shop.source())[0] == shop.seen() == expected
    shop.put("SELECT 4 AS id, 'd' AS word", Append(), mark(2, after=1))
    assert shop.seen() == staged(shop.source())[0] == [*expected, ("4", "d")]
    with pytest.raises(SpecError, match="columns were renamed"):
        shop.put("SELECT 4 AS id, 'd' AS word", Merge(("id",)), mark(3, after=2))


class _DeletesManifest(ManifestWriterV2):
    """A manifest of delete files, which pyiceberg reads and does not write."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _RowsDeleted(_FastAppendFiles):
    """A snapshot that deletes rows by their positions, as Spark and Trino make it for merge-on-read."""

    def new_manifest_writer(self, spec: PartitionSpec) -> ManifestWriter:
        metadata = self._transaction.table_metadata
        return _DeletesManifest(spec, metadata.schema(), self.new_manifest_output(), self.snapshot_id, "deflate")


def test_deleted_rows_are_never_read(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    table = shop.table()
    (task,) = table.scan().plan_files()
    path = f"{table.location()}/data/deletes.parquet"
    rows = pa.table({"file_path": [task.file.file_path], "pos": pa.array([0], pa.int64())})
    pq.write_table(rows, path.removeprefix("file://"))
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=Path(path.removeprefix("file://")).stat().st_size,
        spec_id=0,
    )
    transaction = table.transaction()
    with _RowsDeleted(Operation.OVERWRITE, transaction, table.io) as snapshot:
        snapshot.append_data_file(deletes)
    transaction.commit_transaction()
    assert staged(shop.source())[0] == batched(shop.source())[0] == shop.seen() == [("2", "b")]
    with pytest.raises(SpecError, match="rows are deleted apart"):
        shop.put(MORE, Merge(("id",)), mark(2, after=1))
    shop.put(MORE, Append(), mark(2, after=1))
    assert staged(shop.source())[0] == [("2", "B"), ("2", "b"), ("3", "c")]
    shop.put(MORE, Replace(), mark(3, after=2))
    assert staged(shop.source())[0] == shop.seen() == [("2", "B"), ("3", "c")]


def test_a_bucketed_table_is_read_and_not_written(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    with shop.table().update_spec() as spec:
        spec.add_field("id", "bucket[4]", "id_bucket")
    assert staged(shop.source())[0] == [("1", "a"), ("2", "b")]
    with pytest.raises(SpecError, match='partition "id_bucket"'):
        shop.put(MORE, Append(), mark(2, after=1))


# ------------------------------------------------------------------------------------------------ reading


def test_a_snapshot_and_a_time(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    first = shop.table().current_snapshot()
    shop.put("SELECT 3 AS id, 'c' AS what, 1 AS n", Append(), mark(2, after=1))
    assert first is not None
    assert staged(shop.source(snapshot=first.snapshot_id))[0] == [("1", "a"), ("2", "b")]
    assert len(staged(shop.source(as_of="2100-01-01", columns="n"))[0]) == 3
    stream = next(iter(shop.source(columns="what", disposition="merge", keys="what").streams()))
    assert (stream.namespace, stream.name, stream.keys) == ("shop", "orders", ("what",))
    wrongs: list[tuple[dict[str, Any], str]] = [({"snapshot": 1}, "of 1"), ({"as_of": "2000-01-01"}, "of 2000")]
    for wrong, says in wrongs:
        with pytest.raises(AccessError, match=says):
            staged(shop.source(**wrong))
    with pytest.raises(AccessError, match=r"no table shop\.none"):
        staged(shop.source("shop.none"))
    with pytest.raises(SpecError, match='did you mean "what"'):
        staged(shop.source(columns="whot"))


def test_incremental_reads_appended_rows_once(shop: Shop) -> None:
    given = shop.source(incremental=True)
    shop.catalog().create_namespace("shop")
    shop.catalog().create_table("shop.orders", TARGET.schema)
    rows, cursor = staged(given)
    assert rows == []
    shop.put(ROWS, Append(), mark(1))
    rows, cursor = staged(given, cursor)
    assert rows == [("1", "a"), ("2", "b")]
    assert staged(given, cursor) == ([], cursor)
    shop.put(values([(3, "'c'")], "id what"), Append(), mark(2, after=1))
    shop.put(values([(4, "'d'")], "id what"), Append(), mark(3, after=2))
    rows, later = staged(given, cursor)
    assert rows == [("3", "c"), ("4", "d")]
    assert batched(given, cursor) == (rows, later)
    assert later is not None
    with pytest.raises(AccessError, match="no longer goes back"):
        staged(given, {**later, "snapshot": 1})
    with pytest.raises(DataError, match="made anew"):
        staged(given, {**later, "table": "another"})
    shop.table().delete("id = 1")
    with pytest.raises(DataError, match="changed or removed"):
        staged(given, later)
    merged, _ = staged(shop.source(incremental=True, disposition="merge", keys="id"), later)
    assert [row[0] for row in merged] == ["2", "3", "4"]


# --------------------------------------------------------------------------------------------- connections


def test_a_warehouse_on_s3(s3: S3, tmp_path: Path) -> None:
    bucket = s3.create_bucket("iceberg-warehouse")
    shop = Shop(
        tmp_path,
        **{
            "warehouse": f"s3://{bucket}/warehouse",
            "s3.endpoint": s3.endpoint_url,
            "s3.region": s3.region,
            "s3.access-key-id": s3.access_key,
            "s3.secret-access-key": s3.secret_key,
        },
    )
    shop.put(ROWS, Append(), mark(1), partition_by="what")
    shop.put(MORE, Merge(("id",)), mark(2, after=1))
    assert shop.seen() == staged(shop.source())[0] == [("1", "a"), ("2", "B"), ("3", "c")]
    assert s3.secret_key not in repr(shop.connection)


def test_a_catalog_is_tested_and_listed(shop: Shop) -> None:
    shop.put(ROWS, Append(), mark(1))
    (finding,) = shop.connection.check_access("lake", PLACE)
    assert finding.ok and finding.says == "it has 1 namespaces"
    assert [(one.namespace, one.name) for one in shop.connection.list_streams("lake", PLACE)] == [("shop", "orders")]
    down = IcebergConnection(type="iceberg", catalog={"type": "rest", "uri": "http://127.0.0.1:9"})
    (finding,) = down.check_access("lake", PLACE)
    assert not finding.ok and "does not answer" in finding.says
    with pytest.raises(Unavailable):
        list(down.list_streams("lake", PLACE))


@pytest.mark.parametrize(
    "more", [{"snapshot": 1, "incremental": True}, {"table": "orders"}, {"as_of": "2024-01-01", "snapshot": 1}]
)
def test_settings_that_cannot_be(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IcebergSourceSettings(**({"type": "iceberg", "connection": "lake", "table": "shop.orders"} | more))


def test_origins_name_the_table() -> None:
    given = IcebergSinkSettings(type="iceberg", connection="lake", input="orders", table="a.b.c")
    assert given.origin(None) == Origin(("lake", "a", "b", "c"), "iceberg", "iceberg://lake/a.b.c")


def test_columns_that_files_call_otherwise(shop: Shop) -> None:
    names = {"two words": pa.int64(), 'a "quoted" one': pa.string(), "🦆": pa.int64(), "plain": pa.int64()}
    catalog = shop.catalog()
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", pa.schema(list(names.items())))
    table.append(pa.table({"two words": [1], 'a "quoted" one': ["x"], "🦆": [2], "plain": [3]}))
    assert staged(shop.source())[0] == [("1", "x", "2", "3")]
    columns = ", ".join(f"{value} AS {quoted(name)}" for value, name in zip(("1", "'y'", "4", "5"), names, strict=True))
    shop.put(f"SELECT {columns}", Merge(("two words",)), mark(1))
    assert staged(shop.source())[0] == [("1", "y", "4", "5")] == shop.seen()


def test_nested_fields_that_files_call_otherwise(shop: Shop) -> None:
    kind = pa.struct([("two words", pa.int64()), ("plain", pa.int64())])
    catalog = shop.catalog()
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.orders", pa.schema([("s", kind)]))
    table.append(pa.table({"s": pa.array([{"two words": 1, "plain": 2}], kind)}))
    assert staged(shop.source())[0] == [("{'two words': 1, 'plain': 2}",)]

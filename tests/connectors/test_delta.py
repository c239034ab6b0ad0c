"""External Delta tables: exactly once beside other writers, no value changed, and never a row that was deleted."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pydantic import SecretStr, ValidationError

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import DeletesRows, LoadMark, ReadsAsRelation, Receipt, Sink, Source, Target
from databrokkr_assets.core.spec import Origin, Place
from databrokkr_assets.engine.delivering import deliver
from databrokkr_assets.engine.loading import load
from databrokkr_assets.lake.external import Conflict, ExternalTable, ExternalVersion
from databrokkr_assets.lake.store import Store
from resources.connectors.delta import DeltaConnection, DeltaSinkSettings, DeltaSourceSettings
from tests.connectors.carrying import NODE, Row, batched, in_order, job, mark, one_duck, staged, values, written
from tests.services import S3

TARGET = Target(NODE, pa.schema([("id", pa.int32()), ("what", pa.string())]))
ROWS = values([(1, "'a'"), (2, "'b'")], "id what")
MORE = values([(2, "'B'"), (3, "'c'")], "id what")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a table is to be."""
    return tmp_path / "out" / "orders"


def sink(path: Path | str, **more: Any) -> Sink:
    return DeltaSinkSettings(type="delta", input="orders", path=str(path), **more).open(None, Place(Path("/")))


def source(path: Path | str, **more: Any) -> Source:
    return DeltaSourceSettings(type="delta", path=str(path), **more).open(None, Place(Path("/")))


def put(path: Path, rows: str, how: Disposition, load: LoadMark, **more: Any) -> Receipt:
    return written(sink(path, **more), rows, how, load)


def seen(path: Path) -> list[Row]:
    """The rows as delta-rs's own reader gives them."""
    table = pa.table(DeltaTable(str(path)).scan())
    with one_duck() as duck:
        return in_order(duck.from_arrow(table).project("CAST(COLUMNS(*) AS VARCHAR)").fetchall())


def log(path: Path, version: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / f"_delta_log/{version:020d}.json").read_text().splitlines()]


def commit(path: Path, version: int, *actions: dict[str, Any]) -> None:
    """What another engine would write into the log."""
    lines = [json.dumps(action) for action in ({"commitInfo": {"timestamp": 1, "operation": "WRITE"}}, *actions)]
    (path / f"_delta_log/{version:020d}.json").write_text("\n".join(lines))


# ------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Append(), [("1", "a"), ("2", "B"), ("2", "b"), ("3", "c")]),
        (Replace(), [("2", "B"), ("3", "c")]),
        (Merge(("id",)), [("1", "a"), ("2", "B"), ("3", "c")]),
    ],
)
@pytest.mark.parametrize(("partition_by", "as_batches"), [(None, False), ("what", True), (["id", "what"], False)])
def test_loads_meet_the_table(
    path: Path, how: Disposition, expected: list[Row], as_batches: bool, partition_by: Any
) -> None:
    given = sink(path, partition_by=partition_by)
    for _ in range(2):
        written(given, ROWS, how, mark(1), as_batches=as_batches)
    for _ in range(2):
        receipt = written(given, MORE, how, mark(2, after=1), as_batches=as_batches)
    assert receipt.already
    assert seen(path) == expected
    assert staged(source(path))[0] == expected
    last = given.last_load(TARGET)
    assert last is not None and (last.dataset, last.version) == ("orders-table", 2)


def test_of_several_rows_with_one_key_the_last_wins(path: Path) -> None:
    put(path, values([(1, "'first'"), (1, "'last'")], "id what"), Merge(("id",)), mark(1))
    put(path, values([("NULL", "'x'"), ("NULL", "'y'")], "id what"), Merge(("id",)), mark(2, after=1))
    put(path, values([("NULL", "'z'")], "id what"), Merge(("id",)), mark(3, after=2))
    assert seen(path) == [(None, "z"), ("1", "last")]


def test_a_merge_removes_deleted_keys(path: Path) -> None:
    put(path, ROWS, Append(), mark(1), partition_by="what")
    with sink(path).begin(TARGET, Merge(("id",)), mark(2, after=1)) as opened:
        assert isinstance(opened, DeletesRows)
        opened.delete(pa.RecordBatch.from_pydict({"id": pa.array([1], pa.int32())}))
        opened.write(pa.RecordBatch.from_pylist([{"id": 3, "what": "c"}], TARGET.schema))
        opened.commit()
    assert seen(path) == [("2", "b"), ("3", "c")]


def test_a_load_that_is_left_changes_nothing(path: Path) -> None:
    put(path, ROWS, Append(), mark(1))
    before = sorted(path.rglob("*"))
    with sink(path).begin(TARGET, Append(), mark(2, after=1)) as opened:
        opened.write(pa.RecordBatch.from_pylist([{"id": 9, "what": "x"}], TARGET.schema))
    with pytest.raises(DataError):
        put(path, values([(3000000000, "'x'")], "id what"), Append(), mark(2, after=1))
    assert sorted(path.rglob("*")) == before


def test_a_worker_thought_dead_writes_nothing(path: Path) -> None:
    put(path, ROWS, Append(), mark(1))
    put(path, MORE, Append(), mark(2, after=1))
    with pytest.raises(Unavailable, match="in the meantime"):
        put(path, MORE, Append(), mark(3, after=1))
    assert len(seen(path)) == 4


@pytest.mark.parametrize("how", [Append(), Replace(), Merge(("id",))])
def test_who_commits_in_between_keeps_his_rows(path: Path, how: Disposition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the table and the commit, another writer adds a row; once, then no more."""
    put(path, ROWS, Append(), mark(1))
    commit_of_ours, others = ExternalVersion.commit, iter([5])

    def commit_late(version: ExternalVersion, *given: Any) -> None:
        for id in others:
            write_deltalake(str(path), pa.table({"id": pa.array([id], pa.int32()), "what": ["other"]}), mode="append")
        commit_of_ours(version, *given)

    monkeypatch.setattr(ExternalVersion, "commit", commit_late)
    put(path, MORE, how, mark(2, after=1))
    kept = {"append": {"1", "2", "3", "5"}, "replace": {"2", "3"}, "merge": {"1", "2", "3", "5"}}
    assert {row[0] for row in seen(path)} == kept[how.name]


def test_a_lost_reply_is_found_in_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path, ROWS, Append(), mark(1))
    commit_of_ours = ExternalVersion.commit

    def commit_and_lose(version: ExternalVersion, *given: Any) -> None:
        commit_of_ours(version, *given)
        raise Conflict

    monkeypatch.setattr(ExternalVersion, "commit", commit_and_lose)
    assert put(path, MORE, Append(), mark(2, after=1)).already
    assert len(seen(path)) == 4, "the files of the commit are still there"


def test_the_ledger_outlives_the_log(path: Path) -> None:
    put(path, ROWS, Append(), mark(1))
    write_deltalake(str(path), pa.table({"id": pa.array([5], pa.int32()), "what": ["other"]}), mode="append")
    table = DeltaTable(str(path))
    table.create_checkpoint()
    for commit_file in path.glob("_delta_log/0*.json"):
        if int(commit_file.stem) < table.version():
            commit_file.unlink()
    assert put(path, ROWS, Append(), mark(1)).already
    put(path, MORE, Append(), mark(2, after=1))
    assert len(seen(path)) == 5


def test_two_nodes_and_a_new_dataset_have_ledgers_of_their_own(path: Path) -> None:
    put(path, ROWS, Append(), mark(7))
    written(sink(path), MORE, Append(), mark(3), node="shop/others")
    put(path, MORE, Merge(("id",)), mark(1, after=7, dataset="made anew"))
    others = sink(path).last_load(Target("shop/others", TARGET.schema))
    ours = sink(path).last_load(TARGET)
    assert others is not None and (others.dataset, others.version) == ("orders-table", 3)
    assert ours is not None and (ours.dataset, ours.version) == ("made anew", 1)


ODD_PARTITIONS = [("'a b/ü=%'", 1), ("'it''s \"q\"'", 2), ("NULL", 3), ("'NULL'", 4), ("'*[x]?'", 5), ("'\\'", 6)]


def test_any_value_can_partition(path: Path) -> None:
    rows = values(ODD_PARTITIONS, "p q") + " ORDER BY 2"
    put(path, rows, Append(), mark(1), partition_by="p")
    put(path, values([("'a b/ü=%'", 9)], "p q"), Merge(("p",)), mark(2, after=1))
    expected = in_order([("a b/ü=%", "9"), ('it\'s "q"', "2"), (None, "3"), ("NULL", "4"), ("*[x]?", "5"), ("\\", "6")])
    assert seen(path) == expected
    assert staged(source(path))[0] == expected


def test_a_partition_that_delta_cannot_tell_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match="would make NULL of an empty text"):
        put(path, values([("''", 1)], "p q"), Append(), mark(1), partition_by="p")
    with pytest.raises(SpecError, match="cannot partition"):
        put(path, values([("1.5::DOUBLE", 1)], "p q"), Append(), mark(1), partition_by="p")
    with pytest.raises(SpecError, match='did you mean "p"'):
        put(path, values([("1", 1)], "p q"), Append(), mark(1), partition_by="pp")
    assert not (path / "_delta_log").exists()


def test_files_are_of_the_wanted_size(path: Path) -> None:
    rows = "SELECT i AS id, i % 2 AS p, md5(i::VARCHAR) AS what FROM range(400000) t(i)"
    put(path, rows, Append(), mark(1), partition_by="p", target_size="2MB")
    put(path.with_name("flat"), rows, Append(), mark(1), target_size="2MB")
    for folder in (path, path.with_name("flat")):
        sizes = [file.stat().st_size for file in folder.rglob("*.parquet")]
        assert len(sizes) >= 4 and max(sizes) < 6_000_000
        assert sum(pa.table(DeltaTable(str(folder)).get_add_actions())["num_records"].to_pylist()) == 400000
        assert len(sizes) == len(DeltaTable(str(folder)).file_uris()), "nothing is left over"


def test_new_columns_are_added(path: Path) -> None:
    put(path, ROWS, Append(), mark(1))
    more = "SELECT 3 AS ID, TIME '10:00' AS at"
    with pytest.raises(SpecError, match='no column "at"'):
        put(path, more, Append(), mark(2, after=1), create=False)
    put(path, more, Append(), mark(2, after=1))
    put(path, "SELECT 4 AS id, TIME '11:00' AS at, 1 AS n", Replace(), mark(3, after=2))
    assert staged(source(path))[0] == [("4", None, "11:00:00", "1")]
    with pytest.raises(SpecError, match="there is no Delta table"):
        put(path.with_name("none"), ROWS, Append(), mark(1), create=False)


def test_a_value_that_the_table_would_change_is_refused(path: Path) -> None:
    foreign = pa.schema(
        [pa.field("id", pa.int16(), nullable=False), ("price", pa.decimal128(6, 2)), ("at", pa.date32())]
    )
    write_deltalake(str(path), foreign.empty_table())
    put(path, "SELECT 1::BIGINT AS id, '2.50' AS price, TIMESTAMP '2024-01-01' AS at", Append(), mark(1))
    assert seen(path) == [("1", "2.50", "2024-01-01")]
    for row, says in [
        ("100000 AS id", "would change the value 100000"),
        ("NULL::INT AS id", "takes no NULL"),
        ("1 AS id, 1.555 AS price", '"price" is DECIMAL.6,2., which would change the value 1.555'),
        ("1 AS id, TIMESTAMP '2024-01-01 10:00' AS at", "which would change"),
    ]:
        with pytest.raises(DataError, match=says):
            put(path, f"SELECT {row}", Append(), mark(2, after=1))
    with pytest.raises(SpecError, match='requires the column "id"'):
        put(path, "SELECT 1.5 AS price", Append(), mark(2, after=1))


EVERY_TYPE = """SELECT true AS a, 255::UTINYINT AS b, 18446744073709551615::UBIGINT AS c,
    170141183460469231731687303715884105727::HUGEINT AS d, 'nan'::DOUBLE AS e, (-0.01)::DECIMAL(38,2) AS f, '' AS g,
    '\\x00'::BLOB AS h, DATE '0001-01-01' AS i, TIME '23:59:59.999999' AS j, TIMESTAMP_NS '2020-01-01 00:00:00.1' AS k,
    TIMESTAMPTZ '2020-06-01 12:00:00+02' AS l, INTERVAL '1 month' AS m, '{"a": 1}'::JSON AS n, [1, NULL] AS o,
    {'a': 1::UTINYINT, 'b c': [TIME '01:00']} AS p, MAP {'k': 1.25} AS q, 'x'::ENUM('x') AS r,
    TIMESTAMP '2020-01-01' AS s"""


def test_no_value_changes_there_and_back(path: Path) -> None:
    put(path, EVERY_TYPE, Append(), mark(1))
    with one_duck() as duck:
        expected = in_order(duck.execute(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({EVERY_TYPE})").fetchall())
        kinds = [str(kind) for kind in duck.sql(EVERY_TYPE).types]
        given = source(path)
        assert isinstance(given, ReadsAsRelation)
        read = given.relation(duck, next(iter(source(path).streams())), None)
        assert read is not None
        assert [str(kind) for kind in duck.sql(read.query).types] == kinds
    assert staged(source(path))[0] == batched(source(path))[0] == expected


# --------------------------------------------------------------------------------- tables of other engines


def settings_of(path: Path, settings: dict[str, str], *, fields: dict[str, Any] | None = None) -> None:
    """Make a table with two rows that asks more of its writers."""
    write_deltalake(str(path), pa.table({"id": pa.array([1, 2], pa.int32()), "what": ["a", "b"]}))
    metadata = next(action["metaData"] for action in log(path, 0) if "metaData" in action)
    if fields:
        schema = json.loads(metadata["schemaString"])
        schema["fields"][0]["metadata"] = fields
        metadata["schemaString"] = json.dumps(schema)
    protocol = {"minReaderVersion": 2, "minWriterVersion": 5}
    commit(path, 1, {"protocol": protocol}, {"metaData": {**metadata, "configuration": settings}})


@pytest.mark.parametrize(
    ("settings", "fields", "how", "says"),
    [
        ({"delta.constraints.big": "id > 5"}, None, Append(), "has the constraint big"),
        ({"delta.appendOnly": "true"}, None, Replace(), "takes new rows only"),
        ({"delta.enableChangeDataFeed": "true"}, None, Merge(("id",)), "change data feed"),
        ({}, {"delta.generationExpression": "1"}, Append(), '"id" is a generated column'),
        ({}, {"delta.invariants": '{"expression": {"expression": "id > 5"}}'}, Append(), '"id" is an invariant'),
    ],
)
def test_what_a_table_asks_of_its_writers_is_not_broken(
    path: Path, settings: dict[str, str], fields: dict[str, Any] | None, how: Disposition, says: str
) -> None:
    settings_of(path, settings, fields=fields)
    with pytest.raises(SpecError, match=says):
        put(path, MORE, how, mark(1))
    assert seen(path) == [("1", "a"), ("2", "b")]


def test_a_table_with_features_unknown_to_us_is_left_alone(path: Path) -> None:
    settings_of(path, {})
    names = {"writerFeatures": ["rowTracking", "domainMetadata"]}
    commit(path, 2, {"protocol": {"minReaderVersion": 1, "minWriterVersion": 7} | names})
    with pytest.raises(SpecError, match="Unsupported table features"):
        put(path, MORE, Append(), mark(1))


def test_append_to_tables_that_only_forbid_more(path: Path) -> None:
    settings_of(path, {"delta.appendOnly": "true", "delta.enableChangeDataFeed": "true"})
    put(path, MORE, Append(), mark(1))
    assert len(seen(path)) == 4


def test_mapped_columns_are_read_by_their_names_and_not_written(path: Path) -> None:
    settings_of(path, {})
    metadata = next(action["metaData"] for action in log(path, 1) if "metaData" in action)
    schema = json.loads(metadata["schemaString"])
    for number, field in enumerate(schema["fields"], 1):
        field["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": field["name"]}
    schema["fields"][1]["name"] = "renamed"
    mapping = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "2"}
    commit(path, 2, {"metaData": {**metadata, "schemaString": json.dumps(schema), "configuration": mapping}})
    assert staged(source(path, columns="renamed"))[0] == [("a",), ("b",)]
    with pytest.raises(SpecError, match="column mapping"):
        put(path, "SELECT 3 AS id, 'c' AS renamed", Append(), mark(1))


def deleted(path: Path, *positions: int) -> None:
    """Delete rows of the table's one file as Spark and Databricks do, by a deletion vector in the log."""
    version = DeltaTable(str(path)).version()
    add = next(action["add"] for number in range(version + 1) for action in log(path, number) if "add" in action)
    # The portable form of a 64-bit Roaring bitmap; see "Deletion Vector Format" in the Delta protocol.
    bitmap = struct.pack("<IQI", 1681511377, 1, 0) + struct.pack("<IIHHI", 12346, 1, 0, len(positions) - 1, 16)
    bitmap += b"".join(struct.pack("<H", position) for position in positions)
    size = len(bitmap)
    vector = {"storageType": "i", "pathOrInlineDv": z85(bitmap), "sizeInBytes": size, "cardinality": len(positions)}
    features = {"minReaderVersion": 3, "minWriterVersion": 7}
    names = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    commit(
        path, version + 1, {"protocol": features | names}, {"remove": remove}, {"add": add | {"deletionVector": vector}}
    )


def z85(content: bytes) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    content += bytes(-len(content) % 4)
    numbers = [int.from_bytes(content[at : at + 4], "big") for at in range(0, len(content), 4)]
    return "".join(digits[number // 85**power % 85] for number in numbers for power in (4, 3, 2, 1, 0))


def test_deleted_rows_are_never_read(path: Path) -> None:
    write_deltalake(str(path), pa.table({"id": pa.array(range(6)), "what": list("abcdef")}))
    deleted(path, 1, 4)
    expected: list[Row] = [("0", "a"), ("2", "c"), ("3", "d"), ("5", "f")]
    assert staged(source(path))[0] == batched(source(path))[0] == expected
    with pytest.raises(SpecError, match="deletion vectors"):
        put(path, MORE, Merge(("id",)), mark(1))
    put(path, MORE, Append(), mark(1))
    assert staged(source(path))[0] == in_order([*expected, ("2", "B"), ("3", "c")])
    put(path, MORE, Replace(), mark(2, after=1))
    assert staged(source(path))[0] == [("2", "B"), ("3", "c")]


# ------------------------------------------------------------------------------------------------ reading


def test_a_version_and_a_time(path: Path) -> None:
    put(path, ROWS, Append(), mark(1))
    put(path, MORE, Replace(), mark(2, after=1))
    assert staged(source(path, version=1))[0] == [("1", "a"), ("2", "b")]
    assert staged(source(path, as_of="2100-01-01"))[0] == [("2", "B"), ("3", "c")]
    stream = next(iter(source(path, columns="what", disposition="merge", keys="what").streams()))
    assert (stream.name, stream.keys) == ("orders", ("what",))
    assert stream.schema is not None and stream.schema.names == ["what"]
    with pytest.raises(AccessError, match="cannot be used"):
        staged(source(path, version=99))
    with pytest.raises(AccessError, match="no Delta table"):
        staged(source(path.with_name("none")))
    with pytest.raises(SpecError, match='did you mean "what"'):
        staged(source(path, columns="whot"))


def test_incremental_reads_added_rows_once(path: Path) -> None:
    given = source(path, incremental=True)
    write_deltalake(str(path), pa.table({"id": [1, 2], "p": ["x", None]}), partition_by="p")
    rows, cursor = staged(given)
    assert rows == [("1", "x"), ("2", None)]
    assert staged(given, cursor) == ([], cursor)
    for number in (3, 4):
        write_deltalake(str(path), pa.table({"id": [number], "p": ["x"]}), mode="append")
    assert len(DeltaTable(str(path)).optimize.compact()) > 0
    rows, later = staged(given, cursor)
    assert rows == [("3", "x"), ("4", "x")]
    assert batched(given, cursor) == (rows, later)
    DeltaTable(str(path)).delete("id = 1")
    with pytest.raises(DataError, match="changed or removed"):
        staged(given, later)
    merged, _ = staged(source(path, incremental=True, disposition="merge", keys="id"), later)
    assert merged == [("2", None), ("3", "x"), ("4", "x")]
    write_deltalake(str(path.with_name("anew")), pa.table({"id": [1]}))
    with pytest.raises(DataError, match="made anew"):
        staged(source(path.with_name("anew"), incremental=True), later)
    DeltaTable(str(path)).create_checkpoint()
    (path / "_delta_log/00000000000000000002.json").unlink()
    with pytest.raises(AccessError, match="no longer goes back"):
        staged(given, cursor)


@pytest.mark.parametrize(
    "more",
    [{"version": 1, "incremental": True}, {"incremental": True, "delete_missing": True, "keys": "id"}],
)
def test_settings_that_contradict_each_other(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeltaSourceSettings(type="delta", path="x", disposition="merge" if "keys" in more else None, **more)


def test_a_dataset_goes_there_and_comes_back(path: Path, tmp_path: Path) -> None:
    put(path, EVERY_TYPE, Append(), mark(1))
    load(job(tmp_path), source(path), Replace())
    assert deliver(job(tmp_path), sink(path.with_name("copy"), partition_by="b"), Append()).published
    assert staged(source(path.with_name("copy")))[0] == staged(source(path))[0]
    assert not deliver(job(tmp_path), sink(path.with_name("copy")), Append()).published


def test_on_s3_with_credentials_of_its_own(s3: S3) -> None:
    url = f"s3://{s3.create_bucket('delta-external')}/out/orders"
    connection = DeltaConnection(
        type="delta",
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id=s3.access_key,
        secret_access_key=SecretStr(s3.secret_key),
    )
    place = Place(Path("/"))
    given = DeltaSinkSettings(type="delta", input="orders", path=url, partition_by=("what",)).open(connection, place)
    assert given.last_load(TARGET) is None
    written(given, ROWS, Append(), mark(1))
    written(given, MORE, Merge(("id",)), mark(2, after=1))
    assert written(given, MORE, Merge(("id",)), mark(2, after=1)).already
    read = DeltaSourceSettings(type="delta", path=url).open(connection, place)
    assert staged(read)[0] == [("1", "a"), ("2", "B"), ("3", "c")]
    assert s3.secret_key not in repr(connection)


def test_origins_name_the_table() -> None:
    assert DeltaSinkSettings(type="delta", input="o", path="s3://b/a b/t").origin(None) == Origin(
        ("delta", "s3", "b", "a_b", "t"), "deltalake", "s3://b/a b/t"
    )


def test_a_table_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AccessError):
        put(tmp_path / "file" / "table", ROWS, Append(), mark(1))
    assert ExternalTable(Store(str(tmp_path / "nothing"))).open() is None

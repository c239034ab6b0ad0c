"""Files on stores: found, brought, read once, written whole; on the real servers, each the same."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from databrokkr_assets.core.disposition import Append, Replace
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Cursor, LoadMark, Receipt, Sink, Target
from databrokkr_assets.core.spec import ChecksAccess, ListsStreams
from resources.connectors.files import FilesSink, FilesSource
from resources.connectors.s3 import S3Connection
from resources.connectors.sftp import SftpConnection
from resources.support.file_folders import StoreFolder
from resources.support.file_ledger import FileLedger
from tests import store_services
from tests.connectors.carrying import NODE, Row, mark, staged, written
from tests.connectors.stores_at_hand import NAME, PLACE, STORES, AtHand, Servers, of_server, running
from tests.services import HOST, free_port

TARGET = Target(NODE, pa.schema([("a", pa.int64())]))

servers = pytest.fixture(scope="session")(running)


@pytest.fixture(params=list(STORES))
def at(request: pytest.FixtureRequest, servers: Servers) -> AtHand:
    """An empty place in each of the stores."""
    return STORES[request.param](servers)


@pytest.fixture(params=["s3", "azure", "sftp", "ftp"])
def one(request: pytest.FixtureRequest, servers: Servers) -> AtHand:
    """An empty place in one store of each kind."""
    return STORES[request.param](servers)


@pytest.fixture
def bucket(servers: Servers) -> AtHand:
    """A bucket of S3, where the test is about what all have in common."""
    return STORES["s3"](servers)


def read(at: AtHand, path: str | list[str], after: Cursor | None = None, **other: Any) -> tuple[list[Row], Cursor]:
    source = FilesSource(type="files", connection=NAME, path=path, **other)  # type: ignore[arg-type]
    rows, cursor = staged(source.open(at.connection, PLACE), after)
    assert cursor is not None
    return rows, cursor


def found(at: AtHand, path: str) -> list[str]:
    with at.store() as store:
        return sorted(file.key for file in store.find(path))


# --- finding ---

FILES = ["a.csv", "b.txt", "_c.csv", ".d.csv", "in/a.csv", "in/deep/a.csv.gz", "in/.hidden/a.csv", "in/x [1] %20é#.csv"]
GLOBS = {
    "a.csv": ["a.csv"],
    "/./a.csv": ["a.csv"],
    "nothing.csv": [],
    "nothing/*.csv": [],
    "*.csv": ["_c.csv", "a.csv"],
    "*/a.*": ["in/a.csv"],
    "in/*": ["in/a.csv", "in/x [1] %20é#.csv"],
    "**/*.csv": ["_c.csv", "a.csv", "in/a.csv", "in/x [1] %20é#.csv"],
    "i?/**": ["in/a.csv", "in/deep/a.csv.gz", "in/x [1] %20é#.csv"],
    "in/**/a.*": ["in/a.csv", "in/deep/a.csv.gz"],
    "in/x [1] %20é#.csv": ["in/x [1] %20é#.csv"],
    "in": ["in/a.csv", "in/deep/a.csv.gz", "in/x [1] %20é#.csv"],
    "": ["a.csv", "in/a.csv", "in/deep/a.csv.gz", "in/x [1] %20é#.csv"],
}


def test_files_are_found(at: AtHand) -> None:
    for path in FILES:
        at.put(path, b"a\n1\n")
    assert {path: found(at, path) for path in GLOBS} == GLOBS


@pytest.mark.parametrize("name", ["s3", "sftp"])
def test_more_files_than_a_page_holds(servers: Servers, name: str) -> None:
    at = STORES[name](servers)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: at.put(f"many/{number}.csv", b""), range(1010)))
    assert len(found(at, "many/*.csv")) == len(found(at, "many/**")) == 1010


@pytest.mark.parametrize("path", ["../a.csv", "in/../../a.csv", "s3://other/a.csv"])
def test_paths_stay_in_the_store(one: AtHand, path: str) -> None:
    with pytest.raises(SpecError, match=r"leads out of the store|is a URL"):
        found(one, path)


def test_a_key_that_is_no_path_is_named(bucket: AtHand) -> None:
    bucket.put("in//a.csv", b"")
    with pytest.raises(DataError, match=r"in//a\.csv"):
        found(bucket, "in/**")


def test_discovery_lists_files(one: AtHand) -> None:
    one.put("in/a.csv", b"")
    one.put("in/a.exe", b"")
    assert isinstance(one.connection, ListsStreams)
    listed = [(one.namespace, one.name, one.kind) for one in one.connection.list_streams(NAME, PLACE)]
    assert listed == [("in", "a.csv", "file")]


# --- reading ---


def parquet(value: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [value]}), buffer)
    return buffer.getvalue()


def test_each_file_is_read_once_and_again_when_it_changed(at: AtHand) -> None:
    at.put("in/1.csv", b"a,s\n1,x\n")
    at.put("in/2.csv", b"a,s\n2,y\n")
    rows, first = read(at, "in/*.csv")
    assert rows == [("1", "x"), ("2", "y")]
    assert read(at, "in/*.csv", first)[0] == []
    at.put("in/2.csv", b"a,s\n3,z\n")
    at.put("in/3.csv", b"a,s\n4,z\n")
    rows, second = read(at, "in/*.csv", first)
    assert rows == [("3", "z"), ("4", "z")]
    assert sorted(second["files"]) == ["in/1.csv", "in/2.csv", "in/3.csv"]


def test_parquet_and_a_list_of_paths(one: AtHand) -> None:
    for number in range(7):
        one.put(f"in/{number}.parquet", parquet(number))
    assert read(one, "in")[0] == [(str(number),) for number in range(7)]
    assert read(one, ["in/3.parquet", "in/[12].parquet", "in/3.parquet"])[0] == [("1",), ("2",), ("3",)]


def test_a_file_that_changes_while_it_is_read(at: AtHand, tmp_path: Path) -> None:
    at.put("a.csv", b"a\n1\n")
    at.put("b.csv", b"a\n1\n")
    with at.store() as store:
        files = [*store.find("a.csv"), *store.find("b.csv")]
        at.put("b.csv", b"a\n2\n")
        with pytest.raises(Unavailable, match=r"changed while being read: b\.csv"):
            store.bring(files, tmp_path)
        (gone,) = store.find("a.csv")
        store.delete("a.csv")
        with pytest.raises(Unavailable, match=r"changed while being read: a\.csv"):
            store.bring([gone], tmp_path)


def test_a_reject_names_the_file_in_the_store(bucket: AtHand) -> None:
    bucket.put("in/1.csv", b"a\n1\nx\n")
    source = FilesSource(type="files", connection=NAME, path="in/1.csv", columns={"a": "INTEGER"})  # type: ignore[arg-type]
    rejects = [
        one
        for batch in source.open(bucket.connection, PLACE).read(next(iter(source.open(None, PLACE).streams())), None)
        for one in batch.rejects
    ]
    assert [reject.position for reject in rejects] == ["in/1.csv:3"]


def test_no_file_matches(one: AtHand) -> None:
    with pytest.raises(AccessError, match=r"no file matches .*in/"):
        read(one, "in/*.csv")


def test_arrivals(one: AtHand) -> None:
    source = FilesSource(type="files", connection=NAME, path="in", settle=0)  # type: ignore[arg-type]
    assert source.arrivals(PLACE, None, one.connection).paths == []
    one.put("in/a.csv", b"a\n1\n")
    first = source.arrivals(PLACE, None, one.connection)
    assert first.paths == ["in/a.csv"]
    assert source.arrivals(PLACE, first.cursor, one.connection).paths == []
    one.put("in/a.csv", b"a\n2\n")
    assert source.arrivals(PLACE, first.cursor, one.connection).paths == ["in/a.csv"]


def test_where_it_comes_from() -> None:
    connection = S3Connection(type="s3", bucket="shop", prefix="exports")
    (origin,) = FilesSource(type="files", connection=NAME, path="in/*.csv").origins(connection)  # type: ignore[arg-type]
    assert (origin.key, origin.kind, origin.uri) == (("s3", "shop", "exports", "in"), "s3", "s3://shop/exports/in")


# --- writing ---


def sink(at: AtHand, path: str, **settings: Any) -> Sink:
    return FilesSink(type="files", input="orders", connection=NAME, path=path, **settings).open(at.connection, PLACE)


def put(at: AtHand, query: str, load: LoadMark, node: str = NODE) -> Receipt:
    """Replace `out/report.csv`."""
    return written(sink(at, "out/report.csv"), query, Replace(), load, node=node)


def append(at: AtHand, query: str, load: LoadMark, node: str = NODE) -> Receipt:
    """Append to `out/changes`."""
    offered = sink(at, "out/changes", disposition="append", format="csv")
    return written(offered, query, Append(), load, node=node)


def rows(at: AtHand, path: str) -> list[str | None]:
    return [row[0] for row in read(at, path)[0]]


def everything(at: AtHand) -> list[str]:
    with at.store() as store:
        return sorted(file.key for file in store.below(""))


@contextmanager
def crash_before_the_ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(FileLedger, "write", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            yield


def test_replace(at: AtHand) -> None:
    receipt = put(at, "SELECT 1 AS a", mark(1))
    assert receipt.target.endswith("/out/report.csv")
    assert (receipt.rows, receipt.facts) == (1, {"file": "report.csv", "bytes": 4})
    put(at, "SELECT 2 AS a", mark(2, 1))
    assert rows(at, "out/report.csv") == ["2"]
    assert put(at, "SELECT 3 AS a", mark(2, 1)).already
    assert sink(at, "out/report.csv").last_load(TARGET) == mark(2, 1)
    assert everything(at) == ["out/_databrokkr_loads.json", "out/report.csv"]
    with pytest.raises(Unavailable, match="another load of shop/orders was written"):
        put(at, "SELECT 4 AS a", mark(4, 1))
    assert rows(at, "out/report.csv") == ["2"]


def test_append_and_repeat_after_a_crash(one: AtHand, monkeypatch: pytest.MonkeyPatch) -> None:
    append(one, "SELECT 1 AS a", mark(1))
    with crash_before_the_ledger(monkeypatch):
        append(one, "SELECT 2 AS a", mark(2, 1))
    append(one, "SELECT unnest([2, 3]) AS a", mark(3, 1))  # the dataset has gone on meanwhile
    assert rows(one, "out/changes") == ["1", "2", "3"]
    with crash_before_the_ledger(monkeypatch):
        append(one, "SELECT 4 AS a", mark(4, 3))
    append(one, "SELECT 4 AS a WHERE false", mark(5, 3))  # what was appended has been taken back
    assert rows(one, "out/changes") == ["1", "2", "3"]


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, other: Any) -> Iterator[None]:
    """Within the block, `other` happens between a load's look at the ledger and its own write of the file."""
    publish, calls = StoreFolder.publish, [other]

    def published(folder: StoreFolder, staged: Path, name: str) -> str:
        if calls:
            calls.pop()()
        return publish(folder, staged, name)

    with monkeypatch.context() as patch:
        patch.setattr(StoreFolder, "publish", published)
        yield


@pytest.mark.parametrize("load", [put, append])
def test_a_zombie_is_fenced_and_its_file_written_over(one: AtHand, monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    load(one, "SELECT 1 AS a", mark(1))
    fenced = pytest.raises(Unavailable, match="was written in the meantime")
    with fenced, meanwhile(monkeypatch, lambda: load(one, "SELECT 22 AS a", mark(2, 1))):
        load(one, "SELECT 999 AS a", mark(3, 1))
    path, settings = ("out/report.csv", {}) if load is put else ("out/changes", {"disposition": "append"})
    last = sink(one, path, format="csv", **settings).last_load(TARGET)
    assert (last and last.version) == (None if load is put else 1), "the lost load counts as not written"
    load(one, "SELECT 22 AS a", mark(2, last.version if last else None))
    assert rows(one, path) == (["22"] if load is put else ["1", "22"])


def test_two_nodes_write_one_ledger_at_once(one: AtHand, monkeypatch: pytest.MonkeyPatch) -> None:
    with meanwhile(monkeypatch, lambda: append(one, "SELECT 2 AS a", mark(1), "shop/two")):
        append(one, "SELECT 1 AS a", mark(1), "shop/one")
    offered = sink(one, "out/changes", disposition="append", format="csv")
    for node in ("shop/one", "shop/two"):
        assert offered.last_load(Target(node, TARGET.schema)) == mark(1)
    assert rows(one, "out/changes") == ["1", "2"]


def test_large_files_go_and_come_in_parts(one: AtHand, tmp_path: Path) -> None:
    content = bytes(range(256)) * 80_000  # 20 MB
    (tmp_path / "large").write_bytes(content)
    with one.store() as store:
        store.put(tmp_path / "large", "in/large.bin")
        (brought,) = store.bring(list(store.find("in/large.bin")), tmp_path)
    assert brought.path.read_bytes() == content
    assert everything(one) == ["in/large.bin"]


@pytest.mark.parametrize("name", ["sftp", "ftp"])
def test_uploads_of_dead_processes_go_after_a_day(servers: Servers, name: str) -> None:
    at = STORES[name](servers)
    at.put("out/.report.csv.0123.tmp", b"half")  # the place dates its files days back
    put(at, "SELECT 1 AS a", mark(1))
    assert everything(at) == ["out/_databrokkr_loads.json", "out/report.csv"]


def test_a_ledger_that_cannot_be_read(bucket: AtHand) -> None:
    bucket.put("out/_databrokkr_loads.json", b"{")
    with pytest.raises(DataError, match="the ledger cannot be read"):
        sink(bucket, "out/report.csv").last_load(TARGET)


# --- what may go wrong ---


def test_wrong_credentials(at: AtHand) -> None:
    refused = pytest.raises(AccessError, match=rf'"{NAME}" cannot .*(credentials are wrong|AuthorizationFailure)')
    with refused as told, at.store(**at.wrong) as store:
        list(store.find("*.csv"))
    assert "secret" not in told.value.what and "KEY" not in str(told.value)


def test_a_server_that_is_down(one: AtHand) -> None:
    port = free_port()
    down: dict[str, Any] = {"port": port}
    if hasattr(one.connection, "endpoint_url"):
        down = {"endpoint_url": f"http://{HOST}:{port}"}
    began = time.monotonic()
    with (
        pytest.raises(Unavailable, match=rf'"{NAME}" cannot .*[Rr]efused|Connect call failed'),
        one.store(**down) as store,
    ):
        list(store.find("*.csv"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("start", [store_services.sftp_by_password, store_services.ftp])
def test_a_server_that_was_away_for_a_moment(start: Any) -> None:
    with start() as server:
        at = of_server(server)
        at.put("a.csv", b"a\n1\n")
        with at.store() as store:
            assert len(list(store.find("*.csv"))) == 1
            server.daemon.stop(signal.SIGKILL)
            with pytest.raises(Unavailable):
                list(store.find("*.csv"))
            server.daemon.start(lambda: store_services.listens(server.port))
            assert len(list(store.find("*.csv"))) == 1


@pytest.mark.parametrize("name", ["s3", "sftp"])
def test_a_missing_right(servers: Servers, name: str) -> None:
    at = STORES[name](servers)
    at.put("a.csv", b"a\n1\n")
    with at.store(**at.readonly) as store:
        assert [file.key for file in store.find("*.csv")] == ["a.csv"]
        with pytest.raises(AccessError, match=r"cannot write b\.csv.*(AccessDenied|right is missing)"):
            store.write(b"", "b.csv", None)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("s3", {"bucket": "not-here"}), ("azure", {"container": "not-here"}), ("sftp", {"folder": "/not-here"})],
)
def test_a_missing_bucket_or_folder(servers: Servers, name: str, missing: dict[str, Any]) -> None:
    refused = pytest.raises(AccessError, match=r"no such bucket or container|not there: /not-here")
    with refused, STORES[name](servers).store(**missing) as store:
        list(store.find("*.csv"))


def test_a_server_with_another_host_key(servers: Servers) -> None:
    other = STORES["sftp"](servers).connection
    assert isinstance(other, SftpConnection)
    at = STORES["sftp_by_password"](servers)
    with (
        pytest.raises(AccessError, match="host key is not the one that is known"),
        at.store(host_key=other.host_key) as store,
    ):
        list(store.find("*"))
    with pytest.raises(SpecError, match="a key that cannot be used"), at.store(host_key="nonsense") as store:
        list(store.find("*"))


def test_known_hosts(servers: Servers, tmp_path: Path) -> None:
    at = STORES["sftp"](servers)
    assert isinstance(at.connection, SftpConnection)
    known = tmp_path / "known_hosts"
    settings = {"host_key": None, "known_hosts": str(known)}
    with pytest.raises(AccessError, match="does not know the key"), at.store(**settings) as store:
        list(store.find("*"))
    known.write_text(f"[{HOST}]:{at.connection.port} {at.connection.host_key}\n")
    with at.store(**settings) as store:
        assert list(store.find("*")) == []


def test_a_certificate_that_is_not_trusted(servers: Servers) -> None:
    refused = pytest.raises(AccessError, match="its certificate is not trusted")
    with refused, STORES["ftps"](servers).store(ca_file=None) as store:
        list(store.find("*"))


def test_ftp_without_tls_is_said_so(servers: Servers) -> None:
    with pytest.raises(AccessError, match="tls: none"), STORES["ftp"](servers).store(tls="explicit") as store:
        list(store.find("*"))


def test_ftp_data_comes_from_the_server_and_no_other() -> None:
    with store_services.ftp(claims="192.0.2.1") as server:
        at = of_server(server)
        at.put("a.csv", b"a\n1\n")
        assert rows(at, "*.csv") == ["1"]


# --- what a connection tells of itself ---


def test_access_is_checked(at: AtHand) -> None:
    def checked(**other: Any) -> dict[str, bool]:
        connection = at.changed(**other)
        assert isinstance(connection, ChecksAccess)
        return {finding.what: finding.ok for finding in connection.check_access(NAME, PLACE)}

    assert checked() == {"reachable": True, "user": True, "may list": True, "may write": True}
    assert checked(**at.wrong) == {"may list": False}
    assert everything(at) == []
    if at.readonly.get("port") or at.readonly.get("access_key_id"):
        assert checked(**at.readonly)["may write"] is False


def test_credentials_that_the_environment_has(bucket: AtHand, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = bucket.connection
    assert isinstance(connection, S3Connection) and connection.access_key_id and connection.secret_access_key
    bucket.put("a.csv", b"a\n1\n")
    none = {"access_key_id": None, "secret_access_key": None}
    with pytest.raises(AccessError, match="has no credentials"), bucket.store(**none) as store:
        list(store.find("*"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", connection.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", connection.secret_access_key.get_secret_value())
    with bucket.store(**none) as store:
        assert [file.key for file in store.find("*")] == ["a.csv"]
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    with bucket.store() as store:  # what is given is not mixed with what is found
        assert [file.key for file in store.find("*")] == ["a.csv"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "s3://bucket/a.csv"}, "without a `connection`"),
        ({"path": "a.csv", "connection": NAME, "seen_by": "hash"}, "is for local files"),
    ],
)
def test_settings_are_refused_early(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FilesSource(type="files", **settings)

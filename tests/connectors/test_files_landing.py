"""Copies of files as they came, in a lake of both kinds, and loads repeated from them when the files are gone."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from pydantic import SecretStr, ValidationError

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.disposition import History
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, Unavailable
from databrokkr_assets.core.spec import ConnectionSettings, OnFail, Place
from databrokkr_assets.engine import reloading
from databrokkr_assets.engine.deleting import Deletes
from databrokkr_assets.engine.job import STAGED, Blocked, Gate, Job, Outcome, no_checks
from databrokkr_assets.engine.loading import load
from databrokkr_assets.engine.shaping import Shape
from databrokkr_assets.lake.dataset import Dataset, LoadRecord
from databrokkr_assets.lake.store import Store, store_at
from resources.connectors.files import FilesSource
from resources.connectors.s3 import S3Connection
from tests.connectors.files_reading import write
from tests.engine.loads import letters, table
from tests.services import S3


@dataclass(frozen=True)
class Node:
    """A node `p/n` that reads `in` below a folder into a lake."""

    folder: Path
    lake: Store
    connection: ConnectionSettings | None = None

    def load(self, gate: Gate = no_checks, **settings: Any) -> Outcome:
        """Load what is new, with copies unless told otherwise."""
        source = self.source(**{"landing": True, **settings})
        job = replace(self.job(source), gate=gate, landing=self.landing if source.lands else None)
        return load(job, source.open(self.connection, Place(self.folder)), source.how)

    def reload(self, **settings: Any) -> Outcome:
        """Repeat what was landed."""
        source = self.source(**settings)
        place = Place(Path("/nowhere"))
        opens = lambda copies: source.open_copies(copies, place)  # noqa: E731
        return reloading.reload(self.job(source), self.landing, source.how, opens)

    def source(self, **settings: Any) -> FilesSource:
        return FilesSource(**{"type": "files", "path": "in", **settings})

    def job(self, source: FilesSource) -> Job:
        zone = {name: Dataset(self.lake.child(name, "p", "n"), "p/n") for name in ("raw", "quarantine")}
        return Job(
            "p/n",
            zone["raw"],
            zone["quarantine"],
            max_rejects=source.max_rejects,
            deletes=Deletes(source.deleted_flag, source.delete_missing),
            shape=Shape(provenance=source.provenance),
        )

    @property
    def landing(self) -> Store:
        return self.lake.child("landing", "p", "n")

    def put(self, name: str, content: str | bytes) -> None:
        """A file, of another time than the one that was there."""
        now = write(self.folder / "in" / name, content).stat().st_mtime_ns
        count = len(list(self.folder.glob("in/**/*")))
        os.utime(self.folder / "in" / name, ns=(now, now + (count + len(content)) * 10**9))

    def rows(self) -> list[tuple[Any, ...]]:
        return table(self.job(self.source()), order="ALL")

    def rejected(self) -> list[tuple[str, str]]:
        return [(row["stage"], row["position"]) for row in letters(self.job(self.source()))]

    def loads(self) -> list[LoadRecord]:
        """The loads, the newest first."""
        snapshot = self.job(self.source()).dataset.open()
        return list(snapshot.loads()) if snapshot else []

    def copies(self) -> list[str]:
        """What is landed: `<load id>/<name>`."""
        days = [(day, load) for day in self.landing.names() for load in self.landing.child(day).names()]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day, _ in days)
        return [f"{load}/{name}" for day, load in days for name in self.landing.child(day, load).names()]

    def copy(self, number: int = 1) -> Store:
        """A copy of the first load, in a store of its own."""
        first = self.loads()[-1]
        folder = self.landing.child(first.at[:10], first.load_id)
        return folder.child(next(name for name in folder.names() if name.startswith(f"{number:06d}-")))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """On a local lake."""
    return Node(tmp_path, Store(str(tmp_path / "lake")))


@pytest.fixture
def bucket(s3: S3, tmp_path: Path) -> Store:
    name = s3.create_bucket(f"lands-{tmp_path.name.replace('_', '-').lower()}"[:60])
    options = {
        "endpoint_url": s3.endpoint_url,
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "region": s3.region,
    }
    return store_at(f"s3://{name}/prefix", tmp_path, options)


@pytest.fixture(params=["local", "s3"])
def any_node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """On a lake of each kind."""
    lake = Store(str(tmp_path / "lake")) if request.param == "local" else request.getfixturevalue("bucket")
    yield Node(tmp_path, lake)


# --- what is landed ---


def test_copies_are_what_came(any_node: Node) -> None:
    packed = gzip.compress(b"a,b\n1,x\n")
    any_node.put("deep/año 1%.csv.gz", packed)
    any_node.put("deep/more.csv", "a,b\n2,y\n")
    any_node.put("blank.csv", "")
    first = any_node.load()
    any_node.put("deep/more.csv", "a,b\n3,z\n")
    second = any_node.load()
    assert [record.landed for record in any_node.loads()] == [True, True]
    assert sorted(any_node.copies()) == sorted(
        [
            f"{first.load_id}/000001-a_o_1_.csv.gz",
            f"{first.load_id}/000002-more.csv",
            f"{first.load_id}/_databrokkr_copies.json",
            f"{second.load_id}/000001-more.csv",
            f"{second.load_id}/_databrokkr_copies.json",
        ]
    )
    copy = any_node.folder / "copy"
    any_node.copy().fetch(copy)
    assert copy.read_bytes() == packed


def test_without_landing_nothing_is_copied(node: Node) -> None:
    node.put("1.csv", "a\n1\n")
    node.load(landing=False)
    assert not node.copies() and not node.loads()[0].landed


def blocking(duck: DuckDBPyConnection) -> Iterable[CheckResult]:
    return [CheckResult("c", "expect", OnFail.BLOCK, passed=False)]


def test_a_load_that_is_given_up_leaves_no_copies(any_node: Node) -> None:
    any_node.put("1.csv", "a,b\n1,x\nbroken\n")
    with pytest.raises(Blocked):
        any_node.load(gate=blocking)
    with pytest.raises(DataError, match="1 rows could not be read"):
        any_node.load(max_rejects=0)
    assert not any_node.copies()
    any_node.load()
    assert not any_node.load().published
    assert len(any_node.copies()) == 2


def test_a_file_that_changes_before_it_is_copied(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.put("1.csv", "a\n1\n")
    put = Store.put

    def late(store: Store, file: Path) -> None:
        file.write_text("a\n2\n3\n")
        put(store, file)

    monkeypatch.setattr(Store, "put", late)
    with pytest.raises(Unavailable, match=r"changed while being read: in/1\.csv"):
        node.load()
    assert not node.copies() and not node.loads()


DIES = """
import os, sys
from pathlib import Path
from databrokkr_assets.lake.store import Store
from tests.connectors.test_files_landing import Node
Node(Path(sys.argv[1]), Store(sys.argv[1] + "/lake")).load(gate=lambda duck: os._exit(9))
"""


def test_the_copies_of_a_load_that_died_are_not_read_and_go(node: Node) -> None:
    node.put("1.csv", "a\n1\n")
    done = subprocess.run([sys.executable, "-c", DIES, str(node.folder)], check=False, timeout=60)
    assert done.returncode == 9
    (dead,) = {copy.partition("/")[0] for copy in node.copies()}
    node.load()
    assert node.reload().rows_out == 1
    node.put("2.csv", "a\n2\n")
    node.load()
    assert not [copy for copy in node.copies() if copy.startswith(dead)]
    assert node.reload().rows_out == 2


# --- repeated ---


@pytest.mark.parametrize("how", [{}, {"disposition": "merge", "keys": ["id"]}, {"disposition": "replace"}])
def test_rows_are_the_same_when_the_files_are_gone(node: Node, how: dict[str, Any]) -> None:
    repeats(node, how)


def test_rows_are_the_same_on_s3(tmp_path: Path, bucket: Store) -> None:
    repeats(Node(tmp_path, bucket), {"disposition": "merge", "keys": ["id"]})


def repeats(node: Node, how: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "provenance": True,
        "format": "csv",
        "members": "*.txt",
        "path": ["in/*.csv*", "in/*.zip"],
        **how,
    }
    node.put("1.csv", 'id,n\n1,"5\n"\n2,6\nbroken\n')
    with zipfile.ZipFile(node.folder / "in/2.zip", "w") as archive:
        archive.writestr("two.txt", "id,n\n2,7\n9007199254740993,8\n")
    node.load(**settings)
    node.put("1.csv", "id,n,more\n3,2.5,x\n1,0,y\n")
    last = node.load(**settings)
    before, rejects, cursor = node.rows(), node.rejected(), node.loads()[0].cursor
    shutil.rmtree(node.folder / "in")
    for turn in (1, 2):
        outcome = node.reload(**settings)
        assert (outcome.published, outcome.version) != (False, last.version)
        assert node.rows() == before
        assert node.loads()[0].cursor == cursor
        assert (node.loads()[0].landed, node.loads()[0].reloaded) == (False, True)
        again = rejects if how.get("disposition") != "replace" else []
        assert sorted(node.rejected()) == sorted(rejects + again * turn)


def test_deletions_are_repeated_in_their_order(node: Node) -> None:
    settings: dict[str, Any] = {"path": "in/all.csv", "disposition": "merge", "keys": ["id"], "delete_missing": True}
    node.put("all.csv", "id\n1\n2\n3\n")
    node.load(**settings)
    node.put("all.csv", "id\n2\n3\n44\n")
    node.load(**settings)
    before = node.rows()
    assert before == [(2,), (3,), (44,)]
    node.reload(**settings)
    assert node.rows() == before


def test_what_came_is_read_by_the_settings_of_now(node: Node) -> None:
    node.put("1.csv", "a;b\n1;x\n")
    node.load(delimiter=",", provenance=True)
    (record,) = node.loads()
    node.reload(delimiter=";", provenance=True)
    assert node.rows() == [(1, "x", "in/1.csv", 2, record.load_id)]
    node.put("2.csv", "a;b\n2;y\n")
    node.load(delimiter=";")
    assert [row[:2] for row in node.rows()] == [(1, "x"), (2, "y")]


def test_rows_that_a_check_sets_aside_are_so_again(node: Node) -> None:
    def gate(duck: DuckDBPyConnection) -> Iterable[CheckResult]:
        failing = f"SELECT databrokkr_row FROM {STAGED} WHERE a < 0"
        return [CheckResult("c", "expect", OnFail.QUARANTINE, passed=False, failing=failing)]

    node.put("1.csv", "a\n1\n-1\n")
    node.load(gate=gate)
    source = node.source()
    job = replace(node.job(source), gate=gate, max_rejects=0)
    reloading.reload(job, node.landing, source.how, lambda copies: source.open_copies(copies, Place(node.folder)))
    assert node.rows() == [(1,)]
    assert [stage for stage, _ in node.rejected()] == ["check", "check"]


def test_the_budget_is_that_of_all_loads(node: Node) -> None:
    for name in "12":
        node.put(f"{name}.csv", "a,b\n1,x\nbroken\n")
        node.load(max_rejects=1)
    assert node.reload(max_rejects=1).quarantined == 2
    with pytest.raises(DataError, match="2 rows could not be read, 0 are allowed"):
        node.reload(max_rejects=0)
    assert len(node.rows()) == 2


def test_files_of_a_store(node: Node, bucket: Store) -> None:
    options = bucket.options
    connection = S3Connection(
        type="s3",
        bucket=bucket.url.split("/")[2],
        endpoint_url=options["endpoint_url"],
        access_key_id=options["access_key_id"],
        secret_access_key=SecretStr(options["secret_access_key"]),
        region=options["region"],
    )
    node = replace(node, connection=connection)
    settings: dict[str, Any] = {"connection": "partner", "path": "prefix/*.csv", "provenance": True}
    bucket.child("1.csv").write("a\n1\n2\n")
    node.load(**settings)
    bucket.child("1.csv").delete()
    before = node.rows()
    assert [row[:3] for row in before] == [(1, "prefix/1.csv", 2), (2, "prefix/1.csv", 3)]
    node.reload(**settings)
    assert node.rows() == before


# --- refused ---


def test_loads_without_copies_would_be_lost(node: Node) -> None:
    node.put("1.csv", "a\n1\n")
    lost = node.load(landing=False)
    node.put("2.csv", "a\n2\n")
    node.load()
    with pytest.raises(SpecError, match=rf"rows would be lost, .* not landed: {lost.load_id} \(1 rows"):
        node.reload()
    assert node.rows() == [(1,), (2,)]
    node.load(disposition="replace")
    node.put("3.csv", "a\n3\n")
    node.load()
    shutil.rmtree(node.folder / "in")
    node.reload()
    assert node.rows() == [(1,), (2,), (3,)]


def test_a_replace_without_copies_is_not_undone(node: Node) -> None:
    node.put("1.csv", "a\n1\n")
    node.load(disposition="replace")
    node.put("1.csv", "a\n2\n")
    lost = node.load(disposition="replace", landing=False)
    with pytest.raises(SpecError, match=lost.load_id):
        node.reload(disposition="replace")


def test_what_cannot_be_repeated(node: Node) -> None:
    with pytest.raises(SpecError, match="nothing was landed"):
        node.reload()
    with pytest.raises(SpecError, match="a history cannot be made again"):
        node.reload(disposition="history", keys=["a"])
    assert isinstance(node.source(disposition="history", keys=["a"]).how, History)


def test_copies_that_are_gone_or_not_whole(any_node: Node) -> None:
    any_node.put("1.csv", "a\n1\n2\n")
    any_node.load()
    copy = any_node.copy()
    copy.write("a\n1\n")
    with pytest.raises(DataError, match=r"the copy of in/1\.csv has 4 bytes, not 6"):
        any_node.reload()
    copy.delete()
    with pytest.raises((AccessError, DataError)):
        any_node.reload()
    any_node.landing.delete()
    with pytest.raises(AccessError, match="the copies of this load are gone"):
        any_node.reload()
    assert any_node.rows() == [(1,), (2,)]


@pytest.mark.parametrize("settings", [{"masked": {"a": "drop"}}, {"zone": "landing"}])
def test_copies_of_what_is_masked_and_copies_among_datasets(node: Node, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`landing`"):
        node.source(landing=True, **settings)

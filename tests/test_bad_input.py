"""Bad input through a whole pipeline: a clear error or quarantined rows, and nothing half published."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.engine.job import duck_for
from databrokkr_assets.factory.project import Project
from databrokkr_assets.factory.work import Worker
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import Store
from databrokkr_assets.transforms.sql import Sql
from resources.connectors.files import FilesSource
from resources.connectors.postgres import PostgresConnection, PostgresSourceSettings
from tests import services


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def files(project: Project, **settings: Any) -> Worker:
    """A pipeline whose one source reads `in/`."""
    source = FilesSource.model_validate({"type": "files", "path": "in", **settings})
    return Worker(Pipeline(name="p", sources={"rows": source}), project)


def given(project: Project, name: str, content: bytes | str) -> Path:
    file = project.root / "in" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    snapshot = dataset.open()
    if snapshot is None:
        return []
    with duck_for(dataset.store) as duck:
        found: list[dict[str, Any]] = duck.sql(snapshot.query(duck)).to_arrow_table().to_pylist()
        return found


def letters(worker: Worker) -> list[dict[str, Any]]:
    return sorted(rows(worker.quarantine("rows")), key=lambda letter: str(letter["position"]))


def test_ragged_rows_are_set_aside_with_their_lines(project: Project) -> None:
    given(project, "a.csv", "id,name\n1,a\n2\n3,c\n4,d,extra\n5,e\n")
    worker = files(project)
    outcome = worker.run("rows")
    assert [row["id"] for row in rows(worker.dataset("rows"))] == [1, 3, 5]
    assert outcome.quarantined == 2
    assert [(letter["position"].rsplit("/", 1)[-1], letter["payload"]) for letter in letters(worker)] == [
        ("a.csv:3", "2"),
        ("a.csv:5", "4,d,extra"),
    ]


def test_a_number_too_large_for_its_column_is_set_aside(project: Project) -> None:
    given(project, "a.csv", "id\n1\n99999999999\n3\n")
    worker = files(project, columns={"id": "INTEGER"})
    worker.run("rows")
    assert [row["id"] for row in rows(worker.dataset("rows"))] == [1, 3]
    (letter,) = letters(worker)
    assert letter["position"].endswith("a.csv:3") and "99999999999" in letter["payload"]


def test_a_wrong_encoding_sets_aside_the_lines_that_it_spoils(project: Project) -> None:
    given(project, "a.csv", b"id,name\n1,ok\n2,M\xfcller\n3,ok\n")
    worker = files(project)
    worker.run("rows")
    assert [row["id"] for row in rows(worker.dataset("rows"))] == [1, 3]
    assert letters(worker)[0]["position"].endswith("a.csv:3")
    given(project, "b.csv", b"id,name\n4,M\xfcller\n")
    latin = files(project, encoding="latin-1", disposition="replace")
    latin.run("rows")
    assert {row["name"] for row in rows(latin.dataset("rows"))} == {"ok", "Müller"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "id,name,ID\n1,a,2\n", "ID"),
        ("a.parquet", b"PAR1 and then nothing", "a.parquet"),
        ("a.csv.gz", gzip.compress(b"id\n1\n2\n")[:-9], "a.csv.gz"),
    ],
)
def test_a_file_that_cannot_be_read_fails_the_load(
    project: Project, name: str, content: bytes | str, says: str
) -> None:
    given(project, name, content)
    worker = files(project)
    with pytest.raises((DataError, SpecError)) as caught:
        worker.run("rows")
    assert says in str(caught.value) and caught.value.mend
    assert worker.dataset("rows").open() is None


def test_a_truncated_parquet_file_leaves_what_was_published(project: Project) -> None:
    pq.write_table(pa.table({"id": [1]}), given(project, "a.parquet", b""))
    worker = files(project)
    worker.run("rows")
    good = project.root / "in" / "b.parquet"
    pq.write_table(pa.table({"id": list(range(1000))}), good)
    good.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet"):
        worker.run("rows")
    assert rows(worker.dataset("rows")) == [{"id": 1}]


def test_a_json_line_cut_in_half_is_set_aside(project: Project) -> None:
    given(project, "a.jsonl", '{"id": 1}\n{"id": 2, "na\n{"id": 3, "name": "late"}\n')
    worker = files(project)
    worker.run("rows")
    assert sorted(row["id"] for row in rows(worker.dataset("rows"))) == [1, 3]
    (letter,) = letters(worker)
    assert letter["position"].endswith("a.jsonl:2") and letter["payload"] == '{"id": 2, "na'


def database_source(url: str, project: Project, **settings: Any) -> Worker:
    connection = PostgresConnection.model_validate({"type": "postgres", "url": url, "connect_timeout": 2})
    project.connections["here"] = connection
    source = PostgresSourceSettings.model_validate({"type": "postgres", "connection": "here", **settings})
    return Worker(Pipeline(name="p", sources={"rows": source}), project)


def test_a_table_that_is_not_there(project: Project, database: str) -> None:
    with psycopg.connect(database) as source:
        source.execute("CREATE TABLE orders (id int)")
    with pytest.raises(SpecError, match="orders"):
        database_source(database, project, table="order").run("rows")


def test_a_password_that_is_wrong_is_not_repeated(project: Project, database: str) -> None:
    user, _, rest = database.partition("://")[2].partition("@")
    wrong = f"postgresql://{user.partition(':')[0]}:not-my-secret@{rest}"
    with pytest.raises(AccessError) as caught:
        database_source(wrong, project, table="orders").run("rows")
    assert "not-my-secret" not in str(caught.value)
    assert "not-my-secret" not in repr(project.connections)


def test_a_database_that_is_down(project: Project, postgres: services.Postgres) -> None:
    url = f"postgresql://u:p@127.0.0.1:{services.free_port()}/none"
    with pytest.raises(Unavailable):
        database_source(url, project, table="orders").run("rows")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode or os.geteuid():
        pytest.skip("a small file system: needs root and mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_leaves_what_was_published(project: Project, tiny_disk: Path) -> None:
    project.lake = Store(str(tiny_disk / "lake"))
    given(project, "a.jsonl", '{"id": 1, "text": "small"}\n')
    worker = files(project)
    worker.run("rows")
    noise = (json.dumps({"id": n, "text": os.urandom(500).hex()}) for n in range(8000))
    given(project, "b.jsonl", "\n".join(noise))
    with pytest.raises(AccessError, match="disk") as caught:
        worker.run("rows")
    assert "free some space" in caught.value.mend
    assert [row["id"] for row in rows(worker.dataset("rows"))] == [1]
    (project.root / "in" / "b.jsonl").unlink()
    given(project, "c.jsonl", '{"id": 3, "text": "small again"}\n')
    worker.run("rows")
    assert sorted(row["id"] for row in rows(worker.dataset("rows"))) == [1, 3]


@pytest.mark.parametrize(
    ("sql", "kind", "says"),
    [
        ("select nothing from rows", SpecError, "nothing"),
        ("select id / 0 + cast('x' as integer) from rows", DataError, "Could not convert"),
        ("select * from range(3) as rows(id) where no_function(id)", SpecError, "no_function"),
    ],
)
def test_a_transform_that_cannot_run_names_itself(
    project: Project, sql: str, kind: type[DatabrokkrError], says: str
) -> None:
    given(project, "a.csv", "id\n1\n")
    source = FilesSource.model_validate({"type": "files", "path": "in"})
    pipeline = Pipeline(name="p", sources={"rows": source}, transforms={"t": Sql(sql=sql, input=("rows",))})
    worker = Worker(pipeline, project)
    worker.run("rows")
    with pytest.raises(kind, match=says) as caught:
        worker.run("t")
    assert "p/t" in str(caught.value)
    assert worker.dataset("t").open() is None

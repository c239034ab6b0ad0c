"""The same lake on S3: a real endpoint, DuckDB's httpfs for the files, delta-rs for the log.

moto checks no signatures, so this says nothing about grants.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from databrokkr_assets.core.disposition import Append, Merge
from databrokkr_assets.core.errors import Unavailable
from databrokkr_assets.engine.job import duck_for
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.publishing import publish, sweep
from databrokkr_assets.lake.store import Store, store_at
from tests.lake.test_dataset import load, record, rows, staged
from tests.services import S3


@pytest.fixture
def lake(s3: S3, tmp_path: Path) -> Store:
    bucket = s3.create_bucket(f"lake-{tmp_path.name.replace('_', '-').lower()}"[:60])
    options = {
        "endpoint_url": s3.endpoint_url,
        "access_key_id": s3.access_key,
        "secret_access_key": s3.secret_key,
        "region": s3.region,
    }
    return store_at(f"s3://{bucket}/prefix", tmp_path, options)


def test_loads_changes_and_sweeping(lake: Store) -> None:
    dataset = Dataset(lake.child("raw", "p", "n"), "p/n")
    assert dataset.open() is None
    with duck_for(lake) as duck:
        dead, _ = staged(duck, dataset, "SELECT 9 AS id, 'dead' AS s", Append(), "dead")
        first = load(duck, dataset, "SELECT i AS id, 'a' AS s FROM range(3) t(i)", Append(), "a")
        now = load(duck, dataset, "SELECT i AS id, 'b' AS s FROM range(2, 4) t(i)", Merge(("id",)), "b")
        assert rows(duck, now) == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
        assert sorted(duck.sql(now.changes(duck, first.version).query).fetchall()) == [(2, "b"), (3, "b")]
        assert sweep(dataset, now) == [dead.folder]
        assert dead.store.names() == []


def test_two_files_are_written_at_once_within_the_memory_that_there_is(lake: Store, tmp_path: Path) -> None:
    dataset = Dataset(lake.child("raw", "p", "n"), "p/n")
    with duck_for(lake) as duck:
        duck.execute("SET threads = 2")
        duck.execute("SET memory_limit = '143MiB'")  # what two cores get
        for name in "ab":
            to = tmp_path / f"{name}.parquet"
            duck.execute(f"COPY (SELECT i AS id, 'text ' || i AS s FROM range(500000) t(i)) TO '{to}'")
        now = load(duck, dataset, f"SELECT * FROM read_parquet('{tmp_path}/*.parquet')", Append(), "a")
        assert (now.rows(), len(now.files)) == (1_000_000, 2)


def test_a_worker_thought_dead_cannot_publish(lake: Store) -> None:
    dataset = Dataset(lake.child("raw", "p", "n"), "p/n")
    with duck_for(lake) as duck:
        load(duck, dataset, "SELECT 1 AS id", Append(), "a")
        zombie, before = staged(duck, dataset, "SELECT 2 AS id", Append(), "zombie")
        load(duck, dataset, "SELECT 3 AS id", Append(), "successor")
        with pytest.raises(Unavailable):
            publish(dataset, before, zombie, Append(), record(zombie, Append(), "zombie"))


def test_what_the_options_leave_out_comes_from_the_environment(lake: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", lake.options["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", lake.options["secret_access_key"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", lake.options["endpoint_url"])
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    bare = Store(lake.url)
    assert bare.access()["region"] == "eu-central-1"
    dataset = Dataset(bare.child("raw", "p", "n"), "p/n")
    with duck_for(bare) as duck:
        assert rows(duck, load(duck, dataset, "SELECT 1 AS id", Append(), "a")) == [(1,)]
        assert bare.child("raw", "p", "n").names()


def test_secrets_are_not_shown(lake: Store) -> None:
    assert lake.options["secret_access_key"] not in repr(lake)

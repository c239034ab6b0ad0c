"""Every format but CSV and JSON lines, read and written: what others wrote, and what comes back of what we wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from databrokkr_assets.engine.duckdb import open_duck
from tests.connectors.carrying import mark
from tests.connectors.files_reading import read, reader
from tests.connectors.test_files_sink import EVERYTHING, ODD, put

TYPED = ["parquet", "avro", "orc", "arrow"]


@pytest.mark.parametrize("form", TYPED)
def test_everything_comes_back(tmp_path: Path, form: str) -> None:
    put(tmp_path / f"o.{form}", EVERYTHING, mark(1))
    with open_duck() as duck:
        expected = duck.execute(EVERYTHING)
        types = {column[0]: str(column[1]) for column in expected.description}
        found = read(tmp_path / f"o.{form}")
        assert found.rows == expected.fetchall()
    assert found.types == types


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize("value", ODD)
def test_odd_types_keep_their_value(tmp_path: Path, value: str, form: str) -> None:
    put(tmp_path / f"o.{form}", f"SELECT {value} AS x", mark(1))
    reading = reader(tmp_path / f"o.{form}", tmp_path)
    with open_duck() as duck:
        relation = reading.relation(duck, next(iter(reading.streams())), None)
        assert relation is not None
        ((same,),) = duck.execute(f"SELECT x::VARCHAR = ({value})::VARCHAR FROM ({relation.query})").fetchall()
    assert same

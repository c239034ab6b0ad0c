"""Python transforms: what a function is given, what it may return, and how its failures are told."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from databrokkr_assets.core.disposition import Append
from databrokkr_assets.core.errors import DatabrokkrError, DataError, SpecError
from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.engine.job import Job
from databrokkr_assets.engine.loading import load
from databrokkr_assets.engine.transforming import transform
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.store import Store
from databrokkr_assets.transforms.python import Python
from databrokkr_assets.transforms.sql import Sql
from tests.engine.loads import Query, table


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that the test fills."""
    module = types.ModuleType("functions_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def run(tmp_path: Path, function: str = "functions_of_a_test:given", **settings: Any) -> list[tuple[Any, ...]]:
    def job(node: str) -> Job:
        lake = Store(str(tmp_path))
        return Job(f"p/{node}", Dataset(lake.child("raw", node), node), Dataset(lake.child("aside", node), node))

    load(job("rows"), Query("SELECT i AS id FROM range(3) t(i)"), Append())
    settings = {"input": ("doubled",), **settings}
    pipeline = Pipeline(
        name="p",
        transforms={
            "doubled": Sql(sql="select id * 2 as id from rows", stored=False),
            "t": Python(function=function, **settings),
        },
    )
    transform(job("t"), pipeline, "t", {"rows": job("rows").dataset})
    return table(job("t"))


@pytest.mark.parametrize(
    ("gives", "function"),
    [
        ("arrow", lambda doubled: doubled.read_all()),
        ("arrow", lambda doubled: doubled),
        ("pandas", lambda doubled: doubled[doubled["id"] >= 0]),
        ("duckdb", lambda doubled: doubled.filter("id >= 0")),
        ("duckdb", lambda doubled: pa.table({"id": [row[0] for row in doubled.fetchall()]})),
        ("duckdb", lambda doubled: doubled.join(doubled.set_alias("other"), "id")),
        ("pandas", lambda doubled: pd.DataFrame({"id": [0, 2, 4]})),
    ],
)
def test_a_function_is_given_its_inputs_and_returns_rows(
    tmp_path: Path, functions: types.ModuleType, gives: str, function: Any
) -> None:
    functions.given = function  # type: ignore[attr-defined]
    assert run(tmp_path, gives=gives) == [(0,), (2,), (4,)]


@pytest.mark.parametrize(
    ("function", "kind", "says"),
    [
        (lambda doubled: 1 / 0, DataError, "ZeroDivisionError"),
        (lambda doubled: [1, 2], DataError, "returned list"),
        (lambda doubled: None, DataError, "returned NoneType"),
        (lambda other: other, SpecError, "does not take doubled"),
    ],
)
def test_a_function_that_fails_says_so(
    tmp_path: Path, functions: types.ModuleType, function: Any, kind: type[DatabrokkrError], says: str
) -> None:
    functions.given = function  # type: ignore[attr-defined]
    with pytest.raises(kind, match=says):
        run(tmp_path)


@pytest.mark.parametrize("function", ["functions_of_a_test:missing", "no_such_module:f", "no_colon"])
def test_a_function_that_is_not_there(tmp_path: Path, functions: types.ModuleType, function: str) -> None:
    with pytest.raises(SpecError, match="there is no function"):
        run(tmp_path, function=function)

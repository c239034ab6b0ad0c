"""Carries rows through a connector as the engine does, and shows them as text, in which no difference hides."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Disposition
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import (
    Cursor,
    DeletesRows,
    LoadMark,
    ReadsAsRelation,
    Receipt,
    Sink,
    Source,
    Target,
    WritesRelation,
)
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.job import Job
from databrokkr_assets.lake.dataset import Dataset, Snapshot
from databrokkr_assets.lake.store import Store
from databrokkr_assets.lake.types import TYPE

Row = tuple[str | None, ...]
NODE = "shop/orders"


def job(folder: Path, node: str = NODE) -> Job:
    """A node's work with a lake in `folder`."""
    where = str(folder / node)
    return Job(node, Dataset(Store(where), node), Dataset(Store(where + "__quarantine"), node + "__quarantine"))


@contextmanager
def one_duck() -> Iterator[DuckDBPyConnection]:
    """A session of a DuckDB that all tests of a process share, because loading an extension takes 0.15 seconds."""
    with _duck().cursor() as session:
        session.execute("SET TimeZone = 'UTC'")
        yield session
        for (name,) in session.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall():
            if name.startswith("databrokkr_"):
                session.execute(f"DETACH {name}")
        session.execute("DROP TABLE IF EXISTS staged")


@cache
def _duck() -> DuckDBPyConnection:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(open_duck())


def staged(source: Source, after: Cursor | None = None) -> tuple[list[Row], Cursor | None]:
    """The rows that a source gives as a relation, sorted, and where it resumes once they are published."""
    assert isinstance(source, ReadsAsRelation)
    with one_duck() as duck:
        read = source.relation(duck, next(iter(source.streams())), after)
        assert read is not None
        duck.execute(f"CREATE TEMP TABLE staged AS {read.fresh(read.query)}")

        def scalar(expression: str) -> Any:
            row = duck.execute(f"SELECT {expression} FROM staged").fetchone()
            return row[0] if row else None

        cursor = read.advance(scalar)
        rows = duck.execute("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM staged").fetchall()
    return in_order(rows), after if cursor is None else cursor


def batched(source: Source, after: Cursor | None = None) -> tuple[list[Row], Cursor | None]:
    """The same through `read`."""
    rows: list[Row] = []
    with one_duck() as duck:
        for batch in source.read(next(iter(source.streams())), after):
            table = pa.Table.from_batches([batch.records])
            rows += duck.from_arrow(table).project("CAST(COLUMNS(*) AS VARCHAR)").fetchall()
            after = batch.cursor
    return in_order(rows), after


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows sorted, NULL first."""
    return sorted(rows, key=lambda row: [(value is not None, value or "") for value in row])


def mark(version: int, after: int | None = None, *, dataset: str = "orders-table") -> LoadMark:
    """A load that carries a target up to `version`."""
    return LoadMark(f"load-{version}-after-{after}", dataset, version, after, "run")


def written(
    sink: Sink,
    rows: str | Dataset,
    how: Disposition,
    load: LoadMark,
    *,
    node: str = NODE,
    as_batches: bool = False,
    gone: str | None = None,
) -> Receipt:
    """Write the rows of a DuckDB query or a dataset in one load, as a relation or as batches.

    `gone` is a query of the keys to delete.
    """
    with one_duck() as duck:
        query = rows if isinstance(rows, str) else _published(rows).query(duck)
        found = duck.sql(query)
        plain = found.limit(0).to_arrow_table().schema
        kinds = zip(plain, found.types, strict=True)
        schema = pa.schema([field.with_metadata({TYPE: str(kind).encode()}) for field, kind in kinds])
        with sink.begin(Target(node, schema), how, load) as opened:
            if isinstance(opened, WritesRelation) and not as_batches:
                opened.write_relation(duck, query)
            else:
                for batch in duck.execute(query).to_arrow_reader(2):
                    opened.write(batch)
            if gone is not None:
                assert isinstance(opened, DeletesRows)
                for batch in duck.execute(gone).to_arrow_reader(2):
                    opened.delete(batch)
            return opened.commit()


def _published(dataset: Dataset) -> Snapshot:
    snapshot = dataset.open()
    assert snapshot is not None
    return snapshot


def values(rows: Iterable[tuple[Any, ...]], names: str) -> str:
    """Rows as a DuckDB query; every value is given as SQL text, `names` are the columns."""
    listed = ", ".join(f"({', '.join(map(str, row))})" for row in rows)
    return f"SELECT * FROM (VALUES {listed}) AS given({', '.join(quoted(name) for name in names.split())})"

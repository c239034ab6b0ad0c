"""Runs a case's source and sink as a pipeline does, or by their ports alone, in this process."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.disposition import Disposition, History, Merge
from databrokkr_assets.core.ports import (
    Batch,
    Cursor,
    Load,
    LoadMark,
    ReadsAsRelation,
    Receipt,
    Sink,
    Source,
    Stream,
    Target,
    WritesRelation,
)
from databrokkr_assets.core.spec import ConnectionSettings, Pipeline, Place, SinkSettings, SourceSettings
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.engine.job import Outcome
from databrokkr_assets.factory.project import Project
from databrokkr_assets.factory.work import Worker
from databrokkr_assets.lake.dataset import Dataset
from databrokkr_assets.lake.types import TYPE
from resources.registry import connector

from .case import Case, Reads, Settings, Writes

PIPELINE = "contract"
CONNECTION = "shelf_7"
TARGET = f"{PIPELINE}/out"

Ability = TypeVar("Ability")

_AT_ONCE = 20_000


class Given(SourceSettings):
    """A source of rows that a test has at hand."""

    rows: Any = None

    def open(self, connection: ConnectionSettings | None, place: Place) -> Source:
        """A reader of the rows."""
        return _GivenRows(self.rows)


@dataclass
class _GivenRows(Source):
    rows: pa.Table

    def streams(self) -> Iterable[Stream]:
        return [Stream("given", self.rows.schema)]

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        some = self.rows.to_batches(_AT_ONCE) or [pa.RecordBatch.from_pylist([], self.rows.schema)]
        yield from map(Batch, some)


@dataclass(frozen=True)
class Plan:
    """A pipeline of a source `rows` and a sink `out`, which can be handed to another process."""

    connector: str
    via: str
    folder: Path
    connection: Settings | None = None
    source: Settings | None = None
    sink: Settings | None = None

    def worker(self, given: SourceSettings | None = None) -> Worker:
        """Who runs the nodes; a source that is `given` stands in for one of the connector."""
        found = connector(self.connector)
        sources: dict[str, SourceSettings] = {"rows": given or Given(type="given")}
        sinks: dict[str, SinkSettings] = {}
        if self.source is not None and found.source is not None:
            sources["rows"] = found.source.model_validate(self.source)
        if self.sink is not None and found.sink is not None:
            sinks["out"] = found.sink.model_validate({"input": "rows", **self.sink})
        return Worker(Pipeline(name=PIPELINE, sources=sources, sinks=sinks), self._project())

    def opened(self) -> ConnectionSettings | None:
        """The connection."""
        model = connector(self.via).connection
        if self.connection is None or model is None:
            return None
        return model.model_validate({"type": self.via, **self.connection})

    def _project(self) -> Project:
        opened = self.opened()
        return Project(self.folder, {CONNECTION: opened} if opened else {})


class Bench:
    """What a test has: the case, and a project around it whose lake is empty."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.folder = folder

    def able(self, ability: Callable[..., Ability]) -> Ability:
        """The case, which has this ability. (A class that is abstract is no `type[Ability]` to mypy.)"""
        assert isinstance(ability, type) and isinstance(self.case, ability)
        return cast(Ability, self.case)

    # ----- settings

    def plan(self, connection: Settings | None = None) -> Plan:
        """The pipeline without nodes; with another connection where one is given."""
        case = self.case
        return Plan(case.connector, case.via or case.connector, self.folder, connection or case.connection())

    def reading(self, table: str, connection: Settings | None = None, **more: Any) -> Plan:
        """The pipeline that reads `table`; `more` are settings of the source."""
        assert isinstance(self.case, Reads)
        plan = self.plan(connection)
        return replace(plan, source={"type": self.case.connector, **_named(plan), **self.case.source(table), **more})

    def writing(self, table: str, how: Disposition, connection: Settings | None = None) -> Plan:
        """The pipeline that writes `table`."""
        assert isinstance(self.case, Writes)
        plan = self.plan(connection)
        given = {"type": self.case.connector, **_named(plan), **self.case.sink(table, how), "disposition": how.name}
        return replace(plan, sink={**given, "keys": list(how.keys)} if isinstance(how, Merge | History) else given)

    # ----- as a pipeline does it

    def load(self, table: str, **more: Any) -> Outcome:
        """Read `table` into the dataset; `more` are settings of the source."""
        return self.reading(table, **more).worker().run("rows")

    def publish(self, rows: pa.Table, how: Disposition, **more: Any) -> Outcome:
        """Publish rows in the dataset, without the connector."""
        keys = how.keys if isinstance(how, Merge | History) else ()
        given = Given(type="given", rows=rows, disposition=how.name, keys=keys, **more)  # type: ignore[arg-type]
        return self.plan().worker(given).run("rows")

    def deliver(self, table: str, how: Disposition) -> Outcome:
        """Bring `table` up to the dataset."""
        return self.writing(table, how).worker().run("out")

    def stored(self) -> list[dict[str, Any]]:
        """The rows of the dataset."""
        return _rows_of(self.plan().worker().dataset("rows"))

    def set_aside(self) -> list[dict[str, Any]]:
        """The rows in its quarantine."""
        return _rows_of(self.plan().worker().quarantine("rows"))

    # ----- by the ports alone

    def source(self, table: str, **more: Any) -> Source:
        """A reader of `table`."""
        plan = self.reading(table, **more)
        return plan.worker().pipeline.sources["rows"].open(plan.opened(), Place(self.folder))

    def sink(self, table: str, how: Disposition) -> Sink:
        """A writer of `table`."""
        plan = self.writing(table, how)
        return plan.worker().pipeline.sinks["out"].open(plan.opened(), Place(self.folder))


def _named(plan: Plan) -> Settings:
    return {} if plan.connection is None else {"connection": CONNECTION}


def _rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    snapshot = dataset.open()
    if snapshot is None:
        return []
    with session() as duck:
        rows: list[dict[str, Any]] = duck.execute(snapshot.query(duck)).to_arrow_table().to_pylist()
    return rows


def mark(version: int, after: int | None = None) -> LoadMark:
    """A load that carries a target up to `version`."""
    return LoadMark(f"load-{version}-after-{after}", "contract-rows", version, after, "run")


def written(
    sink: Sink, rows: pa.Table, how: Disposition, load: LoadMark, *, by_batches: bool = False, node: str = TARGET
) -> Receipt:
    """Write rows in one load, the fast way where there is one unless told otherwise."""
    with staged(sink, rows, how, load, by_batches=by_batches, node=node) as opened:
        return opened.commit()


@contextmanager
def staged(
    sink: Sink, rows: pa.Table, how: Disposition, load: LoadMark, *, by_batches: bool = False, node: str = TARGET
) -> Iterator[Load]:
    """A load whose rows are staged, to be committed."""
    with session() as duck, sink.begin(Target(node, _schema(duck, rows)), how, load) as opened:
        query = "SELECT * FROM contract_rows"
        if isinstance(opened, WritesRelation) and not by_batches:
            opened.write_relation(duck, query)
        else:
            for batch in duck.execute(query).to_arrow_reader(_AT_ONCE):
                opened.write(batch)
        yield opened


def _schema(duck: DuckDBPyConnection, rows: pa.Table) -> pa.Schema:
    """The rows' columns as the engine tells them to a target."""
    duck.register("contract_rows", rows)
    found = duck.sql("SELECT * FROM contract_rows")
    plain = found.limit(0).to_arrow_table().schema
    kinds = zip(plain, found.types, strict=True)
    return pa.schema([field.with_metadata({TYPE: str(kind).encode()}) for field, kind in kinds])


def read(source: Source, after: Cursor | None = None, *, by_batches: bool = False) -> tuple[pa.Table, Cursor | None]:
    """The rows after a cursor, and the cursor behind them; the fast way where there is one unless told otherwise."""
    stream = next(iter(source.streams()))
    with session() as duck:
        relation = source.relation(duck, stream, after) if isinstance(source, ReadsAsRelation) else None
        if relation is None or by_batches:
            return _batched(source, stream, after)
        try:
            duck.execute(f"CREATE TEMP TABLE contract_staged AS {relation.fresh(relation.query)}")
        except Exception as error:
            raise relation.explain(error) or error from error

        def scalar(expression: str) -> Any:
            row = duck.execute(f"SELECT {expression} FROM contract_staged").fetchone()
            return row[0] if row else None

        list(relation.rejects())
        cursor = relation.advance(scalar)
        rows = duck.execute("SELECT * FROM contract_staged").to_arrow_table()
        return rows, after if cursor is None else cursor


def _batched(source: Source, stream: Stream, after: Cursor | None) -> tuple[pa.Table, Cursor | None]:
    batches = []
    for batch in source.read(stream, after):
        batches.append(batch.records)
        after = after if batch.cursor is None else batch.cursor
    return pa.Table.from_batches(batches), after


@contextmanager
def session() -> Iterator[DuckDBPyConnection]:
    """A session of a DuckDB that all tests of a process share, because loading an extension takes 0.15 seconds."""
    with _duck().cursor() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        try:
            yield duck
        finally:
            attached = "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND database_name <> 'memory'"
            duck.execute("DROP TABLE IF EXISTS contract_staged")
            for (name,) in duck.execute(attached).fetchall():
                duck.execute(f'DETACH "{name}"')


@cache
def _duck() -> DuckDBPyConnection:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(open_duck())

"""What every node's work needs, and what it leaves: the job, its outcome, and the gate between stage and publish."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.contract import Contract
from databrokkr_assets.core.errors import DataError
from databrokkr_assets.engine.deleting import Deletes
from databrokkr_assets.engine.duckdb import MOVING, S3_PARTS, load_extension, open_duck
from databrokkr_assets.engine.progress import Listener, silent
from databrokkr_assets.engine.shaping import Shape
from databrokkr_assets.lake.dataset import Dataset, Snapshot
from databrokkr_assets.lake.store import Store

STAGED = "databrokkr_staged"
"""The view of the staged rows, in their own types, with `ROW_ID`."""

WHOLE = "databrokkr_whole"
"""The view of what the dataset will be: staged rows, and published ones with negative row ids."""

ROW_ID = "databrokkr_row"
"""The column that numbers staged rows."""

Gate = Callable[[DuckDBPyConnection], Iterable[CheckResult]]
"""Runs a node's checks on `STAGED` and `WHOLE`."""


def no_checks(duck: DuckDBPyConnection) -> Iterable[CheckResult]:
    """The gate of a node without checks."""
    return ()


@dataclass(frozen=True)
class Job:
    """One node's work in one run: a source's brings its contract, how it tells deleted rows, and its columns' shape.

    `landing` is where copies of the files are kept that it reads, by load; `None` where they are not.
    """

    node: str
    dataset: Dataset
    quarantine: Dataset
    gate: Gate = no_checks
    run_id: str = ""
    max_rejects: int | None = None
    contract: Contract = field(default_factory=Contract)
    deletes: Deletes = field(default_factory=Deletes)
    shape: Shape = field(default_factory=Shape)
    landing: Store | None = None
    listener: Listener = silent
    load_id: str = field(default_factory=lambda: new_load_id())

    def duck(self, megabytes_per_core: int = MOVING) -> AbstractContextManager[DuckDBPyConnection]:
        """DuckDB, able to read and write the lake."""
        return duck_for(self.dataset.store, megabytes_per_core)


@dataclass(frozen=True)
class Outcome:
    """What a node's work came to. `published` is false when there was nothing new.

    `reasons` are why rows were set aside, the most frequent first: rule, reason, number of rows. `deleted` rows went
    from the dataset, `discarded` values did not fit the contract and were left out.
    """

    node: str
    load_id: str
    rows_in: int
    rows_out: int
    seconds: float
    quarantined: int = 0
    deleted: int = 0
    discarded: int = 0
    bytes: int = 0
    published: bool = True
    version: int | None = None
    total_rows: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    checks: tuple[CheckResult, ...] = ()
    reasons: tuple[tuple[str, str, int], ...] = ()
    target: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Stopped(DataError):
    """A load that its own rows stopped: nothing was published. `outcome` says how far it came."""

    def __init__(self, what: str, *, mend: str, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(what, mend=mend, where=outcome.node)


class Blocked(Stopped):
    """A check stopped the load."""

    def __init__(self, outcome: Outcome) -> None:
        failed = "; ".join(str(check) for check in outcome.checks if check.blocks)
        mend = "look at the sample of failing values, mend the source, or change `on_fail`"
        super().__init__(f"blocked by {failed}", mend=mend, outcome=outcome)


def new_load_id() -> str:
    """A name for a load: when it began, and a random part."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@contextmanager
def duck_for(store: Store, megabytes_per_core: int = MOVING) -> Iterator[DuckDBPyConnection]:
    """DuckDB, able to read and write `store`."""
    with open_duck(megabytes_per_core) as duck:
        for extension in store.extensions:
            load_extension(duck, extension, extra="s3")
        secret = store.duck_secret()
        if secret:
            duck.execute(secret)
            duck.execute(S3_PARTS)
        yield duck


def own_columns(duck: DuckDBPyConnection, snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    """A dataset's columns with their own types, as DuckDB names them."""
    relation = duck.sql(f"{snapshot.query(duck)} LIMIT 0")
    return tuple(zip(relation.columns, map(str, relation.types), strict=True))

"""The ports that connectors fill: Source, Sink, Load, and the abilities that some have beside them.

A port has one or two verbs. An ability is a type of its own: a Source that can hand its rows to DuckDB as a query is
also a `ReadsAsRelation`; a Load that can take a query is also a `WritesRelation`. Callers ask with `isinstance`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from databrokkr_assets.core.disposition import Disposition

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

Cursor = Mapping[str, Any]
"""Where a source is to resume: any JSON object that the source itself understands."""


@dataclass(frozen=True)
class Stream:
    """One table-like thing of a source: name, columns where they are known before reading, primary key.

    Discovery also says in which `namespace` (schema, folder) it stands, of which `kind` it is (`table`, `view`, `file`)
    and, where the system knows without counting, about how many `rows` it has.
    """

    name: str
    schema: pa.Schema | None = None
    keys: tuple[str, ...] = ()
    namespace: str = ""
    kind: str = "table"
    rows: int | None = None


@dataclass(frozen=True)
class Reject:
    """A row that could not be read or cast. `position` is `file:line` or a key; `payload` is as it came."""

    reason: str
    rule: str
    position: str
    payload: str


@dataclass(frozen=True)
class Batch:
    """Rows, the rows that could not be read beside them, and where to resume once both are published."""

    records: pa.RecordBatch
    cursor: Cursor | None = None
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True)
class RelationRead:
    """Rows that DuckDB reads by itself, without passing through Python.

    `fresh(query)`, run once, gives the rows: it leaves out of `query` what an earlier load has seen. It stands apart
    because the engine masks columns between the two, so that `fresh` and `advance` see the values that are stored.
    Then `rejects()` is asked for the rows that could not be read, and `advance(scalar)` for where to resume;
    `scalar("max(x)")` evaluates an SQL aggregate over the staged rows, `None` keeps the old cursor.

    When running `query` raises, `explain` gives the error in our words, `None` for one that is not the source's.
    """

    query: str
    advance: Callable[[Callable[[str], Any]], Cursor | None] = field(default=lambda scalar: None)
    rejects: Callable[[], Iterator[Reject]] = field(default=lambda: iter(()))
    explain: Callable[[Exception], Exception | None] = field(default=lambda error: None)
    fresh: Callable[[str], str] = field(default=lambda query: query)


class Source(ABC):
    """Reads a system. Instances are made per load and used by one thread at a time, not always the same."""

    @abstractmethod
    def streams(self) -> Iterable[Stream]:
        """What there is to read. May ask the network; never called while definitions load."""

    @abstractmethod
    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows that came after the cursor, all of them when it is `None`.

        Raises AccessError, Unavailable, or DataError when the whole cannot be read.
        """


class ReadsAsRelation(ABC):
    """A source that can hand DuckDB a query, the fast way."""

    @abstractmethod
    def relation(self, duck: DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead | None:
        """The rows after the cursor as a query over `duck`; `None` when this stream needs `read`."""


@dataclass(frozen=True)
class Taken:
    """A file that was read: the `key` by which its source knows it, its `name`, and the local `path` of its bytes."""

    key: str
    name: str
    path: Path


class LandsFiles(ABC):
    """A source that can hand over its files as they came."""

    @abstractmethod
    def taken(self) -> Sequence[Taken]:
        """The files that are read by what `relation` or `read` gave, in their order; their paths hold as long as this.

        Asked once the rows are staged, and before `advance`, which finds out whether a file changed meanwhile.
        """


class Delivery(Enum):
    """What a sink promises when a load is repeated after a crash or a lost reply."""

    EXACTLY_ONCE = "exactly once"
    AT_LEAST_ONCE = "at least once"


@dataclass(frozen=True)
class Target:
    """Where a sink writes: the node's key (`pipeline/node`, its name in the ledger), and the columns to come."""

    node: str
    schema: pa.Schema


@dataclass(frozen=True)
class LoadMark:
    """A load as the target's ledger names it.

    `dataset` is the identity of the input's table and `version` the version that the load carries the target up to.
    `after` is the version that the ledger must still name when the load commits, `None` for an empty ledger: the
    fencing token. A worker that wakes up after its successor finds another version there and writes nothing.
    """

    load_id: str
    dataset: str
    version: int
    after: int | None = None
    run_id: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC), compare=False)


@dataclass(frozen=True)
class Receipt:
    """What a committed load did. `already` tells that the ledger held this version: nothing was written again."""

    rows: int
    target: str
    already: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


class Load(ABC):
    """One atomic publication of rows. Leaving its `with` block without `commit` changes nothing."""

    @abstractmethod
    def write(self, records: pa.RecordBatch) -> None:
        """Stage rows at the target; called any number of times, never concurrently."""

    @abstractmethod
    def commit(self) -> Receipt:
        """Apply the staged rows and write the ledger, in one transaction where the target has them. Called once."""


class WritesRelation(ABC):
    """A Load that can take its rows as a DuckDB query, the fast way."""

    @abstractmethod
    def write_relation(self, duck: DuckDBPyConnection, query: str) -> None:
        """Stage the rows of `query` at the target; used instead of `write`, at most once per load."""


class DeletesRows(ABC):
    """A Load that can also remove rows, when it merges."""

    @abstractmethod
    def delete(self, keys: pa.RecordBatch) -> None:
        """Stage keys, in the columns that the disposition merges by; `commit` removes the rows that carry them.

        Called any number of times before `commit`. A key never comes both here and with a row to write.
        """


class Sink(ABC):
    """Writes a system. Instances are made per load and used by one thread at a time."""

    dispositions: ClassVar[frozenset[type[Disposition]]]
    delivery: ClassVar[Delivery]

    @abstractmethod
    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node` in the target's own ledger; `None` before the first."""

    @abstractmethod
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> AbstractContextManager[Load]:
        """Open a load.

        `commit` compares the ledger with the mark in the transaction that applies the rows. Where the ledger holds this
        dataset and version already (a lost reply), nothing is written and `Receipt.already` is true; where it names
        anything but `load.after`, it raises `Unavailable`: somebody else has written in the meantime.
        """

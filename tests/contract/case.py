"""What the author of a connector writes to have the contract suite run over it: one small class, a case.

    from databrokkr_contract.case import Case, Reads, Writes
    from databrokkr_contract.suite import contract

    class ShelfCase(Case, Reads, Writes):
        ...

    TestShelf = contract(ShelfCase)

A case knows the real system without the connector: it fills tables and looks into them by other means, so that a
mistake of the connector cannot hide itself. What the connector can do is told by the classes that the case derives
from, and what it cannot, though it should, by `gaps`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import pyarrow as pa

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.ports import Delivery

from .values import TYPES

Settings: TypeAlias = Mapping[str, Any]
"""What stands in a pipeline's YAML, as Python values."""

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""Rows as Python values by column, in any order."""


class Busy(Exception):
    """A look into the system that has to wait, because somebody else has it locked. Raised by `Case.get`."""


class Case(ABC):
    """A connector on its real system, with an empty corner of it for one test."""

    title: ClassVar[str]
    """The column in the capability matrix: the connector, and the system or store where it has several."""
    connector: ClassVar[str]
    """The connector's name, as in `type:`."""
    via: ClassVar[str] = ""
    """The connector that brings the connection, where that is another one, such as a store of files."""
    gaps: ClassVar[Mapping[str, str]] = {}
    """Promises that do not hold: the test's name, with `[id]` for one of its parameters, and the reason."""
    longest_name: ClassVar[int] = 200
    """How many bytes the name of a table or column may have."""
    unnameable: ClassVar[frozenset[str]] = frozenset()
    """Names of `naming.NAMES` that no column can have; they must be refused."""
    no_table: ClassVar[frozenset[str]] = frozenset()
    """Names of `naming.NAMES` that no table can have, beside those."""

    @classmethod
    def system(cls) -> AbstractContextManager[Any]:
        """The real system, started once for all tests; without one, what needs no server."""
        return nullcontext()

    @classmethod
    @abstractmethod
    def fresh(cls, system: Any, folder: Path) -> AbstractContextManager[Self]:
        """The case with an empty corner of the system, such as a database, for one test; `folder` is empty too."""

    def connection(self) -> Settings | None:
        """The connection to the corner; `None` where the connector has none."""
        return None

    @abstractmethod
    def put(self, table: str, rows: pa.Table) -> None:
        """Make `table` hold these rows and columns and nothing else, not by the connector.

        A column of the field metadata `key: yes` is the primary key, where the system has such.
        """

    @abstractmethod
    def get(self, table: str) -> Rows:
        """The rows of `table`, not by the connector; none when it is not there. Raises Busy."""


class Reads(ABC):
    """The connector has a source."""

    @abstractmethod
    def source(self, table: str) -> Settings:
        """The settings of a source that reads `table`, without `connection`."""


class Writes(ABC):
    """The connector has a sink."""

    dispositions: ClassVar[tuple[type[Disposition], ...]] = (Append, Replace)
    """The dispositions that it claims."""
    delivery: ClassVar[Delivery] = Delivery.EXACTLY_ONCE
    """What it claims about a repeated load."""

    @abstractmethod
    def sink(self, table: str, how: Disposition) -> Settings:
        """The settings of a sink that writes `table`, without `connection`, `input`, `disposition` and `keys`."""


class Merges(Writes):
    """The sink meets rows by key, and removes those that are deleted in its input."""

    dispositions: ClassVar[tuple[type[Disposition], ...]] = (Append, Replace, Merge)


class HoldsTypes(Reads, Writes):
    """Values of these types come back as they were, once written and read again."""

    holds: ClassVar[frozenset[str]] = frozenset(TYPES)
    """Names of `values.TYPES`."""
    bounded: ClassVar[Mapping[str, str]] = {}
    """Types of these that the system holds in part, and which part; any other value must be refused."""


class ReadsByCursor(Reads):
    """The source has a `cursor`: a column that grows, by which it reads only what is new."""

    @abstractmethod
    def add(self, table: str, rows: pa.Table) -> None:
        """Add rows to a table that is there, not by the connector."""


class ReadsArrivals(Reads):
    """The source reads each thing that arrives (a file, a message, what was appended) once."""

    only_new: ClassVar[Settings] = {}
    """Settings by which the source does so, where it needs any."""

    @abstractmethod
    def arrive(self, table: str, name: str, rows: pa.Table) -> None:
        """Make a thing of these rows arrive, not by the connector; names sort in the order of arrival."""


def only_new(case: Case, cursor: str) -> Settings:
    """Settings by which a source of the case reads only what is new, by the column `cursor` where it has cursors."""
    if isinstance(case, ReadsByCursor):
        return {"cursor": cursor}
    return case.only_new if isinstance(case, ReadsArrivals) else {"disposition": "replace"}


class Stops(ABC):
    """The system can go down."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it at once, as a crash would, and return when it is down."""

    @abstractmethod
    def start(self) -> None:
        """Start it with what it held, and return when it answers; no effect when it runs."""


class ChecksPasswords(ABC):
    """The system knows who may come in."""

    @abstractmethod
    def wrong_password(self) -> Settings:
        """The connection with a password, key or token that is wrong and has the text `hush-hush` in it."""


class GrantsRights(ABC):
    """The system knows who may do what."""

    @abstractmethod
    def without_rights(self) -> Settings:
        """The connection of a user who may connect, but neither read nor change the tables that are there."""


class CanBeReadOnly(ABC):
    """The system, or the place it stands in, can be kept from being written."""

    @abstractmethod
    def read_only(self) -> AbstractContextManager[Settings | None]:
        """Within the block nothing can be written by the connection that is given.

        What writes is a process that is not root, so that a folder's permissions count.
        """


class RunsFull(ABC):
    """The disk of the system can be full."""

    @abstractmethod
    def full_disk(self) -> AbstractContextManager[int | None]:
        """Within the block no file of the system grows beyond a few megabytes: on a server, by a limit on its process.

        Where the connector writes files by itself, gives that limit in bytes, for the process that writes.
        """

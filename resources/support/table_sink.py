"""Writing a table exactly once, whatever the system: what every sink refuses, and loads that hold their rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import ClassVar

import duckdb
import pyarrow as pa

from databrokkr_assets.core.disposition import Append, Disposition, History, Merge, Replace
from databrokkr_assets.core.ports import DeletesRows, Delivery, Load, LoadMark, Sink, Target, WritesRelation
from resources.support.applying import keys_of, refuse_history_columns, require_keys
from resources.support.held_rows import HeldRows


class TableLoad(Load, WritesRelation, DeletesRows):
    """One load of a table."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the load holds, whether it committed or not. Called once, at the end."""


class TableSink(Sink):
    """Writes one table. A connector says what its loads are, and asks its own ledger."""

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace, Merge, History})
    delivery: ClassVar[Delivery] = Delivery.EXACTLY_ONCE

    @property
    @abstractmethod
    def told(self) -> str:
        """What errors call the table."""

    @abstractmethod
    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> TableLoad:
        """A load, closed when it is left."""

    def _prepare(self, target: Target) -> None:
        """Refuse early what cannot be written, and make what a load needs; nothing, unless said."""

    @contextmanager
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> Iterator[TableLoad]:
        """Open a load.

        Raises SpecError for a key that is no column, or a column that a history adds, AccessError or Unavailable.
        """
        require_keys(how, target.schema.names, self.told)
        refuse_history_columns(how, target.schema.names, self.told)
        self._prepare(target)
        with closing(self._opened(target, how, load)) as opened:
            yield opened


class HeldLoad(TableLoad):
    """A load whose rows stay with DuckDB until it commits: a query, or batches in a table that spills to disk."""

    def __init__(self, target: Target, how: Disposition, load: LoadMark) -> None:
        self._target = target
        self._how = how
        self._load = load
        self._keys = keys_of(how)
        self._until_left = ExitStack()
        self._held = HeldRows(target.schema, self._until_left)

    def write(self, records: pa.RecordBatch) -> None:
        """Keep rows in a temporary table, which spills to disk. Raises SpecError."""
        self._held.add(records)

    def write_relation(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Keep the query; `commit` runs it."""
        self._held.give(duck, query)

    def delete(self, keys: pa.RecordBatch) -> None:
        """Keep the keys of rows to delete in a temporary table."""
        self._held.delete(keys)

    def close(self) -> None:
        """Give up the rows."""
        self._until_left.close()

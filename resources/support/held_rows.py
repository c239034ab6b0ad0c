"""The rows of a load until it commits: a query that was given, or batches in a temporary table that spills to disk."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property

import duckdb
import pyarrow as pa

from databrokkr_assets.core.names import columns, quoted
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.columns import own_columns, told_by_arrow


class HeldRows:
    """Rows in the columns of `schema`, and keys of rows to delete."""

    def __init__(self, schema: pa.Schema, until_left: ExitStack) -> None:
        self._schema = schema
        self._until_left = until_left
        self._given: tuple[duckdb.DuckDBPyConnection, str] | None = None
        self._holds = False
        self._deletes = False

    def give(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Take the rows of a query, in place of batches."""
        self._given = duck, query

    def add(self, records: pa.RecordBatch) -> None:
        """Keep a batch of rows. Raises SpecError for a type that batches have lost."""
        if not self._holds:
            own = ", ".join(f"{quoted(name)} {kind}" for name, kind in own_columns(self._schema).items())
            self._own.execute(f"CREATE TEMP TABLE databrokkr_rows ({own})")
            self._holds = True
        self._insert("databrokkr_rows", told_by_arrow(self._schema), records)

    def delete(self, keys: pa.RecordBatch) -> None:
        """Keep the keys of rows to delete."""
        if not self._deletes:
            kinds = own_columns(self._schema)
            own = ", ".join(f"{quoted(name)} {kinds[name]}" for name in keys.schema.names)
            self._own.execute(f"CREATE TEMP TABLE databrokkr_deletes ({own})")
            self._deletes = True
        self._insert("databrokkr_deletes", "*", keys)

    @property
    def duck(self) -> duckdb.DuckDBPyConnection:
        """Where `query` runs."""
        return self._given[0] if self._given else self._own

    def query(self) -> str:
        """The rows, in the order in which they came."""
        if self._given:
            return self._given[1]
        if not self._holds:
            self.add(pa.RecordBatch.from_pylist([], self._schema))
        return "SELECT * FROM databrokkr_rows"

    def last_of_each(self, keys: tuple[str, ...]) -> str:
        """The rows, of those with the same keys only the last; without keys all."""
        if not keys:
            return self.query()
        duck = self.duck
        duck.execute("SET preserve_insertion_order = true")
        duck.execute(f"CREATE OR REPLACE TEMP TABLE databrokkr_merge AS {self.query()}")
        duck.execute("SET preserve_insertion_order = false")
        listed = columns(keys)
        doubles = f"SELECT 1 FROM databrokkr_merge GROUP BY {listed} HAVING count(*) > 1 LIMIT 1"
        last = f" QUALIFY row_number() OVER (PARTITION BY {listed} ORDER BY rowid DESC) = 1"
        return f"SELECT * FROM databrokkr_merge{last if duck.execute(doubles).fetchone() else ''}"

    def deleted(self) -> str | None:
        """The keys of rows to delete, as a query over `duck`; `None` when there are none."""
        if not self._deletes:
            return None
        if self._given is None:
            return "SELECT * FROM databrokkr_deletes"
        keys = self._own.execute("SELECT * FROM databrokkr_deletes").to_arrow_reader()
        self.duck.register("databrokkr_keys", keys)
        self.duck.execute("CREATE OR REPLACE TEMP TABLE databrokkr_deleted AS SELECT * FROM databrokkr_keys")
        self.duck.unregister("databrokkr_keys")
        return "SELECT * FROM databrokkr_deleted"

    @cached_property
    def _own(self) -> duckdb.DuckDBPyConnection:
        duck = self._until_left.enter_context(open_duck())
        duck.execute("SET preserve_insertion_order = true")
        return duck

    def _insert(self, table: str, selected: str, records: pa.RecordBatch) -> None:
        duck = self._own
        duck.register("databrokkr_records", records)
        duck.execute(f"INSERT INTO {table} SELECT {selected} FROM databrokkr_records")
        duck.unregister("databrokkr_records")

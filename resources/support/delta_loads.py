"""A load into an external Delta table: files beside it that nothing refers to, then one commit."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import duckdb

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import SpecError, Unavailable
from databrokkr_assets.core.names import columns, literal, same
from databrokkr_assets.core.ports import LoadMark, Receipt, Target
from databrokkr_assets.lake import types
from databrokkr_assets.lake.external import Conflict, ExternalTable, ExternalVersion, NewFile, TableFile, as_logged
from resources.support import ledger
from resources.support.delta_plan import DeltaLayout, Plan, Staged
from resources.support.delta_rows import FILE, rows_of
from resources.support.fitting import refusals
from resources.support.opened_store import let_in
from resources.support.parquet_parts import Part, PartsWriter
from resources.support.table_sink import HeldLoad, TableSink

_TRIES = 8
"""How often a load is applied to the newest version; making the table or a column ready takes one, too."""


@dataclass(frozen=True)
class DeltaSink(TableSink):
    """Writes one external Delta table.

    The ledger is in the table's own log: an application transaction in each load's commit. Other writers may commit in
    between; a load then applies itself to what they left.
    """

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace, Merge})

    table: ExternalTable
    layout: DeltaLayout

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError."""
        version = self.table.open()
        return version.held(target.node) if version else None

    @property
    def told(self) -> str:
        """What errors call the table."""
        return self.table.store.url

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> DeltaLoad:
        return DeltaLoad(self, target, how, load)


class DeltaLoad(HeldLoad):
    """One load."""

    def __init__(self, sink: DeltaSink, target: Target, how: Disposition, load: LoadMark) -> None:
        super().__init__(target, how, load)
        self._until_left.callback(self._discard)
        self._table, self._layout = sink.table, sink.layout
        self._folder = f"databrokkr-{load.load_id}-{secrets.token_hex(4)}"
        self._staged: Staged | None = None
        self._written: list[str] = []
        self._committed: set[str] = set()
        self._takes = 0

    def commit(self) -> Receipt:
        """Write the files, then commit them with the ledger.

        When another writer commits in between, it is done again on what that one left. Raises DataError for a value
        that the table's type would change, SpecError, AccessError, or Unavailable.
        """
        let_in(self._held.duck, self._table.store)
        with refusals(self._url):
            for _ in range(_TRIES):
                try:
                    receipt = self._applied(self._table.open())
                except Conflict:
                    continue
                if receipt:
                    return receipt
        raise Unavailable(
            f"{_TRIES} times another writer committed first", mend="run it again when less is going on", where=self._url
        )

    def _discard(self) -> None:
        """Remove the files that no commit refers to."""
        for path in self._written:
            if path not in self._committed:
                self._table.store.child(path).delete()
        if not self._committed:
            self._table.store.child(self._folder).delete()

    # ----------------------------------------------------------------------------------------------- applying

    def _applied(self, now: ExternalVersion | None) -> Receipt | None:
        """Apply the load to this version of the table; `None` where that made the table ready for another try."""
        if ledger.already(now.held(self._target.node) if now else None, self._load, self._url):
            # Of a commit whose reply was lost, too: the files are the table's then.
            self._committed.update(self._written)
            return Receipt(self._staged.rows if self._staged else 0, self._url, already=True)
        if now is None:
            self._create()
            return None
        now.refuse(self._how)
        if now.name_dataset(self._target.node, self._load) or self._widened(now):
            return None
        staged = self._stage(Plan(now.schema, self._partitions(now)))
        touched = self._touched(now, staged)
        files = [*staged.files, *self._kept(now, staged, touched)]
        now.commit(self._how, files, touched, self._target.node, self._load)
        return self._receipt(staged, files)

    def _create(self) -> None:
        """Make the table, without rows; but only once these are staged, because they may be refused."""
        if not self._layout.create:
            raise SpecError("there is no Delta table", mend="create it, or set `create: true`", where=self._url)
        found = self._given()
        schema = as_logged(types.stored_schema(self._held.duck, found.columns, found.types))
        plan = Plan(schema, self._layout.partition_by or ())
        self._stage(plan)
        self._table.create(schema, plan.partition_by, self._target.node, self._load)

    def _receipt(self, staged: Staged, files: Sequence[NewFile]) -> Receipt:
        self._committed.update(file.path for file in files)
        size = sum(file.bytes for file in files)
        return Receipt(staged.rows, self._url, facts={"files": len(files), "bytes": size})

    def _widened(self, now: ExternalVersion) -> bool:
        """Add the columns that the table lacks; tells whether there were any."""
        known = {name.casefold() for name in now.schema.names}
        found = self._given()
        fresh = [
            field
            for field in types.stored_schema(self._held.duck, found.columns, found.types)
            if field.name.casefold() not in known
        ]
        if fresh and not self._layout.create:
            names = columns([field.name for field in fresh])
            raise SpecError(f"the table has no column {names}", mend="add it, or set `create: true`", where=self._url)
        if fresh:
            now.add_columns(fresh)
        return bool(fresh)

    def _partitions(self, now: ExternalVersion) -> tuple[str, ...]:
        wanted = self._layout.partition_by
        if wanted is not None and wanted != now.partition_by:
            what = f"the table is partitioned by {', '.join(now.partition_by) or 'nothing'}, not by {', '.join(wanted)}"
            raise SpecError(what, mend="leave `partition_by` out, or write another table", where=self._url)
        return now.partition_by

    # ------------------------------------------------------------------------------------------------ staging

    def _stage(self, plan: Plan) -> Staged:
        """The files of the load's own rows; written once, and again only when the table's columns have changed."""
        if self._staged is None or self._staged.plan != plan:
            self._staged = None
            plan.check(self._given(), self._url)
            query = self._held.last_of_each(self._keys)
            self._staged = Staged(plan, self._write(plan, plan.stored(self._held.duck, query), "part"))
        return self._staged

    def _write(self, plan: Plan, query: str, name: str) -> list[NewFile]:
        self._takes += 1
        writer = PartsWriter(
            self._held.duck, self._table.store.child(self._folder), plan.partition_by, self._layout.target_bytes
        )
        files = [self._new(part) for part in writer.write(query, f"{name}-{self._takes}")]
        self._written += [file.path for file in files]
        return files

    def _new(self, part: Part) -> NewFile:
        return NewFile(f"{self._folder}/{part.path}", part.rows, part.bytes, part.stats, part.partition)

    def _given(self) -> duckdb.DuckDBPyRelation:
        return self._held.duck.sql(self._held.query())

    # ------------------------------------------------------------------------------------------------ merging

    def _touched(self, now: ExternalVersion, staged: Staged) -> list[TableFile]:
        """The files of the table that hold a key of the load."""
        changed = self._changed_keys(staged)
        if not changed or not now.files:
            return []
        rows = rows_of(now, self._held.duck, now.files, as_stored=True, with_file=True)
        found = self._held.duck.execute(
            f"SELECT DISTINCT old.{FILE} FROM ({rows}) AS old SEMI JOIN ({changed}) AS new ON {self._same_keys}"
        ).fetchall()
        urls = {url for (url,) in found}
        return [file for file in now.files if file.url in urls]

    def _kept(self, now: ExternalVersion, staged: Staged, touched: list[TableFile]) -> list[NewFile]:
        """The other rows of the touched files, in files of this load."""
        if not touched:
            return []
        rows = rows_of(now, self._held.duck, touched, as_stored=True)
        changed = self._changed_keys(staged)
        query = f"SELECT old.* FROM ({rows}) AS old ANTI JOIN ({changed}) AS new ON {self._same_keys}"
        return self._write(staged.plan, query, "kept")

    def _changed_keys(self, staged: Staged) -> str:
        """The keys of rows that are written or deleted, as they are stored; empty when there are none."""
        if not isinstance(self._how, Merge):
            return ""
        keys = columns(self._how.keys)
        parts = []
        if staged.files:
            listed = ", ".join(literal(self._table.store.child(file.path).url) for file in staged.files)
            parts.append(f"SELECT {keys} FROM read_parquet([{listed}], hive_partitioning = false)")
        deleted = self._held.deleted()
        if deleted:
            parts.append(f"SELECT {keys} FROM ({staged.plan.stored(self._held.duck, deleted)})")
        return " UNION ALL ".join(parts)

    @property
    def _same_keys(self) -> str:
        assert isinstance(self._how, Merge)
        return same(self._how.keys, "old", "new")

    @property
    def _url(self) -> str:
        return self._table.store.url

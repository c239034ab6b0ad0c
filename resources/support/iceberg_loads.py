"""A load into an Iceberg table: Parquet files in its folder, then one commit of snapshot, columns and ledger."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import SpecError, Unavailable
from databrokkr_assets.core.names import columns, same
from databrokkr_assets.core.ports import LoadMark, Receipt, Target
from resources.support import ledger
from resources.support.fitting import refusals
from resources.support.iceberg_tables import IcebergTable, held, ledger_property, store_of, told, told_plainly
from resources.support.opened_store import let_in
from resources.support.table_sink import HeldLoad, TableSink

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table, Transaction
    from pyiceberg.table.update.snapshot import _SnapshotProducer

    from resources.support.iceberg_files import Files

_TRIES = 5


@dataclass(frozen=True)
class IcebergLayout:
    """How the sink shall lay out the table; `partition_by` is for a new table."""

    partition_by: tuple[str, ...]
    target_bytes: int
    create: bool


@dataclass(frozen=True)
class IcebergSink(TableSink):
    """Writes one Iceberg table.

    The ledger is a property of the table, `databrokkr.<node>`, set in the commit that adds the snapshot. The commit
    holds only if the snapshot before it is still the newest; else the load applies itself to what others left.
    """

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace, Merge})

    table: IcebergTable
    layout: IcebergLayout

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of `target.node`; `None` before the first. Raises AccessError or Unavailable."""
        found = self.table.open()
        return held(found, target.node) if found else None

    @property
    def told(self) -> str:
        """What errors call the table."""
        return self.table.name

    def _opened(self, target: Target, how: Disposition, load: LoadMark) -> IcebergLoad:
        return IcebergLoad(self, target, how, load)


class IcebergLoad(HeldLoad):
    """One load."""

    def __init__(self, sink: IcebergSink, target: Target, how: Disposition, load: LoadMark) -> None:
        super().__init__(target, how, load)
        self._until_left.callback(self._discard)
        self._table, self._layout = sink.table, sink.layout
        self._folder = f"databrokkr-{load.load_id}-{secrets.token_hex(4)}"
        self._files: Files | None = None
        self._staged: list[DataFile] = []
        self._committed = False
        self._producers: list[_SnapshotProducer[Any]] = []

    def commit(self) -> Receipt:
        """Write the files, then commit them with the ledger.

        When another writer commits in between, it is done again on what that one left. Raises DataError for a value
        that the table's type would change, SpecError, AccessError, or Unavailable.
        """
        from pyiceberg.exceptions import CommitFailedException, TableAlreadyExistsError

        with refusals(self._table.name):
            for _ in range(_TRIES):
                try:
                    return self._applied(self._table.open())
                except (CommitFailedException, TableAlreadyExistsError):
                    continue
        mend = "run it again when less is going on"
        raise Unavailable(f"{_TRIES} times another writer committed first", mend=mend, where=self._table.name)

    def _discard(self) -> None:
        """Remove the files, unless a commit refers to them."""
        if self._files and not self._committed:
            self._files.folder.delete()

    # ----------------------------------------------------------------------------------------------- applying

    def _applied(self, now: Table | None) -> Receipt:
        if ledger.already(held(now, self._target.node) if now else None, self._load, self._table.name):
            self._committed = True  # of a commit whose reply was lost, too: the files are the table's then
            return Receipt(self._staged_rows, self._table.name, already=True)
        self._clean()
        transaction = self._begun(now)
        self._stage(transaction)
        gone, kept = self._replaced(now)
        snapshot = transaction.update_snapshot({"databrokkr.node": self._target.node, **_summary(self._load)})
        with snapshot.overwrite() if gone else snapshot.fast_append() as files:
            for file in gone:
                files.delete_data_file(file)
            for file in (*self._staged, *kept):
                files.append_data_file(file)
        transaction.set_properties({ledger_property(self._target.node): told(self._load)})
        with told_plainly(self._table.name):
            self._commit(transaction)
        added = (*self._staged, *kept)
        size = sum(file.file_size_in_bytes for file in added)
        return Receipt(self._staged_rows, self._table.name, facts={"files": len(added), "bytes": size})

    def _commit(self, transaction: Transaction) -> None:
        """Commit; from here on the files may be the table's, until the ledger says that they are not.

        The producers are taken out of the transaction. With them, pyiceberg would move the commit to a newer snapshot
        and try again, which a worker thought dead must not; and, told of a conflict, remove the manifests, although the
        conflict may be with its own commit whose reply was lost on the way.
        """
        self._producers, transaction._snapshot_producers = transaction._snapshot_producers, []
        self._committed = True
        transaction.commit_transaction()

    def _clean(self) -> None:
        """Forget a try that the ledger does not have."""
        self._committed = False
        for producer in self._producers:
            producer._clean_all_uncommitted()
        self._producers = []

    @property
    def _staged_rows(self) -> int:
        return sum(file.record_count for file in self._staged)

    def _begun(self, now: Table | None) -> Transaction:
        """A transaction in which the table has all columns of the load."""
        if now is None:
            return self._created()
        if now.format_version > 2:
            what = f"the table is of Iceberg's format version {now.format_version}, which pyiceberg does not write"
            raise SpecError(what, mend="write a table of version 2", where=self._table.name)
        transaction = now.transaction()
        known = {field.name.casefold() for field in now.schema().fields}
        fresh = {name: kind for name, kind in self._own_types().items() if name.casefold() not in known}
        if fresh and not self._layout.create:
            what = f"the table has no column {columns(list(fresh))}"
            raise SpecError(what, mend="add it, or set `create: true`", where=self._table.name)
        if fresh:
            with transaction.update_schema() as schema:
                for name, kind in fresh.items():
                    schema.add_column((name,), kind)
        return transaction

    def _created(self) -> Transaction:
        from pyiceberg.schema import Schema
        from pyiceberg.types import NestedField

        from resources.support.iceberg_types import partition_spec

        if not self._layout.create:
            mend = "create it, or set `create: true`"
            raise SpecError("there is no such table", mend=mend, where=self._table.name)
        own = self._own_types()
        # Numbers are given anew by the catalog; here they only have to differ.
        schema = Schema(*(NestedField(number, name, kind) for number, (name, kind) in enumerate(own.items(), 1)))
        spec = partition_spec(self._layout.partition_by, schema, self._table.name)
        catalog = self._table.catalog
        with told_plainly(self._table.name):
            catalog.create_namespace_if_not_exists(self._table.name.rpartition(".")[0])
            return catalog.create_table_transaction(self._table.name, schema, partition_spec=spec)

    def _own_types(self) -> Mapping[str, Any]:
        from resources.support.iceberg_types import iceberg_type

        given = self._held.duck.sql(self._held.query())
        ids = count(len(given.columns) + 1)
        return {name: iceberg_type(name, kind, ids) for name, kind in zip(given.columns, given.types, strict=True)}

    # ------------------------------------------------------------------------------------------------ staging

    def _stage(self, transaction: Transaction) -> None:
        """Write the load's own rows; once, and again only when the table's columns or partitions have changed."""
        from resources.support.iceberg_files import Files

        metadata = transaction.table_metadata
        if self._files is not None and self._files.fits(metadata):
            return
        if self._files is not None:
            self._files.folder.delete()
        io = transaction._table.io  # of a table that is only about to be made, nothing else tells
        properties = io.properties
        above = metadata.properties.get("write.data.path", f"{metadata.location.rstrip('/')}/data")
        folder = store_of(f"{above}/{self._folder}", properties)
        let_in(self._held.duck, store_of(metadata.location, properties))
        rows = self._held.last_of_each(self._keys)
        self._files = Files(
            self._held.duck,
            metadata,
            io,
            folder,
            f"{above}/{self._folder}",
            self._layout.target_bytes,
            self._table.name,
        )
        self._staged = self._files.write(self._files.fitted(rows), "part")

    # ------------------------------------------------------------------------------------------------ merging

    def _replaced(self, now: Table | None) -> tuple[list[DataFile], list[DataFile]]:
        """The files that the load takes out of the table, and new ones with those of their rows that stay."""
        if now is None or isinstance(self._how, Append):
            return [], []
        tasks = list(now.scan().plan_files())
        if isinstance(self._how, Replace):
            return [task.file for task in tasks], []
        return self._merged(now, tasks, self._how.keys) if tasks else ([], [])

    def _merged(
        self, now: Table, tasks: Sequence[FileScanTask], keys: tuple[str, ...]
    ) -> tuple[list[DataFile], list[DataFile]]:
        from resources.support.iceberg_rows import FILE, address, plain, rows_of

        assert self._files is not None
        schema, duck = self._files.schema, self._held.duck
        if not plain(now, schema, tasks):
            raise SpecError(
                "the table cannot be merged into: rows are deleted apart from its files, or columns were renamed",
                mend="have its owner rewrite the data files, or use `append` or `replace`",
                where=self._table.name,
            )
        changed = self._changed_keys(keys)
        if not changed:
            return [], []
        paths = [task.file.file_path for task in tasks]
        found = duck.execute(
            f"SELECT DISTINCT old.{FILE} FROM ({rows_of(duck, schema, paths, with_file=True)}) AS old "
            f"SEMI JOIN ({changed}) AS new ON {same(keys, 'old', 'new')}"
        ).fetchall()
        touched = [task.file for task in tasks if (address(task.file.file_path),) in found]
        if not touched:
            return [], []
        rows = rows_of(duck, schema, [file.file_path for file in touched])
        kept = f"SELECT old.* FROM ({rows}) AS old ANTI JOIN ({changed}) AS new ON {same(keys, 'old', 'new')}"
        return touched, self._files.write(kept, f"kept-{secrets.token_hex(4)}")

    def _changed_keys(self, keys: tuple[str, ...]) -> str:
        """The keys of rows that are written or deleted; empty when there are none."""
        from resources.support.iceberg_rows import rows_of

        assert self._files is not None
        parts = []
        if self._staged:
            staged = rows_of(self._held.duck, self._files.schema, [file.file_path for file in self._staged])
            parts.append(f"SELECT {columns(keys)} FROM ({staged})")
        deleted = self._held.deleted()
        if deleted:
            parts.append(f"SELECT {columns(keys)} FROM ({self._files.fitted(deleted)})")
        return " UNION ALL ".join(parts)


def _summary(load: LoadMark) -> dict[str, str]:
    return {
        "databrokkr.load-id": load.load_id,
        "databrokkr.dataset": load.dataset,
        "databrokkr.version": str(load.version),
    }

"""Reads an Iceberg table: a snapshot of it, or the rows that were appended since the last load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb

from databrokkr_assets.core.disposition import Disposition, History, Merge
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import columns
from databrokkr_assets.core.ports import Batch, Cursor, ReadsAsRelation, RelationRead, Source, Stream
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.applying import keys_of
from resources.support.columns import batches
from resources.support.iceberg_tables import IcebergTable, store_of, told_plainly
from resources.support.opened_store import let_in

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table

_APPENDS, _REWRITES = "append", "replace"
"""Operations of snapshots that leave the rows that were there: new ones come, or files are compacted."""


@dataclass(frozen=True)
class IcebergSource(Source, ReadsAsRelation):
    """Reads one table. `at` is a snapshot's id or a time; `incremental` reads what came after the cursor's snapshot."""

    table: IcebergTable
    at: int | datetime | None
    columns: tuple[str, ...]
    incremental: bool
    how: Disposition

    def streams(self) -> Iterator[Stream]:
        """The table, with its columns. Raises AccessError when there is none."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        table = self._open()
        schema = self._chosen(self._schema(table, self._snapshot(table)))
        keys = keys_of(self.how)
        names = [field.name for field in schema.fields]
        namespace, _, name = self.table.name.rpartition(".")
        arrow = schema_to_pyarrow(schema, include_field_ids=False)
        yield Stream(name, arrow, keys if set(keys) <= set(names) else (), namespace)

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        """The rows as a query over `duck`.

        Raises DataError when rows that were read before have been changed or removed since, AccessError when the table
        no longer tells.
        """
        from resources.support.iceberg_rows import plain, rows_of, scanned

        table = self._open()
        snapshot = self._snapshot(table)
        schema = self._schema(table, snapshot)
        with told_plainly(self.table.name), _planning(self.table.name):
            tasks = self._tasks(table, snapshot, after if self.incremental else None)
        let_in(duck, store_of(table.location(), table.io.properties))
        if plain(table, schema, tasks):
            query = rows_of(duck, schema, [task.file.file_path for task in tasks])
        else:
            query = scanned(duck, table, schema, tasks)
        cursor = {"table": str(table.metadata.table_uuid), "snapshot": snapshot} if self.incremental else None
        chosen = columns([field.name for field in self._chosen(schema).fields])
        return RelationRead(f"SELECT {chosen} FROM ({query})", lambda scalar: cursor, explain=self._explained)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows as batches."""
        with open_duck() as duck:
            read = self.relation(duck, stream, after)
            yield from batches(duck, read.query, None, read.advance(lambda expression: None))

    def _open(self) -> Table:
        table = self.table.open()
        if table is None:
            mend = "correct `table`, or make the table first"
            raise AccessError(f"there is no table {self.table.name}", mend=mend, where=self.table.name)
        return table

    def _snapshot(self, table: Table) -> int | None:
        """The id of the snapshot to read; `None` for a table that has none yet."""
        if self.at is None:
            current = table.current_snapshot()
            return current.snapshot_id if current else None
        if isinstance(self.at, datetime):
            found = table.snapshot_as_of_timestamp(int(self.at.timestamp() * 1000))
        else:
            found = table.snapshot_by_id(self.at)
        if found is None:
            newest = ", ".join(str(entry.snapshot_id) for entry in table.history()[-5:]) or "none"
            mend = f"choose another; the newest are: {newest}"
            raise AccessError(f"there is no snapshot of {self.at}", mend=mend, where=self.table.name)
        return found.snapshot_id

    def _schema(self, table: Table, snapshot: int | None) -> Schema:
        """The columns as the snapshot had them; those of today when reading the newest."""
        if self.at is None:
            return table.schema()
        return table.scan(snapshot_id=snapshot).projection()

    def _chosen(self, schema: Schema) -> Schema:
        known = [field.name for field in schema.fields]
        for word in self.columns:
            if word not in known:
                raise SpecError(f'there is no column "{word}"', mend=did_you_mean(word, known), where=self.table.name)
        return schema.select(*self.columns) if self.columns else schema

    def _tasks(self, table: Table, snapshot: int | None, after: Cursor | None) -> Sequence[FileScanTask]:
        if snapshot is None:
            return []
        if after is None or not self._goes_on(table, snapshot, after):
            return list(table.scan(snapshot_id=snapshot).plan_files())
        if after["snapshot"] == snapshot:
            return []
        scan = table.incremental_append_scan(
            from_snapshot_id_exclusive=after["snapshot"], to_snapshot_id_inclusive=snapshot
        )
        return list(scan.plan_files())

    def _goes_on(self, table: Table, snapshot: int, after: Cursor) -> bool:
        """Whether all snapshots since the cursor only appended; `False` when all rows are to be read again."""
        if after["table"] != str(table.metadata.table_uuid):
            mend = "load everything once with `incremental: false` and `disposition: replace`"
            raise DataError("the table was made anew since the last load", mend=mend, where=self.table.name)
        if after["snapshot"] is None:
            return False
        at: int | None = snapshot
        while at is not None and at != after["snapshot"]:
            one = table.snapshot_by_id(at)
            if one is None:
                break
            operation = one.summary.operation.value if one.summary else "unknown"
            if operation not in (_APPENDS, _REWRITES):
                return self._changed(operation)
            at = one.parent_snapshot_id
        if at != after["snapshot"]:
            raise AccessError(
                f"the table's history no longer goes back to snapshot {after['snapshot']}",
                mend="load everything once with `incremental: false`, and then more often than snapshots expire",
                where=self.table.name,
            )
        return True

    def _changed(self, operation: str) -> bool:
        if isinstance(self.how, Merge | History):
            return False
        raise DataError(
            f"rows were changed or removed since the last load ({operation}), so appending would leave the old ones",
            mend="use `disposition: merge` with `keys`, or `incremental: false` with `disposition: replace`",
            where=self.table.name,
        )

    def _explained(self, error: Exception) -> Exception | None:
        if not isinstance(error, duckdb.IOException | duckdb.HTTPException | FileNotFoundError):
            return None
        mend = "its snapshot expired since: read a newer one, or load everything once with `incremental: false`"
        return AccessError(f"a file of the table is gone: {error}", mend=mend, where=self.table.name)


@contextmanager
def _planning(where: str) -> Iterator[None]:
    """Within the block, what pyiceberg cannot read becomes SpecError."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        mend = "have its owner rewrite the data files, so that no row is deleted apart from them"
        raise SpecError(f"the table cannot be read: {error}", mend=mend, where=where) from error

"""Reads an external Delta table: a version of it, or the rows that were added since the last load."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import duckdb

from databrokkr_assets.core.disposition import Disposition, History, Merge
from databrokkr_assets.core.errors import AccessError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import columns
from databrokkr_assets.core.ports import Batch, Cursor, ReadsAsRelation, RelationRead, Source, Stream
from databrokkr_assets.engine.duckdb import open_duck
from databrokkr_assets.lake import types
from databrokkr_assets.lake.external import ExternalTable, ExternalVersion, TableFile
from resources.support.applying import keys_of
from resources.support.columns import batches
from resources.support.delta_rows import added_since, rows_of
from resources.support.opened_store import let_in


@dataclass(frozen=True)
class DeltaSource(Source, ReadsAsRelation):
    """Reads one table. `at` is a version or a time; `incremental` reads what came after the cursor's version."""

    table: ExternalTable
    at: int | datetime | None
    columns: tuple[str, ...]
    incremental: bool
    how: Disposition

    def streams(self) -> Iterator[Stream]:
        """The table, with its columns. Raises AccessError when there is none."""
        version = self._open()
        names = self._chosen(version)
        yield Stream(self._name, version.schema.empty_table().select(names).schema, self._keys(names))

    def relation(self, duck: duckdb.DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead:
        """The rows as a query over `duck`.

        Raises DataError when rows that were read before have been changed or removed since, AccessError when the log
        no longer tells.
        """
        let_in(duck, self.table.store)
        version = self._open()
        cursor = {"table": version.table_id, "version": version.version} if self.incremental else None
        query = self._rows(duck, version, after if self.incremental else None)
        chosen = columns(self._chosen(version))
        return RelationRead(f"SELECT {chosen} FROM ({query})", lambda scalar: cursor, explain=self._explained)

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows as batches."""
        with open_duck() as duck:
            read = self.relation(duck, stream, after)
            yield from batches(duck, read.query, None, read.advance(lambda expression: None))

    def _open(self) -> ExternalVersion:
        version = self.table.open(self.at)
        if version is None:
            mend = "correct the path, or make the table first"
            raise AccessError("there is no Delta table", mend=mend, where=self.table.store.url)
        return version

    @property
    def _name(self) -> str:
        return self.table.store.url.rstrip("/").rpartition("/")[2]

    def _keys(self, names: list[str]) -> tuple[str, ...]:
        keys = keys_of(self.how)
        return keys if set(keys) <= set(names) else ()

    def _chosen(self, version: ExternalVersion) -> list[str]:
        for word in self.columns:
            if word not in version.schema.names:
                mend = did_you_mean(word, version.schema.names)
                raise SpecError(f'there is no column "{word}"', mend=mend, where=self.table.store.url)
        return list(self.columns or version.schema.names)

    def _rows(self, duck: duckdb.DuckDBPyConnection, version: ExternalVersion, after: Cursor | None) -> str:
        added = self._added(duck, version, after) if after else None
        if added is not None:
            return rows_of(version, duck, added)
        if version.plain:
            return rows_of(version, duck, version.files)
        # Only delta-rs knows deleted rows and mapped columns; it gives them as a stream.
        name = f"databrokkr_scan_{secrets.token_hex(4)}"
        duck.register(name, version.scan(version.schema.names))
        return f"SELECT {types.read_back(version.schema)} FROM {name}"

    def _added(
        self, duck: duckdb.DuckDBPyConnection, version: ExternalVersion, after: Cursor
    ) -> list[TableFile] | None:
        """The files with the rows that are new since the cursor; `None` when all rows are to be read."""
        where = self.table.store.url
        if after["table"] != version.table_id or after["version"] > version.version:
            mend = "load everything once with `incremental: false` and `disposition: replace`"
            raise DataError("the table was made anew since the last load", mend=mend, where=where)
        if version.maps_columns:
            mend = "set `incremental: false`"
            raise SpecError("a table with mapped columns can only be read as a whole", mend=mend, where=where)
        added = added_since(version, duck, after["version"])
        if added is None and not isinstance(self.how, Merge | History):
            raise DataError(
                f"rows were changed or removed since version {after['version']}, so appending would leave the old ones",
                mend="use `disposition: merge` with `keys`, or `incremental: false` with `disposition: replace`",
                where=where,
            )
        return added

    def _explained(self, error: Exception) -> Exception | None:
        if not isinstance(error, duckdb.IOException | duckdb.HTTPException):
            return None
        return AccessError(
            f"a file of the table is gone: {error}",
            mend="it was vacuumed since: read a newer version, or load everything once with `incremental: false`",
            where=self.table.store.url,
        )

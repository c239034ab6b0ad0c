"""A dataset: a Delta table of the lake, and what its log tells - rows, versions, loads, cursor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.names import columns, literal, same
from databrokkr_assets.lake import types
from databrokkr_assets.lake.store import Store

GONE_PREFIX = "gone-"
"""How the files of a load are called that name the keys of deleted rows; the log does not refer to them."""

COMMIT_KEY = "databrokkr"
"""The key of our record in a commit's metadata."""


@dataclass(frozen=True)
class LoadRecord:
    """What a load wrote down in the commit that published it.

    `rewrote` tells that a wider column made it write the older rows again, which were no new rows by that. `landed`
    tells that the files that it read are kept, `reloaded` that its rows are those of landed loads before it.
    """

    load_id: str
    run_id: str
    number: int
    disposition: str
    folder: str
    at: str
    rows: int
    keys: tuple[str, ...] = ()
    rejected: int = 0
    bytes: int = 0
    cursor: Mapping[str, Any] | None = None
    inputs: Mapping[str, int] = field(default_factory=dict)
    deleted: int = 0
    rewrote: bool = False
    landed: bool = False
    reloaded: bool = False

    def to_commit(self) -> dict[str, str]:
        """The record as commit metadata."""
        return {COMMIT_KEY: json.dumps(asdict(self), separators=(",", ":"))}

    @staticmethod
    def from_commit(commit: Mapping[str, Any]) -> LoadRecord | None:
        """The record in a commit's metadata; `None` for a commit that is not a load."""
        text = commit.get(COMMIT_KEY)
        return LoadRecord(**json.loads(text)) if text else None


@dataclass(frozen=True)
class Changes:
    """The rows of a dataset that are new since a version. `whole` tells that they are all its rows.

    `gone` is the query of the keys that were deleted since, by the columns `keys`; `None` when there are none.
    """

    query: str
    whole: bool
    gone: str | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Where a node's rows stand. `node` is `pipeline/node`, the application id of its loads."""

    store: Store
    node: str

    def open(self) -> Snapshot | None:
        """The published version as it stands now; `None` before the first load. Raises AccessError."""
        try:
            return Snapshot(self, DeltaTable(self.store.url, storage_options=self.store.delta_options()))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise self.store.access_error(error) from error


class Snapshot:
    """One published version of a dataset; never changes while it is held."""

    def __init__(self, dataset: Dataset, table: DeltaTable) -> None:
        self.dataset = dataset
        self.table = table
        self.version = table.version()
        self.table_id = str(table.metadata().id)
        self.schema: pa.Schema = pa.schema(table.schema().to_arrow())
        self.files = tuple(sorted(dataset.store.child(path).url for path in self._actions.column("path").to_pylist()))
        self.last = self._newest()

    @property
    def number(self) -> int:
        """How many loads were published; the next one is this plus one."""
        return self.last.number if self.last else 0

    def rows(self) -> int:
        """How many rows there are, from the log alone."""
        return sum(count or 0 for count in self._actions.column("num_records").to_pylist())

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Each file's path below the table, and its size."""
        actions = self._actions
        return zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True)

    @cached_property
    def _actions(self) -> pa.Table:
        return pa.table(self.table.get_add_actions(flatten=True))

    def query(self, duck: DuckDBPyConnection, *, as_stored: bool = False) -> str:
        """The rows as SQL over `duck`, in the columns' own types or as they are stored."""
        return self._select(duck, self.files, as_stored=as_stored)

    def rows_of(self, duck: DuckDBPyConnection, uri: str) -> str:
        """The rows of one file as SQL over `duck`, in the columns' own types."""
        return self._select(duck, [uri])

    def changes(self, duck: DuckDBPyConnection, since: int | None) -> Changes:
        """The rows that came or changed after version `since`; all of them when loads since then replaced the rest.

        Rows that a merge changed come as they are now. Raises AccessError when `since` is ahead of this version.
        """
        if since is not None and since > self.version:
            raise AccessError(
                f"the target says it holds version {since} of {self.dataset.node}, which has only {self.version}",
                mend="the dataset was made anew: delete the node's row from the target's _databrokkr_loads",
            )
        loads = None if since is None else self._records_since(since)
        if loads is None or any(load.disposition == "replace" for load in loads):
            return Changes(self.query(duck), whole=True)
        folders = tuple(f"/{load.folder}/part-" for load in loads)
        files = self._all_files(loads)
        fresh = [uri for uri in files if any(folder in uri for folder in folders)]
        if all(load.disposition == "append" for load in loads):
            # What a wider column made rewrite stands elsewhere now, and is still new.
            rewritten = any(load.rewrote for load in loads)
            live = fresh if rewritten else [uri for uri in fresh if uri in set(self.files)]
            return Changes(self._select(duck, live), whole=False)
        keys = {tuple(load.keys) for load in loads if load.keys}
        if len(keys) > 1:
            return Changes(self.query(duck), whole=True)
        by = keys.pop()
        gone = [uri for uri in files if f"/{GONE_PREFIX}" in uri and any(load.folder in uri for load in loads)]
        return Changes(self._changed_rows(duck, fresh, by), False, self._gone_keys(duck, gone, by), by)

    def _gone_keys(self, duck: DuckDBPyConnection, files: list[str], keys: tuple[str, ...]) -> str | None:
        """The keys in `files` that are not there any more: some may have come again."""
        if not files:
            return None
        gone = f"SELECT {columns(keys)} FROM ({self._select(duck, files)})"
        return (
            f"SELECT DISTINCT gone.* FROM ({gone}) AS gone "
            f"ANTI JOIN ({self.query(duck)}) AS now ON {same(keys, 'gone', 'now')}"
        )

    def _changed_rows(self, duck: DuckDBPyConnection, fresh: list[str], keys: tuple[str, ...]) -> str:
        changed = f"SELECT DISTINCT {columns(keys)} FROM ({self._select(duck, fresh)})"
        match = same(keys, "now", "changed")
        return f"SELECT now.* FROM ({self.query(duck)}) AS now SEMI JOIN ({changed}) AS changed ON {match}"

    def _all_files(self, loads: list[LoadRecord]) -> list[str]:
        """The files that the loads brought, also those that later merges have rewritten since."""
        found = dict.fromkeys(self.files)
        for load in loads:
            folder = self.dataset.store.child(load.folder)
            found |= dict.fromkeys(folder.child(name).url for name in folder.names())
        return list(found)

    def _select(self, duck: DuckDBPyConnection, files: tuple[str, ...] | list[str], *, as_stored: bool = False) -> str:
        # The typed, empty first half gives columns that no file holds yet their name and type.
        shape = f"SELECT * FROM (SELECT {types.nulls(duck, self.schema, as_stored=True)}) WHERE false"
        stored = shape
        if files:
            listed = ", ".join(literal(uri) for uri in files)
            stored = f"{shape} UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name=true)"
        listed_columns = columns(self.schema.names) if as_stored else types.read_back(self.schema)
        return f"SELECT {listed_columns} FROM ({stored})"

    def _records_since(self, version: int) -> list[LoadRecord] | None:
        """The loads after `version`, oldest first; `None` when the log no longer goes back so far."""
        count = self.version - version
        commits = self.table.history(count) if count else []
        if len(commits) < count:
            return None
        return [record for record in map(LoadRecord.from_commit, reversed(commits)) if record]

    def loads(self) -> Iterator[LoadRecord]:
        """The loads that the log tells of, the newest first."""
        return filter(None, map(LoadRecord.from_commit, self.table.history()))

    def knows(self, folder: str) -> bool:
        """Whether the files of a load's folder were ever published."""
        if any(f"/{folder}/" in uri for uri in self.files):
            return True
        return any(record.folder == folder for record in self.loads())

    def _newest(self) -> LoadRecord | None:
        """The last load; commits that are no loads (a new column) may stand after it."""
        newest = LoadRecord.from_commit(next(iter(self.table.history(1)), {}))
        return newest or next(self.loads(), None)

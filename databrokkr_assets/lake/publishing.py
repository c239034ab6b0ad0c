"""Stage and publish: rows become Parquet files that nothing refers to, then one Delta commit makes them the dataset.

The commit carries `txn(appId = node, version = n)`. It is made on the version that the load began with and is never
rebased, so a worker that was thought dead cannot publish after its successor has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from databrokkr_assets.core.disposition import Disposition, Merge, Replace
from databrokkr_assets.core.errors import DataError, Unavailable
from databrokkr_assets.core.names import columns, literal, quoted, same
from databrokkr_assets.lake import types
from databrokkr_assets.lake.dataset import GONE_PREFIX, Dataset, LoadRecord, Snapshot
from databrokkr_assets.lake.store import Store

STAGING = "_databrokkr_staging"
"""The folder of a table that names, by empty files, the loads that were begun and not yet published."""


@dataclass(frozen=True)
class StagedFile:
    """A Parquet file of a load: its name below the table, and what the log will say of it."""

    path: str
    rows: int
    bytes: int
    stats: str


class Stage:
    """The files of one load, beside the table and not yet part of it."""

    def __init__(self, dataset: Dataset, duck: duckdb.DuckDBPyConnection, number: int, load_id: str) -> None:
        self.dataset = dataset
        self.duck = duck
        self.number = number
        self.folder = f"load-{number:08d}-{load_id}"
        self.files: list[StagedFile] = []
        self.schema = pa.schema([])
        self.committing = False
        self.resumable = False
        self._takes = 0

    @property
    def store(self) -> Store:
        """The load's folder."""
        return self.dataset.store.child(self.folder)

    @property
    def rows(self) -> int:
        """How many rows are staged."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """The size of what is staged."""
        return sum(file.bytes for file in self.files)

    def write(self, query: str, *, ordered: bool = False) -> None:
        """Stage the rows of `query`, in place of what was staged before.

        `ordered` keeps the rows in the query's order, in one file. Raises duckdb.Error as it comes.
        """
        relation = self.duck.sql(query)
        self.schema = types.stored_schema(self.duck, relation.columns, relation.types)
        before = self.files
        self.files = self._copy(
            f"SELECT {types.stored(relation.columns, relation.types)} FROM ({query})", "part", ordered
        )
        for file in before:
            self.dataset.store.child(file.path).delete()

    def add(self, query: str) -> list[StagedFile]:
        """Stage more rows, of the same columns. Raises DataError when they are of other types than those before."""
        relation = self.duck.sql(query)
        schema = types.stored_schema(self.duck, relation.columns, relation.types)
        if self.files and not schema.equals(self.schema, check_metadata=True):
            raise DataError(
                "the columns have changed while the parts of the load were read",
                mend="run it again; it then begins anew",
                where=self.dataset.node,
            )
        self.schema = schema
        stored = types.stored(relation.columns, relation.types)
        try:
            fresh = self._copy(f"SELECT {stored} FROM ({query})", "part", ordered=False)
        except duckdb.Error:
            self._remove(f"part-{self._takes}-")
            raise
        self.files += fresh
        return fresh

    def _remove(self, prefix: str) -> None:
        """Remove what a take left that failed: what stands in the folder counts as rows of the load."""
        for name in self.store.names():
            if name.startswith(prefix):
                self.store.child(name).delete()

    def note(self, text: str) -> None:
        """Write down how far this load has come, for a later one to go on from; see `unfinished`."""
        self._marker.write(text)

    def keep(self, query: str) -> list[StagedFile]:
        """Write rows of older files, already as stored, that a merge rewrites."""
        return self._copy(query, "kept", ordered=False)

    def note_gone(self, table: str) -> None:
        """Keep the keys of deleted rows beside the load's files, for the sinks that have to delete them too."""
        rows = self.duck.sql(f"SELECT * FROM {table}")
        stored = types.stored(rows.columns, rows.types)
        to = literal(self.store.child(f"{GONE_PREFIX}1.parquet").url)
        self.duck.execute(f"COPY (SELECT {stored} FROM {table}) TO {to} (FORMAT parquet)")

    def query(self, *, row_id: str | None = None, as_stored: bool = False) -> str:
        """The staged rows as SQL; `row_id` names an added column that numbers them, in the order of the query."""
        listed = ", ".join(literal(self.dataset.store.child(file.path).url) for file in self.files)
        number = f", (file_index::BIGINT << 40) + file_row_number AS {quoted(row_id)}" if row_id else ""
        chosen = columns(self.schema.names) if as_stored else types.read_back(self.schema)
        return f"SELECT {chosen}{number} FROM read_parquet([{listed}])"

    def begin(self) -> None:
        """Say that this load has begun, so that its files are found if it dies."""
        self.dataset.store.make()
        self._marker.write()

    def discard(self) -> None:
        """Remove every trace of a load that was not published.

        One that died while it committed is left to `sweep`: the log may have it, and then its files are the dataset. So
        is one that a later load can go on from.
        """
        if not (self.committing or self.resumable):
            self.store.delete()
            self._marker.delete()

    def settle(self) -> None:
        """Forget the mark of a load that was published."""
        self._marker.delete()

    @property
    def _marker(self) -> Store:
        return self.dataset.store.child(STAGING, self.folder)

    def _copy(self, query: str, name: str, ordered: bool) -> list[StagedFile]:
        self._takes += 1
        self.store.make()
        pattern = f"{name}-{self._takes}-{{i}}"
        how = "FILE_SIZE_BYTES '100GB'" if ordered else "PER_THREAD_OUTPUT true"
        self.duck.execute(f"SET preserve_insertion_order = {str(ordered).lower()}")
        written = self.duck.execute(
            f"COPY ({query}) TO {literal(self.store.url)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, "
            f"{how}, FILENAME_PATTERN {literal(pattern)}, OVERWRITE_OR_IGNORE true, RETURN_STATS true)"
        ).fetchall()
        found = [self._staged(name, count, size, stats) for name, count, size, _, stats, _ in written]
        return [file for file in found if file.rows] or found[:1]

    def _staged(self, path: str, rows: int, size: int, stats: Mapping[str, Mapping[str, str]]) -> StagedFile:
        name = path.rsplit("/", 1)[-1]
        return StagedFile(f"{self.folder}/{name}", rows, size, delta_stats(self.schema, rows, stats))


def publish(
    dataset: Dataset,
    before: Snapshot | None,
    stage: Stage,
    how: Disposition,
    record: LoadRecord,
    *,
    replacing: str | None = None,
    gone: str | None = None,
    widened: Mapping[str, str] | None = None,
    clearing: str | None = None,
) -> Snapshot:
    """Make the staged rows part of the dataset, in one commit, and give the version that has them.

    Files whose folder begins with `replacing` go in the same commit: what an earlier attempt at this load left. `gone`
    names a table of the keys whose rows a merge removes. `widened` gives columns of the dataset a wider type; the older
    rows are written again for it. `clearing` is the condition of older rows that an append takes the place of.

    Raises Unavailable when somebody else has published since `before`; then nothing has changed.
    """
    properties = CommitProperties(
        custom_metadata=record.to_commit(),
        app_transactions=[Transaction(dataset.node, record.number)],
        max_commit_retries=0,
    )
    adds = [_add(file) for file in stage.files if file.rows]
    stage.committing = True
    try:
        if before is None:
            create_table_with_add_actions(
                dataset.store.url,
                DeltaSchema.from_arrow(stage.schema),
                adds,
                name=dataset.node,
                storage_options=dataset.store.delta_options(),
                commit_properties=properties,
            )
        else:
            change = _Change(before, stage, how, gone, clearing)
            change.commit(adds, properties, replacing, widened or {})
    except DeltaError as error:
        return _after_failure(dataset, before, stage, error)
    stage.settle()
    after = dataset.open()
    assert after is not None
    return after


def _after_failure(dataset: Dataset, before: Snapshot | None, stage: Stage, error: DeltaError) -> Snapshot:
    """A commit that failed may have been made all the same, when only its reply was lost: the log knows."""
    after = dataset.open()
    if after is not None and after.last is not None and after.last.folder == stage.folder:
        stage.settle()
        return after
    stage.committing = False
    if (after and after.version) == (before and before.version):
        raise dataset.store.access_error(error) from error
    raise Unavailable(
        f"{dataset.node} was published by another run in the meantime, so this load was given up ({error})",
        mend="nothing is lost: run it again",
    ) from error


@dataclass(frozen=True)
class _Change:
    """What a load does to the version that it began with."""

    before: Snapshot
    stage: Stage
    how: Disposition
    gone: str | None
    clearing: str | None

    def commit(
        self, adds: list[AddAction], properties: CommitProperties, replacing: str | None, widened: Mapping[str, str]
    ) -> None:
        table = self.before.table
        if self.gone:
            self.stage.note_gone(self.gone)
        if isinstance(self.how, Replace):
            schema = DeltaSchema.from_arrow(self.stage.schema)
            table.create_write_transaction([*adds], "overwrite", schema, commit_properties=properties)
            return
        if widened:
            kept, wide = self._all_rewritten(widened)
            schema = DeltaSchema.from_arrow(wide)
            table.create_write_transaction([*adds, *kept], "overwrite", schema, commit_properties=properties)
            return
        actions: list[AddAction | RemoveAction] = [*adds]
        if isinstance(self.how, Merge):
            actions += self._rewritten(self.how.keys)
        if self.clearing:
            actions += self._cleared(self.clearing)
        if replacing:
            actions += [_remove(path, size) for path, size in self.before.sizes() if path.startswith(replacing)]
        table = _with_new_columns(self.before, self.stage)
        table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)

    def _rewritten(self, keys: tuple[str, ...]) -> Iterator[AddAction | RemoveAction]:
        """The old files that hold a key of this load go; their other rows come again in files of this load."""
        sizes = dict(self.before.sizes())
        for uri, path in self._touched(keys):
            kept = self.stage.keep(f"SELECT old.* FROM read_parquet({literal(uri)}) AS old {self._others(keys)}")
            yield from (_add(file) for file in kept if file.rows)
            yield _remove(path, sizes[path])

    def _cleared(self, condition: str) -> Iterator[AddAction | RemoveAction]:
        """The old files with rows of the condition go; their other rows come again in files of this load."""
        duck, sizes = self.stage.duck, dict(self.before.sizes())
        root = self.before.dataset.store.url + "/"
        for uri in self.before.files:
            rows = self.before.rows_of(duck, uri)
            if duck.execute(f"SELECT 1 FROM ({rows}) WHERE {condition} LIMIT 1").fetchone() is None:
                continue
            relation = duck.sql(f"SELECT * FROM ({rows}) WHERE ({condition}) IS NOT TRUE")
            stored = types.stored(relation.columns, relation.types)
            kept = self.stage.keep(f"SELECT {stored} FROM ({rows}) WHERE ({condition}) IS NOT TRUE")
            yield from (_add(file) for file in kept if file.rows)
            yield _remove(uri.removeprefix(root), sizes[uri.removeprefix(root)])

    def _touched(self, keys: tuple[str, ...]) -> list[tuple[str, str]]:
        if not self.before.files or not (self.stage.rows or self.gone):
            return []
        listed = ", ".join(literal(uri) for uri in self.before.files)
        old = f"SELECT {columns(keys)}, filename FROM read_parquet([{listed}], filename=true)"
        found = self.stage.duck.execute(
            f"SELECT DISTINCT old.filename FROM ({old}) AS old "
            f"SEMI JOIN ({self._keys(keys)}) AS new ON {same(keys, 'old', 'new')}"
        ).fetchall()
        root = self.before.dataset.store.url + "/"
        return [(uri, uri.removeprefix(root)) for (uri,) in found]

    def _keys(self, keys: tuple[str, ...], *, as_stored: bool = True) -> str:
        """The keys whose older rows do not stay."""
        staged = f"SELECT {columns(keys)} FROM ({self.stage.query(as_stored=as_stored)})"
        return f"{staged} UNION ALL SELECT {columns(keys)} FROM {self.gone}" if self.gone else staged

    def _others(self, keys: tuple[str, ...], *, as_stored: bool = True) -> str:
        """The join that leaves, of the rows called `old`, those that stay."""
        return f"ANTI JOIN ({self._keys(keys, as_stored=as_stored)}) AS new ON {same(keys, 'old', 'new')}"

    def _all_rewritten(self, widened: Mapping[str, str]) -> tuple[list[AddAction], pa.Schema]:
        """The older rows that stay, with wider columns, and the schema of all rows."""
        duck, stage = self.stage.duck, self.stage
        wider = [f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" for name, kind in widened.items()]
        standing = f" WHERE ({self.clearing}) IS NOT TRUE" if self.clearing else ""
        old = f"SELECT * REPLACE ({', '.join(wider)}) FROM ({self.before.query(duck)}){standing}"
        shape = duck.sql(f"SELECT * FROM ({old}) UNION ALL BY NAME SELECT * FROM ({stage.query()}) LIMIT 0")
        stays = self._others(self.how.keys, as_stored=False) if isinstance(self.how, Merge) else ""
        rows = duck.sql(f"SELECT old.* FROM ({old}) AS old {stays}")
        stored = types.stored(rows.columns, rows.types)
        kept = stage.keep(f"SELECT {stored} FROM (SELECT old.* FROM ({old}) AS old {stays})")
        schema = types.stored_schema(duck, shape.columns, shape.types)
        return [_add(file) for file in kept if file.rows], schema


def _with_new_columns(before: Snapshot, stage: Stage) -> DeltaTable:
    """The table with the staged columns that it lacked. A crash right after leaves columns of NULLs: harmless."""
    known = {name.lower() for name in before.schema.names}
    fresh = [field for field in stage.schema if field.name.lower() not in known]
    if fresh:
        before.table.alter.add_columns(list(DeltaSchema.from_arrow(pa.schema(fresh)).fields))
    return before.table


def unfinished(dataset: Dataset, number: int) -> dict[str, str]:
    """The loads that were begun with this number and are not published: folder, and what each has noted of itself.

    They may be at work still: read their files, change nothing.
    """
    marks = dataset.store.child(STAGING)
    return {name: marks.child(name).read() for name in marks.names() if int(name.split("-")[1]) == number}


def sweep(dataset: Dataset, before: Snapshot | None) -> list[str]:
    """Remove the files of loads that died: those begun with a number that another load has published since.

    A load that is still at work has the next number, so it is never swept; its folder's name is given.
    """
    removed = []
    for folder in dataset.store.child(STAGING).names():
        number = int(folder.split("-")[1])
        if before is None or number > before.number:
            continue
        if not before.knows(folder):
            dataset.store.child(folder).delete()
            removed.append(folder)
        dataset.store.child(STAGING, folder).delete()
    return removed


def load_id_of(folder: str) -> str:
    """The id of the load that a folder belongs to."""
    return folder.split("-", 2)[2]


def _remove(path: str, size: int) -> RemoveAction:
    return RemoveAction(path, True, int(time.time() * 1000), size=size, partition_values={})


def _add(file: StagedFile) -> AddAction:
    return AddAction(file.path, file.bytes, {}, int(time.time() * 1000), True, file.stats)


def delta_stats(schema: pa.Schema, rows: int, stats: Mapping[str, Mapping[str, str]]) -> str:
    """The statistics of a file as Delta writes them; only those that are surely right."""
    found: dict[str, Any] = {"numRecords": rows, "minValues": {}, "maxValues": {}, "nullCount": {}}
    for field in schema:
        column = stats.get(quoted(field.name))
        if column is None:
            continue
        if "null_count" in column:
            found["nullCount"][field.name] = int(column["null_count"])
        low, high = (_stat(field.type, column.get(side)) for side in ("min", "max"))
        if low is not None and high is not None:
            found["minValues"][field.name] = low
            found["maxValues"][field.name] = high
    return json.dumps(found)


def _stat(kind: pa.DataType, text: str | None) -> Any:
    """A bound as JSON; `None` where Delta would read it otherwise (NaN is in no bound), and for infinities."""
    if text is None or "infinity" in text:
        return None
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_date(kind) or (pa.types.is_string(kind) and len(text) <= 32):
        return text
    return None

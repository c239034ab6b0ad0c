"""Delta tables that others own and write, too: read at any version, and loaded exactly once.

The ledger of a node is in the table's own log. Each load commits the application transaction
`databrokkr/<node>/<dataset>` with the dataset's version, which no cleaning of the log removes; the table property
`databrokkr.<node>` names the datasets, the newest last. See "Transaction Identifiers" in the Delta protocol.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from urllib.parse import quote, unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from databrokkr_assets.core.disposition import Append, Disposition, Merge, Replace
from databrokkr_assets.core.errors import AccessError, SpecError
from databrokkr_assets.core.ports import LoadMark
from databrokkr_assets.lake.publishing import delta_stats
from databrokkr_assets.lake.store import Store

_UNESCAPED = "!$&'()+,/:;=@"
"""What delta-rs leaves as it is in a path, beside letters and digits; it escapes everything else."""

_READ_BY_DUCKDB = {"timestampNtz", "v2Checkpoint", "invariants", "appendOnly", "checkConstraints"}
"""Table features under which a file's rows are the table's rows."""

_OURS_TO_KEEP = {
    "delta.invariants": "an invariant",
    "delta.generationExpression": "a generated column",
    "delta.identity.start": "an identity column",
    "__CHAR_VARCHAR_TYPE_STRING": "a text of limited length",
}
"""What the metadata of a field can ask of writers, and delta-rs does not check when files are committed."""


@dataclass(frozen=True)
class TableFile:
    """A data file of a table: its path as the log has it, its address, and its partition's values as text."""

    path: str
    url: str
    bytes: int
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class NewFile:
    """A Parquet file that a load has written: its path below the table, and what the log is to say of it."""

    path: str
    rows: int
    bytes: int
    stats: Mapping[str, Mapping[str, str]]
    partition: Mapping[str, str | None]


class Conflict(Exception):
    """Somebody else committed first; nothing was written."""


def as_logged(schema: pa.Schema) -> pa.Schema:
    """A schema as a table's log gives it back."""
    return pa.schema(DeltaSchema.from_arrow(schema).to_arrow())


@dataclass(frozen=True)
class ExternalTable:
    """A Delta table by its address."""

    store: Store

    def open(self, at: int | datetime | None = None) -> ExternalVersion | None:
        """The table now, or as of a version or time; `None` when there is none.

        Raises AccessError, also for a version that is not there.
        """
        try:
            table = DeltaTable(self.store.url, storage_options=self.store.delta_options())
            if at is not None:
                table.load_as_version(at)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, ValueError) as error:
            raise self.access_error(error) from error
        return ExternalVersion(self, table)

    def create(self, schema: pa.Schema, partition_by: Sequence[str], node: str, load: LoadMark) -> None:
        """Make the table, without rows, its properties naming the load's dataset. Raises Conflict or AccessError."""
        try:
            DeltaTable.create(
                self.store.url,
                DeltaSchema.from_arrow(schema),
                partition_by=list(partition_by),
                configuration={_property(node): json.dumps([load.dataset])},
                storage_options=self.store.delta_options(),
                raise_if_key_not_exists=False,
            )
        except (DeltaError, OSError) as error:
            raise (Conflict() if self.open() else self.access_error(error)) from error

    def access_error(self, error: Exception) -> AccessError:
        """The error for a table that does not let us in."""
        mend = "check the path, the connection's credentials, and the room on the disk"
        return AccessError(f"the Delta table cannot be used: {error}", mend=mend, where=self.store.url)


class ExternalVersion:
    """A table at one version."""

    def __init__(self, of: ExternalTable, table: DeltaTable) -> None:
        self.of = of
        self.table = table
        self.version = table.version()
        metadata = table.metadata()
        self.table_id = str(metadata.id)
        self.partition_by: tuple[str, ...] = tuple(metadata.partition_columns)
        self.schema: pa.Schema = pa.schema(table.schema().to_arrow())
        self._settings: Mapping[str, str | None] = metadata.configuration

    @cached_property
    def files(self) -> list[TableFile]:
        """The data files."""
        actions = pa.table(self.table.get_add_actions(flatten=True))
        values = [actions.column(f"partition.{name}").to_pylist() for name in self.partition_by]
        rows = zip(actions.column("path").to_pylist(), actions.column("size_bytes").to_pylist(), strict=True)
        return [
            TableFile(
                path, self.url(path), size, {n: _text(v[i]) for n, v in zip(self.partition_by, values, strict=True)}
            )
            for i, (path, size) in enumerate(rows)
        ]

    def url(self, path: str) -> str:
        """The address of a path of the log, which is escaped there."""
        return unquote(path) if "://" in path else self.of.store.child(unquote(path)).url

    @property
    def plain(self) -> bool:
        """Whether the rows are those of the files: no row is deleted within one, no column has another name there."""
        features = set(self.table.protocol().reader_features or ())
        return features <= _READ_BY_DUCKDB and not self.maps_columns

    def scan(self, columns: list[str]) -> pa.RecordBatchReader:
        """The rows through delta-rs, which knows deletion vectors and mapped columns."""
        try:
            return pa.RecordBatchReader.from_stream(self.table.scan(columns=columns))
        except DeltaError as error:
            raise self.of.access_error(error) from error

    # ------------------------------------------------------------------------------------------------- writing

    def held(self, node: str) -> LoadMark | None:
        """The newest load of a node."""
        for dataset in reversed(self._datasets(node)):
            version = self.table.transaction_version(_application(node, dataset))
            if version is not None:
                return LoadMark("", dataset, version)
        return None

    def refuse(self, how: Disposition) -> None:
        """Raise SpecError where the table asks of its writers what we cannot do."""
        found = self._in_the_way(how)
        if found:
            what, mend = found
            raise SpecError(f"the table cannot be written by {how}: {what}", mend=mend, where=self.of.store.url)

    def name_dataset(self, node: str, load: LoadMark) -> bool:
        """Make sure that the table's properties name the load's dataset; tells whether this was a commit."""
        known = self._datasets(node)
        if load.dataset in known:
            return False
        held = self.held(node)
        named = json.dumps([*([held.dataset] if held else []), load.dataset])
        try:
            self.table.alter.set_table_properties({_property(node): named}, raise_if_not_exists=False)
        except DeltaError as error:
            raise self._failed(error) from error
        return True

    def add_columns(self, fields: Iterable[pa.Field]) -> None:
        """Add columns, empty so far, in a commit of its own. Raises Conflict or AccessError."""
        try:
            self.table.alter.add_columns(list(DeltaSchema.from_arrow(pa.schema(fields)).fields))
        except DeltaError as error:
            raise self._failed(error) from error

    def commit(
        self, how: Disposition, files: Sequence[NewFile], gone: Sequence[TableFile], node: str, load: LoadMark
    ) -> None:
        """Add files, and remove those that are `gone` or, for a replace, all, with the ledger, in one commit.

        It is made on this version and never rebased. Raises Conflict or AccessError; also Conflict for a lost reply,
        which the ledger of the next version tells.
        """
        actions: list[AddAction | RemoveAction] = [_add(file, self.schema) for file in files]
        actions += [_remove(file) for file in gone]
        try:
            self.table.create_write_transaction(
                actions,
                "overwrite" if isinstance(how, Replace) else "append",
                self.table.schema(),
                partition_by=list(self.partition_by),
                commit_properties=_properties(node, load),
            )
        except (DeltaError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        if "Unsupported table features" in str(error):
            mend = "load another table, and let the engine that owns this one carry the rows over"
            return SpecError(f"the table cannot be written: {error}", mend=mend, where=self.of.store.url)
        now = self.of.open()
        return self.of.access_error(error) if now is not None and now.version == self.version else Conflict()

    def _datasets(self, node: str) -> list[str]:
        found = self._settings.get(_property(node))
        return list(json.loads(found)) if found else []

    @property
    def maps_columns(self) -> bool:
        """Whether columns have other names in the files."""
        return self._settings.get("delta.columnMapping.mode") not in (None, "none")

    def _in_the_way(self, how: Disposition) -> tuple[str, str] | None:
        constraints = [name for name in self._settings if name.startswith("delta.constraints.")]
        asked = [(field.name, _OURS_TO_KEEP[key]) for field in self.schema for key in _asked(field)]
        mend = "load another table, and let the engine that owns this one carry the rows over"
        if self.maps_columns:
            return "its columns have other names in its files (column mapping)", mend
        if constraints:
            return f"it has the constraint {constraints[0].removeprefix('delta.constraints.')}", mend
        if asked:
            return f'its column "{asked[0][0]}" is {asked[0][1]}', mend
        if not isinstance(how, Append) and self._settings.get("delta.appendOnly") == "true":
            return "it takes new rows only (delta.appendOnly)", "use `disposition: append`"
        if not isinstance(how, Merge):
            return None
        if self._settings.get("delta.enableChangeDataFeed") == "true":
            return "it has a change data feed", "use `append` or `replace`, or set delta.enableChangeDataFeed = false"
        if self._has_deletion_vectors():
            return (
                "rows are deleted within its files (deletion vectors)",
                "purge them first: REORG TABLE … APPLY (PURGE)",
            )
        return None

    def _has_deletion_vectors(self) -> bool:
        if "deletionVectors" not in (self.table.protocol().reader_features or ()):
            return False
        return next(iter(self.table.deletion_vectors()), None) is not None


def _asked(field: pa.Field) -> list[str]:
    return [key for key in _OURS_TO_KEEP if key.encode() in (field.metadata or {})]


def _application(node: str, dataset: str) -> str:
    return f"databrokkr/{node}/{dataset}"


def _property(node: str) -> str:
    return f"databrokkr.{node}"


def _properties(node: str, load: LoadMark) -> CommitProperties:
    told = {"node": node, "load_id": load.load_id, "run_id": load.run_id, "version": load.version}
    return CommitProperties(
        custom_metadata={"databrokkr": json.dumps(told)},
        app_transactions=[Transaction(_application(node, load.dataset), load.version)],
        max_commit_retries=0,
    )


def _add(file: NewFile, schema: pa.Schema) -> AddAction:
    stored = pa.schema(field for field in schema if field.name not in file.partition)
    stats = delta_stats(stored, file.rows, file.stats)
    return AddAction(file.path, file.bytes, file.partition, _now(), True, stats)


def _remove(file: TableFile) -> RemoveAction:
    path = unquote(file.path)
    if quote(path, safe=_UNESCAPED) != file.path:  # delta-rs would remove a path that is none, and the rows would stay
        what = f"its file {file.path} is named in a way that delta-rs cannot tell"
        raise SpecError(what, mend="have its owner rewrite the files (OPTIMIZE), or use `append` or `replace`")
    return RemoveAction(path, True, _now(), size=file.bytes, partition_values=dict(file.partition))


def _text(value: object) -> str | None:
    """A partition's value as the log has it."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def _now() -> int:
    return int(time.time() * 1000)

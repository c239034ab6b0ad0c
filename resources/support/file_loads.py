"""A load into a file or a folder of files: staged under a hidden name, then put in its place at one moment."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from databrokkr_assets.core.ports import Load, LoadMark, Receipt, Target, WritesRelation
from databrokkr_assets.engine.duckdb import open_duck
from resources.support.file_folders import TargetFolder, writing
from resources.support.file_formats import FormatName
from resources.support.file_ledger import Entry, FileLedger
from resources.support.file_output import copy_to

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Destination:
    """The file that a load writes: one that each load replaces, or a new one, which is not kept without rows."""

    folder: TargetFolder
    name: str
    format: FormatName
    packing: str | None
    replaced: bool


class FileLoad(Load, WritesRelation):
    """Rows on their way into one file."""

    def __init__(self, to: Destination, target: Target, load: LoadMark) -> None:
        self._to, self._target, self._load = to, target, load
        self._ledger = FileLedger(to.folder)
        self._staged = to.folder.staging / f".{to.name}.{load.load_id}.tmp"
        self._spool = self._staged.with_suffix(".rows")
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._rows: int | None = None

    def write(self, records: pa.RecordBatch) -> None:
        """Keep the rows beside the target until `commit` writes the file."""
        with writing(self._spool):
            if self._writer is None:
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                self._writer = pa.ipc.new_file(self._spool, records.schema, options=options)
            self._writer.write_batch(records)

    def write_relation(self, duck: DuckDBPyConnection, query: str) -> None:
        """Write the rows of the query into the hidden file."""
        with writing(self._staged):
            self._rows = copy_to(duck, query, self._staged, self._to.format, self._to.packing)

    def commit(self) -> Receipt:
        """Put the file in its place, then write the ledger, unless the ledger holds this load already."""
        if self._rows is None:
            self._write_spool()
        assert self._rows is not None
        where = self._to.folder.where(self._to.name)
        with writing(self._staged.with_name(self._to.name)), self._to.folder.locked():
            entry = self._ledger.entry(self._target.node)
            if self._is_there(entry):
                return Receipt(self._rows, where, already=True)
            size = self._staged.stat().st_size
            self._ledger.write(self._target.node, self._load, self._published(), entry)
        return Receipt(self._rows, where, facts={"file": self._to.name, "bytes": size})

    def _published(self) -> dict[str, Any]:
        """Put the file in its place; gives what the ledger is to hold of it."""
        facts = {"rows": self._rows, "file": self._to.name}
        if not (self._rows or self._to.replaced):
            self._to.folder.remove(self._to.name)  # of an attempt that had rows and crashed before the ledger
            return facts
        mark = self._to.folder.publish(self._staged, self._to.name)
        return facts if mark is None else {**facts, "mark": mark}

    def discard(self) -> None:
        """Remove what is staged."""
        if self._writer:
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
        for path in (self._staged, self._spool):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _is_there(self, entry: Entry | None) -> bool:
        """Whether the ledger names this load. Raises Unavailable when it names another than the one before."""
        last = self._ledger.last(entry, self._to.name if self._to.replaced else None)
        if last and (last.dataset, last.version) == (self._load.dataset, self._load.version):
            return True
        if (last.version if last else None) != self._load.after:
            raise self._ledger.overtaken(self._target.node, entry)
        return False

    def _write_spool(self) -> None:
        with writing(self._staged):
            if self._writer is None:
                self._writer = pa.ipc.new_file(self._spool, self._target.schema)
            self._writer.close()
        with open_duck() as duck, pa.ipc.open_file(self._spool) as stored:
            batches = (stored.get_batch(index) for index in range(stored.num_record_batches))
            duck.register("rows", pa.RecordBatchReader.from_batches(stored.schema, batches))
            duck.execute("SET preserve_insertion_order = true")
            self.write_relation(duck, "FROM rows")

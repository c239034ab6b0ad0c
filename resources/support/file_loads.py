"""A load into a file or a folder of files: staged under a hidden name, then put in its place at one moment."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        self._ledger = FileLedger(to.path.parent)
        self._staged = to.path.with_name(f".{to.path.name}.{load.load_id}.tmp")
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
        """Rename the file into its place, then write the ledger, unless the ledger holds this load already."""
        if self._rows is None:
            self._write_spool()
        assert self._rows is not None
        path = self._to.path
        with writing(path), self._ledger.locked():
            if self._is_there():
                return Receipt(self._rows, str(path), already=True)
            size = self._staged.stat().st_size
            if self._rows or self._to.replaced:
                publish(self._staged, path)
            else:
                path.unlink(missing_ok=True)  # of an attempt that had rows and crashed before the ledger
            self._ledger.write(self._target.node, self._load, {"rows": self._rows, "file": path.name})
        return Receipt(self._rows, str(path), facts={"file": path.name, "bytes": size})

    def discard(self) -> None:
        """Remove what is staged."""
        if self._writer:
            with suppress(OSError, pa.ArrowException):
                self._writer.close()
        for path in (self._staged, self._spool):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def remove_abandoned(self) -> None:
        """Remove what processes that died have staged for this file, a day ago or earlier."""
        for path in self._to.path.parent.glob(f".{self._to.path.name}.*"):
            with suppress(OSError):
                if path.suffix in {".tmp", ".rows"} and path.stat().st_mtime < time.time() - _ABANDONED:
                    path.unlink()

    def _is_there(self) -> bool:
        """Whether the ledger names this load. Raises Unavailable when it names another than the one before."""
        last = self._ledger.last(self._target.node, self._to.path.name if self._to.replaced else None)
        if last and (last.dataset, last.version) == (self._load.dataset, self._load.version):
            return True
        if (last.version if last else None) != self._load.after:
            raise Unavailable(
                f"another load of {self._target.node} was written in the meantime: version {last and last.version}, "
                f"expected {self._load.after}",
                where=str(self._ledger.path),
                mend="run again; the next load starts from what is there",
            )
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

"""A folder of files of a wanted size, split by partition: its manifest says at one moment which files count.

New files get names of their own, then the manifest, which is the ledger, too, is replaced. Files that no longer count
stay for an hour, for those who are reading them; until then a reader that goes by names alone sees them, too.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import duckdb
import pyarrow as pa

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import SpecError, Unavailable, did_you_mean
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Delivery, Load, LoadMark, Receipt, Sink, Target, WritesRelation
from databrokkr_assets.lake import types
from databrokkr_assets.lake.store import Store
from resources.support import ledger
from resources.support.file_folders import TargetFolder, writing
from resources.support.file_formats import FORMATS, FormatName
from resources.support.file_manifest import MANIFEST, ListedFile, Manifest
from resources.support.file_output import copy_to
from resources.support.held_rows import HeldRows
from resources.support.parquet_parts import PartsWriter

_ABANDONED = 24 * 3600
_TRIES = 20
_ENDINGS = {"gzip": ".gz", "zstd": ".zst"}


@dataclass(frozen=True)
class FilesLayout:
    """How the files of a folder are to look."""

    format: FormatName
    packing: str | None
    partition_by: tuple[str, ...]
    target_bytes: int

    @property
    def ending(self) -> str:
        """The extension of the files."""
        form = FORMATS[self.format]
        return form.extensions[0] + ("" if form.packs_itself else _ENDINGS.get(self.packing or "", ""))


@dataclass(frozen=True)
class PartitionsWriter(Sink):
    """Writes loads as several files of a folder, which all count from one moment on: when the manifest is replaced.

    The ledger stands in it, so who reads by the manifest has every load exactly once. Who reads all files of the folder
    may see a load half done, or twice after a crash.
    """

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace})
    delivery: ClassVar[Delivery] = Delivery.AT_LEAST_ONCE

    folder: Callable[[], TargetFolder]
    layout: FilesLayout

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of the node. Raises DataError when the manifest cannot be read."""
        with closing(self.folder()) as folder:
            return Manifest.read(folder)[0].held(target.node)

    @contextmanager
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> Iterator[PartitionsLoad]:
        """Open a load; what it stages is removed when it ends. Raises SpecError or AccessError."""
        for name in self.layout.partition_by:
            if name not in target.schema.names:
                mend = did_you_mean(name, target.schema.names)
                raise SpecError(f'the files cannot be partitioned by "{name}": it is no column', mend=mend)
        with closing(self.folder()) as folder, ExitStack() as until_left:
            folder.open()
            opened = PartitionsLoad(folder, self.layout, target, how, load, HeldRows(target.schema, until_left))
            until_left.callback(opened.discard)
            yield opened


class PartitionsLoad(Load, WritesRelation):
    """Rows on their way into a folder."""

    def __init__(
        self,
        folder: TargetFolder,
        layout: FilesLayout,
        target: Target,
        how: Disposition,
        load: LoadMark,
        rows: HeldRows,
    ) -> None:
        self._folder, self._layout, self._target, self._how = folder, layout, target, how
        self._load, self._rows = load, rows
        self._staging = folder.staging / f".databrokkr-{load.load_id}"
        start = 0 if load.after is None else load.after + 1
        # Names of its own for each try: so nobody who was thought dead can write over files that count.
        self._name = f"{start:012d}-{load.load_id}-{secrets.token_hex(2)}"

    def write(self, records: pa.RecordBatch) -> None:
        """Keep rows in a temporary table, which spills to disk. Raises SpecError."""
        self._rows.add(records)

    def write_relation(self, duck: duckdb.DuckDBPyConnection, query: str) -> None:
        """Keep the query; `commit` runs it."""
        self._rows.give(duck, query)

    def commit(self) -> Receipt:
        """Put the files in their places, then the manifest, unless it holds this load already.

        Raises Unavailable when another load came first.
        """
        where = self._folder.where("")
        with writing(self._staging / self._layout.format), self._folder.locked():
            self._remove_abandoned()
            if self._is_there(Manifest.read(self._folder)[0]):
                return Receipt(0, where, already=True)
            files = list(self._published())
            already = self._renewed(files)
        facts = {"files": len(files), "bytes": sum(file.bytes for file in files)}
        return Receipt(sum(file.rows for file in files), where, already, facts)

    def discard(self) -> None:
        """Remove what is staged."""
        shutil.rmtree(self._staging, ignore_errors=True)

    def _is_there(self, manifest: Manifest) -> bool:
        return ledger.already(manifest.held(self._target.node), self._load, self._folder.where(MANIFEST))

    def _renewed(self, files: list[ListedFile]) -> bool:
        """Make the files count; tells whether they did already, because only the reply was lost."""
        for _ in range(_TRIES):
            manifest, found = Manifest.read(self._folder)
            if self._is_there(manifest):
                return True
            fresh = manifest.after(files, self._target.node, self._load, replaced=isinstance(self._how, Replace))
            if self._folder.write(fresh.content(), MANIFEST, found):
                for path in set(manifest.gone) - set(fresh.gone):
                    self._folder.remove(path)
                return False
        what = f"the manifest could not be written {_TRIES} times, because others were faster"
        raise Unavailable(what, where=self._folder.where(MANIFEST), mend="run again; let fewer sinks write this folder")

    def _published(self) -> Iterator[ListedFile]:
        """Write the files, each into its place; none counts yet."""
        duck = self._rows.duck
        rows = duck.sql(self._rows.query())
        stored = f"SELECT {types.stored(rows.columns, rows.types)} FROM ({self._rows.query()})"
        back = ", ".join(
            f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}"
            for name, kind in zip(rows.columns, rows.types, strict=True)
        )
        parts = Store(str(self._staging / "parts"))
        writer = PartsWriter(duck, parts, self._layout.partition_by, self._layout.target_bytes)
        for number, part in enumerate(writer.write(stored, "part")):
            inside = part.path.rpartition("/")[0]
            name = "/".join(filter(None, [inside, f"{self._name}-{number:04d}{self._layout.ending}"]))
            staged = self._staging / f"file{self._layout.ending}"
            read = f"read_parquet({literal(parts.child(part.path).url)}, hive_partitioning = false)"
            copy_to(duck, f"SELECT {back} FROM {read}", staged, self._layout.format, self._layout.packing)
            size = staged.stat().st_size
            self._folder.publish(staged, name)
            parts.child(part.path).delete()
            yield ListedFile(name, size, part.rows)

    def _remove_abandoned(self) -> None:
        """Remove what processes that died have staged here, a day ago or earlier."""
        for path in self._folder.staging.glob(".databrokkr-*"):
            if path.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)

"""The sink that writes files: one that each load replaces, or a new one in a folder for each load."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.ports import Delivery, LoadMark, Sink, Target
from resources.support.file_folders import TargetFolder
from resources.support.file_formats import FORMATS, FormatName
from resources.support.file_ledger import FileLedger
from resources.support.file_loads import Destination, FileLoad

_ENDINGS = {"gzip": ".gz", "zstd": ".zst"}


@dataclass(frozen=True)
class FilesWriter(Sink):
    """Writes loads as files, each whole or not at all.

    The ledger, `_databrokkr_loads.json` in the same folder, is put in place right after the file; a load that is
    repeated after a crash between the two writes the same file again. S3, Azure Blob and GCS refuse the ledger of a
    writer that was thought dead, because it is written on the condition that it has not changed; on SFTP and FTP the
    condition is only looked at right before. On all of these such a writer may still put its file over that of its
    successor: the next run notices that, and writes the file again.

    `folder` makes what `name` is written into; without a name each load gets a new file.
    """

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace})
    delivery: ClassVar[Delivery] = Delivery.AT_LEAST_ONCE

    folder: Callable[[], TargetFolder]
    name: str | None
    format: FormatName
    packing: str | None

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of the node in the folder's ledger; of a replaced file only while the file is there."""
        with closing(self.folder()) as folder:
            ledger = FileLedger(folder)
            return ledger.last(ledger.entry(target.node), self.name)

    @contextmanager
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> Iterator[FileLoad]:
        """Open a load; what it stages is removed when it ends without a commit.

        Raises SpecError for a disposition that files do not have, AccessError when the folder cannot be written.
        """
        with closing(self.folder()) as folder:
            to = self._destination(folder, target, how, load)
            folder.open()
            folder.remove_abandoned(to.name)
            opened = FileLoad(to, target, load)
            try:
                yield opened
            finally:
                opened.discard()

    def _destination(self, folder: TargetFolder, target: Target, how: Disposition, load: LoadMark) -> Destination:
        if not isinstance(how, Replace if self.name else Append):
            where = folder.where(self.name or "")
            raise SpecError(f"{where} cannot be written by {how}", mend="`append` needs a folder, `replace` a file")
        name = self.name or self._new_name(target, load)
        return Destination(folder, name, self.format, self.packing, replaced=self.name is not None)

    def _new_name(self, target: Target, load: LoadMark) -> str:
        """The name of an appended file: from where the load starts, not from its id.

        A load that is repeated after a crash starts where the ledger still stands, and so writes over what the lost
        attempt left, even when it now reaches further.
        """
        start = 0 if load.after is None else load.after + 1
        origin = hashlib.sha256(f"{target.node} {load.dataset}".encode()).hexdigest()[:8]
        form = FORMATS[self.format]
        packed = "" if form.packs_itself else _ENDINGS.get(self.packing or "", "")
        return f"{start:012d}-{origin}{form.extensions[0]}{packed}"

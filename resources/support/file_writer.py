"""The sink that writes files: one that each load replaces, or a new one in a folder for each load."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.ports import Delivery, LoadMark, Sink, Target
from resources.support.file_formats import FORMATS, FormatName
from resources.support.file_ledger import FileLedger
from resources.support.file_loads import Destination, FileLoad, make_folder

_ENDINGS = {"gzip": ".gz", "zstd": ".zst"}


@dataclass(frozen=True)
class FilesWriter(Sink):
    """Writes loads as files, each whole or not at all.

    The ledger, `_databrokkr_loads.json` in the same folder, is renamed into place right after the file; a load that is
    repeated after a crash between the two writes the same file again.
    """

    dispositions: ClassVar[frozenset[type[Disposition]]] = frozenset({Append, Replace})
    delivery: ClassVar[Delivery] = Delivery.AT_LEAST_ONCE

    path: Path
    format: FormatName
    packing: str | None
    appends: bool

    def last_load(self, target: Target) -> LoadMark | None:
        """The newest load of the node in the folder's ledger; of a replaced file only while the file is there."""
        if self.appends:
            return FileLedger(self.path).last(target.node)
        return FileLedger(self.path.parent).last(target.node, self.path.name)

    @contextmanager
    def begin(self, target: Target, how: Disposition, load: LoadMark) -> Iterator[FileLoad]:
        """Open a load; what it stages is removed when it ends without a commit.

        Raises SpecError for a disposition that files do not have, AccessError when the folder cannot be written.
        """
        to = self._destination(target, how, load)
        make_folder(to.path.parent)
        opened = FileLoad(to, target, load)
        opened.remove_abandoned()
        try:
            yield opened
        finally:
            opened.discard()

    def _destination(self, target: Target, how: Disposition, load: LoadMark) -> Destination:
        if not isinstance(how, Append if self.appends else Replace):
            raise SpecError(f"{self.path} cannot be written by {how}", mend="`append` needs a folder, `replace` a file")
        path = self.path / self._name(target, load) if self.appends else self.path
        return Destination(path, self.format, self.packing, replaced=not self.appends)

    def _name(self, target: Target, load: LoadMark) -> str:
        """The name of an appended file: from where the load starts, not from its id.

        A load that is repeated after a crash starts where the ledger still stands, and so writes over what the lost
        attempt left, even when it now reaches further.
        """
        start = 0 if load.after is None else load.after + 1
        origin = hashlib.sha256(f"{target.node} {load.dataset}".encode()).hexdigest()[:8]
        form = FORMATS[self.format]
        packed = "" if form.packs_itself else _ENDINGS.get(self.packing or "", "")
        return f"{start:012d}-{origin}{form.extensions[0]}{packed}"

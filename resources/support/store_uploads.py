"""Servers to which a file goes under a hidden name, and is renamed once it is whole."""

from __future__ import annotations

import io
import uuid
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

from resources.support.found_files import FoundFile
from resources.support.retry import retried
from resources.support.store_folders import FolderStore
from resources.support.stores import is_broken

TRIES = 3
"""How often a connection is made, or a file sent, before the server counts as unavailable."""


class UploadStore(FolderStore):
    """A folder of a server that can rename, but not compare what it replaces."""

    conditional: ClassVar[bool] = False

    @abstractmethod
    def _upload(self, stream: BinaryIO, hidden: str, path: str) -> str:
        """Send the stream to the path `hidden` and rename that to `path`, in place of what is there; gives its mark.

        Makes folders that are lacking. What fails leaves nothing behind.
        """

    def put(self, source: Path, path: str) -> str:
        """Upload under a hidden name, then rename."""
        with open(source, "rb") as stream:
            return self._put(stream, path)

    def write(self, content: bytes, path: str, over: FoundFile | None) -> bool:
        """Put a small file. What stands there is compared right before, not at the same moment."""
        if self.look(path) != over:
            return False
        self._put(io.BytesIO(content), path)
        return True

    def _put(self, stream: BinaryIO, path: str) -> str:
        beside = PurePosixPath(path)
        hidden = str(beside.with_name(f".{beside.name}.{uuid.uuid4().hex[:12]}.tmp"))

        def once() -> str:
            stream.seek(0)
            return self._upload(stream, hidden, path)

        return retried(once, tries=TRIES, passing=is_broken)

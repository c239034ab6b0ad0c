"""The stores that need no connection: this machine's disk, and copies on it of what came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from databrokkr_assets.core.ports import Taken
from databrokkr_assets.core.spec import Place
from resources.support import found_files
from resources.support.found_files import FoundFile
from resources.support.stores import PIECE, FileStore


@dataclass(frozen=True)
class DiskStore(FileStore):
    """The local disk; relative paths start at `place`. Its files are read where they are."""

    place: Place

    def find(self, path: str) -> Iterable[FoundFile]:
        """The files behind a path, a glob or a folder."""
        return found_files.find(self.place.resolve(path), self.place.project)

    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The file's bytes."""
        with found_files.opened(file) as stream:
            while piece := stream.read(PIECE):
                yield piece

    def bring(self, files: Sequence[FoundFile], folder: Path) -> list[FoundFile]:
        """The files themselves."""
        return list(files)


@dataclass(frozen=True)
class CopiesStore(DiskStore):
    """Copies under names of their own; each is known by the key of the file that it is of."""

    copies: tuple[Taken, ...]

    def find(self, path: str) -> Iterable[FoundFile]:
        """All of them, whatever the path."""
        for copy in self.copies:
            now = copy.path.stat()
            yield FoundFile(copy.path, copy.key, now.st_size, now.st_mtime_ns)

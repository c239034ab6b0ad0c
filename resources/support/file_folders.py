"""The folder that a load writes its files into, on the disk or in a store, with the ledger that stands there.

A file is staged on this machine's disk, then published: renamed or uploaded, so that nobody sees half of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath

import duckdb

from databrokkr_assets.core.errors import AccessError, Unavailable
from resources.support.found_files import FoundFile
from resources.support.store_folders import FolderStore
from resources.support.stores import mark

_ABANDONED = 24 * 3600


class TargetFolder(ABC):
    """A folder that loads write into. Names are those of files in it; a published file may stand in a folder below."""

    staging: Path
    """Where files stand until they are published, on this machine's disk."""

    @abstractmethod
    def open(self) -> None:
        """Make what is missing. Raises AccessError."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what `open` took; called once, in any case."""

    @abstractmethod
    def where(self, name: str) -> str:
        """A file as people call it: its path or URI."""

    @abstractmethod
    def publish(self, staged: Path, name: str) -> str | None:
        """Put a staged file in its place at one moment; gives its mark."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""

    @abstractmethod
    def stands(self, name: str, marked: str | None) -> bool | None:
        """Whether the file is the one that was published with this mark; `None` when there is none."""

    @abstractmethod
    def read(self, name: str) -> tuple[bytes, FoundFile | None] | None:
        """A small file, and what `write` compares; `None` where there is none."""

    @abstractmethod
    def write(self, content: bytes, name: str, over: FoundFile | None) -> bool:
        """Write a small file unless it is not what `read` gave any more; gives whether it was written."""

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Keeps other writers away, where that can be done."""

    @abstractmethod
    def remove_abandoned(self, name: str) -> None:
        """Remove what processes that died left behind on the way to this file, a day ago or earlier."""


class DiskFolder(TargetFolder):
    """A local folder. Files are staged in it under hidden names, and writers of this machine lock it."""

    def __init__(self, folder: Path) -> None:
        self.staging = folder

    def open(self) -> None:
        """Make the folder with its parents."""
        with writing(self.staging):
            os.makedirs(self.staging, exist_ok=True)

    def close(self) -> None:
        """Nothing is held."""

    def where(self, name: str) -> str:
        """The path."""
        return str(self.staging / name)

    def publish(self, staged: Path, name: str) -> None:
        """Rename the file, so that it survives a loss of power."""
        (self.staging / name).parent.mkdir(parents=True, exist_ok=True)
        _renamed(staged, self.staging / name)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.staging / name).unlink(missing_ok=True)

    def stands(self, name: str, marked: str | None) -> bool | None:
        """Any file of this name will do: writers are kept apart by a lock."""
        return True if (self.staging / name).exists() else None

    def read(self, name: str) -> tuple[bytes, None] | None:
        """The file's bytes."""
        try:
            return (self.staging / name).read_bytes(), None
        except FileNotFoundError:
            return None

    def write(self, content: bytes, name: str, over: FoundFile | None) -> bool:
        """Write beside, then rename; needs `locked`."""
        beside = (self.staging / name).with_suffix(".tmp")
        beside.write_bytes(content)
        _renamed(beside, self.staging / name)
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other writers on this machine away; over a network file system it may not."""
        folder = os.open(self.staging, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def remove_abandoned(self, name: str) -> None:
        """Remove old hidden files."""
        for path in self.staging.glob(f".{name}.*"):
            with suppress(OSError):
                if path.suffix in {".tmp", ".rows"} and path.stat().st_mtime < time.time() - _ABANDONED:
                    path.unlink()


class StoreFolder(TargetFolder):
    """A folder of a store. Files are staged in a temporary folder of this machine.

    Nobody can be locked out, so the ledger is written on the condition that nobody else has written it, where the store
    has conditions, and it names the mark of each load's file, which tells when another writer has put one over it.
    """

    def __init__(self, store: FolderStore, folder: str, uri: str) -> None:
        self._store, self._folder, self._uri = store, folder, uri
        self._held = ExitStack()
        self._held.enter_context(store)

    def open(self) -> None:
        """Make the temporary folder."""
        self.staging = Path(tempfile.mkdtemp(prefix="databrokkr-files-"))
        self._held.callback(shutil.rmtree, self.staging, ignore_errors=True)

    def close(self) -> None:
        """Remove it, and disconnect."""
        self._held.close()

    def where(self, name: str) -> str:
        """The URI."""
        return f"{self._uri.rstrip('/')}/{name}"

    def publish(self, staged: Path, name: str) -> str:
        """Upload the file."""
        return self._store.put(staged, self._at(name))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._store.delete(self._at(name))

    def stands(self, name: str, marked: str | None) -> bool | None:
        """Whether the file has this mark."""
        found = self._store.look(self._at(name))
        return None if found is None else mark(found) == marked

    def read(self, name: str) -> tuple[bytes, FoundFile | None] | None:
        """The file's bytes, and the file as it was then."""
        for _ in range(3):
            found = self._store.look(self._at(name))
            if found is None:
                return None
            with suppress(Unavailable):  # it changed between the two: look again
                return b"".join(self._store.pieces(found)), found
        raise Unavailable(f"{self.where(name)} changes all the time", mend="let fewer sinks write into this folder")

    def write(self, content: bytes, name: str, over: FoundFile | None) -> bool:
        """Write it if it still is what it was."""
        return self._store.write(content, self._at(name), over)

    def locked(self) -> AbstractContextManager[None]:
        """Nobody is kept away."""
        return nullcontext()

    def remove_abandoned(self, name: str) -> None:
        """Remove old hidden uploads; stores that write whole objects have none."""
        if self._store.conditional:
            return
        before = (time.time() - _ABANDONED) * 1e9
        for child in self._store.children(self._folder):
            shown = PurePosixPath(child.key).name
            is_ours = shown.startswith(f".{name}.") and shown.endswith(".tmp")
            if isinstance(child, FoundFile) and is_ours and child.mtime_ns < before:
                self._store.delete(child.key)

    def _at(self, name: str) -> str:
        return "/".join(filter(None, [self._folder, name]))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the disk says into AccessError, naming the path."""
    try:
        yield
    except (OSError, duckdb.IOException) as error:
        code = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(code) if code else str(error).splitlines()[0]
        full = code in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} or "space" in reason or "too large" in reason
        mend = f"free space on the disk of {path.parent}" if full else f"let this user write into {path.parent}"
        raise AccessError(f"{path} cannot be written: {reason}", mend=mend) from error


def _renamed(temporary: Path, target: Path) -> None:
    """Put a finished file in its place at one moment, so that it survives a loss of power."""
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

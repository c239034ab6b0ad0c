"""The port of a file store: finds files and gives their bytes; the disk, a bucket, a server.

A node `files` names a connection of any type that `OpensStore`. What it finds there is brought to this machine's disk,
whole, so that every format reads local files.
"""

from __future__ import annotations

import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import ClassVar, Self

from pydantic import Field, model_validator

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, Unavailable
from databrokkr_assets.core.spec import ConnectionSettings, Place
from resources.support.found_files import FoundFile, vanished
from resources.support.retry import retried

AT_ONCE = 4
"""How many files are brought at once."""

PIECE = 4 << 20
"""About how many bytes of a file are in memory at once."""


class StoreConnection(ConnectionSettings):
    """What every connection to a store can say."""

    max_per_second: float | None = Field(default=None, gt=0)
    """How many files are asked for in a second, over all runs: each of the `max_concurrent` nodes that may use the
    connection at once gets its share."""

    @model_validator(mode="after")
    def _has_shares(self) -> Self:
        if self.max_per_second is not None and self.max_concurrent is None:
            raise ValueError("`max_per_second` is shared by the nodes at work; say how many: add `max_concurrent: 1`")
        return self

    def pace(self) -> Pace:
        """The pace of one node that uses the connection."""
        shares = self.max_concurrent or 1
        return Pace(self.max_per_second / shares if self.max_per_second is not None else None)


class Pace:
    """Lets so many through in a second, evenly; used by several threads."""

    def __init__(self, per_second: float | None = None) -> None:
        self._seconds = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._lock = Lock()

    def wait(self) -> None:
        """Return when it is one's turn."""
        if not self._seconds:
            return
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._next)
            self._next = mine + self._seconds
        time.sleep(mine - now)


class FileStore(ABC):
    """Files that can be found and read.

    Used within `with`, where it connects when first asked and disconnects at the end; by several threads at once.
    Every method raises AccessError, Unavailable, or SpecError for a path that it cannot have.
    """

    pace: Pace = Pace()
    """How fast files may be asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect, where there is something to disconnect."""
        return

    @abstractmethod
    def find(self, path: str) -> Iterable[FoundFile]:
        """The files behind a path, a glob (`**` goes into folders) or a folder, in no order; none is no error.

        Of a folder, the files of the known formats below it. Names that start with `.`, and in a folder also those
        that start with `_`, are working files of other programs and are left out.
        """

    @abstractmethod
    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The file's bytes, some MiB at a time. Raises Unavailable when it is not the one that was found any more."""

    def bring(self, files: Sequence[FoundFile], folder: Path) -> list[FoundFile]:
        """The files on this machine's disk, below `folder`, in the same order; several are copied at once."""
        inside = Path(tempfile.mkdtemp(dir=folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            copies = [
                pool.submit(self.bring_one, file, inside / f"{number:06d}{_ending(file)}")
                for number, file in enumerate(files)
            ]
            try:
                return [copy.result() for copy in copies]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def bring_one(self, file: FoundFile, target: Path) -> FoundFile:
        """Copy one file to `target`, from its start again when the connection breaks.

        Raises Unavailable when it is longer or shorter than it was.
        """
        self.pace.wait()
        size = retried(lambda: _saved(self.pieces(file), target), tries=3, passing=is_broken)
        if size != file.size:
            raise vanished([file])
        now = target.stat()
        return FoundFile(target, file.key, size, now.st_mtime_ns, file.version)


class TakesFiles(ABC):
    """A store that can be written."""

    conditional: ClassVar[bool]
    """Whether `write` compares and writes at one moment."""

    @abstractmethod
    def look(self, path: str) -> FoundFile | None:
        """The file at a path; `None` where there is none."""

    @abstractmethod
    def put(self, source: Path, path: str) -> str:
        """Put a file at a path, in place of what is there, so that nobody sees half of it; gives its new `mark`."""

    @abstractmethod
    def write(self, content: bytes, path: str, over: FoundFile | None) -> bool:
        """Write a small file if `over` is still what stands there (`None`: nothing); gives whether it was."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; nothing happens when it is not there."""


class Broken(Unavailable):
    """The connection broke while it was used; to try again may help."""


def is_broken(error: Exception) -> bool:
    """Whether a new connection may do better."""
    return isinstance(error, Broken)


class OpensStore(ABC):
    """A connection that gives a store."""

    @abstractmethod
    def store(self, place: Place, name: str) -> FileStore:
        """The store; cheap, nothing is asked yet. `name` is what errors call the connection."""

    @abstractmethod
    def uri(self, path: str) -> str:
        """The URI of a path in the store, without secrets; must not touch the network."""


def mark(file: FoundFile) -> str:
    """What tells one content of a stored file from another: its version, else its size and time."""
    return file.version or f"{file.size}-{file.mtime_ns}"


def _ending(file: FoundFile) -> str:
    return re.sub(r"[^\w.]", "_", "".join(file.path.suffixes[-2:]), flags=re.ASCII)


def _saved(pieces: Iterator[bytes], target: Path) -> int:
    """Write the pieces and give their size. Raises AccessError when the disk is full."""
    size = 0
    try:
        with open(target, "wb") as out:
            for piece in pieces:
                size += out.write(piece)
    except DatabrokkrError:
        raise
    except OSError as error:
        what = f"cannot write the temporary file {target}: {error.strerror}"
        raise AccessError(what, mend="free disk space there, or set TMPDIR to a larger disk") from error
    return size

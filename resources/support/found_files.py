"""Finds the files that a path names, and tells which of them are new."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from databrokkr_assets.core.errors import AccessError, Unavailable
from databrokkr_assets.core.ports import Cursor
from resources.support.file_formats import FormatName, Packing, format_of, is_known, packing_of
from resources.support.file_manifest import MANIFEST, parsed

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FoundFile:
    """A file as it was when it was found. `key` is its path below the project, or its whole path; on a store, its path
    or URL there.

    `path` is where its bytes are; of a file that was not brought here yet it only gives the name. `version` is the
    store's own mark of this content, such as an ETag, where it has one.
    """

    path: Path
    key: str
    size: int
    mtime_ns: int
    version: str | None = None

    @property
    def packing(self) -> Packing | None:
        """How the file is packed, where the extension says so."""
        return packing_of(self.path)

    @property
    def format(self) -> FormatName | None:
        """The format that the extension names, looking through `.gz` and its like."""
        return format_of(self.path)

    def changed(self) -> bool:
        """Whether the file is another one now than when it was found."""
        try:
            now = self.path.stat()
        except OSError:
            return True
        return (now.st_size, now.st_mtime_ns) != (self.size, self.mtime_ns)


def find(pattern: str, project: Path) -> list[FoundFile]:
    """The files behind a path, a glob (`**` goes into folders) or a folder, sorted by path.

    Of a folder, the files that its manifest counts, where a sink of ours has left one; else those of the known formats
    below it, without names that start with `.` or `_`, which are working files of other programs. Raises DataError for
    a manifest that cannot be read or names a file that is not there.
    """
    found = (_found(path, project) for path in set(_paths(pattern)))
    return sorted((file for file in found if file), key=lambda file: file.path)


def _paths(pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    if (path / MANIFEST).is_file():
        manifest = parsed((path / MANIFEST).read_bytes(), str(path / MANIFEST))
        there = {file.path for file in manifest.files if (path / file.path).exists()}
        manifest.require(there, str(path / MANIFEST))
        yield from (path / name for name in there)
    elif path.is_dir():
        yield from (below for below in path.rglob("*") if is_known(below) and not _hidden(below, path))
    elif path.exists():
        yield path  # before the glob: brackets may be part of a file's name
    else:
        yield from map(Path, glob.iglob(pattern, recursive=True))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def _found(path: Path, project: Path) -> FoundFile | None:
    try:
        now = path.stat()
    except OSError:
        return None  # it went away between the listing and the look
    if not path.is_file():
        return None
    key = path.relative_to(project) if path.is_relative_to(project) else path
    return FoundFile(path, key.as_posix(), now.st_size, now.st_mtime_ns)


def seen_files(cursor: Cursor | None) -> Mapping[str, list[Any]]:
    """The marks of the files that a cursor holds: key to `[size, mtime in ns or SHA-256]`, and a version."""
    files: Mapping[str, list[Any]] = (cursor or {}).get("files", {})
    return files


def is_seen(file: FoundFile, mark: list[Any] | None, *, look_inside: bool = True) -> bool:
    """Whether `mark` was made of this very file, by what the mark holds: a time or a hash.

    Without `look_inside` nothing is read, and a hash is believed when the size is the same.
    """
    if mark is None or mark[0] != file.size:
        return False
    if len(mark) > 2 and file.version is not None:
        return bool(mark[2] == file.version)
    if isinstance(mark[1], str):
        return not look_inside or sha256(file) == mark[1]
    return bool(mark[1] == file.mtime_ns)


def mark_of(file: FoundFile, seen_by: str) -> list[Any]:
    """What a cursor remembers of a file."""
    if file.version is not None:
        return [file.size, file.mtime_ns, file.version]
    return [file.size, sha256(file) if seen_by == "hash" else file.mtime_ns]


def advanced(marks: Mapping[str, list[Any]], cursor: Cursor | None) -> Cursor:
    """The cursor with these files added; a file that vanished stays, so that it is not new when it comes back."""
    return {"files": {**seen_files(cursor), **marks}}


def sha256(file: FoundFile) -> str:
    """The SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with opened(file) as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def opened(file: FoundFile) -> Iterator[Any]:
    """The file's bytes. Raises AccessError where it may not be read, Unavailable where it vanished."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise vanished([file]) from error
    except OSError as error:
        what = f"{file.path} cannot be read: {error.strerror}"
        raise AccessError(what, mend="grant this user the right to read the file") from error
    with open(descriptor, "rb") as stream:
        yield stream


def vanished(files: Iterable[FoundFile]) -> Unavailable:
    """The error for files that changed or went away while they were being read."""
    names = ", ".join(file.key for file in files)
    return Unavailable(
        f"changed while being read: {names}; nothing was loaded",
        mend="load again when the writer is done; best let it write under another name and rename at the end",
    )


def written_since(files: Iterable[FoundFile]) -> list[FoundFile]:
    """The files that are not what they were when they were found."""
    return [file for file in files if file.changed()]


def age_seconds(file: FoundFile, now: float) -> float:
    """How long ago the file was last written; a time in the future counts as long ago, since it would never settle."""
    age = now - file.mtime_ns / 1e9
    return age if age >= 0 else float("inf")


def sanitised(path: str) -> tuple[str, ...]:
    """A path as the parts of an asset key: letters, digits and underscores; of a glob, the folder that it starts at."""
    parts = ("".join(c if c.isascii() and c.isalnum() else "_" for c in part).strip("_") for part in _fixed(path).parts)
    return tuple(part for part in parts if part)


def uri(path: str) -> str:
    """The `file:` URI of a path; of a glob, of the folder that it starts at. A relative path stays relative."""
    fixed = _fixed(path)
    return fixed.as_uri() if fixed.is_absolute() else f"file:{fixed.as_posix()}"


def fixed(path: str) -> str:
    """The part of a glob that names a folder; the whole of a path that is no glob."""
    return "/".join(_fixed(path).parts) if glob.has_magic(path) else path


def _fixed(path: str) -> Path:
    return Path(*takewhile(lambda part: not glob.has_magic(part), Path(path).parts))


def free_name(path: Path) -> bool:
    """Whether DuckDB takes this path literally: it would expand `*`, `?` and brackets as a glob."""
    return not glob.has_magic(os.fspath(path))

"""Stores with folders: globs over them, what they hold, and whether they let us in."""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import PurePosixPath

from databrokkr_assets.core.errors import DatabrokkrError, SpecError, Unavailable
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import Finding, Place
from resources.support.file_formats import is_known
from resources.support.file_manifest import MANIFEST, parsed
from resources.support.found_files import FoundFile
from resources.support.stores import FileStore, OpensStore, TakesFiles


@dataclass(frozen=True)
class Folder:
    """A folder below another; `key` is its path in the store."""

    key: str


class FolderStore(FileStore, TakesFiles):
    """A store of files in folders. Paths have slashes and start at the connection's root, which is `""`."""

    @abstractmethod
    def children(self, folder: str) -> Iterator[FoundFile | Folder]:
        """What is directly in a folder; nothing where there is no such folder."""

    def below(self, folder: str) -> Iterator[FoundFile]:
        """The files in a folder and in those below it."""
        for child in self.children(folder):
            if isinstance(child, Folder):
                yield from self.below(child.key)
            else:
                yield child

    def find(self, path: str) -> Iterator[FoundFile]:
        """The files behind a path, a glob or a folder. A glob without `**` looks only as deep as it says."""
        parts = names(path)
        if not has_magic(path):
            yield from self._named("/".join(parts), path.endswith("/"))
            return
        empty = True
        for file in self._matching("", parts):
            empty = False
            yield file
        if empty and "[" in path:  # brackets may be part of a file's name
            yield from self._named("/".join(parts), False)

    def _named(self, path: str, is_folder: bool) -> Iterator[FoundFile]:
        file = None if is_folder or not path else self.look(path)
        if file:
            yield file
            return
        depth = len(names(path))
        counted = self._counted(path)
        for below in self.below(path):
            if counted is not None:
                if below.key in counted:
                    yield below
            elif is_known(below.path) and not any(name.startswith((".", "_")) for name in names(below.key)[depth:]):
                yield below

    def _counted(self, folder: str) -> set[str] | None:
        """The keys of the files that a folder's manifest counts; `None` where there is none."""
        found = self.look("/".join(filter(None, [folder, MANIFEST])))
        if found is None:
            return None
        manifest = parsed(b"".join(self.pieces(found)), found.key)
        return {"/".join(filter(None, [folder, file.path])) for file in manifest.files}

    def _matching(self, folder: str, patterns: list[str]) -> Iterator[FoundFile]:
        """The files below `folder` that fit; folders are entered one by one up to a `**`."""
        head, rest = patterns[0], patterns[1:]
        if head == "**":
            depth = len(names(folder))
            yield from (file for file in self.below(folder) if fits(names(file.key)[depth:], patterns))
        elif rest and not has_magic(head):
            yield from self._matching(f"{folder}/{head}".lstrip("/"), rest)
        elif not rest and not has_magic(head):
            found = self.look(f"{folder}/{head}".lstrip("/"))
            yield from [found] if found else []
        else:
            for child in self.children(folder):
                if not _fits(PurePosixPath(child.key).name, head):
                    continue
                if isinstance(child, Folder) and rest:
                    yield from self._matching(child.key, rest)
                elif isinstance(child, FoundFile) and not rest:
                    yield child


class OpensFolders(OpensStore):
    """A connection whose store has folders and can be written."""

    @abstractmethod
    def store(self, place: Place, name: str) -> FolderStore:
        """The store; cheap, nothing is asked yet. `name` is what errors call the connection."""


def names(path: str) -> list[str]:
    """The names that a path in a store is made of. Raises SpecError for one that leaves it."""
    if "://" in path:
        raise SpecError(f"{path} is a URL", mend="write the path within the connection's store, e.g. exports/*.csv")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SpecError(f"{path} leads out of the store", mend="write a path without `..`")
    return parts


def fits(path: list[str], patterns: list[str]) -> bool:
    """Whether a path matches a glob, name by name; `*` and `**` find no names that start with a dot."""
    if not patterns:
        return not path
    if patterns[0] == "**":
        if fits(path, patterns[1:]):
            return True
        return bool(path) and not path[0].startswith(".") and fits(path[1:], patterns)
    return bool(path) and _fits(path[0], patterns[0]) and fits(path[1:], patterns[1:])


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def streams(store: FolderStore) -> Iterator[Stream]:
    """The files of known formats in a store; found while they are listed."""
    with store:
        for file in store.find(""):
            inside, _, name = file.key.rpartition("/")
            yield Stream(name, namespace=inside, kind="file")


def access(store: FolderStore, who: str) -> Iterator[Finding]:
    """Whether a store answers, as whom, and what it allows; a tiny file is written and removed again."""
    with store:
        began = time.perf_counter()
        try:
            first = next(iter(store.children("")), None)
        except Unavailable as error:
            yield Finding("reachable", False, error.what, error.mend)
            return
        except DatabrokkrError as error:
            yield Finding("may list", False, error.what, error.mend)
            return
        yield Finding("reachable", True, f"answered in {(time.perf_counter() - began) * 1000:.0f} ms")
        yield Finding("user", True, who)
        yield Finding("may list", True, f"begins with {first.key}" if first else "it is empty")
        yield _may_write(store)


def _may_write(store: FolderStore) -> Finding:
    probe = f".databrokkr-{uuid.uuid4().hex}"
    try:
        store.write(b"", probe, None)
        store.delete(probe)
    except DatabrokkrError as error:
        return Finding("may write", False, error.what, error.mend)
    return Finding("may write", True, "a file was written and removed again")

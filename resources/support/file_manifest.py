"""The manifest of a folder of files: which of them count, and which load of which node went there last."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import LoadMark

if TYPE_CHECKING:
    from resources.support.file_folders import TargetFolder
    from resources.support.found_files import FoundFile

MANIFEST = "_databrokkr_manifest.json"

_GRACE = 3600
"""Seconds that a file which no longer counts is kept for those who are reading it."""


@dataclass(frozen=True)
class ListedFile:
    """A file that counts, by its path below the manifest's folder."""

    path: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What counts. `gone` are files that no longer do, with the time since when; `loads` is the ledger."""

    files: tuple[ListedFile, ...] = ()
    gone: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @staticmethod
    def read(folder: TargetFolder) -> tuple[Manifest, FoundFile | None]:
        """The manifest of a folder, empty where there is none, and what a write compares. Raises DataError."""
        found = folder.read(MANIFEST)
        return (Manifest(), None) if found is None else (parsed(found[0], folder.where(MANIFEST)), found[1])

    def held(self, node: str) -> LoadMark | None:
        """The newest load of a node."""
        load = self.loads.get(node)
        return LoadMark(**load) if load else None

    def after(self, files: Iterable[ListedFile], node: str, load: LoadMark, *, replaced: bool) -> Manifest:
        """The manifest with a load's files, in place of all others when they are `replaced`.

        What has not counted for long enough is not among its `gone` any more, and is to be removed.
        """
        now = time.time()
        gone = {path: since for path, since in self.gone.items() if since > now - _GRACE}
        if replaced:
            gone |= {file.path: now for file in self.files}
        told = {name: getattr(load, name) for name in ("load_id", "dataset", "version", "run_id")}
        return Manifest((*(() if replaced else self.files), *files), gone, {**self.loads, node: told})

    def require(self, there: Collection[str], where: str) -> None:
        """Raise DataError when a file that counts is not `there`."""
        for file in self.files:
            if file.path not in there:
                mend = "restore it, or load the folder again with `disposition: replace`"
                raise DataError(f"the file {file.path}, which counts, is gone", where=where, mend=mend)

    def content(self) -> bytes:
        """The manifest as JSON."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()


def parsed(content: bytes, where: str) -> Manifest:
    """A manifest from its JSON. Raises DataError."""
    try:
        told = json.loads(content)
        files = tuple(ListedFile(_inside(file["path"]), file["bytes"], file["rows"]) for file in told["files"])
        return Manifest(files, told["gone"], told["loads"])
    except (ValueError, KeyError, TypeError) as error:
        mend = "restore it from a backup, or remove it: then every file of the folder counts"
        raise DataError(f"the manifest cannot be read: {error}", where=where, mend=mend) from error


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        raise ValueError(f"{path} leads out of the folder")
    return path

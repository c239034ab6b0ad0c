"""The ledger of a folder that files are written to: which load of which node went there last.

A file and the ledger cannot be renamed at one moment. The file goes first; after a crash between the two the load is
repeated and writes the same file again, because its name follows from the ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.ports import LoadMark

NAME = "_databrokkr_loads.json"
_FIELDS = ("load_id", "dataset", "version", "after", "run_id")


class FileLedger:
    """The newest load of every node that writes into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def last(self, node: str, file: str | None = None) -> LoadMark | None:
        """The newest load of a node; with `file`, only if it went there and the file is still there.

        Raises DataError when the ledger cannot be read.
        """
        entry = self._entries().get(node)
        if entry and file and not (entry["file"] == file and self.path.with_name(file).exists()):
            return None
        return LoadMark(**{name: entry[name] for name in _FIELDS}) if entry else None

    def write(self, node: str, load: LoadMark, facts: Mapping[str, Any]) -> None:
        """Name `load` as the newest of `node`; needs `locked`."""
        entries = {**self._entries(), node: {**{name: getattr(load, name) for name in _FIELDS}, **facts}}
        beside = self.path.with_suffix(".tmp")
        beside.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        publish(beside, self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other writers on this machine away from the folder; over a network file system it may not."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _entries(self) -> dict[str, Any]:
        try:
            entries: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            what = f"the ledger cannot be read: {error}"
            mend = "restore it from a backup, or remove it: then every load is written again"
            raise DataError(what, where=str(self.path), mend=mend) from error
        return entries


def publish(temporary: Path, target: Path) -> None:
    """Put a finished file in its place at one moment, so that it survives a loss of power."""
    with open(temporary, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""Copies of the files that a load read, as they came: `landing/<pipeline>/<node>/<day>/<load id>/<number>-<name>`.

They stand there before the load is published, and count only because the dataset's log says so: the copies of a load
that died are never looked at, and are removed with its other files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from databrokkr_assets.core.errors import AccessError, DataError, Unavailable
from databrokkr_assets.core.ports import Taken
from databrokkr_assets.lake.store import Store

LANDING = "landing"
"""The folder of the lake that holds copies."""

_LIST = "_databrokkr_copies.json"
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Landing:
    """The folder of one load's copies."""

    store: Store

    @staticmethod
    def at(root: Store, moment: str, load_id: str) -> Landing:
        """That of a load, which published or will publish at this moment, in ISO 8601; `root` is that of its node."""
        return Landing(root.child(moment[:10], load_id))

    def keep(self, files: Sequence[Taken]) -> bool:
        """Copy the files; gives whether there were any. Raises AccessError, Unavailable for a file that has gone."""
        listed = []
        for number, file in enumerate(files, start=1):
            name = f"{number:06d}-{_safe(file.name)}"
            listed.append({"name": name, "key": file.key, "of": file.name, "bytes": _size(file)})
            self.store.child(name).put(file.path)
        if listed:
            self.store.child(_LIST).write(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")
        return bool(listed)

    def bring(self, folder: Path) -> list[Taken]:
        """The copies as files of this machine, in `folder` where the lake is elsewhere; in the order of the files.

        Raises AccessError for copies that are gone, DataError for one that is not whole.
        """
        text = self.store.child(_LIST).read()
        if not text:
            raise AccessError(
                "the copies of this load are gone",
                mend="restore them, or read everything from the source again",
                where=self.store.url,
            )
        return [self._brought(folder, **listed) for listed in json.loads(text)]

    def remove(self) -> None:
        """Remove the copies of a load that came to nothing."""
        self.store.delete()

    def _brought(self, folder: Path, name: str, key: str, of: str, bytes: int) -> Taken:
        copy = self.store.child(name)
        path = Path(copy.url)
        if copy.is_s3:
            path = folder / name
            copy.fetch(path)
        found = path.stat().st_size if path.is_file() else 0
        if found != bytes:
            what = f"the copy of {key} has {found:,} bytes, not {bytes:,}"
            raise DataError(what, mend="restore it, or read everything from the source again", where=copy.url)
        return Taken(key, of, path)


def forget(root: Store, load_ids: Iterable[str]) -> None:
    """Remove the copies of loads that died, whatever their day."""
    for load_id in load_ids:
        for day in root.names():
            root.child(day, load_id).delete()


def _safe(name: str) -> str:
    """A file's name as every store takes it; its end, which tells the format, stays."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-_LONGEST_NAME:]


def _size(file: Taken) -> int:
    try:
        return file.path.stat().st_size
    except OSError as error:
        mend = "load again when the writer is done; best let it write under another name and rename at the end"
        raise Unavailable(f"{file.key} went away before it was copied; nothing was loaded", mend=mend) from error

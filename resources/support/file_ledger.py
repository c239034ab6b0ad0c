"""The ledger of a folder that files are written to: which load of which node went there last.

A file and the ledger cannot be put in place at one moment. The file goes first; after a crash between the two the load
is repeated and writes the same file again, because its name follows from the ledger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from databrokkr_assets.core.errors import DataError, Unavailable
from databrokkr_assets.core.ports import LoadMark
from resources.support.file_folders import TargetFolder
from resources.support.found_files import FoundFile

NAME = "_databrokkr_loads.json"
_FIELDS = ("load_id", "dataset", "version", "after", "run_id")
_TRIES = 20

Entry = Mapping[str, Any]
"""What the ledger holds of a node: its newest load, the load's `file`, its `rows`, and in a store the file's `mark`."""


class FileLedger:
    """The newest load of every node that writes into `folder`."""

    def __init__(self, folder: TargetFolder) -> None:
        self._folder = folder

    @property
    def where(self) -> str:
        """The ledger's path or URI."""
        return self._folder.where(NAME)

    def entry(self, node: str) -> Entry | None:
        """What the ledger holds of a node. Raises DataError when the ledger cannot be read."""
        return self._read()[0].get(node)

    def last(self, entry: Entry | None, file: str | None = None) -> LoadMark | None:
        """The newest load of an entry whose file is as the load left it; with `file`, only if it went there.

        In a store, where a writer that was thought dead may put its file over that of its successor, the successor's
        load counts as not written then, so that it is written again: the load before it, whose end `after` is, is the
        newest.
        """
        if entry is None or (file and entry["file"] != file):
            return None
        stands = self._folder.stands(entry["file"], entry.get("mark"))
        if file and not stands:
            return None
        newest = LoadMark(**{name: entry[name] for name in _FIELDS})
        if stands is not False:
            return newest
        return None if newest.after is None else LoadMark("", newest.dataset, newest.after)

    def write(self, node: str, load: LoadMark, facts: Mapping[str, Any], over: Entry | None) -> None:
        """Name `load` as the newest of `node` in the place of `over`; needs the folder `locked`.

        Raises Unavailable when another entry stands there by now.
        """
        for _ in range(_TRIES):
            entries, found = self._read()
            if (stands := entries.get(node)) != over:
                if stands and stands["load_id"] == load.load_id:
                    return  # it was written; the reply was lost
                raise self.overtaken(node, stands)
            fresh = {**entries, node: {**{name: getattr(load, name) for name in _FIELDS}, **facts}}
            if self._folder.write((json.dumps(fresh, indent=2) + "\n").encode(), NAME, found):
                return
        what = f"the ledger could not be written {_TRIES} times, because others were faster"
        raise Unavailable(what, where=self.where, mend="run again; let fewer sinks write into this folder")

    def overtaken(self, node: str, stands: Entry | None) -> Unavailable:
        """The error of a load that finds another one where it was to go on."""
        return Unavailable(
            f"another load of {node} was written in the meantime: version {stands and stands['version']}",
            where=self.where,
            mend="run again; the next load starts from what is there",
        )

    def _read(self) -> tuple[dict[str, Entry], FoundFile | None]:
        read = self._folder.read(NAME)
        if read is None:
            return {}, None
        try:
            return json.loads(read[0]), read[1]
        except ValueError as error:
            what = f"the ledger cannot be read: {error}"
            mend = "restore it from a backup, or remove it: then every load is written again"
            raise DataError(what, where=self.where, mend=mend) from error

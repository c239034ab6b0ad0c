"""Reads files as the engine does: plan, query, then rejects and cursor."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from databrokkr_assets.core.ports import Cursor, Reject
from databrokkr_assets.core.spec import Place
from databrokkr_assets.engine.duckdb import open_duck
from resources.connectors.files import FilesReader, FilesSource


@dataclass(frozen=True)
class Read:
    """What one load read."""

    types: dict[str, str]
    rows: list[tuple[Any, ...]]
    rejects: list[Reject]
    cursor: Cursor | None

    @property
    def refused(self) -> list[tuple[str, str, str]]:
        """The rejects without their reasons: rule, position, payload."""
        return [(reject.rule, reject.position, reject.payload) for reject in self.rejects]


def place(path: Path) -> Place:
    """The folder that paths are relative to."""
    return Place(path if path.is_dir() else path.parent)


def reader(path: Path | str, project: Path, **settings: Any) -> FilesReader:
    """A reader of a source with these settings."""
    reading = FilesSource(type="files", path=(str(path),), **settings).open(None, Place(project))
    assert isinstance(reading, FilesReader)
    return reading


def read(path: Path | str, project: Path | None = None, after: Cursor | None = None, **settings: Any) -> Read:
    """Read what is new after the cursor, in the order of the files."""
    project = project or place(Path(path)).project
    source = reader(path, project, **settings)
    with open_duck() as duck:
        duck.execute("SET preserve_insertion_order = true")
        relation = source.relation(duck, next(iter(source.streams())), after)
        assert relation is not None
        result = duck.execute(relation.query)
        types = {column[0]: str(column[1]) for column in result.description}
        rows = result.fetchall()
        return Read(types, rows, list(relation.rejects()), relation.advance(lambda expression: None) or after)


def write(path: Path, content: bytes | str) -> Path:
    """A file with this content, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@contextmanager
def powerless() -> Iterator[Path]:
    """A folder, and a user without special rights: root may read and write everything."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if was_root:
                os.seteuid(0)

"""Places on a disk that take nothing, for cases whose system is a folder or a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL = 3_000_001
"""Bytes that a file may have where the disk is as good as full; for `RunsFull.full_disk`."""


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """The folder and all in it without the right to write, for whoever is bound by rights."""
    paths = [folder, *folder.rglob("*")]
    before = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(before[path] & ~0o222)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)

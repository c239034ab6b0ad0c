"""How long work tells how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """A node at work: rows where they are counted as they pass, bytes as they reach the disk."""

    node: str
    step: str
    rows: int | None = None
    bytes: int | None = None


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A listener that does nothing."""


@contextmanager
def meanwhile(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `look` every so many seconds, from a thread of its own, while the block runs."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            look()

    watcher = threading.Thread(target=repeat, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def watched(listener: Listener, node: str, folder: str) -> Iterator[None]:
    """Tell the size of a local folder to the listener, twice a second, while the block runs."""
    if listener is silent or "://" in folder:
        yield
        return

    def look() -> None:
        with suppress(FileNotFoundError):  # a file may go between being listed and being looked at
            size = sum(file.stat().st_size for file in Path(folder).glob("*.parquet"))
            listener(Progress(node, "staging", bytes=size))

    with meanwhile(look, 0.5):
        yield

"""Where cases stand: a service that may be missing, a folder that may not be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests import services

Service = TypeVar("Service")

SMALL = 3_000_001
"""Bytes that a file may have where the disk is as good as full."""


@contextmanager
def or_skip(service: AbstractContextManager[Service]) -> Iterator[Service]:
    """The service, or a skip that says what is missing on this machine."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(service)
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield started


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

"""Opens DuckDB as the engine: bounded in memory, spilling to disk, in UTC."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from databrokkr_assets.core.names import literal
from databrokkr_assets.core.plugins import missing_extra

MEMORY_LIMIT = "DATABROKKR_MEMORY_LIMIT"
"""The environment variable that bounds DuckDB's memory, e.g. `2GB`."""

MOVING = 75
"""Megabytes for each core where rows only pass through; more makes it no faster (docs/why.md)."""

SHAPING = 200
"""Megabytes for each core where rows are joined and grouped; beyond it DuckDB spills to disk."""

S3_PARTS = "SET s3_uploader_max_filesize = '200GB'"
"""The statement, once httpfs is there, that makes it hold 20 MB of each file that it writes, and not 80: every thread
writes a file of its own, and two of these would be all the memory that there is. A file beyond 200 GB is refused."""


@contextmanager
def open_duck(megabytes_per_core: int = MOVING) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database for one load; its spill folder goes with it.

    Row order is not kept (`preserve_insertion_order=false`): it costs memory that grows with the table.
    """
    with tempfile.TemporaryDirectory(prefix="databrokkr-") as spill:
        connection = duckdb.connect(
            config={
                "memory_limit": os.environ.get(MEMORY_LIMIT) or f"{megabytes_per_core * max(os.cpu_count() or 1, 2)}MB",
                "temp_directory": spill,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            }
        )
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")  # it would write into what a command prints
        try:
            yield connection
        finally:
            connection.close()


def load_extension(duck: duckdb.DuckDBPyConnection, name: str, *, extra: str) -> None:
    """Load a DuckDB extension from its wheel, or the one that is installed in DuckDB's own folder.

    Raises SpecError with the install command when there is neither.
    """
    try:
        duck.execute(f"LOAD {literal(str(_wheel(name)))}" if _wheel(name) else f"LOAD {name}")
    except duckdb.Error as error:
        raise missing_extra(extra, f"DuckDB's extension {name}") from error


def _wheel(name: str) -> Path | None:
    """The extension file inside the wheel `duckdb-extension-<name>`; it fits one version of DuckDB only."""
    try:
        package = importlib.import_module(f"duckdb_extension_{name}")
    except ImportError:
        return None
    found = sorted(Path(package.__path__[0]).rglob(f"{name}.duckdb_extension"))
    return next((path for path in found if f"v{duckdb.__version__}" in path.parts), None)

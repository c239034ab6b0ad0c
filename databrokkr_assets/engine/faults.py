"""Turns what DuckDB and the operating system raise into the errors that say how to mend them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.engine.duckdb import MEMORY_LIMIT

# The last two are SQLite's words, through DuckDB's scanner.
_REFUSED_WRITES = ("No space left", "Could not write", "disk I/O error", "database or disk is full")
_DISK_FULL = "free some space, then run again: nothing was published"


@contextmanager
def told_plainly(node: str) -> Iterator[None]:
    """Within the block, raw errors become ours, with the node as the place."""
    try:
        yield
    except duckdb.Error as error:
        raise translated(node, error) from error
    except OSError as error:
        mend = _DISK_FULL if error.errno == errno.ENOSPC else "check the path and its permissions"
        raise AccessError(str(error), mend=mend, where=node) from error


def translated(node: str, error: duckdb.Error) -> DatabrokkrError:
    """Our error for one of DuckDB's."""
    text = str(error).strip()
    match error:
        case _ if any(words in text for words in _REFUSED_WRITES):
            return AccessError(f"the disk is full, or fails: {text}", mend=_DISK_FULL, where=node)
        case duckdb.OutOfMemoryException():
            mend = f"set {MEMORY_LIMIT} higher, e.g. 2GB, or free disk space for spilling"
            return AccessError(f"the memory limit was reached: {text}", mend=mend, where=node)
        case duckdb.BinderException() | duckdb.CatalogException() | duckdb.ParserException():
            return SpecError(text, mend="correct the SQL or the column names of this node", where=node)
        case duckdb.ConversionException() | duckdb.InvalidInputException() | duckdb.OutOfRangeException():
            return DataError(text, mend="clean the value, or use TRY_CAST where NULL is right", where=node)
        case duckdb.HTTPException() | duckdb.InterruptException() | duckdb.ConnectionException():
            return Unavailable(text, mend="check the network and run again", where=node)
        case duckdb.IOException() | duckdb.PermissionException():
            return AccessError(text, mend="check the path and its permissions", where=node)
        case _:
            return DataError(text, mend="see the message; it comes from DuckDB", where=node)

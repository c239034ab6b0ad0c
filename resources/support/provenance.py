"""The columns that tell from which file, and where in it, a row came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.engine.shaping import POSITION, PROVENANCE, SOURCE

FILE_ROW = "file_row_number"
"""What DuckDB calls the number of a row in its Parquet file, counted from 0."""

_FILE = "file_index"
"""What DuckDB calls the place of a row's file among those of a scan, counted from 0."""


def told(names: Iterable[str], keys: Sequence[str], position: str, scan: str = "") -> str:
    """SQL: the two columns, for a scan of files with these `keys`, in this order; `position` is a number from 1.

    `names` are the columns of the files; `scan` is what the scan is called where it is not the only one. Raises
    DataError when one of the files' own columns has a name that is needed.
    """
    for name in names:
        if name.casefold() in {*PROVENANCE, FILE_ROW, _FILE}:
            mend = "rename it in the files, or leave `provenance` out"
            raise DataError(f'the column "{name}" has a name that `provenance` needs', mend=mend)
    listed = ", ".join(map(literal, keys))
    place = f"{scan}.{_FILE}" if scan else _FILE
    return f"[{listed}][{place}::BIGINT + 1] AS {quoted(SOURCE)}, ({position})::BIGINT AS {quoted(POSITION)}"

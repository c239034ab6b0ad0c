"""The line in which each row of a text file begins, kept in a Parquet file beside it.

DuckDB's readers of text do not tell it. It reads the rows and these numbers side by side (`POSITIONAL JOIN`), each in
its order, on however many cores. numpy finds the lines: a line end outside of quotes is the end of a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from databrokkr_assets.core.errors import DataError
from databrokkr_assets.core.names import literal
from resources.support.text_lines import LIMIT

COLUMN = "__databrokkr_number"
"""The column of the numbers."""

ROWS = "__databrokkr_rows"
"""What the scan of the files is called that the numbers are joined to."""

_SCHEMA = pa.schema([(COLUMN, pa.int64())])
_BLOCK = 1 << 22
_AT_ONCE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_RETURN = 13

Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]
Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


class LineNumbers:
    """The numbers of one file: added in the order of its rows, then closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._held: list[Numbers] = []
        self._size = 0
        self._writer = pq.ParquetWriter(
            path, _SCHEMA, compression="zstd", use_dictionary=False, column_encoding="DELTA_BINARY_PACKED"
        )

    def add(self, lines: Sequence[int] | Numbers) -> None:
        """Note the lines of the next rows."""
        self._held.append(np.asarray(lines, np.int64))
        self._size += len(lines)
        self.count += len(lines)
        if self._size > _AT_ONCE:
            self._flush()

    def add_file(self, path: Path, grammar: Grammar, above: int = 0) -> bool:
        """Note the lines of all records of a file in UTF-8 but those in the first lines, `above` them.

        Gives whether the quotes in the file tell surely where records end; else some are missing.
        """
        for lines in _of_file(path, grammar):
            if lines is None:
                return False
            self.add(lines[lines > above])
        return True

    def require(self, rows: int, name: str) -> None:
        """Raise DataError when DuckDB sees other rows in the file called `name` than those that were noted."""
        if rows != self.count:
            what = f"the lines of its rows cannot be told: there are {rows} rows, and {self.count} were found"
            raise DataError(what, where=name, mend="leave `provenance` out, and report the file to us")

    def close(self) -> None:
        """Finish writing."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.table([np.concatenate([*self._held, np.empty(0, np.int64)])], schema=_SCHEMA))
        self._held, self._size = [], 0


def with_lines(scan: str, files: Iterable[LineNumbers]) -> str:
    """SQL: the rows of a scan, called `ROWS`, each with the `COLUMN` that has its number; both in the same order."""
    listed = ", ".join(literal(str(file.path)) for file in files)
    return f"{scan} AS {ROWS} POSITIONAL JOIN read_parquet([{listed}], hive_partitioning=false)"


class Found(NamedTuple):
    """The lines in which the records of a block begin; how many bytes and line ends the whole records take up."""

    lines: Numbers
    size: int
    ends: int


@dataclass(frozen=True)
class Grammar:
    """What ends the records of a file: the last byte of its line `end`, outside of quotes.

    `quote` and `escape` are empty where there are none. A quote opens a field at its beginning only, so before it
    stands the last byte of `delimiter`, or a line end. `keeps_empty` tells that a line of nothing is a record.
    """

    end: str = "\n"
    quote: str = ""
    escape: str = ""
    delimiter: str = ""
    keeps_empty: bool = False

    def find(self, data: bytes, first: int, *, last: bool = True) -> Found | None:
        """The records in `data`, which begins with one, in line `first` of its file; without `last`, whole ones only.

        `None` when the quotes do not tell surely where records end.
        """
        view = np.frombuffer(self._without_escapes(data), np.uint8)
        ends = np.flatnonzero(view == ord(self.end))
        outer = self._outside(view, ends)
        if outer is None:
            return None
        size = len(data) if last else int(outer[-1]) + 1 if len(outer) else 0
        starts = np.concatenate([[0], outer + 1])
        starts = starts[starts < size]
        stops = np.append(outer, size)[: len(starts)]
        lines = first + np.searchsorted(ends, starts)
        kept = lines if self.keeps_empty else lines[_filled(view, starts, stops)]
        return Found(kept, size, int(np.searchsorted(ends, size)))

    def _without_escapes(self, data: bytes) -> bytes:
        """The data with other bytes in the place of each escape and of the quote that it makes a plain character."""
        escape, quote = self.escape.encode(), self.quote.encode()
        if not escape or escape not in data:
            return data
        return data.replace(escape * 2, b"__").replace(escape + quote, b"__")

    def _outside(self, view: Bytes, ends: Numbers) -> Numbers | None:
        """The line ends outside of quotes."""
        quotes = np.flatnonzero(view == ord(self.quote)) if self.quote else ends[:0]
        before = view[np.maximum(quotes[::2] - 1, 0)]  # of one at the very beginning, itself
        if not np.isin(before, list(f"{self.quote}\r\n".encode() + self.delimiter.encode()[-1:])).all():
            return None
        outside: Numbers = ends[np.searchsorted(quotes, ends) % 2 == 0]
        return outside


def _filled(view: Bytes, starts: Numbers, stops: Numbers) -> Flags:
    """Which records have anything in them but the first byte of a line end."""
    sizes = stops - starts
    filled: Flags = (sizes > 1) | ((sizes == 1) & (view[starts] != _RETURN))
    return filled


def _of_file(path: Path, grammar: Grammar) -> Iterator[Numbers | None]:
    line, rest = 1, b""
    with open(path, "rb") as stream:
        stream.seek(len(_BOM) if stream.read(len(_BOM)) == _BOM else 0)
        while piece := stream.read(_BLOCK):
            data = rest + piece
            found = grammar.find(data, line, last=False)
            if found is None or len(data) - found.size > LIMIT:
                yield None
                return
            yield found.lines
            rest, line = data[found.size :], line + found.ends
    found = grammar.find(rest, line)
    yield found.lines if found else None

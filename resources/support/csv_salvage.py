"""Takes what can be read out of a CSV file that has mistakes, and names the lines that cannot be.

The file is taken apart into blocks. A block without mistakes, says DuckDB, is copied as it is; one with mistakes is
taken apart again, until what is left is read record by record in Python. So a file with some bad lines costs little
more than one without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from databrokkr_assets.core.ports import Reject
from resources.support.csv_records import BOM, Dialect, Fields, Record, is_unfinished, records
from resources.support.line_numbers import Grammar, LineNumbers
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import LIMIT, Line, lines_of, repaired

_SIZES = (1 << 22, 1 << 17)
_RECORDS_AT_ONCE = 10_000
_OTHER_END = re.compile("\r\n?|\n")


@dataclass(frozen=True)
class Judge:
    """What DuckDB says: how many rows a block of records has, 0 for one with a mistake, and which rows a declared type
    would change.

    `misfits` gives the reason of each such row by its place in the list.
    """

    good_rows: Callable[[bytes], int]
    misfits: Callable[[list[Fields]], dict[int, str]]


@dataclass(frozen=True)
class Manner:
    """How a file is written: dialect, number of fields, end of lines, and what to say of bytes that are no text.

    A record with the fields of one of the `heads` after the mark of an appended file is its header. `pads` tells that
    the fields which a short record lacks are NULL.
    """

    dialect: Dialect
    width: int
    end: str
    wrong: str
    heads: tuple[Fields, ...] = ()
    pads: bool = False

    @property
    def head(self) -> bytes:
        """A header. The first line end of a file tells DuckDB those of all; told in words, it reads CR LF wrongly."""
        names = self.dialect.delimiter.join(f"c{index}" for index in range(self.width))
        return (names + self.end).encode()

    @property
    def grammar(self) -> Grammar:
        """How the records of a block are told that DuckDB reads as it is."""
        return Grammar("\n", self.dialect.doubling.quote, "", self.dialect.delimiter, keeps_empty=self.width == 1)


class CsvSalvage:
    """Sorts the records of one file, called `name`, into good ones and rejects, in bounded memory.

    The good ones are written to `out` in UTF-8, in the manner of the file but for escapes, below a header; their lines
    to `numbers`, where these are wanted.
    """

    def __init__(
        self,
        name: str,
        manner: Manner,
        judge: Judge,
        out: IO[bytes],
        rejects: RejectSpool,
        numbers: LineNumbers | None = None,
    ) -> None:
        self._name, self._manner, self._judge = name, manner, judge
        self._out, self._rejects, self._numbers = out, rejects, numbers
        self._line = 1
        self._is_in_long_line = False
        out.write(manner.head)

    def reject(self, found: Iterable[Record], rule: str, reason: str) -> None:
        """Set records aside that are above the rows."""
        for record in found:
            self._rejects.add(self._reject(record, rule, reason))

    def run(self, path: Path, skipped_lines: int, stop: int) -> None:
        """Read the file at `path`, which is in UTF-8 where it is text at all, but its first lines, up to a byte."""
        with open(path, "rb") as stream:
            stream.seek(3 if stream.read(3) == b"\xef\xbb\xbf" else 0)
            for _ in range(skipped_lines):
                while not stream.readline(_SIZES[0]).endswith(b"\n") and stream.tell() < stop:
                    pass
            self._line += skipped_lines
            rest = b""
            while more := stream.read(min(_SIZES[0], max(stop - stream.tell(), 0))):
                rest = self._take(rest + more, 0, last=False)
            self._take(rest, 0, last=True)

    def run_slowly(self, found: Iterator[Record]) -> None:
        """Read a file record by record, whatever ends its lines."""
        while some := list(islice(found, _RECORDS_AT_ONCE)):
            self._sort(some)

    def _take(self, data: bytes, level: int, *, last: bool) -> bytes:
        """Take the records in `data`; what is left begins with a record that may go on in the next block."""
        data = self._past_the_long_line(data)
        cut = len(data) if last else self._cut(data)
        if not cut and len(data) <= LIMIT:
            return data
        cut = cut or data.rfind(b"\n") + 1  # a quote that is never closed
        if not cut:
            return self._give_up_line(data)
        block, rest = data[:cut], data[cut:]
        if self._means_the_same(block) and self._is_good(block):
            self._out.write(block if block.endswith(b"\n") else block + self._manner.end.encode())
            self._line += block.count(b"\n")
            return rest
        read = self._take_apart if level + 1 < len(_SIZES) else self._read
        return read(block, level + 1, last=last) + rest

    def _is_good(self, block: bytes) -> bool:
        """Whether the block has no mistake. Where lines are wanted, those of its rows must be sure; they are noted."""
        rows = self._judge.good_rows(block)
        if not (rows and self._numbers):
            return rows > 0
        found = self._manner.grammar.find(block, self._line)
        if found is None or len(found.lines) != rows:
            return False
        self._numbers.add(found.lines)
        return True

    def _give_up_line(self, beginning: bytes) -> bytes:
        """Reject a line that is longer than any may be, and pass over the rest of it."""
        (line,) = lines_of(beginning, self._line, self._manner.wrong)
        self._rejects.add(self._reject(Record(line.number, line.text, []), "csv.length", line.problem or ""))
        self._is_in_long_line = True
        return b""

    def _past_the_long_line(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        if not self._is_in_long_line or end < 0:
            return b"" if self._is_in_long_line else data
        self._is_in_long_line = False
        self._line += 1
        return data[end + 1 :]

    def _take_apart(self, data: bytes, level: int, *, last: bool) -> bytes:
        rest = b""
        for start in range(0, len(data), _SIZES[level]):
            end = start + _SIZES[level]
            rest = self._take(rest + data[start:end], level, last=last and end >= len(data))
        return rest

    def _means_the_same(self, block: bytes) -> bool:
        """Whether the block has nothing that only the file's own dialect knows."""
        dialect = self._manner.dialect
        unknown = [dialect.escape, "" if dialect.quote == dialect.doubling.quote else dialect.doubling.quote]
        return not (dialect.is_foreign(block) or any(mark.encode() in block for mark in unknown if mark))

    def _cut(self, data: bytes) -> int:
        """Where the last surely whole record ends: at the end of a line with as many quotes opened as closed."""
        end = data.rfind(b"\n") + 1
        is_open = self._quotes(data[:end]) % 2
        while end and is_open:
            before = data.rfind(b"\n", 0, end - 1) + 1
            is_open = (is_open + self._quotes(data[before:end])) % 2
            end = before
        return end

    def _quotes(self, data: bytes) -> int:
        """How many quotes open or close a field, as far as one can tell without reading the records."""
        quote, escape = self._manner.dialect.quote.encode(), self._manner.dialect.escape.encode()
        if not quote:
            return 0
        if escape and escape in data:
            data = data.replace(escape * 2, b"").replace(escape + quote, b"")
        return data.count(quote)

    def _read(self, data: bytes, level: int, *, last: bool) -> bytes:
        """Read record by record; of a block that is not the last, a record that is open at its end is left."""
        starts = _line_starts(data)
        found, left = [], len(data)
        for record in records(lines_of(data, self._line, self._manner.wrong), self._manner.dialect):
            start = starts[record.line - self._line]
            if not last and is_unfinished(record) and len(data) - start <= LIMIT:
                left = start
                break
            found.append(record)
        self._sort(found)
        self._line += data.count(b"\n", 0, left)
        return data[left:]

    def _sort(self, found: list[Record]) -> None:
        rows: list[tuple[Record, Fields]] = []
        rejects: list[tuple[int, Reject]] = []
        for record in found:
            if not (record.rule or record.text or self._manner.width == 1) or self._is_head(record):
                continue  # an empty line; DuckDB passes over it too
            taken = self._rows_of(record)
            rows += taken
            if not taken:
                reason = record.problem or f"the line has {len(record.fields)} fields, not {self._manner.width}"
                rejects.append((record.line, self._reject(record, record.rule or "csv.columns", reason)))
        rejects += self._keep(rows)
        for _, reject in sorted(rejects, key=lambda one: one[0]):
            self._rejects.add(reject)

    def _is_head(self, record: Record) -> bool:
        return record.text.startswith(BOM) and record.fields in self._manner.heads

    def _rows_of(self, record: Record) -> list[tuple[Record, Fields]]:
        """The record with its fields where it has as many as it must; several of a line in which line ends are mixed.

        None for one that cannot be read.
        """
        fields = self._fitted(record)
        if not record.rule and len(fields) == self._manner.width:
            return [(record, fields)]
        if record.rule in {"", "csv.quotes"} and _OTHER_END.search(record.text):
            pieces = (Line(record.line, piece, None, "\n") for piece in _OTHER_END.split(record.text) if piece)
            found = [(one, self._fitted(one)) for one in records(pieces, self._manner.dialect)]
            if all(not one.rule and len(fields) == self._manner.width for one, fields in found):
                return found
        return []

    def _fitted(self, record: Record) -> Fields:
        fields = fitted(record, self._manner.width, self._manner.dialect.delimiter)
        missing = self._manner.width - len(fields)
        return fields + [None] * missing if self._manner.pads and not record.rule else fields

    def _keep(self, rows: list[tuple[Record, Fields]]) -> Iterator[tuple[int, Reject]]:
        """Write the rows but those that a declared type would change, or that DuckDB would find too long."""
        misfits = self._judge.misfits([fields for _, fields in rows]) if rows else {}
        kept = []
        for place, (record, fields) in enumerate(rows):
            text = (self._written(fields) + self._manner.end).encode()
            if place in misfits:
                yield record.line, self._reject(record, "csv.type", misfits[place])
            elif len(text) > LIMIT - 1024:
                yield record.line, self._reject(record, "csv.length", f"longer than {LIMIT:,} bytes")
            else:
                self._out.write(text)
                kept.append(record.line)
        if self._numbers:
            self._numbers.add(kept)

    def _reject(self, record: Record, rule: str, reason: str) -> Reject:
        return Reject(reason, rule, f"{self._name}:{record.line}", repaired(record.text))

    def _written(self, fields: Fields) -> str:
        dialect = self._manner.dialect.doubling
        quote = dialect.quote

        def field(value: str | None) -> str:
            if value is None or not quote:
                return value or ""
            return f"{quote}{value.replace(quote, quote * 2)}{quote}"

        return dialect.delimiter.join(map(field, fields))


def fitted(record: Record, width: int, delimiter: str) -> Fields:
    """Delimiters at the end of a line are not more fields; DuckDB takes it so too."""
    more = len(record.fields) - width
    return record.fields[:width] if more > 0 and record.text.endswith(delimiter * more) else record.fields


def _line_starts(data: bytes) -> list[int]:
    starts = [0]
    while (end := data.find(b"\n", starts[-1])) >= 0:
        starts.append(end + 1)
    return starts

"""The grammar of CSV in Python: slower than DuckDB's reader, but it can go on after a broken record.

It takes a record as DuckDB's strict reader does (a test compares the two), so that a value does not depend on which of
them read it. DuckDB reads the files without mistakes; this reads the others, record by record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from resources.support.text_lines import LIMIT, Line

Fields = list[str | None]


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. `nulls` are the texts that stand for NULL, `quoted_nulls` whether in quotes too."""

    delimiter: str
    quote: str
    nulls: frozenset[str]
    quoted_nulls: bool


_UNFINISHED = "a quote is opened but never closed"


class Record(NamedTuple):
    """A record at a line of its file: its fields, or the rule that it breaks and how."""

    line: int
    text: str
    fields: Fields
    rule: str = ""
    problem: str = ""


class _BrokenError(Exception):
    """A record that breaks the grammar."""


def records(lines: Iterator[Line], dialect: Dialect) -> Iterator[Record]:
    """The records of a file; lines without any character are none.

    Of a record whose quotes do not match, only its first line is given up: the next line starts a record.
    """
    ahead = _Ahead(lines)
    for line in ahead:
        text = line.text.removesuffix("\r")
        if line.problem:
            rule = "csv.length" if line.problem.startswith("longer") else "csv.encoding"
            yield Record(line.number, text, [], rule, line.problem)
        elif not dialect.quote or dialect.quote not in text:
            fields = [_unquoted(field, dialect) for field in text.split(dialect.delimiter)]
            yield Record(line.number, text, fields)
        else:
            yield _quoted_record(line, ahead, dialect)


def is_unfinished(record: Record) -> bool:
    """Whether a quote of the record was still open at the end of what was read."""
    return record.problem == _UNFINISHED


class _Ahead:
    """Lines that can be put back."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._back: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._back.popleft() if self._back else next(self._lines)

    def put_back(self, lines: list[Line]) -> None:
        self._back.extendleft(reversed(lines))


def _unquoted(text: str, dialect: Dialect) -> str | None:
    return None if text in dialect.nulls else text


def _quoted_record(line: Line, ahead: _Ahead, dialect: Dialect) -> Record:
    reader = _RecordReader(line, ahead, dialect)
    try:
        fields = reader.fields()
    except _BrokenError as error:
        ahead.put_back(reader.taken[1:])
        return Record(line.number, line.text.removesuffix("\r"), [], "csv.quotes", str(error))
    whole = line.end.join(taken.text for taken in reader.taken)
    return Record(line.number, whole.removesuffix("\r"), fields)


class _RecordReader:
    """Reads one record that has quotes, taking more lines while a quote is open."""

    def __init__(self, line: Line, ahead: _Ahead, dialect: Dialect) -> None:
        self.taken = [line]
        self._ahead, self._dialect = ahead, dialect
        self._held = 0
        self._start(line)

    def _start(self, line: Line) -> None:
        self._text, self._end = line.text, line.end
        self._stop = len(line.text.removesuffix("\r"))

    def fields(self) -> Fields:
        """The fields. Raises _BrokenError where a quote is not closed or is followed by anything but a delimiter."""
        fields: Fields = []
        at = 0
        while True:
            value, at = self._field(at)
            fields.append(value)
            if at == self._stop:
                return fields
            at += 1

    def _field(self, at: int) -> tuple[str | None, int]:
        """The field that starts at `at`, and where it ends: at a delimiter or at the end of the record."""
        opening = min(self._past_spaces(at), at + 1)
        if self._text.startswith(self._dialect.quote, opening):
            return self._quoted(opening + 1)
        end = self._text.find(self._dialect.delimiter, at, self._stop)
        end = self._stop if end < 0 else end
        return _unquoted(self._text[at:end], self._dialect), end

    def _quoted(self, at: int) -> tuple[str | None, int]:
        pieces = []
        while True:
            end = self._text.find(self._dialect.quote, at)
            if end < 0:
                pieces.append(self._text[at:] + self._end)
                at = self._next_line()
                continue
            pieces.append(self._text[at:end])
            after = self._past_spaces(end + 1)
            if not self._text.startswith(self._dialect.quote, after):
                return self._null_or("".join(pieces)), self._closed(after)
            # a quote right after a quote is one; with spaces between, DuckDB leaves both out and goes on
            pieces.append(self._text[end + 1 : after] or self._dialect.quote)
            at = after + 1

    def _null_or(self, value: str) -> str | None:
        return None if self._dialect.quoted_nulls and value in self._dialect.nulls else value

    def _closed(self, at: int) -> int:
        if at < self._stop and self._text[at] != self._dialect.delimiter:
            raise _BrokenError("a closing quote is followed by more text; a quote within a field is written twice")
        return at

    def _past_spaces(self, at: int) -> int:
        while at < self._stop and self._text[at] == " " != self._dialect.delimiter:
            at += 1
        return at

    def _next_line(self) -> int:
        self._held += len(self._text)
        line = next(self._ahead, None)
        if line:
            self.taken.append(line)
        if line is None:
            raise _BrokenError(_UNFINISHED)
        if line.problem or self._held > LIMIT:
            raise _BrokenError("a quote is opened but not closed before text that cannot be read")
        self._start(line)
        return 0

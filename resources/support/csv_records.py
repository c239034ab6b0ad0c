"""The grammar of CSV in Python: slower than DuckDB's reader, but it can go on after a broken record.

It takes a record as DuckDB's strict reader does (a test compares the two), so that a value does not depend on which of
them read it. DuckDB reads the files without mistakes; this reads the others, record by record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import mmap
from typing import NamedTuple

from resources.support.text_lines import LIMIT, Line

Fields = list[str | None]


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. `nulls` are the texts that stand for NULL, `quoted_nulls` whether in quotes too.

    `escape` makes the next character a plain one; empty where a quote within quotes is written twice. A line that
    begins with `comment` is no record.
    """

    delimiter: str
    quote: str
    nulls: frozenset[str]
    quoted_nulls: bool
    escape: str = ""
    comment: str = ""

    @property
    def doubling(self) -> Dialect:
        """The dialect that DuckDB reads every value in: quotes within quotes twice, no escapes, no comments."""
        return replace(self, quote=self.quote or '"' if self.escape else self.quote, escape="", comment="")

    def is_foreign(self, data: bytes | mmap) -> bool:
        """Whether the text, in UTF-8, has a comment, or quotes where DuckDB is not strict about them.

        After a closing quote, it takes the beginning of a delimiter of several bytes for a part of the field.
        """
        comment = self.comment.encode()
        marks = [end + comment for end in (b"\n", b"\r", BOM.encode()) if comment]
        if len(self.delimiter.encode()) > 1 and self.quote:
            marks.append(self.quote.encode())
        begins = bool(comment) and data[: len(comment)] == comment
        return begins or any(data.find(mark) >= 0 for mark in marks)


BOM = "\ufeff"
"""The mark at the beginning of a text file; at the beginning of a line, the beginning of one that was appended."""

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
    """The records of a file, its comments left out; of a line without any character, one with an empty text.

    Of a record whose quotes do not match, only its first line is given up: the next line starts a record.
    """
    ahead = _Ahead(lines)
    special = [mark for mark in (dialect.quote, dialect.escape) if mark]
    for line in ahead:
        text = line.text.strip("\r")
        bare = text.lstrip(BOM)
        if dialect.comment and bare.startswith(dialect.comment):
            continue
        if line.problem:
            rule = "csv.length" if line.problem.startswith("longer") else "csv.encoding"
            yield Record(line.number, text, [], rule, line.problem)
        elif any(mark in bare for mark in special):
            yield _special_record(line, ahead, dialect)
        else:
            yield Record(line.number, text, [_unquoted(field, dialect) for field in bare.split(dialect.delimiter)])


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


def _special_record(line: Line, ahead: _Ahead, dialect: Dialect) -> Record:
    reader = _RecordReader(line, ahead, dialect)
    try:
        fields = reader.fields()
    except _BrokenError as error:
        ahead.put_back(reader.taken[1:])
        return Record(line.number, line.text.strip("\r"), [], "csv.quotes", str(error))
    whole = line.end.join(taken.text for taken in reader.taken)
    return Record(line.number, whole.strip("\r"), fields)


class _RecordReader:
    """Reads one record that has quotes or escapes, taking more lines while a quote is open."""

    def __init__(self, line: Line, ahead: _Ahead, dialect: Dialect) -> None:
        self.taken = [line]
        self._ahead, self._dialect = ahead, dialect
        self._held = 0
        self._start(line._replace(text=line.text.lstrip("\r" + BOM)))

    def _start(self, line: Line) -> None:
        self._text, self._end = line.text, line.end
        self._stop = len(line.text.rstrip("\r"))

    def fields(self) -> Fields:
        """The fields. Raises _BrokenError where a quote is not closed or is followed by anything but a delimiter."""
        fields: Fields = []
        at = 0
        while True:
            value, at = self._field(at)
            fields.append(value)
            if at == self._stop:
                return fields
            at += len(self._dialect.delimiter)

    def _field(self, at: int) -> tuple[str | None, int]:
        """The field that starts at `at`, and where it ends: at a delimiter or at the end of the record."""
        opening = min(self._past_spaces(at), at + 1)
        if self._dialect.quote and self._text.startswith(self._dialect.quote, opening):
            return self._quoted(opening + 1)
        end = self._end_of_plain(at)
        plain = self._text[at:end]
        escape = self._dialect.escape
        # `\N` in such a file stands for NULL; where the author does not say so, it stays as it is
        if not escape or escape not in plain or plain in self._dialect.nulls or plain == f"{escape}N":
            return _unquoted(plain, self._dialect), end
        return self._escaped(at)

    def _end_of_plain(self, at: int) -> int:
        end = self._text.find(self._dialect.delimiter, at, self._stop)
        return self._stop if end < 0 else end

    def _escaped(self, at: int) -> tuple[str, int]:
        """A field without quotes in which escapes stand, perhaps before delimiters or the end of a line."""
        pieces: list[str] = []
        while True:
            end = self._end_of_plain(at)
            escape = self._text.find(self._dialect.escape, at, end)
            if escape < 0:
                return "".join([*pieces, self._text[at:end]]), end
            pieces.append(self._text[at:escape])
            piece, at = self._past_escape(escape)
            pieces.append(piece)

    def _past_escape(self, at: int) -> tuple[str, int]:
        """What the escape at `at` stands for, and where the text goes on."""
        if at + 1 < self._stop:
            return self._text[at + 1], at + 2
        rest = self._text[at + 1 :] + self._end
        return rest, self._next_line()

    def _quoted(self, at: int) -> tuple[str | None, int]:
        pieces = []
        while True:
            end, is_escape = self._end_of_quoted(at)
            if end < 0:
                pieces.append(self._text[at:] + self._end)
                at = self._next_line()
                continue
            pieces.append(self._text[at:end])
            if is_escape:
                piece, at = self._past_escape(end)
                pieces.append(piece)
                continue
            after = self._past_spaces(end + 1)
            if self._dialect.escape or not self._text.startswith(self._dialect.quote, after):
                return self._null_or("".join(pieces)), self._closed(after)
            # a quote right after a quote is one; with spaces between, DuckDB leaves both out and goes on
            pieces.append(self._text[end + 1 : after] or self._dialect.quote)
            at = after + 1

    def _end_of_quoted(self, at: int) -> tuple[int, bool]:
        """Where the next quote or escape stands, -1 for none, and whether it is an escape."""
        quote = self._text.find(self._dialect.quote, at)
        if self._dialect.escape:
            escape = self._text.find(self._dialect.escape, at, quote if quote >= 0 else len(self._text))
            if escape >= 0:
                return escape, True
        return quote, False

    def _null_or(self, value: str) -> str | None:
        return None if self._dialect.quoted_nulls and value in self._dialect.nulls else value

    def _closed(self, at: int) -> int:
        if at < self._stop and not self._text.startswith(self._dialect.delimiter, at):
            raise _BrokenError("a closing quote is followed by more text; a quote within a field is written twice")
        return at

    def _past_spaces(self, at: int) -> int:
        while at < self._stop and self._text[at] == " " and not self._text.startswith(self._dialect.delimiter, at):
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

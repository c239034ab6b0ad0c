"""Takes JSON documents of any size apart into their records, in bounded memory.

A document is an array of records, one record, or several of these in a row; the records may also stand deeper, at a
path of keys. Where they begin and end is found by counting brackets outside of texts, with numpy over a megabyte at a
time. What a record holds is not looked at here: whoever reads it judges it, so one bad record spoils no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from databrokkr_assets.core.errors import DataError, Where, did_you_mean
from resources.support.text_encodings import CHUNK
from resources.support.text_lines import LIMIT, Line, is_clean, marked

DEEPEST = 200
"""How many brackets of one record may be open at once: libraries that read JSON go down as deep, and then fall."""

_BLANK = b" \t\r\n,\xef\xbb\xbf"
# a line end becomes a tab: within a text that is as wrong as a line end, so that whoever reads it refuses both
_FLAT = bytes.maketrans(b"\r\n", b"\t\t")
_QUOTE, _COMMA, _OBJECT, _ARRAY = b'",{['  # as numbers
_CLOSING = {ord("{"): ord("}"), ord("["): ord("]")}
_IS_TOKEN = np.zeros(256, bool)
_IS_TOKEN[list(b'",{}[]')] = True
_STEP = np.zeros(256, np.int8)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1
_KEYS_SHOWN = 30


@dataclass(frozen=True)
class Piece:
    """A piece of a document with the parts of it that belong to records, from `begins` to `ends`.

    `goes_on` tells that the last record is not over; it then begins the next piece.
    """

    data: bytes
    begins: list[int]
    ends: list[int]
    goes_on: bool


@dataclass(frozen=True)
class Document:
    """The documents in a file of UTF-8 text, which errors call `name`; `keys` lead to the records."""

    path: Path
    name: str
    keys: tuple[str, ...] = ()

    def split(self, out: IO[bytes]) -> bool:
        """Write each record into a line. Gives whether none of them is nested too deep to be read.

        Raises DataError when the file ends within a document, or has no records at the path.
        """
        walk = _Walk(self)
        for piece in walk.pieces():
            flat = piece.data.translate(_FLAT)
            parts = [flat[begin:end] for begin, end in zip(piece.begins, piece.ends, strict=True)]
            out.write(b"\n".join(parts))
            if parts and not piece.goes_on:
                out.write(b"\n")
        return walk.deepest <= DEEPEST + len(self.keys) + 1

    def is_deep(self) -> bool:
        """Whether a record is nested too deep to be read."""
        walk = _Walk(self)
        for _ in walk.pieces():
            pass
        return walk.deepest > DEEPEST + len(self.keys) + 1

    def lines(self, wrong: str) -> Iterator[Line]:
        """Each record as it stands in the file, line ends included, with the number of the line that it begins in.

        `wrong` is the problem of those that are not UTF-8.
        """
        line, held = 1, _Held(wrong)
        for piece in _Walk(self).pieces():
            at = 0
            for place, (begin, end) in enumerate(zip(piece.begins, piece.ends, strict=True), 1):
                line += piece.data.count(b"\n", at, begin)
                held.add(piece.data[begin:end], line)
                line += piece.data.count(b"\n", begin, end)
                at = end
                if place < len(piece.ends) or not piece.goes_on:
                    yield held.taken()
            line += piece.data.count(b"\n", at)

    def broken(self, at: int, what: str) -> DataError:
        """The error for a document that cannot be taken apart, because of what is at a byte."""
        with open(self.path, "rb") as stream:
            line = 1 + sum(stream.read(min(CHUNK, at - done)).count(b"\n") for done in range(0, at, CHUNK))
        mend = "export the file again, or move it away; nothing was loaded"
        return DataError(f"is not a whole JSON document: {what}", where=Where(Path(self.name), line), mend=mend)


def has_lines(path: Path) -> bool:
    """Whether the file, in UTF-8, is of JSON lines: its first line that is not empty is an object, so is the next."""
    with open(path, "rb") as stream:
        first, second = islice(chain(filter(None, map(bytes.strip, _some_lines(stream))), (b"", b"")), 2)
    try:
        return second.startswith(b"{") and isinstance(json.loads(first.lstrip(b"\xef\xbb\xbf")), dict)
    except (ValueError, RecursionError):
        return False


def _some_lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(CHUNK):
        yield line


class _Held:
    """The beginning of one record, as much of it as may be."""

    def __init__(self, wrong: str) -> None:
        self._wrong = wrong
        self._parts: list[bytes] = []
        self._size = self._line = 0

    def add(self, part: bytes, line: int) -> None:
        """Take in more of the record; `part` begins in `line`."""
        if not self._size:
            begun = part.lstrip()
            line += part.count(b"\n", 0, len(part) - len(begun))
            self._line, part = line, begun
        self._size += len(part)
        if self._size <= LIMIT + CHUNK:
            self._parts.append(part)

    def taken(self) -> Line:
        """The record, which is over."""
        text = b"".join(self._parts).rstrip()
        long = f"longer than {LIMIT:,} bytes" if self._size > LIMIT - 1024 else None
        found = marked(text[:LIMIT] if long else text)
        line = Line(self._line, found, long or (None if is_clean(found) else self._wrong), "\n")
        self._parts, self._size = [], 0
        return line


class _Cuts:
    """Where records begin and end in one piece."""

    def __init__(self, data: bytes, separators: Any) -> None:
        self.data, self._separators = data, separators
        self.begins: list[int] = []
        self.ends: list[int] = []

    def begin(self, at: int) -> None:
        """A record, or the records of an array, begin."""
        self.begins.append(at)

    def end(self, at: int, *, separated: bool) -> None:
        """They end; those of an array are separated by commas."""
        if separated:
            first, last = np.searchsorted(self._separators, [self.begins[-1], at])
            commas = self._separators[first:last]
            self.ends += commas.tolist()
            self.begins += (commas + 1).tolist()
        self.ends.append(at)


@dataclass
class _Level:
    """A container that is open above the records: its bracket, whether the path leads through it, its present key."""

    bracket: int
    leads: bool
    wants_key: bool
    key: str | None = None


class _Walk:
    """Walks once through a file."""

    def __init__(self, document: Document) -> None:
        self.deepest = 0
        self._document, self._keys = document, document.keys
        self._depth, self._in_text = 0, False
        self._levels: list[_Level] = []
        self._record = 0  # the bracket that records stand in, or that is a record; 0 outside of records
        self._offset = self._begun_at = self._gap_at = self._text_at = 0
        self._text: bytes | None = None
        self._value_at: int | None = None
        self._seen_keys: dict[str, None] = {}
        self._found = False

    def pieces(self) -> Iterator[Piece]:
        """The file in pieces. Raises DataError; see `Document.split`."""
        rest = b""
        with open(self._document.path, "rb") as stream:
            while more := stream.read(CHUNK):
                data = rest + more
                odd = (len(data) - len(data.rstrip(b"\\"))) % 2  # an escape is not torn from what it escapes
                data, rest = data[: len(data) - odd], data[len(data) - odd :]
                yield self._piece(data)
        yield self._piece(rest, last=True)
        self._refuse_unfinished()

    def _refuse_unfinished(self) -> None:
        if self._depth or self._in_text:
            raise self._document.broken(self._begun_at, "it ends before what begins here is closed")
        if self._keys and not self._found:
            path = ".".join(self._keys)
            mend = did_you_mean(path, self._seen_keys) if self._seen_keys else "the document is no object with keys"
            raise DataError(f"has nothing at `records: {path}`", where=Where(Path(self._document.name)), mend=mend)

    # --- one piece ---

    def _piece(self, data: bytes, *, last: bool = False) -> Piece:
        at, kinds, depths = self._tokens(data)
        base = len(self._keys)
        levels = depths - (_STEP.take(kinds) > 0)
        cuts = _Cuts(data, at[(kinds == _COMMA) & (depths == base + 1)])
        self._gap_at = self._text_at = 0
        if self._record:
            cuts.begin(0)
        low = levels <= base
        for place, kind, level in zip(at[low].tolist(), kinds[low].tolist(), levels[low].tolist(), strict=True):
            self._meet(cuts, place, kind, level)
        self._leave(cuts, len(data))
        goes_on = bool(self._record) and not last
        if goes_on and (cuts.begins[-1] or len(cuts.begins) > 1):
            begun = data[cuts.begins[-1] :]
            self._begun_at = self._offset + len(data) - len(begun.lstrip())
        self._offset += len(data)
        return Piece(data, cuts.begins, cuts.ends, goes_on)

    def _tokens(self, data: bytes) -> tuple[Any, Any, Any]:
        """Where brackets, commas and the quotes of keys are, what they are, and how deep the text is after them."""
        if b"\\" in data:
            data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        codes = np.frombuffer(data, np.uint8)
        at = np.flatnonzero(_IS_TOKEN.take(codes))
        kinds = codes.take(at)
        quotes = kinds == _QUOTE
        inside = np.cumsum(quotes, dtype=np.int32) + self._in_text & 1 == 1
        depths = self._depth + np.cumsum(np.where(inside, 0, _STEP.take(kinds)), dtype=np.int32)
        if len(at):
            self._in_text, self._depth = bool(inside[-1]), int(depths[-1])
            self.deepest = max(self.deepest, int(depths.max()))
        wanted = np.where(quotes, (depths > 0) & (depths <= len(self._keys)), ~inside)
        return at[wanted], kinds[wanted], depths[wanted]

    def _meet(self, cuts: _Cuts, at: int, kind: int, level: int) -> None:
        """Take in one token that is not within a record."""
        if self._value_at is not None and kind not in _CLOSING:
            self._refuse_value(cuts.data, at)
        self._value_at = None
        if kind == _QUOTE:
            self._meet_quote(cuts.data, at, level)
        elif kind == _COMMA:
            if self._levels:
                self._levels[-1].wants_key = self._levels[-1].bracket == _OBJECT
        elif kind in _CLOSING:
            self._open(cuts, at, kind, level)
        else:
            self._close(cuts, at, kind, level)

    def _refuse_value(self, data: bytes, at: int) -> None:
        if data[self._value_at : at].strip(_BLANK + b":") != b"null":
            path = ".".join(self._keys)
            raise self._document.broken(self._offset + at, f"what is at `records: {path}` is no array and no object")

    def _meet_quote(self, data: bytes, at: int, level: int) -> None:
        if self._text is None:
            self._text, self._text_at = b"", at + 1
            return
        text, self._text = self._text + data[self._text_at : at], None
        around = self._levels[-1]
        if around.wants_key:
            around.key, around.wants_key = _key(text), False
            if around.leads and len(self._seen_keys) < _KEYS_SHOWN:
                self._seen_keys[".".join([*self._keys[: level - 1], around.key])] = None
            if level == len(self._keys) and around.leads and around.key == self._keys[-1]:
                self._found, self._value_at = True, at + 1

    def _open(self, cuts: _Cuts, at: int, kind: int, level: int) -> None:
        if level == 0:
            self._end_gap(cuts, at)
            self._begun_at = self._offset + at
        around = self._levels[-1] if self._levels else None
        leads = around is None or (around.leads and around.key == self._keys[level - 1])
        if level < len(self._keys):
            self._levels.append(_Level(kind, leads, wants_key=kind == _OBJECT))
        elif leads:
            self._record = kind
            cuts.begin(at + (kind == _ARRAY))

    def _close(self, cuts: _Cuts, at: int, kind: int, level: int) -> None:
        opened = self._levels.pop().bracket if 0 <= level < len(self._keys) else self._record
        if level < 0 or (opened and _CLOSING[opened] != kind):
            raise self._document.broken(self._offset + at, f"there is a `{chr(kind)}` too many")
        if level == len(self._keys) and self._record:
            is_array = self._record == _ARRAY
            cuts.end(at + (not is_array), separated=is_array)
            self._record = 0
        self._gap_at = at + 1

    def _end_gap(self, cuts: _Cuts, at: int) -> None:
        """What stands between documents is a record that cannot be read."""
        if not self._keys and cuts.data[self._gap_at : at].strip(_BLANK):
            cuts.begin(self._gap_at)
            cuts.end(at, separated=False)

    def _leave(self, cuts: _Cuts, end: int) -> None:
        """The piece ends, perhaps within a record, a key, or something between documents."""
        if self._record:
            cuts.end(end, separated=self._record == _ARRAY)
        elif not self._depth:
            self._end_gap(cuts, end)
        if self._text is not None:
            self._text += cuts.data[self._text_at : end]
        self._value_at = None


def _key(text: bytes) -> str:
    try:
        return str(json.loads(b'"' + text + b'"'))
    except ValueError:
        return text.decode("utf-8", "replace")

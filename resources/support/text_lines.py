"""Reads a text file line by line in bounded memory, whatever bytes are in it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from resources.support.text_encodings import CHUNK, is_utf8, wrong_bytes

LIMIT = 1 << 23
"""The longest line, in characters; with the quotes of a CSV record, in bytes of UTF-8."""

_MARK = 0xDC00  # lone surrogates: no valid text decodes to them
_MARKS = re.compile("[\udc00-\udcff]")


class Line(NamedTuple):
    """One physical line without its `end`; `problem` tells what is wrong with its bytes or its length."""

    number: int
    text: str
    problem: str | None
    end: str


def repaired(text: str) -> str:
    """Text with every byte that could not be decoded written as `\\xNN`."""
    return _MARKS.sub(lambda mark: f"\\x{ord(mark[0]) - _MARK:02x}", text)


def decoded(path: Path, encoding: str) -> Iterator[str]:
    """A file's text in pieces; bytes that cannot be decoded become marks, which `is_clean` finds."""
    codecs.register_error("databrokkr-mark", _mark)
    codec = "utf-8-sig" if is_utf8(encoding) else encoding
    decoder = codecs.getincrementaldecoder(codec)("databrokkr-mark")
    with open(path, "rb") as stream:
        while piece := stream.read(CHUNK):
            yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def transcoded(text: str) -> bytes:
    """Text in UTF-8; marks stay what they are, so that `lines_of` finds them again."""
    return text.encode("utf-8", "surrogatepass")


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), "marks are for reading"
    wrong = error.object[error.start : error.start + 3]
    if len(wrong) == 3 and wrong[0] == 0xED and 0xB0 <= wrong[1] <= 0xB3 and error.encoding == "utf-8":
        return wrong.decode("utf-8", "surrogatepass"), error.start + 3
    return "".join(chr(_MARK + byte) for byte in error.object[error.start : error.end]), error.end


def marked(data: bytes) -> str:
    """Bytes as UTF-8; those that are not become marks, as in `decoded`."""
    codecs.register_error("databrokkr-mark", _mark)
    return data.decode("utf-8", "databrokkr-mark")


def is_clean(text: str) -> bool:
    """Whether every byte of the text could be decoded."""
    return text.isascii() or not _MARKS.search(text)


def lines(path: Path, encoding: str) -> Iterator[Line]:
    """The physical lines of a file, numbered from 1. Only a carriage return that ends a line is part of its end.

    Of a line longer than `LIMIT` the beginning is given.
    """
    wrong = cache(lambda: wrong_bytes(path, encoding))
    end, number, rest, skipping = "", 0, "", False
    for text in decoded(path, encoding):
        end = end or end_of_lines(text)[-1:]
        clean = is_clean(text) and is_clean(rest)
        *whole, rest = (rest + text).split(end or "\n")
        for line in whole:
            number += 1
            if not skipping:
                yield Line(number, line, None if clean or is_clean(line) else wrong(), end)
            skipping = False
        if len(rest) > LIMIT:
            if not skipping:
                yield Line(number + 1, rest[:LIMIT], f"longer than {LIMIT:,} characters", end)
            rest, skipping = "", True
    if rest and not skipping:
        yield Line(number + 1, rest, None if is_clean(rest) else wrong(), end)


def lines_of(data: bytes, first: int, wrong: str) -> Iterator[Line]:
    """The lines of a block of UTF-8 whose first has the number `first`; `wrong` is the problem of those that are not.

    An end at its end starts no line.
    """
    whole = marked(data).split("\n")
    for number, line in enumerate(whole if whole[-1] else whole[:-1], start=first):
        problem = None if is_clean(line) else wrong
        if len(line) > LIMIT - 1024 and len(transcoded(line)) > LIMIT - 1024:
            line, problem = line[:LIMIT], f"longer than {LIMIT:,} bytes"
        yield Line(number, line, problem, "\n")


def end_of_lines(text: str) -> str:
    """What ends the lines of a text, by the first end: LF, CR LF, in old files CR; nothing where there is no end.

    Where both are, LF ends the lines.
    """
    first = re.search("\r?\n", text) or re.search("\r", text)
    return first[0] if first else ""

"""Reads a text file line by line in bounded memory, whatever bytes are in it, and tells what is no text at all."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from databrokkr_assets.core.errors import DataError, Where

SAMPLE = 1 << 16
"""How many bytes of a file are looked at to tell what it is."""

LIMIT = 1 << 23
"""The longest line, in characters; with the quotes of a CSV record, in bytes of UTF-8."""

_CHUNK = 1 << 20
_MARK = 0xDC00  # lone surrogates: no valid text decodes to them
_MARKS = re.compile("[\udc00-\udcff]")
_MAGIC = {
    b"\x1f\x8b": "a gzip file; say `compression: gzip`",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; say `compression: zstd`",
    b"PAR1": "a Parquet file; say `format: parquet`",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; export it as CSV",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"\x89PNG": "a picture",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; export it as CSV",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
}
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Line(NamedTuple):
    """One physical line without its `end`; `problem` tells what is wrong with its bytes or its length."""

    number: int
    text: str
    problem: str | None
    end: str


def is_utf8(encoding: str) -> bool:
    """Whether DuckDB reads this encoding as it is."""
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}


def repaired(text: str) -> str:
    """Text with every byte that could not be decoded written as `\\xNN`."""
    return _MARKS.sub(lambda mark: f"\\x{ord(mark[0]) - _MARK:02x}", text)


def decoded(path: Path, encoding: str) -> Iterator[str]:
    """A file's text in pieces; bytes that cannot be decoded become marks, which `is_clean` finds."""
    codecs.register_error("databrokkr-mark", _mark)
    codec = "utf-8-sig" if is_utf8(encoding) else encoding
    decoder = codecs.getincrementaldecoder(codec)("databrokkr-mark")
    with open(path, "rb") as stream:
        while piece := stream.read(_CHUNK):
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
    codecs.register_error("databrokkr-mark", _mark)
    text = data.decode("utf-8", "databrokkr-mark")
    whole = text.split("\n")
    for number, line in enumerate(whole if whole[-1] else whole[:-1], start=first):
        problem = None if is_clean(line) else wrong
        if len(line) > LIMIT - 1024 and len(transcoded(line)) > LIMIT - 1024:
            line, problem = line[:LIMIT], f"longer than {LIMIT:,} bytes"
        yield Line(number, line, problem, "\n")


def end_of_lines(text: str) -> str:
    """What ends the lines of a text, by the first end: LF, CR LF, in old files CR; nothing where there is no end."""
    first = re.search("\r\n?|\n", text)
    return first[0] if first else ""


def refuse_binary(path: Path, name: str, encoding: str) -> None:
    """Raises DataError for a file that is not text in this encoding at all, saying what it looks like."""
    with open(path, "rb") as stream:
        sample = stream.read(SAMPLE)
    where = Where(Path(name))
    guess = _wide_encoding(sample)
    if guess and is_utf8(encoding):
        raise DataError(f"is {guess}, not {encoding}", where=where, mend=f"say `encoding: {guess}`")
    known = next((what for magic, what in _MAGIC.items() if sample.startswith(magic)), None)
    if known or (not guess and _is_binary(sample)):
        what = known or "binary data"
        raise DataError(
            f"is no text; it looks like {what.split(';')[0]}",
            where=where,
            mend=what.partition("; ")[2] or "export it as text, or move it away; nothing was loaded",
        )


def _is_binary(sample: bytes) -> bool:
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1a" for byte in sample)
    return control > 16 and control > len(sample) / 10


def _wide_encoding(sample: bytes) -> str | None:
    """UTF-16 or UTF-32, by its mark or by the zeros between the letters."""
    marked = next((encoding for bom, encoding in _BOMS.items() if sample.startswith(bom)), None)
    half = max(len(sample) // 2, 1)
    if not marked and sample[1::2].count(0) > half * 0.4 and sample[::2].count(0) < half * 0.1:
        return "utf-16-le"
    if not marked and sample[::2].count(0) > half * 0.4 and sample[1::2].count(0) < half * 0.1:
        return "utf-16-be"
    return marked


def wrong_bytes(path: Path, encoding: str) -> str:
    """What is to be said of a line of the file that is not in its encoding."""
    with open(path, "rb") as stream:
        sample = stream.read(SAMPLE)
    if not is_utf8(encoding):
        guess = "utf-8" if _decodes(sample, "utf-8") else None
    else:  # an old Windows file, unless other letters of it are proper UTF-8
        guess = "cp1252" if _decodes(sample, "cp1252") and sample.decode("utf-8", "ignore").isascii() else None
    hint = f"; the file looks like {guess}, so perhaps say `encoding: {guess}`" if guess else ""
    return f"not valid {encoding}{hint}"


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return not sample.isascii()

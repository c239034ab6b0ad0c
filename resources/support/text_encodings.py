"""Finds out the encoding of a text file: by its mark, by being UTF-8 to the end, or by a guess that fits all of it."""

from __future__ import annotations

import codecs
from pathlib import Path

from databrokkr_assets.core.errors import DataError, Where

SAMPLE = 1 << 16
"""How many bytes of a file are looked at to tell what it is."""

CHUNK = 1 << 20
"""How much of a file is read at once."""

AUTO = "auto"
"""What an author says for an encoding that is to be found out."""

# The encodings that are guessed. Most Western and Central European pages share their bytes, and no guess tells them
# apart on a few words, so the most common one, which is first here, stands for them.
_KNOWN = ["cp1252", "cp1250", "cp1254", "cp1257", "cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256", "cp874"]
_KNOWN += ["shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
_LATIN = set(_KNOWN[:4])

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


def is_utf8(encoding: str) -> bool:
    """Whether DuckDB reads this encoding as it is."""
    return codecs.lookup(encoding).name in {"utf-8", "utf-8-sig", "ascii"}


def encoding_of(path: Path, name: str, encoding: str) -> str:
    """The encoding of the file, which errors call `name`: `encoding`, or the one found where that is `auto`.

    Raises DataError for a file that is no text, and for one that is in no encoding that is known here.
    """
    if encoding != AUTO:
        refuse_binary(path, name, encoding)
        return encoding
    with open(path, "rb") as stream:
        marked = marked_encoding(stream.read(SAMPLE))
    refuse_binary(path, name, marked or "utf-8")
    if marked or fits(path, "utf-8"):
        return marked or "utf-8"
    found = guessed(path)
    if not found:
        raise DataError("is in no encoding that is known here", where=Where(Path(name)), mend="say its `encoding`")
    return found


def guessed(path: Path) -> str | None:
    """The most likely encoding of a file that is not in UTF-8, which all of it fits; `None` where there is none."""
    from charset_normalizer import from_bytes

    sample = _telling(path)
    if not sample:
        return None
    found = [match.encoding for match in from_bytes(sample, cp_isolation=_KNOWN)]
    best = found if found and found[0] not in _LATIN else [_KNOWN[0], *found]
    return next((encoding for encoding in [*best, _KNOWN[0]] if fits(path, encoding)), None)


def fits(path: Path, encoding: str) -> bool:
    """Whether every byte of the file is in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(CHUNK):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _telling(path: Path) -> bytes:
    """Lines of the file that are not plain ASCII, as many as a guess needs."""
    found: list[bytes] = []
    size = 0
    with open(path, "rb") as stream:
        while size < SAMPLE and (piece := stream.read(CHUNK)):
            if piece.isascii():
                continue
            for line in piece.splitlines(keepends=True):
                if size < SAMPLE and not line.isascii():
                    found.append(line[:SAMPLE])
                    size += len(found[-1])
    return b"".join(found)


def refuse_binary(path: Path, name: str, encoding: str) -> None:
    """Raises DataError for a file that is not text in this encoding at all, saying what it looks like."""
    with open(path, "rb") as stream:
        sample = stream.read(SAMPLE)
    where = Where(Path(name))
    guess = marked_encoding(sample)
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


def marked_encoding(sample: bytes) -> str | None:
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
    if not is_utf8(encoding):
        guess = "utf-8" if fits(path, "utf-8") else None
    else:
        guess = None if _has_utf8(path) else guessed(path)
    hint = f"; the file looks like {guess}, so perhaps say `encoding: {guess}`" if guess else ""
    return f"not valid {encoding}{hint}"


def _has_utf8(path: Path) -> bool:
    """Whether letters of the file are proper UTF-8, so that other bytes are mistakes and no other encoding."""
    with open(path, "rb") as stream:
        sample = stream.read(SAMPLE)
    return not sample.decode("utf-8", "ignore").isascii()

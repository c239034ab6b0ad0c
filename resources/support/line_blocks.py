"""The lines of a text file as Arrow arrays, many at a time, with what is no line of text set aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from databrokkr_assets.core.ports import Reject
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.text_encodings import encoding_of, is_utf8, wrong_bytes
from resources.support.text_lines import LIMIT, decoded, end_of_lines, lines_of, repaired

_BLOCK = 1 << 22
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """Some lines that follow each other: their numbers in the file, counted from 1, and their texts without ends."""

    numbers: pa.Int64Array
    texts: pa.StringArray


class LineBlocks:
    """The lines of one file. A line that is not in its encoding, or too long, goes to `rejects` as `rule`."""

    def __init__(self, reading: Reading, file: FoundFile, rule: str, rejects: RejectSpool) -> None:
        self._name, self._rule, self._rejects = file.key, rule, rejects
        self._plain = reading.plain(file)
        self._encoding = encoding_of(self._plain, file.key, reading.settings.encoding)
        self._path = self._plain
        if not is_utf8(self._encoding):
            self._path, _ = reading.work.transcoded(self._plain, self._encoding, ".lines")
        self._number = 1

    def __iter__(self) -> Iterator[Lines]:
        """Raises DataError for a file that is no text."""
        rest, skipping = b"", False
        with open(self._path, "rb") as stream:
            stream.seek(len(_BOM) if stream.read(len(_BOM)) == _BOM else 0)
            while piece := stream.read(_BLOCK):
                end = piece.rfind(self._end) + 1
                if skipping:  # the rest of a line that was given up
                    cut = piece.find(self._end) + 1
                    if not cut:
                        continue
                    piece, end, skipping = piece[cut:], max(end - cut, 0), False
                data, rest = rest + piece[:end] if end else b"", piece[end:] if end else rest + piece
                if data:
                    yield self._lines(data)
                if len(rest) > LIMIT:
                    self._give_up(rest)
                    rest, skipping = b"", True
        if rest:
            yield self._lines(rest + self._end)

    @cached_property
    def _end(self) -> bytes:
        """The last byte of what ends the lines: LF, in old files CR."""
        beginning = next(decoded(self._plain, self._encoding))
        return end_of_lines(beginning)[-1:].encode() or b"\n"

    @cached_property
    def _wrong(self) -> str:
        return wrong_bytes(self._plain, self._encoding)

    def _lines(self, data: bytes) -> Lines:
        """The lines in whole lines of bytes, all at once where they are valid and none is too long."""
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == self._end[0])
        starts = np.concatenate([[0], ends[:-1] + 1])
        first, self._number = self._number, self._number + len(ends)
        if int((ends - starts).max()) <= LIMIT:
            try:
                return Lines(pa.array(np.arange(first, self._number)), _texts(data, ends))
            except pa.ArrowInvalid:
                pass
        return self._sorted(data.replace(self._end, b"\n"), first)

    def _sorted(self, data: bytes, first: int) -> Lines:
        numbers, texts = [], []
        for line in lines_of(data, first, self._wrong):
            if line.problem:
                rule = "length" if len(line.text) >= LIMIT else "encoding"
                self._reject(line.number, line.text, line.problem, rule)
            else:
                numbers.append(line.number)
                texts.append(line.text.removesuffix("\r"))
        return Lines(pa.array(numbers, pa.int64()), pa.array(texts, pa.string()))

    def _give_up(self, beginning: bytes) -> None:
        text = beginning[:LIMIT].decode("utf-8", "replace")
        self._reject(self._number, text, f"longer than {LIMIT:,} bytes", "length")
        self._number += 1

    def _reject(self, number: int, text: str, problem: str, rule: str) -> None:
        self._rejects.add(Reject(problem, f"{self._rule}.{rule}", f"{self._name}:{number}", repaired(text)))


def _texts(data: bytes, ends: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.StringArray:
    """Raises pa.ArrowInvalid where the bytes are not UTF-8."""
    offsets = np.concatenate([[0], ends + 1]).astype(np.int32)
    whole = pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    lines = pc.binary_slice(whole, 0, -1)
    if b"\r" in data:
        lines = pc.if_else(pc.ends_with(lines, b"\r"), pc.binary_slice(lines, 0, -1), lines)
    return lines.cast(pa.string())

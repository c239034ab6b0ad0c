"""Unpacks compressed files in pieces, and stops where one becomes more than a file may."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from databrokkr_assets.core.errors import DataError

_CHUNK = 1 << 20
_HARMLESS = 64_000_000
"""Bytes below which the ratio says nothing: a small file of one letter is no bomb."""


@dataclass
class Meter:
    """Counts what comes out of one packed file of `packed` bytes."""

    name: str
    packed: int
    most: int
    ratio: int
    unpacked: int = 0

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises DataError when they are beyond a limit, which it names."""
        self.unpacked += size
        if self.unpacked > self.most:
            raise self._beyond(f"more than {self.most // 1_000_000:,} MB", "unpacked_mb")
        if self.unpacked > max(_HARMLESS, self.packed * self.ratio):
            raise self._beyond(f"more than {self.ratio:,} times its size", "ratio")

    def _beyond(self, what: str, limit: str) -> DataError:
        mend = f"move it away; nothing was loaded. If you trust it, raise `limits: {{{limit}: …}}`"
        return DataError(f"becomes {what} when it is unpacked", where=self.name, mend=mend)


def pieces(stream: Any, meter: Meter, packing: str) -> Iterator[bytes]:
    """The bytes of an unpacking stream. Raises DataError for a damaged file, and beyond the limits."""
    while True:
        try:
            piece = bytes(stream.read(_CHUNK))
        except (EOFError, OSError, ValueError, zlib.error) as error:
            raise DataError(
                f"is not a whole {packing} file: {error}",
                where=meter.name,
                mend="copy or export the file again, or move it away; nothing was loaded",
            ) from error
        if not piece:
            return
        meter.take(len(piece))
        yield piece


@contextmanager
def unpacker(packed: IO[bytes], packing: str) -> Iterator[Any]:
    """A stream of the unpacked bytes of `gzip`, `bz2` or `zstd`."""
    if packing == "gzip":
        with gzip.GzipFile(fileobj=packed) as stream:
            yield stream
    elif packing == "bz2":
        with bz2.BZ2File(packed) as stream:
            yield stream
    else:
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(packed), "zstd") as stream:
            yield stream

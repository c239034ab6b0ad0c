"""A folder for the temporary files of one load, and the unpacking of compressed files into it."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from databrokkr_assets.core.errors import AccessError, DataError
from resources.support.found_files import FoundFile, free_name, opened
from resources.support.text_lines import decoded, is_clean, transcoded

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CHUNK = 1 << 20


class WorkFolder:
    """Temporary files beside DuckDB's spill files. They go when this object does, or with the engine's spill folder."""

    def __init__(self, duck: DuckDBPyConnection) -> None:
        row = duck.execute("SELECT current_setting('temp_directory')").fetchone()
        spill = Path(row[0]) if row and row[0] else None
        inside = spill if spill and spill.is_dir() else None
        self.path = Path(tempfile.mkdtemp(prefix="files-", dir=inside))
        self._count = 0
        # not TemporaryDirectory: it warns when it goes without having been closed, and a query outlives any `with`
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def new(self, suffix: str) -> Path:
        """A path that nothing stands at yet."""
        self._count += 1
        return self.path / f"{self._count:06d}{suffix}"

    def plain(self, file: FoundFile, packing: str | None) -> Path:
        """The file as DuckDB may read it: unpacked, and under a name that is not a glob.

        Raises DataError for a damaged archive. It is unpacked here because DuckDB takes half of a gzip file for a whole
        one, and because a plain file is read on all cores.
        """
        packing = packing or file.packing
        if packing:
            return self._unpacked(file, packing)
        with opened(file):
            pass  # DuckDB would report a missing right as a file that does not exist
        return file.path if free_name(file.path) else self._linked(file)

    def _linked(self, file: FoundFile) -> Path:
        link = self.new(file.path.suffix)
        link.symlink_to(file.path.absolute())
        return link

    def _unpacked(self, file: FoundFile, packing: str) -> Path:
        target = self.new(Path(file.path.stem).suffix or ".unpacked")
        with opened(file) as packed, _unpacker(packed, packing) as stream, self.writing(target) as out:
            while piece := _read(stream, file, packing):
                out.write(piece)
        return target

    def transcoded(self, plain: Path, encoding: str, suffix: str) -> tuple[Path, bool]:
        """A text file in UTF-8, and whether all its bytes were in its encoding.

        DuckDB knows three encodings, and reads nothing of some UTF-16 files without saying so.
        """
        path, clean = self.new(suffix), True
        with self.writing(path) as out:
            for text in decoded(plain, encoding):
                clean = clean and is_clean(text)
                out.write(transcoded(text))
        return path, clean

    @contextmanager
    def writing(self, target: Path) -> Iterator[IO[bytes]]:
        """`target`, open for writing. Raises AccessError when the disk is full."""
        try:
            with open(target, "wb") as out:
                yield out
        except OSError as error:
            what = f"cannot write the temporary file {target}: {error.strerror}"
            raise AccessError(what, mend="free disk space there, or set TMPDIR to a larger disk") from error


def _unpacker(packed: IO[bytes], packing: str) -> Any:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=packed)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(packed), "zstd")


def _read(stream: Any, file: FoundFile, packing: str) -> bytes:
    try:
        return bytes(stream.read(_CHUNK))
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"is not a whole {packing} file: {error}",
            where=str(file.path),
            mend="copy or export the file again, or move it away; nothing was loaded",
        ) from error

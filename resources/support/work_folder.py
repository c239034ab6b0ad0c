"""A folder for the temporary files of one load, and the unpacking of compressed files into it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from databrokkr_assets.core.errors import AccessError
from resources.support.file_settings import Limits
from resources.support.found_files import FoundFile, free_name, opened
from resources.support.text_lines import decoded, is_clean, transcoded
from resources.support.unpacking import Meter, pieces, unpacker

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class WorkFolder:
    """Temporary files beside DuckDB's spill files. They go when this object does, or with the engine's spill folder."""

    def __init__(self, duck: DuckDBPyConnection, limits: Limits) -> None:
        self.limits = limits
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

        Raises DataError for a damaged file, or one that becomes too much. It is unpacked here because DuckDB takes half
        of a gzip file for a whole one, and because a plain file is read on all cores.
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
        meter = Meter(file.key, file.size, self.limits.unpacked_mb * 1_000_000, self.limits.ratio)
        with opened(file) as packed, unpacker(packed, packing) as stream, self.writing(target) as out:
            for piece in pieces(stream, meter, packing):
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

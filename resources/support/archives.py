"""Takes archives apart: each file in one that is asked for becomes a file of its own, called `archive.zip!name`.

Beyond telling what is an archive, all of it happens in the child process: the table of an archive may be as hostile as
what it holds. Files get names of ours, so that none is ever written where the archive says.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from databrokkr_assets.core.errors import DataError
from resources.support.file_formats import ARCHIVES, FORMATS, FormatName, format_of
from resources.support.found_files import FoundFile, opened
from resources.support.unpacking import Meter, pieces, unpacker

if TYPE_CHECKING:
    from resources.support.child import Child
    from resources.support.file_settings import FileSettings
    from resources.support.work_folder import WorkFolder

_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bz2", b"\x28\xb5": "zstd"}
_BLOCK = 512
_MOVE_IT = "make the archive again, or move it away; nothing was loaded"


def taken_apart(
    files: Iterable[FoundFile], settings: FileSettings, work: WorkFolder, child: Child
) -> Iterator[FoundFile]:
    """The files, and in the place of an archive the files in it that are asked for, in its order.

    Raises DataError for an archive that is damaged, encrypted or goes beyond a limit, that holds links or devices or
    names a place outside itself, and for one in which nothing is asked for.
    """
    for file in files:
        packing = settings.compression or file.packing
        if packing not in ARCHIVES:
            yield file
            continue
        with opened(file):
            pass  # a missing right is to be told as such
        folder = work.new(".archive")
        folder.mkdir()
        found = child.call(
            "archives:take_apart",
            file.key,
            archive=str(file.path.absolute()),
            packing=packing,
            folder=str(folder),
            wanted={"pattern": settings.members, "format": settings.format},
            limits=settings.limits.model_dump(),
        )
        for name, path in found:
            now = Path(path).stat()
            yield replace(file, path=Path(path), key=f"{file.key}!{name}", size=now.st_size, mtime_ns=now.st_mtime_ns)


# --- in the child ---


@dataclass(frozen=True)
class _Member:
    """What an archive holds under one name; `problem` says why it cannot be taken."""

    name: str
    is_file: bool
    problem: str | None
    open: Callable[[], IO[bytes] | None]


@dataclass(frozen=True)
class _Wanted:
    """Which members are read: those that the pattern names, or those whose extension tells the format."""

    pattern: str | None
    format: FormatName | None

    def __contains__(self, name: str) -> bool:
        path = PurePosixPath(name)
        if self.pattern:
            return fnmatchcase(name, self.pattern) or fnmatchcase(path.name, self.pattern)
        if any(part.startswith((".", "_")) for part in path.parts):
            return False
        if self.format and not FORMATS[self.format].extensions:
            return True
        form = format_of(Path(name))
        return form is not None and self.format in (None, form)


def take_apart(
    archive: str, packing: str, folder: str, wanted: dict[str, Any], limits: dict[str, int]
) -> list[tuple[str, str]]:
    """Unpack the wanted files of an archive into the folder; gives their names with where they are."""
    path = Path(archive)
    taken: dict[str, Path] = {}
    names: list[str] = []
    meter = Meter("", path.stat().st_size, limits["unpacked_mb"] * 1_000_000, limits["ratio"])
    with _damages(packing), (_of_zip if packing == "zip" else _of_tar)(path, meter) as members:
        for member in members:
            names.append(member.name)
            _refuse(member, names, limits["members"])
            if member.is_file and member.name in _Wanted(**wanted):
                if member.name in taken:
                    raise DataError(f"holds {member.name} twice", mend=_MOVE_IT)
                taken[member.name] = _unpacked(member, Path(folder) / f"{len(taken):06d}", meter)
    if not taken:
        holds = f"it holds {', '.join(names[:5])}" + (" …" if len(names) > 5 else "") if names else "it is empty"
        mend = "name the files to read by `members`, such as `*.txt`, and their `format`"
        raise DataError(f"holds no file to read; {holds}", mend=mend)
    return [(name, str(unpacked)) for name, unpacked in taken.items()]


def _refuse(member: _Member, names: list[str], most: int) -> None:
    if len(names) > most:
        mend = "move it away; nothing was loaded. If you trust it, raise `limits: {members: …}`"
        raise DataError(f"holds more than {most:,} files", mend=mend)
    parts = member.name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":") or not member.name.isprintable():
        raise DataError(f"names a place outside itself: {member.name!r}", mend=_MOVE_IT)
    if member.problem:
        raise DataError(f"{member.name} {member.problem}", mend=_MOVE_IT)


def _unpacked(member: _Member, target: Path, meter: Meter) -> Path:
    """The member's bytes under a name of ours that keeps the extension."""
    suffixes = [suffix for suffix in PurePosixPath(member.name).suffixes[-2:] if suffix[1:].isalnum()]
    target = target.with_name(target.name + "".join(suffixes))
    stream = member.open()
    assert stream, "only files are opened"
    with stream, open(target, "wb") as out:
        for piece in pieces(stream, meter, "archived"):
            out.write(piece)
    return target


@contextmanager
def _damages(packing: str) -> Iterator[None]:
    """What the libraries say of a damaged archive, as one error of ours."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, zlib.error) as error:
        raise DataError(f"is not a whole {packing} archive: {error}", mend=_MOVE_IT) from error


@contextmanager
def _of_zip(path: Path, meter: Meter) -> Iterator[Iterator[_Member]]:
    with zipfile.ZipFile(path) as archive:
        yield (_zipped(archive, info) for info in archive.infolist())


def _zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    problem = None
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        problem = "is a link or a device, which is not followed"
    elif info.flag_bits & 1:
        problem = "is encrypted, and there is no password for archives"
    return _Member(info.orig_filename, not info.is_dir(), problem, lambda: archive.open(info))


@contextmanager
def _of_tar(path: Path, meter: Meter) -> Iterator[Iterator[_Member]]:
    with open(path, "rb") as raw:
        packing = _MAGIC.get(raw.read(2))
        raw.seek(0)
        if packing is None:
            yield _tarred(_Whole(raw, None))
        else:
            with unpacker(raw, packing) as stream:
                yield _tarred(_Whole(stream, meter))


class _Whole:
    """A stream that counts its bytes, and knows at its end whether an archive ended there: with an empty block."""

    def __init__(self, stream: Any, meter: Meter | None) -> None:
        self._stream, self._meter = stream, meter
        self._last = b""

    def read(self, size: int) -> bytes:
        piece = bytes(self._stream.read(size))
        if self._meter:
            self._meter.take(len(piece))
        self._last = (self._last + piece)[-_BLOCK:]
        return piece

    def refuse_half(self) -> None:
        """tarfile takes an archive that was cut off between two files for a whole one."""
        while self.read(1 << 20):
            pass
        if self._last != bytes(_BLOCK):
            raise EOFError("its end is missing")


def _tarred(stream: _Whole) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        while info := archive.next():
            problem = None
            if not (info.isreg() or info.isdir()) or info.issparse():
                problem = "is a link, a device or a sparse file, which is not followed"
            yield _Member(info.name, info.isreg(), problem, lambda info=info: archive.extractfile(info))  # type: ignore[misc]
    stream.refuse_half()

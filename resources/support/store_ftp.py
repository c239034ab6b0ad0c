"""Files on a server that speaks FTP, with or without TLS.

A control connection carries one transfer at a time, so each thread that asks borrows one, and up to as many stand as
files are brought at once. Where a server tells us to fetch data from another host, ftplib stays with the server.
"""

from __future__ import annotations

import ftplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, Unavailable
from resources.support.found_files import FoundFile, vanished
from resources.support.retry import retried
from resources.support.store_folders import Folder
from resources.support.store_uploads import TRIES, UploadStore
from resources.support.stores import Broken, mark

_BLOCK = 1 << 18
_UNKNOWN = {"500", "501", "502", "504"}
_NOT_THERE = "550"


class SecureFtp(ftplib.FTP_TLS):
    """FTP over TLS whose data connections go on in the control connection's session, as many servers want."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Open a data connection."""
        data, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.context.wrap_socket(data, server_hostname=self.host, session=self.sock.session), size


@dataclass
class FtpStore(UploadStore):
    """A folder of a server. `login` gives a connection that is logged in."""

    connection: str
    where: str
    root: str
    login: Callable[[], ftplib.FTP]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[ftplib.FTP] = []
        self._lists_facts = True

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        with self._lock:
            idle, self._idle = self._idle, []
        for ftp in idle:
            with suppress(ftplib.Error, OSError, EOFError):
                ftp.quit()
            ftp.close()

    def look(self, path: str) -> FoundFile | None:
        """The file at a path, by its size and time."""
        with self._borrowed(f"look for {path}") as ftp:
            return _asked(ftp, path, self._at(path))

    def children(self, folder: str) -> Iterator[FoundFile | Folder]:
        """One level, held as a whole. Servers without `MLSD` are asked for each name's size and time."""
        with self._borrowed(f"list {folder or 'the top folder'}") as ftp:
            yield from self._listed(ftp, folder)

    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The bytes, if the file has the same size and time before and after."""
        with self._borrowed(f"read {file.key}") as ftp:
            try:
                yield from _received(ftp, f"RETR {self._at(file.key)}")
            except ftplib.error_perm as error:
                if _asked(ftp, file.key, self._at(file.key)) is None:
                    raise vanished([file]) from error
                raise
            after = _asked(ftp, file.key, self._at(file.key))
        if after is None or mark(after) != mark(file):
            raise vanished([file])

    def delete(self, path: str) -> None:
        """Remove a file."""
        with self._borrowed(f"delete {path}") as ftp:
            try:
                ftp.delete(self._at(path))
            except ftplib.error_perm:
                if _asked(ftp, path, self._at(path)):
                    raise

    def _upload(self, stream: BinaryIO, hidden: str, path: str) -> str:
        with self._borrowed(f"write {path}") as ftp:
            _make_folders(ftp, self._at(path))
            try:
                ftp.storbinary(f"STOR {self._at(hidden)}", stream, _BLOCK)
                written = _asked(ftp, path, self._at(hidden))
                ftp.rename(self._at(hidden), self._at(path))
            except BaseException:
                with suppress(ftplib.Error, OSError, EOFError):
                    ftp.delete(self._at(hidden))
                raise
        return mark(written) if written else ""

    def _listed(self, ftp: ftplib.FTP, folder: str) -> Iterator[FoundFile | Folder]:
        try:
            if self._lists_facts:
                yield from (child for name, facts in ftp.mlsd(self._at(folder)) for child in _told(folder, name, facts))
                return
        except ftplib.error_perm as error:
            if str(error)[:3] not in _UNKNOWN:
                self._require_root(folder, error)
                return
            self._lists_facts = False
        try:
            names = ftp.nlst(self._at(folder))
        except ftplib.error_perm as error:
            self._require_root(folder, error)
            return
        for name in names:
            key = f"{folder}/{PurePosixPath(name).name}".lstrip("/")
            yield _asked(ftp, key, self._at(key)) or Folder(key)

    def _require_root(self, folder: str, error: ftplib.error_perm) -> None:
        """A folder that is not there holds nothing, but the connection's own must be."""
        if folder and str(error).startswith(_NOT_THERE):
            return
        raise error

    def _at(self, path: str) -> str:
        if "\r" in path or "\n" in path:
            raise ftplib.error_perm(f"{_NOT_THERE} a name cannot have line ends")
        return "/".join(filter(None, [self.root.rstrip("/"), path])) or (self.root or ".")

    @contextmanager
    def _borrowed(self, doing: str) -> Iterator[ftplib.FTP]:
        """A connection for one thread; given back if nothing went wrong."""
        with self._telling(doing):
            ftp = self._idle_one() or retried(self.login, tries=TRIES, passing=_passes)
            try:
                yield ftp
            except BaseException as error:
                # After an answer of the server the connection is still good; after anything else it may be half way.
                if isinstance(error, ftplib.error_perm):
                    self._give_back(ftp)
                else:
                    ftp.close()
                raise
            self._give_back(ftp)

    def _idle_one(self) -> ftplib.FTP | None:
        with self._lock:
            ftp = self._idle.pop() if self._idle else None
        if ftp is None:
            return None
        try:
            ftp.voidcmd("NOOP")
        except (ftplib.Error, OSError, EOFError):
            ftp.close()
            return None
        return ftp

    def _give_back(self, ftp: ftplib.FTP) -> None:
        with self._lock:
            self._idle.append(ftp)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        try:
            yield
        except DatabrokkrError:
            raise
        except (ftplib.Error, OSError, EOFError) as error:
            raise self._explained(error, doing) from error

    def _explained(self, error: Exception, doing: str) -> DatabrokkrError:
        what = f'the connection "{self.connection}" cannot {doing} on {self.where}'
        match error:
            case ftplib.error_perm() if str(error).startswith("530"):
                return AccessError(f"{what}: the credentials are wrong", mend="check `user` and `password`")
            case ftplib.error_perm() if str(error)[:3] in {"500", "502", "504", "534"}:
                mend = "where the server has no TLS, say `tls: none`: password and files then travel readable for all"
                return AccessError(f"{what}: {error}", mend=mend)
            case ftplib.error_perm() if str(error).startswith("552"):
                return AccessError(f"{what}: its disk is full", mend="free space on the server")
            case ftplib.error_perm():
                return AccessError(f"{what}: {error}", mend="check that the folder is there, and this user's rights")
            case ssl.SSLCertVerificationError():
                mend = "name its authority's certificate as `ca_file`, or check `host`"
                return AccessError(f"{what}: its certificate is not trusted: {error.verify_message}", mend=mend)
            case socket.gaierror():
                return Unavailable(f"{what}: its name is not known", mend="check `host`")
            case TimeoutError():
                return Broken(f"{what}: it took too long", mend="check the network; try later")
            case ConnectionRefusedError():
                return Unavailable(f"{what}: {error.strerror}", mend="check `host` and `port`; try later")
            case _:
                return Broken(f"{what}: {str(error) or 'the connection broke'}", mend="try later")


def _received(ftp: ftplib.FTP, command: str) -> Iterator[bytes]:
    ftp.voidcmd("TYPE I")
    data = ftp.transfercmd(command)
    try:
        while piece := data.recv(_BLOCK):
            yield piece
    finally:
        data.close()
    ftp.voidresp()


def _asked(ftp: ftplib.FTP, key: str, path: str) -> FoundFile | None:
    """The file by its size and time; `None` for what has no size: it is not there, or a folder."""
    try:
        ftp.voidcmd("TYPE I")
        size = ftp.size(path)
        time = ftp.voidcmd(f"MDTM {path}").split()[-1]
    except ftplib.error_perm as error:
        if str(error).startswith(_NOT_THERE):
            return None
        raise
    return None if size is None else FoundFile(Path(key), key, size, _time_ns(time))


def _told(folder: str, name: str, facts: dict[str, Any]) -> Iterator[FoundFile | Folder]:
    key = f"{folder}/{name}".lstrip("/")
    kind = facts.get("type", "").lower()
    if kind == "dir":
        yield Folder(key)
    elif kind == "file" and name not in (".", ".."):
        yield FoundFile(Path(key), key, int(facts.get("size", 0)), _time_ns(facts.get("modify", "19700101000000")))


def _time_ns(text: str) -> int:
    """`YYYYMMDDHHMMSS[.sss]` in UTC; whole seconds, because not every command of a server tells more."""
    return int(datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def _make_folders(ftp: ftplib.FTP, path: str) -> None:
    for folder in reversed(PurePosixPath(path).parents):
        if str(folder) not in (".", "/"):
            with suppress(ftplib.error_perm):  # it is there already, or what follows says why not
                ftp.mkd(str(folder))


def _passes(error: Exception) -> bool:
    """Whether a login may come about at the next try."""
    if isinstance(error, ftplib.error_perm | ssl.SSLError):
        return False
    return isinstance(error, ftplib.error_temp | OSError | EOFError)

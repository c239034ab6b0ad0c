"""Files on a server that speaks SFTP.

One connection for all threads; asyncssh runs it in a thread of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, SpecError, Unavailable
from resources.support.found_files import FoundFile, vanished
from resources.support.retry import retried
from resources.support.store_folders import Folder
from resources.support.store_uploads import TRIES, UploadStore
from resources.support.stores import PIECE, Broken, mark

if TYPE_CHECKING:
    import asyncssh

Result = TypeVar("Result")

_PAGE = 1000


@dataclass
class SftpStore(UploadStore):
    """A folder of a server. `options` are asyncssh's; they are made when it connects, because they read key files."""

    connection: str
    host: str
    port: int
    root: str
    options: Callable[[], Mapping[str, Any]] = field(repr=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ssh: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        with self._lock:
            loop, self._loop, ssh, self._ssh = self._loop, None, self._ssh, None
        if loop is None:
            return
        if ssh is not None:
            ssh.abort()
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(ssh.wait_closed(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)

    def look(self, path: str) -> FoundFile | None:
        """The file at a path; follows a link."""
        import asyncssh

        try:
            with self._telling(f"look for {path}"):
                sftp = self._client()
                return _found(path, self._run(sftp.stat(self._at(path))))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None

    def children(self, folder: str) -> Iterator[FoundFile | Folder]:
        """One level, page by page; links lead to files, not to folders, which could go round in circles."""
        import asyncssh

        try:
            with self._telling(f"list {folder or 'the top folder'}"):
                sftp = self._client()
                entries = sftp.scandir(self._at(folder))
                while page := self._run(_page(entries)):
                    for entry in page:
                        yield from self._child(folder, entry)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            if not folder:
                what = f'the connection "{self.connection}" names a folder that is not there: {self.root}'
                raise AccessError(what, mend="check `folder`, or make it") from None

    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The bytes, if the file has the same size and time before and after."""
        import asyncssh

        try:
            with self._telling(f"read {file.key}"):
                sftp = self._client()
                opened = self._run(_opened(sftp, self._at(file.key)))
                try:
                    while piece := self._run(opened.read(PIECE)):
                        yield piece
                    after = _found(file.key, self._run(opened.stat()))
                finally:
                    with suppress(Exception):
                        self._run(opened.close())
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
            raise vanished([file]) from error
        if after is None or mark(after) != f"{file.size}-{file.mtime_ns}" or self.look(file.key) != after:
            raise vanished([file])

    def delete(self, path: str) -> None:
        """Remove a file."""
        import asyncssh

        with suppress(asyncssh.SFTPNoSuchFile), self._telling(f"delete {path}"):
            sftp = self._client()
            self._run(sftp.remove(self._at(path)))

    def _upload(self, stream: BinaryIO, hidden: str, path: str) -> str:
        """Where the server has no `posix-rename`, the old file goes first."""
        with self._telling(f"write {path}"):
            sftp = self._client()
            try:
                return self._run(_uploaded(sftp, stream, self._at(hidden), self._at(path)))
            except BaseException:
                with suppress(Exception):
                    self._run(sftp.remove(self._at(hidden)))
                raise

    def _child(self, folder: str, entry: Any) -> Iterator[FoundFile | Folder]:
        name = entry.filename
        if name in (".", ".."):
            return
        key = f"{folder}/{name}".lstrip("/")
        kind = stat.S_IFMT(entry.attrs.permissions or 0)
        if kind == stat.S_IFDIR:
            yield Folder(key)
        elif kind == stat.S_IFLNK:
            found = self.look(key)
            yield from [found] if found else []
        elif found := _found(key, entry.attrs):
            yield found

    def _at(self, path: str) -> str:
        return "/".join(filter(None, [self.root.rstrip("/") if self.root != "/" else "/", path])) or "."

    def _client(self) -> asyncssh.SFTPClient:
        """The client; connects at first, and again after the connection broke."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_forever, args=(self._loop,), name="sftp", daemon=True).start()
            if self._ssh is None or self._sftp is None or self._ssh.is_closed():
                self._ssh, self._sftp = retried(self._connected, tries=TRIES, passing=_passes)
            return self._sftp

    def _connected(self) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        return self._run(_connect(self.host, self.port, self.options()))

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Within the block, errors are raised in our words; that a file is not there is passed on."""
        import asyncssh

        try:
            yield
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise
        except (asyncssh.Error, ValueError, OSError, TimeoutError) as error:
            raise self._explained(error, doing) from error

    def _explained(self, error: Exception, doing: str) -> DatabrokkrError:
        import asyncssh

        what = f'the connection "{self.connection}" cannot {doing} on {self.host}:{self.port}'
        match error:
            case asyncssh.HostKeyNotVerifiable():
                mend = "ask who runs it for its key; where it changed, put the new one into `host_key` or `known_hosts`"
                return AccessError(f"{what}: the server's host key is not the one that is known", mend=mend)
            case asyncssh.PermissionDenied():
                return AccessError(f"{what}: the credentials are wrong", mend="check `user`, `password` and the key")
            case asyncssh.SFTPPermissionDenied():
                return AccessError(f"{what}: the right is missing", mend="let this user do so on the server")
            case asyncssh.SFTPNoSpaceOnFilesystem() | asyncssh.SFTPQuotaExceeded():
                return AccessError(f"{what}: its disk is full", mend="free space on the server")
            case asyncssh.SFTPConnectionLost() | asyncssh.SFTPNoConnection() | asyncssh.DisconnectError():
                return Broken(f"{what}: the connection broke: {error.reason}", mend="try later")
            case asyncssh.Error():
                return AccessError(f"{what}: {error.reason}", mend="look at the file and the folder on the server")
            case ValueError():
                mend = "check `private_key`, its `passphrase`, and `host_key`"
                return SpecError(
                    f'the connection "{self.connection}" has a key that cannot be used: {error}', mend=mend
                )
            case socket.gaierror():
                return Unavailable(f"{what}: its name is not known", mend="check `host`")
            case TimeoutError():
                return Unavailable(f"{what}: it took too long", mend="check the network; try later")
            case OSError() if error.errno:
                mend = "check `host`, `port` and the network; try later"
                return Unavailable(f"{what}: {os.strerror(error.errno)}", mend=mend)
            case _:
                return Unavailable(f"{what}: {error}", mend="check `host`, `port` and the network; try later")


async def _connect(
    host: str, port: int, options: Mapping[str, Any]
) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
    import asyncssh

    ssh = await asyncssh.connect(host, port, connect_timeout=10, login_timeout=20, keepalive_interval=15, **options)
    try:
        return ssh, await ssh.start_sftp_client()
    except BaseException:
        ssh.abort()
        raise


async def _opened(sftp: asyncssh.SFTPClient, path: str) -> Any:
    return await sftp.open(path, "rb", encoding=None)


async def _uploaded(sftp: asyncssh.SFTPClient, stream: BinaryIO, hidden: str, path: str) -> str:
    import asyncssh

    await sftp.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
    async with sftp.open(hidden, "wb") as out:
        while piece := stream.read(PIECE):
            await out.write(piece)
    written = _found(path, await sftp.stat(hidden))
    try:
        await sftp.posix_rename(hidden, path)
    except asyncssh.SFTPOpUnsupported:
        with suppress(asyncssh.SFTPNoSuchFile):
            await sftp.remove(path)
        await sftp.rename(hidden, path)
    return mark(written) if written else ""


async def _page(entries: AsyncIterator[Any]) -> list[Any]:
    page: list[Any] = []
    async for entry in entries:
        page.append(entry)
        if len(page) == _PAGE:
            break
    return page


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _passes(error: Exception) -> bool:
    """Whether a connection may come about at the next try."""
    import asyncssh

    if isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.PermissionDenied | asyncssh.KeyExchangeFailed):
        return False
    return isinstance(error, OSError | TimeoutError | asyncssh.DisconnectError)


def _found(key: str, attrs: Any) -> FoundFile | None:
    """The file, unless it is a folder or a device; servers that tell no kind are believed."""
    if attrs.permissions is not None and not stat.S_ISREG(attrs.permissions):
        return None
    time_ns = (attrs.mtime or 0) * 1_000_000_000 + (attrs.mtime_ns or 0)
    return FoundFile(Path(key), key, attrs.size or 0, time_ns)

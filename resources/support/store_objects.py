"""Object stores through obstore: S3 and what speaks like it, Azure Blob, Google Cloud Storage.

A put is whole or not at all. The ETag is a file's version: reading asks for just the version that was found, and a
small file can be written on the condition that nobody has written it since.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, Unavailable
from databrokkr_assets.core.plugins import missing_extra
from resources.support.found_files import FoundFile, vanished
from resources.support.store_folders import Folder, FolderStore
from resources.support.stores import PIECE

RETRY: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=300), "max_backoff": timedelta(seconds=5), "base": 2},
}
"""obstore tries again by itself, with pauses that grow and are spread by chance."""

_LISTED = 1000
_REFUSED = {"401", "403"}


@dataclass
class ObjectStore(FolderStore):
    """One bucket or container. `make` gives obstore's store; `connection` and `bucket` are for messages."""

    connection: str
    bucket: str
    make: Callable[[], Any]
    conditional: ClassVar[bool] = True
    _opened: Any = field(default=None, repr=False)

    def look(self, path: str) -> FoundFile | None:
        """The object of this key."""
        import obstore

        try:
            with self._telling(f"look for {path}"):
                return _found(obstore.head(self._store, path))
        except _NotFound:
            return None

    def children(self, folder: str) -> Iterator[FoundFile | Folder]:
        """One level, asked page by page, but held as a whole."""
        import obstore

        with self._telling(f"list {folder or 'the top folder'}"):
            listed = obstore.list_with_delimiter(self._store, folder or None)
        yield from map(Folder, listed["common_prefixes"])
        yield from (_found(meta) for meta in listed["objects"] if meta["path"] != folder)

    def below(self, folder: str) -> Iterator[FoundFile]:
        """All levels, page by page."""
        import obstore

        with self._telling(f"list {folder or 'the top folder'}"):
            for page in obstore.list(self._store, folder or None, chunk_size=_LISTED):
                yield from (_found(meta) for meta in page if meta["path"] != folder)

    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The bytes of just the version that was found."""
        import obstore
        from obstore.exceptions import PreconditionError

        try:
            with self._telling(f"read {file.key}"):
                got = obstore.get(self._store, file.key, options={"if_match": file.version} if file.version else {})
                yield from map(bytes, got.stream(min_chunk_size=PIECE))
        except (_NotFound, PreconditionError) as error:
            raise vanished([file]) from error

    def put(self, source: Path, path: str) -> str:
        """Put a file, in parts when it is large."""
        import obstore

        with self._telling(f"write {path}"):
            return obstore.put(self._store, path, source, chunk_size=2 * PIECE, max_concurrency=4)["e_tag"] or ""

    def write(self, content: bytes, path: str, over: FoundFile | None) -> bool:
        """Put a small object if its ETag is still the one that is known."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with self._telling(f"write {path}"):
                obstore.put(self._store, path, content, mode={"e_tag": over.version} if over else "create")
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    def delete(self, path: str) -> None:
        """Remove an object."""
        import obstore

        try:
            with self._telling(f"delete {path}"):
                obstore.delete(self._store, path)
        except _NotFound:
            pass

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = self.make()
        return self._opened

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Within the block, errors are raised in our words; what is no error in every place is passed on."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if _code(str(error)) in _NO_BUCKET:
                raise self._explained(error, doing) from error
            raise _NotFound from error
        except BaseError as error:
            raise self._explained(error, doing) from error

    def _explained(self, error: Exception, doing: str) -> DatabrokkrError:
        """What went wrong. Only names and numbers of the library's text are shown: a URL in it may hold a secret."""
        text = str(error)
        code, status = _code(text), _status(text)
        what = f'the connection "{self.connection}" cannot {doing} in {self.bucket}'
        if code in _NO_BUCKET or (status == "404" and "ListRequest" in text):
            return AccessError(f"{what}: there is no such bucket or container", mend="check its name in the connection")
        if code in _WRONG_KEYS or status == "401":
            mend = "check the key, the secret or the token in the connection; it may have expired"
            return AccessError(f"{what}: the credentials are wrong: {code or status}", mend=mend)
        if status == "403":
            return AccessError(
                f"{what}: {code or 'forbidden'}", mend="check the credentials, and grant them this right"
            )
        if "invalid path" in text:
            name = re.search(r'Path "([^"]*)"', text)
            mend = (
                "name a folder without it as `path`, or rename the object: a name between slashes is empty, `.` or `..`"
            )
            return DataError(f"{what}: it holds an object whose key is no path", where=name and name[1], mend=mend)
        if "certificate" in text.lower():
            mend = "check the endpoint's name, or let this machine trust the authority that signed its certificate"
            return AccessError(f"{what}: the server's certificate is not trusted", mend=mend)
        return Unavailable(
            f"{what}: {_reason(text, code, status)}", mend="check the endpoint and the network; try later"
        )


class _NotFound(Exception):
    """There is no such object."""


_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "InvalidResourceName"}
_WRONG_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "ExpiredToken",
    "InvalidToken",
}


def _code(text: str) -> str | None:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else None


def _status(text: str) -> str | None:
    found = re.search(r"status(?: code)?: (\d{3})", text)
    return found[1] if found else None


def _reason(text: str, code: str | None, status: str | None) -> str:
    for sign in ("dns error", "Connection refused", "timed out", "TimedOut", "Connection reset", "unreachable"):
        if sign in text:
            return "it took too long" if "imed" in sign else sign
    return code or (f"status {status}" if status else text.splitlines()[0].rpartition(" - ")[2][:100])


def _found(meta: Any) -> FoundFile:
    time_ns = int(meta["last_modified"].timestamp() * 1_000_000) * 1000
    return FoundFile(Path(meta["path"]), meta["path"], meta["size"], time_ns, meta["e_tag"])


def client(*, allow_http: bool = False) -> Any:
    """How obstore's clients are to behave: what counts is that bytes come, not how long a large file takes."""
    return {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "1day", "allow_http": allow_http}


def needs(extra: str, what: str) -> None:
    """Raises SpecError when obstore is not installed."""
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise missing_extra(extra, what) from error

"""Files behind URLs: found one by one, downloaded, resumed when the connection breaks.

The server's ETag, else its time, is a file's version; where it tells neither, the content's SHA-256 is, for which the
file is read once to find it.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from resources.support.found_files import FoundFile, vanished
from resources.support.retry import retried
from resources.support.stores import Broken, FileStore, is_broken

if TYPE_CHECKING:
    import httpx

_TRIES = 3
_REDIRECTS = 10
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


@dataclass
class HttpStore(FileStore):
    """URLs. `secrets` are headers that only the origin of `base` is sent; `open` gives a client that has none."""

    connection: str
    base: str
    secrets: Mapping[str, str] = field(repr=False)
    most_bytes: int
    open: Callable[[], httpx.Client]

    def __post_init__(self) -> None:
        self._opened: httpx.Client | None = None

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def find(self, path: str) -> list[FoundFile]:
        """The file behind a URL; none when the server says that there is none."""
        url = self._url(path)
        found = retried(lambda: self._found(path, url), tries=_TRIES, passing=is_broken)
        if found and found.size > self.most_bytes:
            raise self._too_large(path)
        return [found] if found else []

    def pieces(self, file: FoundFile) -> Iterator[bytes]:
        """The bytes of the version that was found; a download that breaks off goes on where it was."""
        digest, done, left = hashlib.sha256(), 0, _TRIES
        while True:
            before = done
            try:
                for piece in self._from(file, done):
                    done += len(piece)
                    if done > self.most_bytes:
                        raise self._too_large(file.key)
                    digest.update(piece)
                    yield piece
                break
            except Broken:
                left = _TRIES if done > before else left - 1
                if left == 0 or not _resumes(file):
                    raise
        if _is_hash(file) and file.version != _hash(digest):
            raise vanished([file])

    def check_origin(self) -> None:
        """Ask for `base`. Raises AccessError or Unavailable; any answer but a refusal will do."""
        with self._answer(self._url(""), "HEAD", {}) as answer:
            if answer.status_code in (401, 403, 407) or answer.status_code in _TEMPORARY:
                raise self._refused(self._url(""), answer)

    def _found(self, key: str, url: str) -> FoundFile | None:
        with self._answer(url, "HEAD", {}) as answer:
            if answer.status_code in (404, 410):
                return None
            if answer.is_success and (found := _told(key, url, answer)):
                return found
        with self._answer(url, "GET", {}) as answer:  # some servers answer no HEAD, and others tell less there
            if answer.status_code in (404, 410):
                return None
            self._require_success(url, answer)
            return _told(key, url, answer) or self._read_through(key, url, answer)

    def _read_through(self, key: str, url: str, answer: httpx.Response) -> FoundFile:
        digest, size = hashlib.sha256(), 0
        for piece in answer.iter_raw():
            size += len(piece)
            if size > self.most_bytes:
                raise self._too_large(key)
            digest.update(piece)
        return FoundFile(_name(url), key, size, 0, _hash(digest))

    def _from(self, file: FoundFile, start: int) -> Iterator[bytes]:
        """The bytes from `start` on. Raises Unavailable when the file has another version."""
        url = self._url(file.key)
        wanted = {"Range": f"bytes={start}-", "If-Range": str(file.version)} if start else {}
        with self._answer(url, "GET", wanted) as answer:
            self._require_success(url, answer)
            if start and answer.status_code != 206:
                raise vanished([file])  # the whole file comes: it is another one now
            if not _is_hash(file) and _version(answer) != file.version:
                raise vanished([file])
            yield from answer.iter_raw()

    @contextmanager
    def _answer(self, url: str, method: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer behind redirects, each of which is checked as the first URL was."""
        with self._telling(url):
            for _ in range(_REDIRECTS):
                secrets = self.secrets if _origin(url) == _origin(self.base) else {}
                sent = {"Accept-Encoding": "identity", **headers, **secrets}
                with self._client().stream(method, url, headers=sent) as answer:
                    if not answer.has_redirect_location:
                        yield answer
                        return
                    url = _followed(url, answer.headers["Location"])
        raise AccessError(f"{_shown(url)} redirects in circles", mend="check the URL")

    def _client(self) -> httpx.Client:
        if self._opened is None:
            self._opened = self.open()
        return self._opened

    def _url(self, path: str) -> str:
        url = urljoin(self.base, path) if self.base else path
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError(
                f"{_shown(url)} is no http or https URL", mend="write it in full, or give the connection `url`"
            )
        if parts.username or parts.password:
            raise SpecError(
                f"{_shown(url)} holds credentials", mend="give them to the connection, which keeps them secret"
            )
        return url

    @contextmanager
    def _telling(self, url: str) -> Iterator[None]:
        import httpx

        what = f'the connection "{self.connection}" cannot read {_shown(url)}'
        try:
            yield
        except httpx.TimeoutException as error:
            raise Broken(f"{what}: it took too long", mend="check the network; try later") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise SpecError(
                f"{what}: it is no URL: {error}", mend="check the URL, and where it redirects to"
            ) from error
        except (httpx.TransportError, httpx.StreamError) as error:
            if isinstance(_root(error), ssl.SSLCertVerificationError):
                mend = "check the name in the URL, or name the authority's certificate as `ca_file`"
                raise AccessError(f"{what}: its certificate is not trusted: {_root(error)}", mend=mend) from error
            raise Broken(f"{what}: {error}", mend="check the URL and the network; try later") from error

    def _require_success(self, url: str, answer: httpx.Response) -> None:
        if answer.status_code in (404, 410):
            raise Unavailable(f"{_shown(url)} is not there any more", mend="check the URL; try later")
        if not answer.is_success:
            raise self._refused(url, answer)

    def _refused(self, url: str, answer: httpx.Response) -> DatabrokkrError:
        what = (
            f'the connection "{self.connection}" cannot read {_shown(url)}: {answer.status_code} {answer.reason_phrase}'
        )
        if answer.status_code in _TEMPORARY:
            return Broken(what, mend="try later")
        return AccessError(what, mend="check the URL, and the credentials of the connection")

    def _too_large(self, key: str) -> DataError:
        what = f"is larger than {self.most_bytes} bytes"
        return DataError(what, where=_shown(key), mend="raise `max_megabytes` of the connection if that is right")


def _followed(url: str, location: str) -> str:
    """Where a redirect leads. Raises AccessError for one that leaves the web, or TLS."""
    to = urljoin(url, location)
    scheme = urlsplit(to).scheme
    if scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and scheme == "http"):
        what = f"{_shown(url)} redirects to {_shown(to)}"
        raise AccessError(what, mend="name a URL whose redirects stay with https, or http to begin with")
    return to


def _told(key: str, url: str, answer: httpx.Response) -> FoundFile | None:
    """The file as the server tells of it; `None` when it does not tell its size and version."""
    version, size = _version(answer), answer.headers.get("Content-Length", "")
    if version is None or not size.isdigit() or answer.headers.get("Content-Encoding", "identity") != "identity":
        return None
    return FoundFile(_name(url), key, int(size), _time_ns(answer), version)


def _version(answer: httpx.Response) -> str | None:
    version: str | None = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    return version


def _time_ns(answer: httpx.Response) -> int:
    try:
        return int(parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError, OverflowError):
        return 0


def _resumes(file: FoundFile) -> bool:
    """Whether a part can be asked for on the condition that the file is the same: not by a weak ETag, or a hash."""
    return not _is_hash(file) and not str(file.version).startswith("W/")


def _hash(digest: hashlib._Hash) -> str:
    return f"sha256:{digest.hexdigest()}"


def _is_hash(file: FoundFile) -> bool:
    return str(file.version).startswith("sha256:")


def _name(url: str) -> Path:
    return Path(unquote(urlsplit(url).path).strip("/") or "index")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    """A URL for messages: what follows the path may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if host else parts.path


def _root(error: BaseException) -> BaseException:
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return error

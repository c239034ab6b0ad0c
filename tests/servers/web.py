"""A web server in a thread of this process: ranges, ETags, redirects, and faults by order."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Page:
    """What stands behind a path. `breaks` is how many answers break off half way; `headers` go with each answer."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    breaks: int = 0


@dataclass
class Web:
    """A server; `pages` may change while it runs, `seen` are the requests, as method, path and headers."""

    host: str
    port: int
    scheme: str
    pages: dict[str, Page] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str, host: str | None = None) -> str:
        """The URL of a path."""
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"


@contextmanager
def web(host: str = "127.0.0.1", port: int = 0, certificate: tuple[Path, Path] | None = None) -> Iterator[Web]:
    """Yield a running server; with TLS when a certificate and its key are given."""
    server = ThreadingHTTPServer((host, port), _Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that does not trust us goes away
    site = Web(host, server.server_address[1], "https" if certificate else "http")
    server.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        site: Web = self.server.site  # type: ignore[attr-defined]
        site.seen.append((self.command, self.path, dict(self.headers)))
        page = site.pages.get(self.path.partition("?")[0], Page(b"not here", 404))
        start = self._start(page)
        body = page.content[start:]
        self.send_response(206 if start else page.status)
        for name, value in {"Content-Length": str(len(body)), **page.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if with_body and page.breaks:
            page.breaks -= 1
            body = body[: len(body) // 2]
        if with_body:
            self.wfile.write(body)

    def _start(self, page: Page) -> int:
        wanted, tag = self.headers.get("Range", ""), self.headers.get("If-Range")
        if not wanted.startswith("bytes=") or (tag and tag != page.headers.get("ETag")):
            return 0
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def log_message(self, format: str, *args: object) -> None:
        pass

"""HTTP: files behind URLs, which the connector `files` reads."""

from __future__ import annotations

import base64
import ipaddress
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urljoin, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from databrokkr_assets.core.errors import AccessError, DatabrokkrError
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.spec import ChecksAccess, Finding, Place
from resources.base import Connector
from resources.support.store_http import HttpStore
from resources.support.stores import AT_ONCE, OpensStore, StoreConnection

if TYPE_CHECKING:
    import httpx

Network = Annotated[str, Field(description="A network such as `10.1.0.0/16`.")]


class HttpConnection(StoreConnection, OpensStore, ChecksAccess):
    """Files on web servers. A node `files` names it as `connection`; its `path` is a URL or a list of them, in full or
    below `url`, without globs.

    It reads from public addresses only, behind redirects too, unless `allow_private` says otherwise.
    """

    type: Literal["http"]
    """The connector."""
    url: str = ""
    """Where relative paths start; credentials and `headers` are sent to this server and no other."""
    user: str | None = None
    """Who logs in, by HTTP basic authentication."""
    password: SecretStr | None = None
    """The password, best as `{{ env.NAME }}`."""
    token: SecretStr | None = None
    """A bearer token, in place of user and password."""
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)
    """More headers, e.g. `X-Api-Key`."""
    allow_private: bool | tuple[Network, ...] = False
    """Whether URLs may lead to this machine, to private networks and to the cloud's own services: `true`, or the
    networks that they may lead to."""
    max_megabytes: int = Field(default=10_000, ge=1)
    """How large a file may be."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds without a byte after which a download counts as broken."""
    ca_file: str | None = None
    """The certificate of the authority that signed the servers', where it is none that this machine knows."""

    @field_validator("allow_private")
    @classmethod
    def _networks(cls, allowed: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        for network in allowed if isinstance(allowed, tuple) else ():
            ipaddress.ip_network(network)
        return allowed

    @model_validator(mode="after")
    def _whole(self) -> HttpConnection:
        if self.url and (urlsplit(self.url).scheme not in ("http", "https") or "@" in urlsplit(self.url).netloc):
            raise ValueError("`url` begins with http:// or https:// and holds no credentials")
        if (self.user or self.token or self.headers) and not self.url:
            raise ValueError("credentials need `url`, the only server that they are sent to")
        if self.user and self.token:
            raise ValueError("give either `user` and `password`, or `token`")
        return self

    def store(self, place: Place, name: str) -> HttpStore:
        """The URLs. Raises SpecError when httpx is not installed."""
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise missing_extra("http", "HTTP") from error
        base = self.url and (self.url if self.url.endswith("/") else f"{self.url}/")
        return HttpStore(name, base, self._secrets(), self.max_megabytes * 1_000_000, lambda: self._client(place, name))

    def uri(self, path: str) -> str:
        """The URL, without what follows its path."""
        url = urljoin(f"{self.url.rstrip('/')}/", path) if self.url else path
        return url.partition("?")[0]

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the server of `url` answers and takes the credentials."""
        if not self.url:
            yield Finding("reachable", True, "not asked: the connection has no `url`; each node names its own")
            return
        began = time.perf_counter()
        with self.store(place, name) as store:
            try:
                store.check_origin()
            except DatabrokkrError as error:
                yield Finding("reachable", False, error.what, error.mend)
                return
        yield Finding("reachable", True, f"answered in {(time.perf_counter() - began) * 1000:.0f} ms")
        yield Finding("user", True, self.user or ("a token" if self.token else "nobody"))

    def _secrets(self) -> dict[str, str]:
        found = {header: value.get_secret_value() for header, value in self.headers.items()}
        if self.token:
            found["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        if self.user:
            password = self.password.get_secret_value() if self.password else ""
            found["Authorization"] = f"Basic {base64.b64encode(f'{self.user}:{password}'.encode()).decode()}"
        return found

    def _client(self, place: Place, name: str) -> httpx.Client:
        """A client that follows no redirect by itself, and no proxy: one would look names up in our place."""
        import httpcore
        import httpx

        from resources.support.store_addresses import GuardedNetwork, looked_up

        allowed = self.allow_private
        networks = allowed if isinstance(allowed, bool) else [ipaddress.ip_network(network) for network in allowed]
        guarded = GuardedNetwork(name, networks, looked_up)
        transport = httpx.HTTPTransport(trust_env=False)
        transport._pool = httpcore.ConnectionPool(
            ssl_context=self._trust(place, name), max_connections=AT_ONCE, network_backend=guarded
        )
        timeout = httpx.Timeout(self.timeout, connect=10, pool=None)
        return httpx.Client(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)

    def _trust(self, place: Place, name: str) -> ssl.SSLContext:
        file = place.resolve(self.ca_file) if self.ca_file else None
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:
            what = f'the connection "{name}" needs the certificate {file}: {error.strerror or error}'
            raise AccessError(what, mend="put it there, in PEM form") from error


connector = Connector(
    name="http",
    summary="Files behind URLs, for the connector [files](files.md); read only.",
    kind="http",
    connection=HttpConnection,
    extra="http",
)

"""Files behind URLs: known again by what the server tells, resumed, and never from where the connection may not go."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from databrokkr_assets.core.ports import Cursor
from resources.connectors.files import FilesSink, FilesSource
from resources.connectors.http import HttpConnection
from resources.support import store_addresses
from resources.support.store_addresses import NotAllowed, is_public
from tests.connectors.carrying import NODE, Row, mark, staged, written
from tests.connectors.stores_at_hand import NAME, PLACE
from tests.servers.web import Page, Web, web
from tests.services import HOST, free_port
from tests.store_services import certificate

OTHER = "127.0.0.2"
"""Another address of this machine, for what a connection that may go to `HOST` only must not reach."""


@pytest.fixture
def site() -> Iterator[Web]:
    with web() as running:
        yield running


def connection(**settings: Any) -> HttpConnection:
    return HttpConnection(type="http", **{"allow_private": True, "timeout": 5, **settings})


def read(
    path: str | list[str], after: Cursor | None = None, given: HttpConnection | None = None, **settings: Any
) -> tuple[list[Row], Cursor]:
    source = FilesSource(type="files", connection=NAME, path=path, **settings)  # type: ignore[arg-type]
    rows, cursor = staged(source.open(given or connection(), PLACE), after)
    assert cursor is not None
    return rows, cursor


def tagged(content: bytes, **more: Any) -> Page:
    """A page whose ETag follows from its content."""
    return Page(content, headers={"ETag": f'"{hashlib.sha256(content).hexdigest()[:8]}"'}, **more)


# --- reading ---


def test_urls_are_read_once_and_again_when_they_changed(site: Web) -> None:
    site.pages = {"/1.csv": tagged(b"a\n1\n"), "/2.csv": tagged(b"a\n2\n")}
    paths = [site.url("/1.csv"), site.url("/2.csv?day=1")]
    rows, first = read(paths)
    assert rows == [("1",), ("2",)]
    assert read(paths, first)[0] == []
    site.pages["/2.csv"] = tagged(b"a\n3\n")
    assert read(paths, first)[0] == [("3",)]


@pytest.mark.parametrize("headers", [{"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, {}, {"Content-Length": ""}])
def test_servers_that_tell_less(site: Web, headers: dict[str, str]) -> None:
    site.pages["/a.csv"] = Page(b"a\n1\n", headers=headers)
    rows, first = read(site.url("/a.csv"))
    assert rows == [("1",)]
    assert read(site.url("/a.csv"), first)[0] == []
    changed = {"Last-Modified": "Wed, 21 Oct 2015 07:28:01 GMT"} if "Last-Modified" in headers else headers
    site.pages["/a.csv"] = Page(b"a\n2\n", headers=changed)
    assert read(site.url("/a.csv"), first)[0] == [("2",)]


def test_paths_below_the_connections_url(site: Web) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [7]}), buffer)
    site.pages["/exports/x/7.parquet"] = tagged(buffer.getvalue())
    rows, cursor = read("x/7.parquet", given=connection(url=site.url("/exports")))
    assert rows == [("7",)]
    assert list(cursor["files"]) == ["x/7.parquet"]


def test_a_url_that_is_not_there(site: Web) -> None:
    with pytest.raises(AccessError, match="no file matches http://"):
        read(site.url("/none.csv"))


def test_a_download_that_breaks_off_goes_on(site: Web) -> None:
    content = b"a\n" + b"1\n" * 100_000
    site.pages["/a.csv"] = tagged(content, breaks=2)
    assert len(read(site.url("/a.csv"))[0]) == 100_000
    begun = [headers.get("Range") for method, _, headers in site.seen if method == "GET"]
    assert begun == [None, "bytes=100001-", "bytes=150001-"]


def test_a_download_that_breaks_off_begins_again_where_it_cannot_go_on(site: Web) -> None:
    site.pages["/a.csv"] = Page(b"a\n" + b"1\n" * 1000, headers={"ETag": 'W/"weak"'}, breaks=2)
    assert len(read(site.url("/a.csv"))[0]) == 1000


def test_a_file_that_changes_while_it_is_read(site: Web, tmp_path: Path) -> None:
    for page in (tagged(b"a\n1\n"), Page(b"a\n1\n")):
        site.pages["/a.csv"] = page
        with connection().store(PLACE, NAME) as store:
            found = store.find(site.url("/a.csv"))
            site.pages["/a.csv"] = tagged(b"a\n2\n") if page.headers else Page(b"a\n2\n")
            with pytest.raises(Unavailable, match="changed while being read"):
                store.bring(found, tmp_path)


def test_it_is_read_only(site: Web) -> None:
    sink = FilesSink(type="files", input="orders", connection=NAME, path="a.csv").open(connection(), PLACE)
    with pytest.raises(SpecError, match="can only be read"):
        written(sink, "SELECT 1 AS a", sink_how(), mark(1), node=NODE)


def sink_how() -> Any:
    from databrokkr_assets.core.disposition import Replace

    return Replace()


# --- credentials ---


@pytest.mark.parametrize(
    ("secret", "header"),
    [
        ({"user": "u", "password": "p"}, ("Authorization", "Basic dTpw")),
        ({"token": "t"}, ("Authorization", "Bearer t")),
        ({"headers": {"X-Api-Key": "k"}}, ("X-Api-Key", "k")),
    ],
)
def test_secrets_go_to_their_own_server_only(site: Web, secret: dict[str, Any], header: tuple[str, str]) -> None:
    with web(OTHER) as other:
        other.pages["/b.csv"] = tagged(b"a\n2\n")
        site.pages = {"/a.csv": tagged(b"a\n1\n"), "/to": Page(status=302, headers={"Location": other.url("/b.csv")})}
        given = connection(url=site.url("/"), **secret)
        assert read("a.csv", given=given)[0] == [("1",)]
        assert read(["to", other.url("/b.csv")], given=given, format="csv")[0] == [("2",), ("2",)]
        assert all(headers.get(header[0]) == header[1] for _, _, headers in site.seen)
        assert other.seen and not any(header[0] in headers for _, _, headers in other.seen)


def test_refused_credentials(site: Web) -> None:
    site.pages["/a.csv"] = Page(status=401)
    with pytest.raises(AccessError, match=f'"{NAME}" cannot read http://.*/a.csv: 401') as told:
        read(site.url("/a.csv?token=secret"))
    assert "secret" not in str(told.value)
    findings = {one.what: one.ok for one in connection(url=site.url("/a.csv")).check_access(NAME, PLACE)}
    assert findings == {"reachable": True, "user": True}, "404 is an answer, too"


# --- what may go wrong ---


def test_a_server_that_is_down() -> None:
    with pytest.raises(Unavailable, match=f'"{NAME}" cannot read .*refused'):
        read(f"http://{HOST}:{free_port()}/a.csv")


def test_a_server_that_is_busy_is_asked_again(site: Web) -> None:
    site.pages["/a.csv"] = Page(status=503)
    with pytest.raises(Unavailable, match="503 Service Unavailable"):
        read(site.url("/a.csv"))
    assert len(site.seen) >= 3


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Content-Length": ""}])
def test_too_large(site: Web, headers: dict[str, str]) -> None:
    site.pages["/a.csv"] = Page(b"1\n" * 600_000, headers=headers)
    with pytest.raises(DataError, match="is larger than 1000000 bytes"):
        read(site.url("/a.csv"), given=connection(max_megabytes=1))


def test_certificates(tmp_path: Path) -> None:
    files = certificate(tmp_path, HOST, "files.example")
    with web(certificate=files) as site:
        site.pages["/a.csv"] = tagged(b"a\n1\n")
        with pytest.raises(AccessError, match="its certificate is not trusted"):
            read(site.url("/a.csv"))
        assert read(site.url("/a.csv"), given=connection(ca_file=str(files[0])))[0] == [("1",)]
        with pytest.raises(AccessError, match=r"its certificate is not trusted.*localhost"):
            read(site.url("/a.csv", "localhost"), given=connection(ca_file=str(files[0])))
        site.pages["/down"] = Page(status=302, headers={"Location": "http://example.com/a.csv"})
        with pytest.raises(AccessError, match=r"redirects to http://example\.com"):
            read(site.url("/down"), given=connection(ca_file=str(files[0])), format="csv")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.csv", "is no http or https URL"),
        ("file:///etc/passwd", "is no http or https URL"),
        ("http://u:p@example.com/a.csv", "holds credentials"),
    ],
)
def test_urls_are_refused(path: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as told:
        read(path)
    assert "u:p" not in str(told.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://example.com"},
        {"url": "https://u:p@example.com"},
        {"token": "t"},
        {"url": "https://example.com", "user": "u", "token": "t"},
        {"allow_private": ["10.0.0.1/8"]},
    ],
)
def test_settings_are_refused_early(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpConnection(type="http", **settings)


# --- where it may not go ---

PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "168.63.129.16", "192.0.2.1", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "2001:db8::1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    bracketed = f"[{address}]" if ":" in address else address
    refused = pytest.raises(NotAllowed, match="no public address")
    with refused, HttpConnection(type="http").store(PLACE, NAME) as store:
        store.find(f"http://{bracketed}/a.csv")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(store_addresses._meant(ipaddress.ip_address(address)))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
def test_other_names_of_this_machine(site: Web, host: str) -> None:
    site.pages["/a.csv"] = tagged(b"a\n1\n")
    with pytest.raises((NotAllowed, SpecError)):
        read(site.url("/a.csv", host), given=HttpConnection(type="http"))
    assert site.seen == []


ONLY = [f"{HOST}/32"]


def test_a_redirect_to_where_it_may_not_go(site: Web) -> None:
    with web(OTHER) as secret:
        secret.pages["/a.csv"] = tagged(b"a\n1\n")
        site.pages["/hop"] = Page(status=307, headers={"Location": "/a.csv"})
        site.pages["/a.csv"] = Page(status=302, headers={"Location": secret.url("/a.csv")})
        with pytest.raises(NotAllowed, match=OTHER):
            read(site.url("/hop"), given=connection(allow_private=ONLY), format="csv")
        assert secret.seen == []
    site.pages["/a.csv"] = Page(status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(AccessError, match="redirects to"):
        read(site.url("/hop"), given=connection(allow_private=ONLY), format="csv")
    site.pages["/a.csv"] = Page(status=302, headers={"Location": "/hop"})
    with pytest.raises(AccessError, match="in circles"):
        read(site.url("/hop"), given=connection(allow_private=ONLY), format="csv")


class Resolver:
    """Names that answer what a test says, one answer after the other, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_one_private_address_among_public_ones(site: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_addresses, "looked_up", Resolver([HOST, OTHER]))
    with pytest.raises(NotAllowed, match=OTHER):
        read(site.url("/a.csv", "files.example"), given=connection(allow_private=ONLY))
    assert site.seen == []


def test_a_name_that_answers_otherwise_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with web(HOST, port) as good, web(OTHER, port) as secret:
        good.pages["/a.csv"], secret.pages["/a.csv"] = tagged(b"a\n1\n"), tagged(b"a\nsecret\n")
        resolver = Resolver([HOST], [OTHER])
        monkeypatch.setattr(store_addresses, "looked_up", resolver)
        # Each connection looks the name up once, and goes where that answer says: the first request gets through, and
        # the second, on a new connection because this server keeps none, is refused.
        with pytest.raises(NotAllowed, match=OTHER):
            read(good.url("/a.csv", "files.example"), given=connection(allow_private=ONLY))
        assert resolver.asked == 2
        assert (len(good.seen), secret.seen) == (1, [])
        assert good.seen[0][2]["Host"] == f"files.example:{port}"


def test_the_certificate_is_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_addresses, "looked_up", Resolver([HOST]))
    files = certificate(tmp_path, "files.example")
    given = connection(ca_file=str(files[0]))
    with web(certificate=files) as site:
        site.pages["/a.csv"] = tagged(b"a\n1\n")
        assert read(site.url("/a.csv", "files.example"), given=given)[0] == [("1",)]
        with pytest.raises(AccessError, match="certificate is not trusted"):
            read(site.url("/a.csv", "other.example"), given=given)


def test_no_proxy_of_the_environment_is_used(site: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{OTHER}:9")
    site.pages["/a.csv"] = tagged(b"a\n1\n")
    assert read(site.url("/a.csv"))[0] == [("1",)]


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(store_addresses, "looked_up", unknown)
    with pytest.raises(DatabrokkrError, match=r"the name files\.example is not known"):
        read("http://files.example/a.csv", given=HttpConnection(type="http"))

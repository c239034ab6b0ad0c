"""The stores that tests work on: for each a connection to an empty place of its own, and a way around it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from databrokkr_assets.core.spec import ConnectionSettings, Place
from resources.connectors.azure_blob import AzureBlobConnection
from resources.connectors.ftp import FtpConnection
from resources.connectors.s3 import S3Connection
from resources.connectors.sftp import SftpConnection
from resources.support.store_folders import FolderStore, OpensFolders
from tests import services, store_services

PLACE = Place(Path("/nowhere"))
NAME = "partner"
Service = TypeVar("Service")


@dataclass(frozen=True)
class AtHand:
    """A place in a store; `put` writes a file there as somebody else would, `wrong` are settings with wrong keys."""

    connection: ConnectionSettings
    put: Callable[[str, bytes], None]
    wrong: dict[str, Any]
    readonly: dict[str, Any]

    def store(self, **other: Any) -> FolderStore:
        """The store, or one with other settings."""
        connection = self.changed(**other)
        assert isinstance(connection, OpensFolders)
        return connection.store(PLACE, NAME)

    def changed(self, **other: Any) -> ConnectionSettings:
        """The connection with other settings."""
        return type(self.connection)(**{**self.connection.model_dump(exclude_defaults=True), **other})


class Servers:
    """The servers of a session, each started when the first test asks for it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started: dict[object, Any] = {}

    def get(self, start: Callable[[], AbstractContextManager[Service]]) -> Service:
        """The running server. Skips the test where it cannot be had."""
        if start not in self._started:
            try:
                self._started[start] = self._stack.enter_context(start())
            except services.Missing as missing:
                pytest.skip(str(missing))
        found: Service = self._started[start]
        return found

    def close_at_end(self, client: Any) -> None:
        """Close a client at the end of the session."""
        self._stack.callback(client.close)


def s3(servers: Servers) -> AtHand:
    """A bucket."""
    server = servers.get(store_services.guarded_s3)
    owner = server.owner
    bucket = owner.create_bucket(f"test-{uuid.uuid4().hex[:12]}")
    client = owner.client()
    servers.close_at_end(client)
    connection = S3Connection(
        type="s3",
        bucket=bucket,
        prefix="given",
        endpoint_url=owner.endpoint_url,
        access_key_id=owner.access_key,
        secret_access_key=owner.secret_key,  # type: ignore[arg-type]
    )
    return AtHand(
        connection,
        lambda path, content: client.put_object(Bucket=bucket, Key=f"given/{path}", Body=content),
        {"secret_access_key": "a-wrong-secret"},
        {"access_key_id": server.reader.access_key, "secret_access_key": server.reader.secret_key},
    )


def azure(servers: Servers) -> AtHand:
    """A container; Azurite's own client would be another package, so the files go in by the store under test."""
    server = servers.get(store_services.azure)
    connection = AzureBlobConnection(
        type="azure_blob",
        account=server.account,
        container=server.create_container(f"test-{uuid.uuid4().hex[:12]}"),
        account_key=server.key,  # type: ignore[arg-type]
        endpoint_url=server.endpoint_url,
    )

    def put(path: str, content: bytes) -> None:
        import obstore

        obstore.put(connection._open(), path, content)

    return AtHand(connection, put, {"account_key": "YS13cm9uZy1zZWNyZXQ="}, {})


def sftp(servers: Servers) -> AtHand:
    """A folder of OpenSSH's server."""
    server = servers.get(store_services.sftp)
    return _ssh(server, {"private_key": server.private_key}, {"private_key": _other_key()})


def sftp_by_password(servers: Servers) -> AtHand:
    """A folder of a server with a password."""
    server = servers.get(store_services.sftp_by_password)
    return of_server(server)


def of_server(server: store_services.Sftp | store_services.Ftp) -> AtHand:
    """A folder of a server with a password."""
    if isinstance(server, store_services.Ftp):
        return _ftp(server)
    return _ssh(server, {"password": server.password}, {"password": "a-wrong-secret"})


def _ssh(server: store_services.Sftp, secret: dict[str, Any], wrong: dict[str, Any]) -> AtHand:
    name = uuid.uuid4().hex[:12]
    (server.folder / name).mkdir()
    connection = SftpConnection(
        type="sftp",
        host=services.HOST,
        port=server.port,
        user=server.user,
        host_key=server.host_key,
        folder=f"{server.root.rstrip('/')}/{name}",
        **secret,
    )
    return AtHand(connection, _on_disk(server.folder / name), wrong, {"port": server.readonly_port})


def _other_key() -> str:
    import asyncssh

    return bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key()).decode()


def ftp(servers: Servers) -> AtHand:
    """A folder of a server without TLS."""
    return _ftp(servers.get(store_services.ftp))


def _plain_ftp() -> AbstractContextManager[store_services.Ftp]:
    return store_services.ftp(without="MLSD MLST")


def ftp_without_mlsd(servers: Servers) -> AtHand:
    """A folder of an old server."""
    return _ftp(servers.get(_plain_ftp))


def _secure_ftp() -> AbstractContextManager[store_services.Ftp]:
    return store_services.ftp(tls=True)


def ftps(servers: Servers) -> AtHand:
    """A folder of a server with TLS."""
    return _ftp(servers.get(_secure_ftp))


def _ftp(server: store_services.Ftp) -> AtHand:
    name = uuid.uuid4().hex[:12]
    (server.folder / name).mkdir()
    connection = FtpConnection(
        type="ftp",
        host=services.HOST,
        port=server.port,
        user=server.user,
        password=server.password,  # type: ignore[arg-type]
        tls="explicit" if server.ca_file else "none",
        ca_file=str(server.ca_file) if server.ca_file else None,
        folder=name,
    )
    return AtHand(connection, _on_disk(server.folder / name), {"password": "a-wrong-secret"}, {})


def _on_disk(folder: Path) -> Callable[[str, bytes], None]:
    ages = iter(range(1_000_000))

    def put(path: str, content: bytes) -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        # Whole seconds are all that these servers tell, and tests write faster than that.
        seconds = int(time.time()) - 1_000_000 + next(ages)
        os.utime(file, (seconds, seconds))

    return put


STORES = {made.__name__: made for made in (s3, azure, sftp, sftp_by_password, ftp, ftp_without_mlsd, ftps)}


def running() -> Iterator[Servers]:
    """The servers, until the end of the session."""
    with ExitStack() as stack:
        yield Servers(stack)

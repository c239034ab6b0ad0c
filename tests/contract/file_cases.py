"""The cases of files, on each store."""

from __future__ import annotations

import glob
import hashlib
import io
import signal
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import SecretStr

from databrokkr_assets.core.disposition import Append, Disposition
from databrokkr_assets.core.ports import Delivery
from tests import store_services
from tests.connectors import stores_at_hand
from tests.connectors.stores_at_hand import AtHand, Servers
from tests.servers.web import Page, Web, web

from .case import (
    CanBeReadOnly,
    Case,
    ChecksPasswords,
    HoldsTypes,
    Reads,
    ReadsArrivals,
    Rows,
    RunsFull,
    Settings,
    Stops,
)
from .places import SMALL, unwritable


class ParquetCase(Case, ReadsArrivals, HoldsTypes):
    """Parquet files, a folder for each table."""

    connector = "files"
    delivery = Delivery.AT_LEAST_ONCE
    root: ClassVar[str] = ""
    """What paths begin with."""

    def source(self, table: str) -> Settings:
        return {"path": f"{glob.escape(self._path(table))}/*.parquet", "format": "parquet"}

    def sink(self, table: str, how: Disposition) -> Settings:
        folder = self._path(table)
        return {"path": folder if isinstance(how, Append) else f"{folder}/whole.parquet", "format": "parquet"}

    def put(self, table: str, rows: pa.Table) -> None:
        for path in self.paths(table):
            self.remove(path)
        self.arrive(table, "given", rows)

    def arrive(self, table: str, name: str, rows: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(rows, content)
        self.write(f"{table}/{name}.parquet", content.getvalue())

    def get(self, table: str) -> Rows:
        rows: list[Mapping[str, Any]] = []
        for path in self.paths(table):
            if path.endswith(".parquet") and not path.rpartition("/")[2].startswith("."):
                rows += pq.read_table(io.BytesIO(self.fetch(path))).to_pylist()
        return rows

    def _path(self, table: str) -> str:
        return f"{self.root}{table}"

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """Put a file there."""

    @abstractmethod
    def paths(self, table: str) -> list[str]:
        """The files of a table's folder."""

    @abstractmethod
    def fetch(self, path: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file."""


class OnDisk(ParquetCase):
    """Files in a folder that this process sees."""

    folder: Path

    def write(self, path: str, content: bytes) -> None:
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_bytes(content)

    def paths(self, table: str) -> list[str]:
        return sorted(str(file.relative_to(self.folder)) for file in (self.folder / table).glob("*") if file.is_file())

    def fetch(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()


class LocalFilesCase(OnDisk, CanBeReadOnly, RunsFull):
    title = "Parquet files on a disk"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = f"{folder}/"  # type: ignore[misc]

    @classmethod
    @contextmanager
    def fresh(cls, system: Any, folder: Path) -> Iterator[Self]:
        (folder / "files").mkdir()
        yield cls(folder / "files")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        with unwritable(self.folder):
            yield None

    @contextmanager
    def full_disk(self) -> Iterator[int]:
        yield SMALL


class StoreCase(ParquetCase, ChecksPasswords):
    """Files on a store that is reached by a connection."""

    at_hand: AtHand
    wrong: ClassVar[Settings]

    @classmethod
    @contextmanager
    def system(cls) -> Iterator[Servers]:
        with ExitStack() as stack:
            yield Servers(stack)

    def connection(self) -> Settings:
        given = self.at_hand.connection.model_dump(exclude_defaults=True)
        return {name: _plain(value) for name, value in given.items()}

    def wrong_password(self) -> Settings:
        return {**self.connection(), **self.wrong}


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class S3FilesCase(StoreCase, CanBeReadOnly):
    title = "Parquet files on S3"
    via = "s3"
    gaps: ClassVar = {
        "test_tables_of_any_name_are_read": "names with a space are not proved, because moto, the server of our tests, "
        "takes the signature of a listing for wrong whose prefix has one"
    }
    wrong: ClassVar = {"secret_access_key": "hush-hush"}

    def __init__(self, servers: Servers) -> None:
        self.at_hand = stores_at_hand.s3(servers)
        self.client = servers.get(store_services.guarded_s3).owner.client()
        self.bucket = self.connection()["bucket"]

    @classmethod
    @contextmanager
    def fresh(cls, system: Servers, folder: Path) -> Iterator[Self]:
        case = cls(system)
        try:
            yield case
        finally:
            case.client.close()

    @contextmanager
    def read_only(self) -> Iterator[Settings]:
        yield {**self.connection(), **self.at_hand.readonly}

    def write(self, path: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"given/{path}", Body=content)

    def paths(self, table: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"given/{table}/")
        return [each["Key"].removeprefix("given/") for each in found.get("Contents", [])]

    def fetch(self, path: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=f"given/{path}")["Body"].read()
        return content

    def remove(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"given/{path}")


class AzureFilesCase(StoreCase):
    title = "Parquet files on Azure"
    via = "azure_blob"
    wrong: ClassVar = {"account_key": "aHVzaC1odXNo"}

    def __init__(self, servers: Servers) -> None:
        self.at_hand = stores_at_hand.azure(servers)
        self.store = self.at_hand.connection._open()  # type: ignore[attr-defined]

    @classmethod
    @contextmanager
    def fresh(cls, system: Servers, folder: Path) -> Iterator[Self]:
        yield cls(system)

    def write(self, path: str, content: bytes) -> None:
        self.at_hand.put(path, content)

    def paths(self, table: str) -> list[str]:
        import obstore

        return sorted(each["path"] for some in obstore.list(self.store, prefix=table) for each in some)

    def fetch(self, path: str) -> bytes:
        import obstore

        return bytes(obstore.get(self.store, path).bytes())

    def remove(self, path: str) -> None:
        import obstore

        obstore.delete(self.store, path)


class ServerFolderCase(OnDisk, StoreCase, Stops):
    """A folder of a file server, which this process sees, too."""

    server: store_services.Sftp | store_services.Ftp

    wrong: ClassVar = {"password": "hush-hush"}

    @abstractmethod
    def __init__(self, servers: Servers) -> None:
        """A folder of the server."""

    @classmethod
    @contextmanager
    def fresh(cls, system: Servers, folder: Path) -> Iterator[Self]:
        case = cls(system)
        case.start()
        yield case

    def write(self, path: str, content: bytes) -> None:
        self.at_hand.put(path, content)

    def stop(self) -> None:
        assert self.server.daemon is not None
        self.server.daemon.stop(signal.SIGKILL)

    def start(self) -> None:
        assert self.server.daemon is not None
        self.server.daemon.start(lambda: store_services.listens(self.server.port))


class SftpFilesCase(ServerFolderCase):
    title = "Parquet files on SFTP"
    via = "sftp"

    def __init__(self, servers: Servers) -> None:
        self.at_hand = stores_at_hand.sftp_by_password(servers)
        self.server = servers.get(store_services.sftp_by_password)
        self.folder = self.server.folder / str(self.connection()["folder"]).rpartition("/")[2]


class FtpFilesCase(ServerFolderCase):
    title = "Parquet files on FTP"
    via = "ftp"

    def __init__(self, servers: Servers) -> None:
        self.at_hand = stores_at_hand.ftp(servers)
        self.server = servers.get(store_services.ftp)
        self.folder = self.server.folder / str(self.connection()["folder"]).rpartition("/")[2]


class WebFilesCase(Case, Reads):
    title = "Parquet files by HTTP"
    connector = "files"
    via = "http"

    def __init__(self, site: Web) -> None:
        self.site = site

    @classmethod
    def system(cls) -> AbstractContextManager[Web]:
        return web()

    @classmethod
    @contextmanager
    def fresh(cls, system: Web, folder: Path) -> Iterator[Self]:
        system.pages.clear()
        yield cls(system)

    def connection(self) -> Settings:
        return {"url": self.site.url("/"), "allow_private": True, "timeout": 5}

    def source(self, table: str) -> Settings:
        return {"path": f"{quote(table)}.parquet", "format": "parquet"}

    def put(self, table: str, rows: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(rows, content)
        tag = hashlib.sha256(content.getvalue()).hexdigest()
        self.site.pages[f"/{quote(table)}.parquet"] = Page(content.getvalue(), headers={"ETag": f'"{tag}"'})

    def get(self, table: str) -> Rows:
        page = self.site.pages.get(f"/{quote(table)}.parquet")
        rows: Rows = pq.read_table(io.BytesIO(page.content)).to_pylist() if page else []
        return rows

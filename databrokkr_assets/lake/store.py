"""Where a lake stands: a local folder or an S3 prefix, as its three users address it - Delta, DuckDB and ourselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from databrokkr_assets.core.errors import AccessError, SpecError
from databrokkr_assets.core.names import literal
from databrokkr_assets.core.plugins import missing_extra

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Store:
    """A root, `url`, and the options that open it.

    For `s3://bucket/prefix` the options are `endpoint_url`, `access_key_id`, `secret_access_key`, `session_token` and
    `region`; those left out come from the environment as boto3 would find them.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_s3(self) -> bool:
        """Whether the root is an S3 prefix; otherwise it is a local folder."""
        return self.url.startswith("s3://")

    def child(self, *parts: str) -> Store:
        """The store one or more folders down."""
        return Store("/".join([self.url.rstrip("/"), *parts]), self.options)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The DuckDB extensions that reading and writing here needs."""
        return ("httpfs",) if self.is_s3 else ()

    def access(self) -> dict[str, str]:
        """The options, and for S3 what boto3 finds for those left out: environment, profiles, roles.

        Asked each time, because credentials of a role expire. Raises SpecError without boto3.
        """
        return {**_found_by_boto3(), **self.options} if self.is_s3 else dict(self.options)

    def delta_options(self) -> dict[str, str]:
        """The options as delta-rs names them."""
        names = {
            "endpoint_url": "AWS_ENDPOINT_URL",
            "access_key_id": "AWS_ACCESS_KEY_ID",
            "secret_access_key": "AWS_SECRET_ACCESS_KEY",
            "session_token": "AWS_SESSION_TOKEN",
            "region": "AWS_REGION",
        }
        found = {names[key]: value for key, value in self.access().items()}
        if self.is_s3:
            found["aws_conditional_put"] = "etag"
            if self.access().get("endpoint_url", "").startswith("http://"):
                found["AWS_ALLOW_HTTP"] = "true"
        return found

    def duck_secret(self, name: str = "databrokkr_lake") -> str | None:
        """The statement that lets DuckDB in; `None` for a local folder.

        Another `name` is for another store than the lake: then the secret is for that store's prefix only.
        """
        if not self.is_s3:
            return None
        access = self.access()
        endpoint = urlsplit(access.get("endpoint_url", ""))
        parts = {
            "KEY_ID": access.get("access_key_id"),
            "SECRET": access.get("secret_access_key"),
            "SESSION_TOKEN": access.get("session_token"),
            "REGION": access.get("region"),
            "ENDPOINT": endpoint.netloc or None,
            "URL_STYLE": "path" if endpoint.netloc else None,
        }
        given = [f"{name} {literal(value)}" for name, value in parts.items() if value]
        if endpoint.scheme == "http":
            given.append("USE_SSL false")
        if name != "databrokkr_lake":
            given.append(f"SCOPE {literal(self.url)}")
        return f"CREATE OR REPLACE SECRET {name} (TYPE s3, {', '.join(given)})"

    def make(self) -> None:
        """Make sure that the folder is there. Raises AccessError."""
        if not self.is_s3:
            try:
                Path(self.url).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self.access_error(error) from error

    def write(self, text: str = "") -> None:
        """Write a small file here."""
        files, path = self._filesystem()
        if not self.is_s3:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with files.open_output_stream(path) as out:
            out.write(text.encode())

    def read(self) -> str:
        """The text of a small file; empty when it is not there."""
        files, path = self._filesystem()
        try:
            with files.open_input_stream(path) as stream:
                return bytes(stream.read()).decode()
        except FileNotFoundError:
            return ""

    def put(self, file: Path) -> None:
        """Copy a local file here, in pieces. Raises AccessError."""
        from pyarrow.fs import LocalFileSystem, copy_files

        files, path = self._filesystem()
        try:
            if not self.is_s3:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            copy_files(str(file), path, LocalFileSystem(), files)
        except OSError as error:
            raise self.access_error(error) from error

    def fetch(self, file: Path) -> None:
        """Copy what is here to a local file, in pieces. Raises AccessError, also when it is not there."""
        from pyarrow.fs import LocalFileSystem, copy_files

        files, path = self._filesystem()
        try:
            copy_files(path, str(file), files, LocalFileSystem())
        except OSError as error:
            raise self.access_error(error) from error

    def names(self) -> list[str]:
        """The names directly below this folder; none when it is not there."""
        from pyarrow.fs import FileSelector

        files, path = self._filesystem()
        found = files.get_file_info(FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def delete(self) -> None:
        """Remove this file or folder with all below it; nothing happens when it is not there."""
        from pyarrow.fs import FileType

        files, path = self._filesystem()
        match files.get_file_info(path).type:
            case FileType.File:
                files.delete_file(path)
            case FileType.Directory:
                files.delete_dir(path)

    def access_error(self, error: Exception) -> AccessError:
        """The error for a lake that does not let us in."""
        mend = "check that the path is writable and the disk has room, or set another lake with DATABROKKR_LAKE"
        return AccessError(f"the lake cannot be used: {error}", mend=mend, where=self.url)

    def _filesystem(self) -> tuple[FileSystem, str]:
        from pyarrow.fs import LocalFileSystem, S3FileSystem

        if not self.is_s3:
            return LocalFileSystem(), self.url
        access = self.access()
        filesystem = S3FileSystem(
            access_key=access.get("access_key_id"),
            secret_key=access.get("secret_access_key"),
            session_token=access.get("session_token"),
            region=access.get("region"),
            endpoint_override=access.get("endpoint_url"),
        )
        return filesystem, self.url.removeprefix("s3://")


def _found_by_boto3() -> dict[str, str]:
    try:
        import boto3
    except ImportError as error:
        raise missing_extra("s3", "a lake on S3") from error
    session = boto3.Session()
    credentials = session.get_credentials()
    frozen = credentials.get_frozen_credentials() if credentials else None
    found = {
        "access_key_id": frozen and frozen.access_key,
        "secret_access_key": frozen and frozen.secret_key,
        "session_token": frozen and frozen.token,
        "region": session.region_name or "us-east-1",
        "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    return {name: value for name, value in found.items() if value}


def store_at(url: str, project: Path, options: Mapping[str, str]) -> Store:
    """The store at `url`: `s3://bucket/prefix`, or a folder, relative ones below `project`. Raises SpecError."""
    if url.startswith("s3://"):
        return Store(url.rstrip("/"), options)
    if "://" in url and not url.startswith("file://"):
        scheme = url.partition("://")[0]
        raise SpecError(f'a lake cannot stand on "{scheme}"', mend="use a folder or s3://bucket/prefix")
    if "%" in url:  # delta-rs would take it for an escape
        raise SpecError("a lake's path cannot contain %", mend="use another folder", where=url)
    return Store(str((project / Path(url.removeprefix("file://")).expanduser()).resolve()))

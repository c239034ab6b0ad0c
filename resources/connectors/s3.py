"""S3 and what speaks like it: a bucket whose files the connector `files` reads and writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr, model_validator

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import ChecksAccess, Finding, ListsStreams, Place
from resources.base import Connector
from resources.support import store_folders
from resources.support.store_folders import OpensFolders
from resources.support.store_objects import RETRY, ObjectStore, client, needs
from resources.support.stores import StoreConnection

_ASKED_AGAIN = timedelta(minutes=10)


class S3Connection(StoreConnection, OpensFolders, ChecksAccess, ListsStreams):
    """A bucket of Amazon S3, MinIO, Ceph, R2 … A node `files` names it as `connection`; its `path` is within it.

    Credentials that are not given here are found as boto3 finds them: environment, profiles, roles.
    """

    type: Literal["s3"]
    """The connector."""
    bucket: str
    """The bucket's name."""
    prefix: str = ""
    """A folder of the bucket that all paths start at."""
    endpoint_url: str | None = None
    """Where the service is, when it is not Amazon's, e.g. `https://minio.example.com`."""
    region: str | None = None
    """The region; without it the environment's, or `us-east-1`."""
    access_key_id: str | None = None
    """The access key; needs `secret_access_key`."""
    secret_access_key: SecretStr | None = None
    """Its secret, best as `{{ env.NAME }}`."""
    session_token: SecretStr | None = None
    """The token of temporary credentials."""
    anonymous: bool = False
    """Whether requests go without credentials, for a public bucket."""

    @model_validator(mode="after")
    def _whole(self) -> S3Connection:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both `access_key_id` and `secret_access_key`, or neither")
        if self.anonymous and self.access_key_id:
            raise ValueError("`anonymous` goes without credentials; remove one of both")
        return self

    def store(self, place: Place, name: str) -> ObjectStore:
        """The bucket."""
        needs("s3", "S3")
        return ObjectStore(name, f"s3://{self.bucket}", lambda: self._open(name))

    def uri(self, path: str) -> str:
        """`s3://bucket/prefix/path`."""
        return "/".join(filter(None, [f"s3://{self.bucket}", self.prefix.strip("/"), path]))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the bucket answers, and may be listed and written."""
        who = "nobody, without credentials" if self.anonymous else self.access_key_id or "as boto3 finds it"
        return store_folders.access(self.store(place, name), who)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The files of known formats."""
        return store_folders.streams(self.store(place, name))

    def _open(self, name: str) -> Any:
        from obstore.store import S3Store

        endpoint = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config: dict[str, Any] = {"region": self.region or "us-east-1", "skip_signature": self.anonymous}
        if endpoint:
            config["endpoint"] = endpoint
        provider = None
        if not self.anonymous:
            provider, region = self._credentials(name)
            config["region"] = self.region or region or "us-east-1"
        return S3Store(
            self.bucket,
            prefix=self.prefix.strip("/") or None,
            config=config,  # type: ignore[arg-type]
            client_options=client(allow_http=(endpoint or "").startswith("http://")),
            retry_config=RETRY,
            credential_provider=provider,
        )

    def _credentials(self, name: str) -> tuple[Any, str | None]:
        """What gives obstore the credentials, and the region that boto3 knows.

        Given to obstore by a function also when they stand in the settings: else it would mix them with others that it
        finds in the environment.
        """
        if self.access_key_id and self.secret_access_key:
            token = self.session_token.get_secret_value() if self.session_token else None
            given = (self.access_key_id, self.secret_access_key.get_secret_value(), token)
            return lambda: _credential(*given, None), os.environ.get("AWS_REGION")
        try:
            import boto3
        except ImportError as error:
            raise missing_extra("s3", "finding credentials of S3") from error
        session = boto3.Session()
        found = session.get_credentials()
        if found is None:
            raise AccessError(
                f'the connection "{name}" has no credentials, and boto3 finds none',
                mend="add `access_key_id` and `secret_access_key`, or `anonymous: true` for a public bucket",
            )

        def current() -> dict[str, Any]:
            frozen = found.get_frozen_credentials()
            return _credential(frozen.access_key, frozen.secret_key, frozen.token, datetime.now(UTC) + _ASKED_AGAIN)

        return current, session.region_name


def _credential(key: str, secret: str, token: str | None, until: datetime | None) -> dict[str, Any]:
    return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": until}


connector = Connector(
    name="s3",
    summary="Buckets of Amazon S3 and compatible stores, for the connector [files](files.md).",
    kind="s3",
    connection=S3Connection,
    extra="s3",
)

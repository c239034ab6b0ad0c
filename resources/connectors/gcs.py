"""Google Cloud Storage: a bucket whose files the connector `files` reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import SecretStr, model_validator

from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import ChecksAccess, Finding, ListsStreams, Place
from resources.base import Connector
from resources.support import store_folders
from resources.support.store_folders import OpensFolders
from resources.support.store_objects import RETRY, ObjectStore, client, needs
from resources.support.stores import StoreConnection


class GcsConnection(StoreConnection, OpensFolders, ChecksAccess, ListsStreams):
    """A bucket of Google Cloud Storage. A node `files` names it as `connection`; its `path` is within it.

    It goes through the same interface as S3 and Azure Blob, and is not run in our CI: no emulator can be had there.
    Credentials that are not given here are Google's application default credentials.
    """

    type: Literal["gcs"]
    """The connector."""
    bucket: str
    """The bucket's name."""
    prefix: str = ""
    """A folder of the bucket that all paths start at."""
    service_account_file: str | None = None
    """The file with the key of a service account."""
    service_account_key: SecretStr | None = None
    """The same key as JSON text, best as `{{ env.NAME }}`."""
    anonymous: bool = False
    """Whether requests go without credentials, for a public bucket."""

    @model_validator(mode="after")
    def _one_way_in(self) -> GcsConnection:
        if [self.service_account_file is None, self.service_account_key is None, not self.anonymous].count(False) > 1:
            raise ValueError("give one of `service_account_file`, `service_account_key` and `anonymous`")
        return self

    def store(self, place: Place, name: str) -> ObjectStore:
        """The bucket."""
        needs("gcs", "Google Cloud Storage")
        return ObjectStore(name, f"gs://{self.bucket}", lambda: self._open(place))

    def uri(self, path: str) -> str:
        """`gs://bucket/prefix/path`."""
        return "/".join(filter(None, [f"gs://{self.bucket}", self.prefix.strip("/"), path]))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the bucket answers, and may be listed and written."""
        given = self.service_account_file or ("the given service account" if self.service_account_key else None)
        who = "nobody, without credentials" if self.anonymous else given or "the application default"
        return store_folders.access(self.store(place, name), who)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The files of known formats."""
        return store_folders.streams(self.store(place, name))

    def _open(self, place: Place) -> Any:
        from obstore.store import GCSStore

        config: dict[str, Any] = {"skip_signature": self.anonymous}
        if self.service_account_file:
            config["service_account"] = place.resolve(self.service_account_file)
        if self.service_account_key:
            config["service_account_key"] = self.service_account_key.get_secret_value()
        return GCSStore(
            self.bucket,
            prefix=self.prefix.strip("/") or None,
            config=config,  # type: ignore[arg-type]
            client_options=client(),
            retry_config=RETRY,
        )


connector = Connector(
    name="gcs",
    summary="Buckets of Google Cloud Storage, for the connector [files](files.md). Not run in our CI.",
    kind="googlecloud",
    connection=GcsConnection,
    extra="gcs",
)

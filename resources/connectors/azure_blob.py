"""Azure Blob Storage: a container whose files the connector `files` reads and writes."""

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


class AzureBlobConnection(StoreConnection, OpensFolders, ChecksAccess, ListsStreams):
    """A container of Azure Blob Storage. A node `files` names it as `connection`; its `path` is within it.

    Credentials that are not given here are found as Azure's own tools find them: environment, workload and managed
    identity.
    """

    type: Literal["azure_blob"]
    """The connector."""
    account: str
    """The storage account's name."""
    container: str
    """The container's name."""
    prefix: str = ""
    """A folder of the container that all paths start at."""
    account_key: SecretStr | None = None
    """A key of the account, best as `{{ env.NAME }}`."""
    sas_token: SecretStr | None = None
    """A shared access signature."""
    tenant_id: str | None = None
    """The tenant of a service principal; needs `client_id` and `client_secret`."""
    client_id: str | None = None
    """The service principal."""
    client_secret: SecretStr | None = None
    """Its secret."""
    anonymous: bool = False
    """Whether requests go without credentials, for a public container."""
    endpoint_url: str | None = None
    """Where the service is, when it is not Azure's public cloud; with Azurite `http://localhost:10000/devstoreaccount1`."""

    @model_validator(mode="after")
    def _one_way_in(self) -> AzureBlobConnection:
        principal = [self.tenant_id, self.client_id, self.client_secret]
        if any(principal) and not all(principal):
            raise ValueError("a service principal needs `tenant_id`, `client_id` and `client_secret`")
        if [not self.account_key, not self.sas_token, not any(principal), not self.anonymous].count(False) > 1:
            raise ValueError("give one of `account_key`, `sas_token`, `client_secret` and `anonymous`")
        return self

    def store(self, place: Place, name: str) -> ObjectStore:
        """The container."""
        needs("azure", "Azure Blob Storage")
        return ObjectStore(name, f"the container {self.container} of {self.account}", self._open)

    def uri(self, path: str) -> str:
        """`https://account.blob.core.windows.net/container/prefix/path`."""
        host = (self.endpoint_url or f"https://{self.account}.blob.core.windows.net").rstrip("/")
        return "/".join(filter(None, [host, self.container, self.prefix.strip("/"), path]))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the container answers, and may be listed and written."""
        return store_folders.access(self.store(place, name), self._who())

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The files of known formats."""
        return store_folders.streams(self.store(place, name))

    def _who(self) -> str:
        if self.anonymous:
            return "nobody, without credentials"
        if self.account_key or self.sas_token:
            return f"a {'key' if self.account_key else 'signature'} of the account {self.account}"
        return self.client_id or "as Azure's tools find it"

    def _open(self) -> Any:
        from obstore.store import AzureStore

        config: dict[str, Any] = {"account_name": self.account, "skip_signature": self.anonymous, **self._credentials()}
        if self.endpoint_url:
            config["endpoint"] = self.endpoint_url
        return AzureStore(
            self.container,
            prefix=self.prefix.strip("/") or None,
            config=config,  # type: ignore[arg-type]
            client_options=client(allow_http=(self.endpoint_url or "").startswith("http://")),
            retry_config=RETRY,
        )

    def _credentials(self) -> dict[str, str]:
        """The credentials as obstore names them, with their kind, so that it mixes in none of the environment's."""
        if self.account_key:
            return {"account_key": self.account_key.get_secret_value(), "credential_type": "access_key"}
        if self.sas_token:
            return {"sas_key": self.sas_token.get_secret_value().lstrip("?"), "credential_type": "sas_token"}
        if self.tenant_id and self.client_id and self.client_secret:
            secret = self.client_secret.get_secret_value()
            principal = {"tenant_id": self.tenant_id, "client_id": self.client_id, "client_secret": secret}
            return {**principal, "credential_type": "client_secret"}
        return {}


connector = Connector(
    name="azure_blob",
    summary="Containers of Azure Blob Storage, for the connector [files](files.md).",
    kind="azure",
    connection=AzureBlobConnection,
    extra="azure",
)

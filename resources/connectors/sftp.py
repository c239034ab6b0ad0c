"""SFTP: a server whose files the connector `files` reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import ChecksAccess, Finding, ListsStreams, Place
from resources.base import Connector
from resources.support import store_folders
from resources.support.store_folders import OpensFolders
from resources.support.store_sftp import SftpStore
from resources.support.stores import StoreConnection


class SftpConnection(StoreConnection, OpensFolders, ChecksAccess, ListsStreams):
    """A folder of an SSH server. A node `files` names it as `connection`; its `path` is within it.

    The server must prove who it is: by `host_key`, or by the file `known_hosts`.
    """

    type: Literal["sftp"]
    """The connector."""
    host: str
    """The server's name or address."""
    port: int = Field(default=22, ge=1, le=65535)
    """The port it listens on."""
    user: str
    """Who logs in."""
    password: SecretStr | None = None
    """The password, best as `{{ env.NAME }}`."""
    private_key: SecretStr | None = None
    """The private key as text."""
    private_key_file: str | None = None
    """The file with the private key; without key and password, those of this machine's user and agent are tried."""
    passphrase: SecretStr | None = None
    """What the private key is encrypted with."""
    host_key: str | None = None
    """The server's public key, as `ssh-keyscan <host>` shows it behind the name, e.g. `ssh-ed25519 AAAA…`."""
    known_hosts: str | None = None
    """A file with the keys of servers, in OpenSSH's form; without it and `host_key`, `~/.ssh/known_hosts`."""
    check_host_key: bool = True
    """Whether the server must prove who it is; `false` lets anybody between you and it read and change all files."""
    folder: str = ""
    """The folder that all paths start at: from the root with a leading `/`, else from where the login ends up."""

    @model_validator(mode="after")
    def _whole(self) -> SftpConnection:
        if self.private_key and self.private_key_file:
            raise ValueError("give one of `private_key` and `private_key_file`")
        if self.host_key and self.known_hosts:
            raise ValueError("give one of `host_key` and `known_hosts`")
        if not self.check_host_key and (self.host_key or self.known_hosts):
            raise ValueError("`check_host_key: false` makes the key given here useless; remove one of both")
        return self

    def store(self, place: Place, name: str) -> SftpStore:
        """The folder on the server. Raises SpecError when asyncssh is not installed."""
        try:
            import asyncssh  # noqa: F401
        except ImportError as error:
            raise missing_extra("sftp", "SFTP") from error
        return SftpStore(name, self.host, self.port, self.folder, lambda: self._options(place, name))

    def uri(self, path: str) -> str:
        """`sftp://host/folder/path`."""
        port = "" if self.port == 22 else f":{self.port}"
        return "/".join(filter(None, [f"sftp://{self.host}{port}", self.folder.strip("/"), path]))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the server answers and lets us in, and the folder may be listed and written."""
        return store_folders.access(self.store(place, name), self.user)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The files of known formats."""
        return store_folders.streams(self.store(place, name))

    def _options(self, place: Place, name: str) -> Mapping[str, Any]:
        options: dict[str, Any] = {"username": self.user, "config": None, "known_hosts": self._known(place, name)}
        if self.password:
            options["password"] = self.password.get_secret_value()
        if self.private_key or self.private_key_file:
            options["client_keys"] = [self._key(place, name)]
        elif self.password:
            options |= {"client_keys": None, "agent_path": None}
        return options

    def _key(self, place: Place, name: str) -> Any:
        import asyncssh

        passphrase = self.passphrase.get_secret_value() if self.passphrase else None
        if self.private_key:
            return asyncssh.import_private_key(self.private_key.get_secret_value(), passphrase)
        file = place.resolve(self.private_key_file or "")
        try:
            return asyncssh.import_private_key(Path(file).read_bytes(), passphrase)
        except OSError as error:
            what = f'the connection "{name}" needs the private key {file}: {error.strerror}'
            raise AccessError(what, mend="put it there, readable for this user only") from error

    def _known(self, place: Place, name: str) -> Any:
        """Whom asyncssh is to believe: nothing but `None` means everybody."""
        import asyncssh

        if not self.check_host_key:
            return None
        if self.host_key:
            return ([asyncssh.import_public_key(self.host_key)], [], [])
        file = Path(place.resolve(self.known_hosts) if self.known_hosts else Path.home() / ".ssh" / "known_hosts")
        try:
            return asyncssh.import_known_hosts(file.read_text())
        except OSError as error:
            what = f'the connection "{name}" does not know the key of {self.host}: {file}: {error.strerror}'
            raise AccessError(what, mend=f"run `ssh-keyscan {self.host}` and put its key into `host_key`") from error


connector = Connector(
    name="sftp",
    summary="Files on an SSH server, for the connector [files](files.md).",
    kind="ssh",
    connection=SftpConnection,
    extra="sftp",
)

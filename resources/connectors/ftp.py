"""FTP: a server whose files the connector `files` reads and writes."""

from __future__ import annotations

import ftplib
import ssl
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from databrokkr_assets.core.errors import AccessError
from databrokkr_assets.core.ports import Stream
from databrokkr_assets.core.spec import ChecksAccess, Finding, ListsStreams, Place
from resources.base import Connector
from resources.support import store_folders
from resources.support.store_folders import OpensFolders
from resources.support.store_ftp import FtpStore, SecureFtp
from resources.support.stores import StoreConnection

_SECONDS = 30.0


class FtpConnection(StoreConnection, OpensFolders, ChecksAccess, ListsStreams):
    """A folder of an FTP server. A node `files` names it as `connection`; its `path` is within it.

    Without TLS, password and files travel readable for all on the way, so TLS is the default.
    """

    type: Literal["ftp"]
    """The connector."""
    host: str
    """The server's name or address."""
    port: int = Field(default=21, ge=1, le=65535)
    """The port it listens on."""
    user: str = "anonymous"
    """Who logs in."""
    password: SecretStr = SecretStr("anonymous@")
    """The password, best as `{{ env.NAME }}`."""
    tls: Literal["explicit", "none"] = "explicit"
    """`explicit` turns to TLS before the login and checks the server's certificate; `none` does not."""
    ca_file: str | None = None
    """The certificate of the authority that signed the server's, where it is none that this machine knows."""
    encoding: str = "utf-8"
    """The encoding of file names."""
    folder: str = ""
    """The folder that all paths start at: from the root with a leading `/`, else from where the login ends up."""

    def store(self, place: Place, name: str) -> FtpStore:
        """The folder on the server."""
        return FtpStore(name, f"{self.host}:{self.port}", self.folder, lambda: self._login(place, name))

    def uri(self, path: str) -> str:
        """`ftp://host/folder/path`."""
        port = "" if self.port == 21 else f":{self.port}"
        return "/".join(filter(None, [f"ftp://{self.host}{port}", self.folder.strip("/"), path]))

    def check_access(self, name: str, place: Place) -> Iterator[Finding]:
        """Whether the server answers and lets us in, and the folder may be listed and written."""
        return store_folders.access(self.store(place, name), self.user)

    def list_streams(self, name: str, place: Place) -> Iterator[Stream]:
        """The files of known formats."""
        return store_folders.streams(self.store(place, name))

    def _login(self, place: Place, name: str) -> ftplib.FTP:
        ftp = self._unconnected(place, name)
        try:
            ftp.connect(self.host, self.port)
            ftp.login(self.user, self.password.get_secret_value())
            if isinstance(ftp, SecureFtp):
                ftp.prot_p()
        except BaseException:
            ftp.close()
            raise
        return ftp

    def _unconnected(self, place: Place, name: str) -> ftplib.FTP:
        if self.tls == "none":
            return ftplib.FTP(timeout=_SECONDS, encoding=self.encoding)
        file = place.resolve(self.ca_file) if self.ca_file else None
        try:
            context = ssl.create_default_context(cafile=file)
        except OSError as error:
            what = f'the connection "{name}" needs the certificate {file}: {error.strerror or error}'
            raise AccessError(what, mend="put it there, in PEM form") from error
        return SecureFtp(timeout=_SECONDS, encoding=self.encoding, context=context)


connector = Connector(
    name="ftp",
    summary="Files on an FTP server, with or without TLS, for the connector [files](files.md).",
    kind="ftp",
    connection=FtpConnection,
)

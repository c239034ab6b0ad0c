"""An SFTP server of asyncssh, which knows a password: `python sftp.py <settings as JSON>`.

OpenSSH's server lets only accounts of the machine log in by password. Settings: `port`, `folder`, `user`, `password`,
`key` (the file with its host key).
"""

import asyncio
import json
import sys
from typing import Any

import asyncssh


def main(settings: dict[str, str]) -> None:
    """Serve until the process is ended."""

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (settings["user"], settings["password"])

    def files(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=settings["folder"].encode())

    async def serve() -> None:
        await asyncssh.listen(
            "127.0.0.1",
            int(settings["port"]),
            server_factory=Server,
            server_host_keys=[settings["key"]],
            sftp_factory=files,
        )
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

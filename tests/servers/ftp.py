"""An FTP server of pyftpdlib, run as a process of its own: `python ftp.py <settings as JSON>`.

Settings: `port`, `folder`, `user`, `password`, `rights` (pyftpdlib's letters), `certificate` and `key` for TLS,
`claims` (the address that it tells clients to fetch data from), `without` (commands that it is not to know).
"""

import json
import sys
from typing import Any

from pyftpdlib import handlers
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.servers import FTPServer


def main(settings: dict[str, str]) -> None:
    """Serve until the process is ended."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(settings["user"], settings["password"], settings["folder"], perm=settings["rights"])
    secure = "certificate" in settings
    handler: Any = type("Handler", (handlers.TLS_FTPHandler if secure else handlers.FTPHandler,), {})
    if secure:
        handler.certfile, handler.keyfile = settings["certificate"], settings["key"]
        handler.tls_control_required = handler.tls_data_required = True
    handler.authorizer = authorizer
    handler.auth_failed_timeout = 0
    handler.masquerade_address = settings.get("claims")
    handler.proto_cmds = {
        name: about for name, about in handler.proto_cmds.items() if name not in settings.get("without", "").split()
    }
    FTPServer(("127.0.0.1", int(settings["port"])), handler).serve_forever(handle_exit=False)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

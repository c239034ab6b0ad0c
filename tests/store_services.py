"""Real stores of files for tests, started as in `tests.services`: S3 with grants, Azurite, SFTP, FTP."""

from __future__ import annotations

import base64
import datetime
import importlib.util
import ipaddress
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests import services
from tests.services import HOST, S3, Daemon, Missing, free_port

AZURITE = "azurite@3.35.0"
"""The last one that Debian's Node, or an older one, can run."""


# ------------------------------------------------------------------------------------------------------ S3


@dataclass(frozen=True)
class GuardedS3:
    """moto, checking signatures and grants: an owner, and a reader who may list and get but not put."""

    owner: S3
    reader: S3


@contextmanager
def guarded_s3() -> Iterator[GuardedS3]:
    """Yield a new S3 endpoint that lets in two users only. Raises `Missing`."""
    with services.s3() as server:
        owner = _s3_user(server, "owner", ["s3:*"])
        reader = _s3_user(server, "reader", ["s3:ListBucket", "s3:GetObject"])
        # From here on every request is checked. As a form, the number would not be found.
        order = urllib.request.Request(f"{server.endpoint_url}/moto-api/reset-auth", data=b"0", method="POST")
        order.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(order, timeout=5):
            yield GuardedS3(owner, reader)


def _s3_user(server: S3, name: str, actions: list[str]) -> S3:
    iam = importlib.import_module("boto3").client(
        "iam",
        endpoint_url=server.endpoint_url,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        region_name=server.region,
    )
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.close()
    return replace(server, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])


# --------------------------------------------------------------------------------------------------- Azure


@dataclass(frozen=True)
class Azure:
    """An Azurite blob service, which checks signatures."""

    endpoint_url: str
    account: str
    key: str
    daemon: Daemon = field(repr=False)

    def create_container(self, name: str) -> str:
        """Create an empty container and return its name."""
        import hashlib
        import hmac

        now = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = f"x-ms-date:{now}\nx-ms-version:2021-12-02"
        resource = f"/{self.account}/{self.account}/{name}\nrestype:container"
        text = "PUT" + "\n" * 12 + f"{headers}\n{resource}"
        signed = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        order = urllib.request.Request(f"{self.endpoint_url}/{name}?restype=container", data=b"", method="PUT")
        order.add_header("Authorization", f"SharedKey {self.account}:{base64.b64encode(signed).decode()}")
        order.add_header("x-ms-date", now)
        order.add_header("x-ms-version", "2021-12-02")
        order.add_header("Content-Type", "")
        with urllib.request.urlopen(order, timeout=5):
            return name


@contextmanager
def azure() -> Iterator[Azure]:
    """Yield a new, empty blob service that keeps its blobs in memory. Raises `Missing`."""
    program = _npm(AZURITE) / "azurite/dist/src/blob/main.js"
    account, key = "tester", base64.b64encode(secrets.token_bytes(32)).decode()
    port = free_port()
    with services._folder("azurite") as folder:
        command = ["env", f"AZURITE_ACCOUNTS={account}:{key}", "node", str(program), "--blobHost", HOST]
        command += ["--blobPort", str(port), "--skipApiVersionCheck", "--silent"]
        daemon = Daemon(services._child("KILL", [*command, "--inMemoryPersistence"]), folder)
        try:
            daemon.start(lambda: listens(port))
            yield Azure(f"http://{HOST}:{port}/{account}", account, key, daemon)
        finally:
            daemon.stop(signal.SIGKILL)  # it would wait for its clients to leave


def _npm(package: str) -> Path:
    """The folder `node_modules` with a package of npm, installed once for this user. Raises `Missing`."""
    services._find_or_install("Node", "npm", lambda: Path(found) if (found := shutil.which("npm")) else None)
    home = Path(tempfile.gettempdir()) / f"databrokkr-npm-{os.getuid()}" / package
    with services._one_at_a_time():
        if not (home / "done").exists():
            home.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--prefix", str(home), "--ignore-scripts", "--no-audit", "--no-fund", package]
            if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode != 0:
                raise Missing(f"{package}: npm install {package}")
            (home / "done").touch()
    return home / "node_modules"


# ---------------------------------------------------------------------------------------------------- SFTP


@dataclass(frozen=True)
class Sftp:
    """An SFTP server with files below `folder`; `root` is what its clients call that folder."""

    port: int
    folder: Path
    root: str
    user: str
    host_key: str
    private_key: str | None = None
    password: str | None = None
    readonly_port: int = 0
    daemon: Daemon | None = field(default=None, repr=False)


@contextmanager
def sftp() -> Iterator[Sftp]:
    """Yield OpenSSH's server, which lets this process's own user in by a key. Raises `Missing`."""
    program = services._find_or_install("OpenSSH", "openssh-server", _find_sshd)
    with services._folder("sftp") as folder:
        files = folder / "files"
        files.mkdir()
        keys = {name: _ssh_key(folder / name) for name in ("host", "client")}
        (folder / "authorized").write_text(keys["client"])
        port, readonly = free_port(), free_port()
        (folder / "config").write_text(_sshd_config(folder, port, readonly))
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        daemon = Daemon(services._child("TERM", [str(program), "-D", "-e", "-f", f"{folder}/config"]), folder)
        try:
            daemon.start(lambda: listens(port) and listens(readonly))
            user = pwd.getpwuid(os.geteuid()).pw_name
            key = (folder / "client").read_text()
            yield Sftp(port, files, str(files), user, keys["host"], key, None, readonly, daemon)
        finally:
            daemon.stop(signal.SIGTERM)


@contextmanager
def sftp_by_password() -> Iterator[Sftp]:
    """Yield a server of asyncssh's own, which lets one user in by a password and shows `folder` as `/`."""
    with services._folder("sftp") as folder:
        files = folder / "files"
        files.mkdir()
        user, password = "tester", secrets.token_urlsafe(12)
        host_key = _ssh_key(folder / "host")
        port = free_port()
        given = {"port": str(port), "folder": str(files), "user": user, "password": password}
        with _python("sftp.py", folder, {**given, "key": str(folder / "host")}, port) as daemon:
            yield Sftp(port, files, "/", user, host_key, None, password, 0, daemon)


def _sshd_config(folder: Path, port: int, readonly: int) -> str:
    return f"""
Port {port}
Port {readonly}
ListenAddress {HOST}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/authorized
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
Subsystem sftp internal-sftp
Match LocalPort {readonly}
  ForceCommand internal-sftp -R
"""


def _find_sshd() -> Path | None:
    return next((path for path in (Path("/usr/sbin/sshd"), Path("/usr/bin/sshd")) if path.exists()), None)


def _ssh_key(path: Path) -> str:
    """Make a key pair; gives the public key as text."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    path.chmod(0o600)
    return str(key.export_public_key().decode()).strip()


# ----------------------------------------------------------------------------------------------------- FTP


@dataclass(frozen=True)
class Ftp:
    """An FTP server with files below `folder`; `ca_file` is set where it speaks TLS."""

    port: int
    folder: Path
    user: str
    password: str
    ca_file: Path | None
    daemon: Daemon = field(repr=False)


@contextmanager
def ftp(*, tls: bool = False, rights: str = "elradfmwMT", **settings: str) -> Iterator[Ftp]:
    """Yield a server of pyftpdlib; `settings` are those of `tests/servers/ftp.py`. Raises `Missing`."""
    if tls and importlib.util.find_spec("OpenSSL") is None:
        raise Missing("FTP over TLS: uv sync (pyopenssl is in the dev group)")
    with services._folder("ftp") as folder:
        files = folder / "files"
        files.mkdir()
        user, password = "tester", secrets.token_urlsafe(12)
        port = free_port()
        given = {"port": str(port), "folder": str(files), "user": user, "password": password, "rights": rights}
        ca_file = None
        if tls:
            ca_file, key = certificate(folder, "localhost", HOST)
            given |= {"certificate": str(ca_file), "key": str(key)}
        with _python("ftp.py", folder, {**given, **settings}, port) as daemon:
            yield Ftp(port, files, user, password, ca_file, daemon)


# --------------------------------------------------------------------------------------------------- parts


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """Make a certificate for these names and addresses, signed by itself; gives its file and that of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return files


def _alternative(name: str) -> Any:
    from cryptography import x509

    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


@contextmanager
def _python(script: str, folder: Path, settings: Mapping[str, str], port: int) -> Iterator[Daemon]:
    """A server written in Python, with the packages that this process has."""
    path = str(Path(__file__).parent / "servers" / script)
    command = ["env", f"PYTHONPATH={os.pathsep.join(sys.path)}", sys.executable, "-W", "ignore", path]
    daemon = Daemon(services._child("KILL", [*command, json.dumps(settings)]), folder)
    try:
        daemon.start(lambda: listens(port))
        yield daemon
    finally:
        daemon.stop(signal.SIGTERM)


def listens(port: int) -> bool:
    """Whether a server of this machine takes connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0

"""Real systems for tests: found or installed, started on a free loopback port, used, stopped.

    with postgres() as server:
        psycopg.connect(server.dsn())

A server is a child of the test process, in the foreground, under `setpriv --pdeathsig`: the kernel signals
it when its parent ends, however it ends, so neither a crash nor `kill -9` of pytest leaves a server behind
(after a `kill -9` its folder under /tmp stays). An exit handler could not promise that, and `preexec_fn` is
unsafe beside threads. To the kernel "parent" is the starting *thread*: start servers from the main thread, as
fixtures do.

What cannot be had raises `Missing`, which names the command that would bring it.
"""

import fcntl
import importlib
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0


class Missing(Exception):
    """A system that is neither on this machine nor to be installed here; the text says how to get it."""


# ---------------------------------------------------------------------------------------------- PostgreSQL


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server; `user` is its superuser, `database` the one that is always there."""

    host: str
    port: int
    user: str
    password: str
    database: str
    daemon: "Daemon" = field(repr=False)

    def dsn(self, database: str = "postgres") -> str:
        """The libpq URL of one database of this server."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its dsn. Raises `psycopg.errors.DuplicateDatabase`."""
        self._administer("create database {}", name)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Remove a database if it is there, disconnecting whoever uses it."""
        self._administer("drop database if exists {} with (force)", name)

    def start(self) -> None:
        """Return when it answers, on the same port with the same data as before; no effect when it runs."""
        self.daemon.start(self._answers)

    def stop(self, *, crash: bool = False) -> None:
        """Disconnect the clients and stop; a `crash` has no orderly end, so the next start recovers."""
        self.daemon.stop(signal.SIGQUIT if crash else signal.SIGINT)

    def _administer(self, statement: str, name: str) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.dsn(), connect_timeout=5) as connection:
                return connection.execute("select 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """Yield a new PostgreSQL server; `settings` are its own, such as `fsync="on"` or `wal_level="logical"`.

    `fsync` is off unless asked for: what is committed then outlives a stop and a crash of the server, but not
    one of the machine. Raises `Missing`.
    """
    programs = _find_or_install("PostgreSQL", "postgresql", _find_postgres)
    password = secrets.token_urlsafe(12)
    with _folder("postgres") as folder:
        _initdb(programs / "initdb", folder, password)
        port = free_port()
        command = [str(programs / "postgres"), "-D", f"{folder}/data"]
        command += _server_settings(folder, port, settings)
        daemon = Daemon(_child("INT", command, unprivileged=True), folder)
        server = Postgres(HOST, port, "postgres", password, "postgres", daemon)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _initdb(program: Path, folder: Path, password: str) -> None:
    password_file = folder / "password"
    password_file.write_text(password)
    if os.geteuid() == 0:
        for path in (folder, password_file):
            os.chown(path, _nobody().pw_uid, _nobody().pw_gid)
    options = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--username=postgres"]
    # A locale that every glibc has: the developer's own would change sort order and messages.
    options += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D", f"{folder}/data"]
    command = _child("KILL", [str(program), *options], unprivileged=True)
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")


def _server_settings(folder: Path, port: int, wished: dict[str, str]) -> Iterator[str]:
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": str(folder),
        "shared_buffers": "128MB",
        "max_connections": "50",
        "fsync": "off",
        "timezone": "UTC",
        **wished,
    }
    for name, value in settings.items():
        yield from ("-c", f"{name}={value}")


def _find_postgres() -> Path | None:
    """The folder with the programs of the newest server; a machine with only the client has no initdb."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve()] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


# ------------------------------------------------------------------------------------------------- MariaDB


@dataclass(frozen=True)
class MariaDB:
    """A MariaDB server with a row-based binary log; `user` may do everything and logs in with `password`."""

    host: str
    port: int
    socket: Path
    user: str
    password: str
    daemon: "Daemon" = field(repr=False)

    def url(self, database: str = "mysql") -> str:
        """The URL of one database of this server."""
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its url. Raises `pymysql.err.ProgrammingError`."""
        self._administer("CREATE DATABASE {} CHARACTER SET utf8mb4", name)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database if it is there."""
        self._administer("DROP DATABASE IF EXISTS {}", name)

    def start(self) -> None:
        """Return when it answers, on the same port with the same data as before; no effect when it runs."""
        self.daemon.start(self._answers)

    def stop(self, *, crash: bool = False) -> None:
        """Disconnect the clients and stop; a `crash` has no orderly end, so the next start recovers."""
        self.daemon.stop(signal.SIGKILL if crash else signal.SIGTERM)

    def connect(self, database: str = "mysql") -> Any:
        """A new pymysql connection in autocommit mode."""
        import pymysql

        login = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return pymysql.connect(**login, database=database, autocommit=True, connect_timeout=5)

    def _administer(self, statement: str, name: str) -> None:
        quoted = "`" + name.replace("`", "``") + "`"
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement.format(quoted))

    def _answers(self) -> bool:
        import pymysql

        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True


@contextmanager
def mariadb(**settings: str) -> Iterator[MariaDB]:
    """Yield a new MariaDB server; `settings` are its own, such as `local_infile="OFF"`.

    What is committed outlives a stop and a crash of the server, but not one of the machine. Raises `Missing`.
    """
    program = _find_or_install("MariaDB", "mariadb-server", _find_mariadb)
    user, password = "tester", secrets.token_urlsafe(12)
    with _folder("mariadb") as folder:
        _install_mariadb(folder, user, password)
        port = free_port()
        command = [str(program), "--no-defaults", f"--init-file={folder}/users.sql"]
        command += _mariadb_settings(folder, port, settings)
        daemon = Daemon(_child("KILL", command, unprivileged=True), folder)
        server = MariaDB(HOST, port, folder / "socket", user, password, daemon)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _install_mariadb(folder: Path, user: str, password: str) -> None:
    users = folder / "users.sql"
    users.write_text(
        f"CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION;\n"
    )
    if os.geteuid() == 0:
        for path in (folder, users):
            os.chown(path, _nobody().pw_uid, _nobody().pw_gid)
    options = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    command = _child("KILL", ["mariadb-install-db", *options, f"--datadir={folder}/data"], unprivileged=True)
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")


def _mariadb_settings(folder: Path, port: int, wished: dict[str, str]) -> Iterator[str]:
    settings = {
        "datadir": f"{folder}/data",
        "socket": f"{folder}/socket",
        "pid-file": f"{folder}/pid",
        "tmpdir": str(folder),
        "bind-address": HOST,
        "port": str(port),
        "character-set-server": "utf8mb4",
        "innodb-buffer-pool-size": "128M",
        "innodb-flush-log-at-trx-commit": "2",
        "innodb-flush-method": "nosync",
        "log-bin": "binlog",
        "binlog-format": "ROW",
        "server-id": "1",
        "skip-name-resolve": "ON",
        **{name.replace("_", "-"): value for name, value in wished.items()},
    }
    for name, value in settings.items():
        yield f"--{name}={value}"


def _find_mariadb() -> Path | None:
    """The server; on Debian it stands where only root's PATH leads."""
    found = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    return Path(found) if found else None


# ------------------------------------------------------------------------------------------------------ S3


@dataclass(frozen=True)
class S3:
    """An S3 endpoint. It is moto's, which lets any key in: a test on it proves nothing about grants."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    daemon: "Daemon" = field(repr=False)

    def client(self) -> Any:
        """A new boto3 client of this endpoint."""
        # By name, because boto3 has no types and its import takes a third of a second.
        return importlib.import_module("boto3").client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )

    def create_bucket(self, name: str) -> str:
        """Create an empty bucket and return its name."""
        client = self.client()
        try:
            client.create_bucket(Bucket=name)
        finally:
            client.close()
        return name

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.endpoint_url, timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def s3() -> Iterator[S3]:
    """Yield a new, empty S3 endpoint that keeps its objects in memory. Raises `Missing`."""
    if importlib.util.find_spec("moto") is None:
        raise Missing("S3: uv sync (moto[server] is in the dev group)")
    port = free_port()
    with _folder("s3") as folder:
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
        daemon = Daemon(_child("KILL", command), folder)
        server = S3(f"http://{HOST}:{port}", "testing", secrets.token_urlsafe(12), "us-east-1", daemon)
        try:
            daemon.start(server._answers)
            yield server
        finally:
            daemon.stop(signal.SIGTERM)


# ------------------------------------------------------------------------------------------------ Chromium


def chromium() -> Path:
    """The path of a Chromium that runs, for Playwright, which runs too. Raises `Missing`."""
    # The Node in Playwright's wheel needs a library that a bare Debian lacks.
    _find_or_install("Playwright", "libatomic1", _find_playwright)
    return _find_or_install("Chromium", "chromium", _find_chromium)


def _find_playwright() -> Path | None:
    package = importlib.util.find_spec("playwright")
    if package is None or package.origin is None:
        raise Missing("Playwright: uv sync (playwright is in the dev group)")
    return _running(Path(package.origin).parent / "driver/node")


def _find_chromium() -> Path | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := _running(Path("/usr/bin", name)))), None)


def _running(program: Path) -> Path | None:
    """The program if it runs: Ubuntu's chromium-browser, for one, only says that a snap is wanted."""
    runs = program.exists() and subprocess.run([program, "--version"], capture_output=True).returncode == 0
    return program if runs else None


# ------------------------------------------------------------------------------------- servers as children


class Daemon:
    """A server in the foreground, a child of this process, which can be started again after a stop."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None when it was stopped."""
        return self._process.pid if self._process else None

    def start(self, answers: Callable[[], bool]) -> None:
        """Start unless it runs, and return when `answers()`. Raises RuntimeError with the end of its log."""
        if self._process and self._process.poll() is None:
            return
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=_environment(self._folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Else Ctrl-C at the terminal would end it before the fixtures that still use it.
                start_new_session=True,
            )
        self._wait(answers)

    def stop(self, how: signal.Signals) -> None:
        """Send `how` and return when the process is gone, killed if need be; no effect when stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @contextmanager
    def files_up_to(self, size: int) -> Iterator[None]:
        """Within the block what the server starts anew can make no file larger than `size` bytes: its disk is full."""
        self._limit_files(str(size))
        try:
            yield
        finally:
            self._limit_files("unlimited")

    def _limit_files(self, size: str) -> None:
        # Without CAP_SYS_RESOURCE a process is limited by its own user only, which for an unprivileged one is nobody.
        command = ["prlimit", f"--pid={self.pid}", f"--fsize={size}:unlimited"]
        for line in (command, _child("KILL", command, unprivileged=True)):
            if subprocess.run(line, capture_output=True).returncode == 0:
                return
        raise Missing("prlimit: apt-get install util-linux")

    def _wait(self, answers: Callable[[], bool]) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not answers():
            died = self._process is None or self._process.poll() is not None
            if died or time.monotonic() > give_up:
                end = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{'ended' if died else 'silent'}: {' '.join(self._command)}\n{end}")
            time.sleep(0.02)


def free_port() -> int:
    """A loopback port that nobody listens on.

    Below the ephemeral ports, so that no outgoing connection takes it while its server is stopped; and not
    from the shared generator, which pytest-randomly gives the same seed in every worker.
    """
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def _child(when_orphaned: str, command: Sequence[str], *, unprivileged: bool = False) -> list[str]:
    """The command, sent the signal `when_orphaned` when its parent ends; `unprivileged`: never as root."""
    if shutil.which("setpriv") is None:
        raise Missing("setpriv: apt-get install util-linux")
    options = [f"--pdeathsig={when_orphaned}"]
    if unprivileged and os.geteuid() == 0:
        options += [f"--reuid={_nobody().pw_uid}", f"--regid={_nobody().pw_gid}", "--clear-groups"]
    return ["setpriv", *options, *command]


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _environment(folder: Path) -> dict[str, str]:
    """No more than a server needs: PGDATA, AWS_PROFILE and the like must not reach it."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder for a while; in /tmp, as a socket's path must be short and the user nobody must get there."""
    folder = Path(tempfile.mkdtemp(prefix=f"databrokkr-{name}-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- installing


def _find_or_install(what: str, package: str, find: Callable[[], Path | None]) -> Path:
    """What `find` finds, if need be after installing Debian's `package`. Raises `Missing`."""
    if found := find():
        return found
    with _one_at_a_time():
        if found := find() or _install(package, find):
            return found
    raise Missing(f"{what}: apt-get install {package}")


def _install(package: str, find: Callable[[], Path | None]) -> Path | None:
    """Install, on failure once more with fresh package lists.

    What counts is what can be found then, not apt's exit code: Debian's postgresql may fail to start a
    cluster of its own, and is still good to us.
    """
    apt = _apt_get()
    if apt is None:
        return None
    install = ["install", "--no-install-recommends", package]
    for step in (install, ["update"], install):
        subprocess.run([*apt, *step], stdin=subprocess.DEVNULL, capture_output=True)
        if found := find():
            return found
    return None


def _apt_get() -> list[str] | None:
    """The beginning of an apt-get command that asks nothing; None without apt-get or the right to use it."""
    if shutil.which("apt-get") is None:
        return None
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"]
    command += ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::http::Timeout=30"]
    if os.geteuid() == 0:
        return command
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n", *command]
    return None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Workers of pytest-xdist want to install at the same moment, and apt-get's locks let only one do so."""
    path = Path(tempfile.gettempdir()) / f"databrokkr-install-{os.getuid()}.lock"
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

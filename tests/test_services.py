"""The real systems that other tests lean on work, and are gone afterwards, also when a test is killed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import sync_playwright

from tests import services

ROOT = Path(__file__).parent.parent
HEADLESS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def test_postgres_answers(postgres: services.Postgres) -> None:
    with psycopg.connect(postgres.dsn()) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_postgres_wants_the_password(postgres: services.Postgres) -> None:
    wrong = postgres.dsn().replace(postgres.password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_every_test_has_a_database_of_its_own(postgres: services.Postgres, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("create table own (n int)")
    with psycopg.connect(postgres.dsn()) as other:
        assert other.execute("select to_regclass('own')").fetchone() == (None,)


def test_a_database_name_is_taken_as_it_is(postgres: services.Postgres) -> None:
    name = 'a "strange"/name'
    with psycopg.connect(postgres.create_database(name)) as connection:
        assert connection.info.dbname == name
    postgres.drop_database(name)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres.dsn(name))


@pytest.mark.usefixtures("postgres")  # which skips where there is none
@pytest.mark.parametrize("crash", [False, True])
def test_postgres_goes_down_and_comes_back_with_what_was_committed(crash: bool) -> None:
    with services.postgres(wal_level="logical") as server:
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("show wal_level").fetchone() == ("logical",)
            connection.execute("create table kept as select 7 as n")
            connection.commit()
            server.stop(crash=crash)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn())
        server.start()
        with psycopg.connect(server.dsn()) as connection:
            assert connection.execute("select n from kept").fetchone() == (7,)


@pytest.mark.usefixtures("postgres")
def test_no_postgres_outlives_its_block() -> None:
    with services.postgres() as server:
        pid = server.daemon.pid
        folder = _folder_of(pid)
        assert pid in _processes(str(folder))
        psycopg.connect(server.dsn()).close()
    assert _processes(str(folder)) == []
    assert not _alive(pid)
    assert not folder.exists()


@pytest.mark.usefixtures("postgres")
def test_no_postgres_outlives_a_killed_test_process() -> None:
    script = "with postgres() as server: print(server.daemon.pid, flush=True); signal.pause()"
    command = [sys.executable, "-c", f"import signal; from tests.services import postgres\n{script}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        folder = _folder_of(pid)
        assert _alive(pid)
        tests.kill()
    _eventually(lambda: not _alive(pid) and not _processes(f"{folder}/"))
    shutil.rmtree(folder)


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    daemon = services.Daemon(["sh", "-c", "echo no such luck; exit 3"], tmp_path)
    with pytest.raises(RuntimeError, match="no such luck"):
        daemon.start(lambda: False)


def test_s3_gives_back_what_was_put(s3: services.S3) -> None:
    bucket = s3.create_bucket("gives-back")
    client = s3.client()
    client.put_object(Bucket=bucket, Key="a/b.txt", Body=b"brokkr")
    assert client.get_object(Bucket=bucket, Key="a/b.txt")["Body"].read() == b"brokkr"
    client.close()


@pytest.mark.usefixtures("s3")
def test_no_s3_outlives_its_block() -> None:
    with services.s3() as server:
        pid = server.daemon.pid
        assert _alive(pid)
    assert not _alive(pid)


def test_chromium_says_its_version(chromium: Path) -> None:
    said = subprocess.run([chromium, "--version"], capture_output=True, text=True, check=True)
    assert "Chrom" in said.stdout


def test_chromium_paints_a_page_and_leaves_no_process(chromium: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, headless=True, args=HEADLESS
        )
        page = browser.new_page()
        page.set_content("<body style='background: teal'><h1>DataBrokkr</h1></body>")
        assert page.inner_text("h1") == "DataBrokkr"
        assert page.screenshot().startswith(b"\x89PNG")
        assert _processes(str(profile))
        browser.close()
    _eventually(lambda: not _processes(str(profile)))


def test_what_cannot_be_had_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_apt_get", lambda: None)
    monkeypatch.setattr(services, "_find_postgres", lambda: None)
    with pytest.raises(services.Missing, match="PostgreSQL: apt-get install postgresql"), services.postgres():
        pass


LACKING = """
import os, pytest
from tests import services

@pytest.fixture(scope="session", autouse=True)
def bare_machine():
    services._apt_get = services._find_postgres = lambda: None

def test_one(database): pass
def test_two(postgres): pass
def test_environment():
    assert not {"DATABROKKR_HOME", "AWS_PROFILE", "DAGSTER_HOME", "PGHOST"} & os.environ.keys()
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "1"
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_missing_is_skipped_and_counted(workers: str, tmp_path: Path) -> None:
    shell = dict.fromkeys(["DATABROKKR_HOME", "AWS_PROFILE", "DAGSTER_HOME", "PGHOST"], "x")
    said = _pytest(LACKING, tmp_path, workers, **shell)
    assert "\nskips: 2\n  2 x PostgreSQL: apt-get install postgresql\n" in said
    assert "1 passed, 2 skipped" in said


def test_no_skip_is_counted_too(tmp_path: Path) -> None:
    assert "\nskips: 0\n" in _pytest("def test_one(): pass", tmp_path, "0")


def _pytest(tests: str, folder: Path, workers: str, **environment: str) -> str:
    """What pytest prints about these tests, run with our conftest."""
    (folder / "test_inner.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += ["-n", workers, "-c", os.devnull, "--rootdir", str(folder), str(folder / "test_inner.py")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _folder_of(pid: int | None) -> Path:
    """The folder of a PostgreSQL server, which moves into the data folder in it."""
    return Path(os.readlink(f"/proc/{pid}/cwd")).parent


def _alive(pid: int | None) -> bool:
    """Whether the process is there; one that has ended and is not yet reaped is not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _processes(naming: str) -> list[int]:
    """The processes with this text on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if naming in path.read_text(errors="replace"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _eventually(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)

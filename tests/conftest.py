"""What every test may use (real systems) and has (a clean environment), and the count of those skipped."""

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests import services
from tests.contract.recording import Recorder

Service = TypeVar("Service")

# What a shell may hold and no test may see: variables of ours, Dagster, Great Expectations, AWS and libpq.
FOREIGN = ("DATABROKKR_", "DAGSTER_", "GX_", "AWS_", "AZURE_", "GOOGLE_", "PG")
OWN = {
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "DAGSTER_DG_UPDATE_CHECK_ENABLED": "0",
    "GX_ANALYTICS_ENABLED": "false",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # Without credentials AWS clients else ask the cloud's metadata address, and wait for it.
    "AWS_EC2_METADATA_DISABLED": "true",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kills N`: how often tests/test_kill.py kills a run, and tests/contract a load; the full figure is 50."""
    parser.addoption(
        "--kills", default=6, type=int, help="kills in tests/test_kill.py, and of each load in tests/contract"
    )
    parser.addoption("--write-matrix", action="store_true", help="write docs/connectors/matrix.* from the outcome")


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment before test modules are imported: some libraries read it only then."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ.update(OWN)
    config.pluginmanager.register(Recorder(config.getoption("--write-matrix")))


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a test does to the environment ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL server, shared: a test that needs it down starts it again, or has one of its own."""
    with _or_skip(services.postgres()) as server:
        yield server


@pytest.fixture
def database(postgres: services.Postgres) -> Iterator[str]:
    """The dsn of an empty database."""
    postgres.start()  # an earlier test may have failed while the server was down
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.start()
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[services.MariaDB]:
    """A MariaDB server, shared: a test that needs it down starts it again, or has one of its own."""
    with _or_skip(services.mariadb()) as server:
        yield server


@pytest.fixture
def mydatabase(mariadb: services.MariaDB) -> Iterator[str]:
    """The url of an empty database of the MariaDB server."""
    mariadb.start()  # an earlier test may have failed while the server was down
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield mariadb.create_database(name)
    mariadb.start()
    mariadb.drop_database(name)


@pytest.fixture(scope="session")
def s3() -> Iterator[services.S3]:
    """An S3 endpoint, shared: make a bucket of your own."""
    with _or_skip(services.s3()) as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The path of a Chromium, for Playwright's `executable_path`."""
    try:
        return services.chromium()
    except services.Missing as missing:
        pytest.skip(str(missing))


@contextmanager
def _or_skip(service: AbstractContextManager[Service]) -> Iterator[Service]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(service)
        except services.Missing as missing:
            pytest.skip(str(missing))
        yield started


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run and why, also when none: a green run must not hide what it left out.

    Under pytest-xdist only the controller has a terminal, and it has the reports of all workers.
    """
    skipped = {report.nodeid: report for report in terminalreporter.getreports("skipped")}
    reasons = Counter(_reason(report) for report in skipped.values())
    terminalreporter.write_line(f"skips: {len(skipped)}")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count} x {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where_and_why = report.longrepr
    if isinstance(where_and_why, tuple):
        return where_and_why[2].removeprefix("Skipped: ")
    return str(where_and_why)

"""Notes what became of each promise in a session of pytest; at its end the capability matrix is compared with it.

Imports nothing of the suite or the product before it is needed, because every session of pytest loads this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

PROPERTY = "databrokkr_contract"
"""The property of a test's report that says which promise of which case it is."""

KEPT = "kept"

Outcomes = dict[tuple[str, str], dict[str, str | None]]
"""By case and promise: for each test `KEPT`, why it is not kept, or `None` for a failure or a skip."""


@dataclass(eq=False)  # pluggy keeps plugins in sets
class Recorder:
    """A plugin that collects outcomes, also those of pytest-xdist's workers."""

    write: bool
    outcomes: Outcomes = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let each test of the suite say in its report what it promises."""
        for item in items:
            case = getattr(getattr(item, "cls", None), "case", None)
            if case is not None and isinstance(item, pytest.Function):
                item.user_properties.append((PROPERTY, [case.title, item.originalname, item.name]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome."""
        given: Any = dict(report.user_properties).get(PROPERTY)
        if given is None or (report.when != "call" and report.passed):
            return
        title, promise, name = given
        reason = getattr(report, "wasxfail", None)
        outcome = f"{_parameters(name, promise)}{reason}" if reason else KEPT if report.passed else None
        self.outcomes.setdefault((title, promise), {})[name] = outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compare or write, where there is something whole to compare; workers leave it to their controller."""
        if hasattr(session.config, "workerinput") or not self.outcomes:
            return
        from .matrix import written_or_compared

        complaint = written_or_compared(self.outcomes, write=self.write)
        if complaint:
            self.complaints.append(complaint)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what is wrong."""
        for complaint in self.complaints:
            terminalreporter.write_line(complaint, red=True)


def _parameters(name: str, promise: str) -> str:
    """Of a test that runs for several parameters, those."""
    parameters = name.removeprefix(promise).strip("[]")
    return f"`{parameters}`: " if parameters else ""

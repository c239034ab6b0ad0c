"""What a check found: the verdict that the gate acts on, and that the UI and the command line show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from databrokkr_assets.core.spec import CheckSettings, OnFail


@dataclass(frozen=True)
class CheckResult:
    """One expectation's verdict on one load.

    `evaluated` and `unexpected` count rows, `sample` shows at most 20 failing values. `failing` is SQL that selects the
    row ids of every row that failed, `None` where the expectation is not about single rows. A check that could not
    run has an `error` and never passes.
    """

    name: str
    expectation: str
    on_fail: OnFail
    passed: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    evaluated: int | None = None
    unexpected: int | None = None
    observed: Any = None
    sample: tuple[Any, ...] = ()
    failing: str | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def blocks(self) -> bool:
        """Whether the load must not be published: it asked to block, or rows cannot be told apart to set them aside."""
        if self.passed or self.on_fail is OnFail.WARN:
            return False
        return self.on_fail is OnFail.BLOCK or self.failing is None

    @property
    def asked(self) -> str:
        """What was expected, in one line, e.g. `expect_column_values_to_be_between(column=amount, min_value=0)`."""
        return _call(self.expectation, self.parameters)

    @property
    def finding(self) -> str:
        """What was expected and what was found, in one line: `expect_…(column=a): 3 of 100 rows failed, e.g. -1`."""
        return f"{self.asked}: {self._found()}"

    def _found(self) -> str:
        if self.error:
            return f"could not run: {self.error}"
        if self.unexpected is None:
            return f"found {_short(self.observed)}"
        if not self.evaluated:
            return "there were no new rows to look at"
        if not self.unexpected:
            return f"all {self.evaluated:,} rows passed"
        examples = list(dict.fromkeys(_short(value) for value in self.sample if value is not None))[:3]
        allowed = ", which `mostly` allows" if self.passed else ""
        shown = f", e.g. {', '.join(examples)}" if examples else ""
        return f"{self.unexpected:,} of {self.evaluated:,} rows failed{allowed}{shown}"

    def __str__(self) -> str:
        return f"{self.name}: {self.finding}"


def asked(check: CheckSettings) -> str:
    """What a check expects, as its result says it."""
    return _call(check.type, check.parameters)


def _call(expectation: str, parameters: Mapping[str, Any]) -> str:
    return f"{expectation}({', '.join(f'{name}={_short(value)}' for name, value in parameters.items())})"


def _short(value: Any) -> str:
    """A value for one line: not longer than a person reads."""
    text = str(value)
    if isinstance(value, Mapping):  # a failing row of several columns, whose names the parameters have
        text = f"({', '.join(map(str, value.values()))})"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(str, value))}]"
    return text if len(text) <= 60 else f"{text[:57]}…"

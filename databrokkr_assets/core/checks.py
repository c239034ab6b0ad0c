"""What a check found: the verdict that the gate acts on, and that the UI and the command line show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from databrokkr_assets.core.spec import OnFail


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

    def __str__(self) -> str:
        if self.error:
            return f"{self.name}: could not run: {self.error}"
        found = (
            f"{self.unexpected} of {self.evaluated} rows" if self.unexpected is not None else f"found {self.observed}"
        )
        return f"{self.name}: {'passed' if self.passed else 'failed'}, {found}"

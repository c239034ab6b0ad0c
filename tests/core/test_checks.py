"""What a check's result says in one line."""

from __future__ import annotations

from typing import Any

import pytest

from databrokkr_assets.core.checks import CheckResult, asked
from databrokkr_assets.core.spec import CheckSettings, OnFail

BETWEEN: dict[str, Any] = {"parameters": {"column": "amount", "min_value": 0}}


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"evaluated": 9, "unexpected": 0, "passed": True}, "all 9 rows passed"),
        ({"evaluated": 0, "unexpected": 0, "passed": True}, "there were no new rows to look at"),
        (
            {"evaluated": 12_000, "unexpected": 1_500, "sample": (-1, -1, None, -2, -3, -4)},
            "1,500 of 12,000 rows failed, e.g. -1, -2, -3",
        ),
        (
            {"evaluated": 100, "unexpected": 3, "sample": (-1,), "passed": True},
            "3 of 100 rows failed, which `mostly` allows, e.g. -1",
        ),
        ({"evaluated": 2, "unexpected": 1, "sample": ({"a": 1, "b": "x"},)}, "1 of 2 rows failed, e.g. (1, x)"),
        ({"evaluated": 2, "unexpected": 1, "sample": ("y" * 80,)}, f"1 of 2 rows failed, e.g. {'y' * 57}…"),
        ({"observed": 722}, "found 722"),
        ({"error": "no column amount"}, "could not run: no column amount"),
    ],
)
def test_a_finding_is_one_line(facts: dict[str, Any], says: str) -> None:
    check = CheckResult("positive", "expect_x", OnFail.WARN, **({"passed": False} | BETWEEN | facts))
    assert check.finding == f"expect_x(column=amount, min_value=0): {says}"
    assert str(check) == f"positive: {check.finding}"


def test_what_is_asked_reads_the_same_before_and_after() -> None:
    given = {"type": "expect_x", "dataset": "orders", "value_set": ["a", "b"]}
    check = CheckSettings.model_validate(given)
    assert asked(check) == "expect_x(value_set=[a, b])"
    assert CheckResult("n", check.type, check.on_fail, True, check.parameters, 1, 0).asked == asked(check)

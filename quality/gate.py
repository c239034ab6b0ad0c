"""The gate of a node: its checks, run by Great Expectations on the staged rows before anybody sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.spec import CheckSettings
from databrokkr_assets.engine.job import ROW_ID, STAGED, WHOLE, Gate, no_checks
from quality import gx


def gate(checks: Mapping[str, CheckSettings]) -> Gate:
    """A gate that runs `checks`: those about single rows on what is staged, the others on what the dataset will be."""
    return _Gate(checks) if checks else no_checks


def problems(check: CheckSettings) -> Iterable[str]:
    """What is wrong with a check, before any row is read: `what; mend` for each."""
    unknown = gx.unknown(check.type)
    return [unknown] if unknown else gx.parameter_problems(_expectation(check))


class _Gate:
    def __init__(self, checks: Mapping[str, CheckSettings]) -> None:
        self._checks = checks

    def __call__(self, duck: DuckDBPyConnection) -> Iterable[CheckResult]:
        found: dict[str, CheckResult] = {}
        for table, names in self._by_table().items():
            expectations = [_expectation(self._checks[name]) for name in names]
            verdicts = gx.validate(duck, table, expectations, ROW_ID)
            found |= {
                name: _result(name, self._checks[name], verdict) for name, verdict in zip(names, verdicts, strict=True)
            }
        return [found[name] for name in self._checks]

    def _by_table(self) -> dict[str, list[str]]:
        tables: dict[str, list[str]] = {}
        for name, check in self._checks.items():
            tables.setdefault(STAGED if gx.about_single_rows(check.type) else WHOLE, []).append(name)
        return tables


def _expectation(check: CheckSettings) -> gx.Expectation:
    return gx.Expectation(check.type, check.parameters)


def _result(name: str, check: CheckSettings, verdict: gx.Verdict) -> CheckResult:
    return CheckResult(
        name=name,
        expectation=check.type,
        on_fail=check.on_fail,
        passed=verdict.passed,
        parameters=check.parameters,
        evaluated=verdict.evaluated,
        unexpected=verdict.unexpected,
        observed=verdict.observed,
        sample=tuple(verdict.sample),
        failing=verdict.failing_rows,
        error=verdict.error,
    )

"""Great Expectations on a relation in a DuckDB connection: the only importer of great_expectations.

Its SQL engine measures. This module lends it the connection, asks for the metrics of all expectations
together so that they share scans, and turns its answers into verdicts. Great Expectations takes seconds to
import: that happens at the first use, not when this module is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import duckdb

from databrokkr_assets.core.errors import did_you_mean

SAMPLE_SIZE = 20

NOT_IN_SQL = frozenset(
    {
        "expect_column_values_to_be_dateutil_parseable",
        "expect_column_values_to_be_decreasing",
        "expect_column_values_to_be_increasing",
        "expect_column_values_to_be_json_parseable",
        "expect_column_values_to_match_json_schema",
        "expect_column_values_to_match_strftime_format",
        "expect_query_results_to_match_comparison",
    }
)
"""What Great Expectations checks in pandas or Spark only, or against a data source of its own."""

_SINGLE_ROW_FAMILIES = (
    "expect_column_pair_values_",
    "expect_column_value_lengths_",
    "expect_column_values_",
    "expect_multicolumn_",
    "expect_select_column_values_",
)
_MORE_THAN_A_ROW = NOT_IN_SQL | {
    "expect_column_values_to_be_in_type_list",  # about the column's type
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_be_unique",
    "expect_column_values_to_not_be_outliers",
}

# Exported, but without anything behind it.
_ABSTRACT = "expect_multicolumn_values_to_be_unique"

# Fields of every expectation that say how Great Expectations is to run it, which is not the author's to say.
_HOW_TO_RUN = frozenset({"batch_id", "catch_exceptions", "id", "rendered_content", "result_format", "windows"})

_ROWS, _KEYED_ROWS = "rows", "keyed rows"  # our names for the table without its row id, and with it


@dataclass(frozen=True)
class Expectation:
    """What to check. `type` is Great Expectations' name, in snake case or as its class is written."""

    type: str
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class Verdict:
    """What became of one expectation. It never passes when it could not run: then `error` says why.

    `evaluated` counts the rows looked at; `unexpected` those that failed, `None` unless rows pass or fail one
    by one. `observed` and `sample` are ready for JSON; `sample` has at most 20 failing values, of several
    columns a dict each. `failing_rows` is a SELECT, for the connection that was checked, of the row id of
    every row that failed; `None` unless rows pass or fail one by one.
    """

    expectation: Expectation
    passed: bool
    evaluated: int | None
    unexpected: int | None
    observed: object
    sample: list[object]
    failing_rows: str | None
    error: str | None


def unknown(type: str) -> str | None:
    """`None` when Great Expectations has this expectation, else `what; mend`. Does not import it."""
    name = _snake_case(type)
    if name in _known_types():
        return None
    return f'Great Expectations has no expectation "{type}"; {did_you_mean(name, _known_types())}'


def about_single_rows(type: str) -> bool:
    """Whether the expectation judges each row without looking at others: new rows can be judged alone."""
    name = _snake_case(type)
    return name.startswith(_SINGLE_ROW_FAMILIES) and name not in _MORE_THAN_A_ROW


def parameter_problems(expectation: Expectation) -> list[str]:
    """Why an expectation could not run, each as `what; mend`, naming the parameter. Needs no data."""
    if message := unknown(expectation.type):
        return [message]
    _import_quietly()
    try:
        _build(expectation)
    except ParameterError as error:
        return error.problems
    return []


def validate(
    duck: duckdb.DuckDBPyConnection, table: str, expectations: Sequence[Expectation], row_id: str
) -> list[Verdict]:
    """One verdict per expectation, in order, on the table or view `table`, seen without its column `row_id`.

    `row_id` holds a number that is unique and not null. Runs on `duck` itself, inside its transaction if one
    is open, and changes nothing there; a result still being fetched from `duck` is lost. What goes wrong with
    one expectation is that verdict's `error`, and `duck` stays usable. But DuckDB has no savepoints: an
    expectation that fails while rows are read (a cast in the view, say) aborts an open transaction, and with
    it the expectations that follow. So prefer to call this outside of one.
    Raises duckdb.Error when the table or its row id is missing, or when `duck` is interrupted.
    """
    if not expectations:
        return []
    _import_quietly()
    with _Measurements(duck, table, row_id) as data:
        plans = [_plan(data, expectation) for expectation in expectations]
        data.take(metric for plan in plans if isinstance(plan, _Plan) for metric in plan.metrics)
        return [_judge(data, plan) if isinstance(plan, _Plan) else plan for plan in plans]


class ParameterError(Exception):
    """An expectation that cannot be built; `problems` says why, each as `what; mend`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(". ".join(problems))
        self.problems = problems


class NotMeasuredError(Exception):
    """A metric that an expectation needs could not be computed."""


@cache
def _known_types() -> frozenset[str]:
    """All expectations, read from the source of the module that exports them: 2 ms, not 3 s."""
    package = importlib.util.find_spec("great_expectations")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("great_expectations is not installed: pip install great-expectations")
    exports = Path(package.origin).parent / "expectations" / "core" / "__init__.py"
    imports = [node for node in ast.parse(exports.read_text()).body if isinstance(node, ast.ImportFrom)]
    return frozenset(_snake_case(name.name) for node in imports for name in node.names) - {_ABSTRACT}


def _snake_case(name: str) -> str:
    """As Great Expectations derives an expectation's type from the name of its class."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


@cache
def _import_quietly() -> None:
    """Imports Great Expectations, and takes back what its import does to the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports deprecated modules
        show_warning = warnings.showwarning
        import great_expectations  # noqa: F401

        if warnings.showwarning is not show_warning:
            logging.captureWarnings(False)  # it sends the warnings of every library to the log
    logger = logging.getLogger("great_expectations")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)  # what it logs, a verdict says


def _build(expectation: Expectation, batch_id: str | None = None) -> Any:
    """Great Expectations' own object for `expectation`. Raises ParameterError."""
    from great_expectations.compatibility import pydantic
    from great_expectations.expectations.registry import get_expectation_impl

    name = _snake_case(expectation.type)
    if message := unknown(name) or _cannot_run(name, expectation.parameters):
        raise ParameterError([message])
    kind: Any = get_expectation_impl(name)
    allowed = kind.__fields__.keys() - _HOW_TO_RUN
    foreign = sorted(expectation.parameters.keys() - allowed)
    problems = [f"{word} is no parameter of {name}; {did_you_mean(word, allowed)}" for word in foreign]
    given = {word: value for word, value in expectation.parameters.items() if word in allowed}
    problems += _text_problems(given)
    try:
        built = kind(**_with_row_condition(given), batch_id=batch_id)
    except pydantic.ValidationError as error:
        raise ParameterError(problems + _in_plain_words(error.errors())) from error
    except ParameterError as error:
        raise ParameterError(problems + error.problems) from error
    if problems := problems + _rounded(built, given):
        raise ParameterError(problems)
    return built


def _cannot_run(name: str, parameters: Mapping[str, object]) -> str | None:
    if name in NOT_IN_SQL:
        return f"Great Expectations cannot run {name} in a database; use unexpected_rows_expectation instead"
    if name == "expect_column_values_to_not_be_outliers" and parameters.get("method", "iqr") == "iqr":
        return 'method: Great Expectations cannot run "iqr", the default, in DuckDB; use "std"'
    return None


def _text_problems(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the parameters in a language of their own, which pydantic does not read."""
    problems = [
        f"{name} names a suite parameter, of which there are none here; write the value"
        for name, value in given.items()
        if isinstance(value, Mapping) and "$PARAMETER" in value
    ]
    query = given.get("unexpected_rows_query")
    if isinstance(query, str) and "{batch}" not in query:
        problems.append("unexpected_rows_query does not read the rows to check; select from {batch}")
    for name in ("regex", "regex_list"):
        regexes = [given[name]] if isinstance(given.get(name), str) else given.get(name) or []
        reasons = [_regex_problem(regex) for regex in regexes if isinstance(regex, str)]
        problems += [f"{name}: {reason}" for reason in reasons if reason]
    return problems


@cache
def _regex_problem(regex: str) -> str | None:
    """Asked of a database of its own, because the error would abort a transaction."""
    with duckdb.connect() as scratch:
        try:
            scratch.execute(f"SELECT regexp_matches('', {_text(regex)})").fetchall()
        except duckdb.Error as error:
            return f'DuckDB cannot read "{regex}" ({_reason(error)}); write it in RE2 syntax'
    return None


def _with_row_condition(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with a row condition that is text as the object that Great Expectations wants in its place."""
    from great_expectations.exceptions.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation import _convert_string_to_condition

    parser = given.get("condition_parser")
    if parser is not None and not str(parser).startswith("great_expectations"):
        raise ParameterError([f'condition_parser: "{parser}" does not work in a database; leave it out'])
    ready = {name: value for name, value in given.items() if name != "condition_parser"}
    if isinstance(condition := given.get("row_condition"), str):
        try:
            ready["row_condition"] = _convert_string_to_condition(condition)
        except GreatExpectationsError as error:
            mend = """write col("a") > 0, col("a") == "text" or col("a").notnull()"""
            raise ParameterError([f"row_condition: {condition!r} is not understood; {mend}"]) from error
    return ready


def _rounded(built: Any, given: Mapping[str, object]) -> list[str]:
    """The numbers that Great Expectations' models change, by making them floats: 2**53 + 1 is none."""
    problems = []
    for name, value in given.items():
        read = getattr(built, name)
        if isinstance(value, int | Decimal) and isinstance(read, float):
            taken = Decimal(read) if isinstance(value, int) else Decimal(repr(read))
            if taken != value:
                what = f"{name}: Great Expectations would take {value} for {taken}"
                problems.append(f"{what}; use unexpected_rows_expectation")
    return problems


def _in_plain_words(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """pydantic's errors, one sentence for each parameter."""
    reasons: dict[str, list[str]] = {}
    for error in errors:
        reasons.setdefault(".".join(str(part) for part in error["loc"]), []).append(error["msg"])
    whole = reasons.pop("__root__", [])
    if not reasons:
        return [f"{reason}; give one" for reason in whole]
    return [_sentence(name, said) for name, said in reasons.items()]


def _sentence(name: str, reasons: list[str]) -> str:
    if reasons == ["field required"]:
        return f"{name} is missing; add it"
    # Any parameter may also be a dict that names a suite parameter, of which we have none.
    apt = [reason for reason in dict.fromkeys(reasons) if reason != "value is not a valid dict"]
    return f"{name}: {' or '.join(apt or reasons).replace('; ', ', ')}; correct it"


class _Measurements:
    """A table lent to Great Expectations, and what has been measured on it. Nothing is measured twice."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, table: str, row_id: str) -> None:
        from great_expectations.execution_engine.sqlalchemy_execution_engine import SqlAlchemyExecutionEngine

        from quality import duckdb_dialect

        self.duck, self._table, self.row_id = duck, table, row_id
        self._without_row_id = f"* EXCLUDE ({_quoted(row_id)})"
        described = duck.execute(f"DESCRIBE SELECT {self._without_row_id} FROM {_quoted(table)}").fetchall()
        columns = [(name, kind) for name, kind, *_ in described]
        self._lent = duckdb_dialect.BorrowedConnection(duck)
        self.engine: Any = SqlAlchemyExecutionEngine(engine=duckdb_dialect.engine(self._lent, {_ROWS: columns}))
        self.engine.dialect_module = cast(Any, duckdb_dialect.Names(duck))
        self.values: dict[Any, Any] = {}
        self._problems: dict[Any, str] = {}

    def __enter__(self) -> Self:
        self._lend(_KEYED_ROWS, "*")
        self._lend(_ROWS, self._without_row_id)  # the last one is what a metric without a batch id is about
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()
        self.engine.dialect_module = None  # which holds the connection, too
        self._lent.close()

    def _lend(self, name: str, columns: str) -> None:
        import sqlalchemy as sa
        from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData

        batch = SqlAlchemyBatchData(
            self.engine,
            selectable=sa.select(sa.literal_column(columns)).select_from(sa.table(self._table)),
            create_temp_table=False,
            source_table_name=sa.quoted_name(name, quote=True),
        )
        self.engine.load_batch_data(name, batch)

    def graph(self, metrics: Iterable[Any]) -> list[Any]:
        """`metrics` and all that they are computed from. Raises when SQL has no way to compute one."""
        from great_expectations.validator.validation_graph import ValidationGraph

        graph = ValidationGraph(execution_engine=self.engine)
        for metric in metrics:
            graph.build_metric_dependency_graph(metric)
        return [end for edge in graph.edges for end in (edge.left, edge.right) if end is not None]

    def take(self, metrics: Iterable[Any]) -> None:
        """Measures `metrics`, together where that can be; what cannot be measured is noted with its reason.

        Great Expectations' own loop drops all results of a round in which one fails, three times over.
        """
        waiting = {metric.id: metric for metric in metrics}
        while ready := [metric for metric in waiting.values() if self._is_ready(metric)]:
            self._resolve(ready)

    def _is_ready(self, metric: Any) -> bool:
        if metric.id in self.values or metric.id in self._problems:
            return False
        needs = {need.id for need in metric.metric_dependencies.values()} - {metric.id}
        return needs <= self.values.keys()

    def _resolve(self, ready: list[Any]) -> None:
        error = self._try(ready)
        if error is None:
            return
        if len(ready) == 1:
            self._problems[ready[0].id] = _reason(error)
            return
        failed = {metric.id for metric in getattr(error, "failed_metrics", ready)}
        for metric in ready:
            if metric.id in failed:
                self._resolve([metric])  # for a reason of its own
        if others := [metric for metric in ready if metric.id not in failed]:
            self._resolve(others)

    def _try(self, ready: list[Any]) -> Exception | None:
        try:
            self.values.update(self.engine.resolve_metrics(ready, metrics=self.values))
        except Exception as error:
            if isinstance(cause := _cause(error), duckdb.InterruptException):
                raise cause from None  # somebody wants all of this to stop
            return error
        return None

    def check(self, metrics: Iterable[Any]) -> None:
        """Raises NotMeasuredError when one of `metrics` could not be measured."""
        for metric in metrics:
            if metric.id in self._problems:
                raise NotMeasuredError(self._problems[metric.id])

    def value(self, metric: Any) -> Any:
        """The value of one metric, measured now if need be. Raises NotMeasuredError."""
        metrics = self.graph([metric])
        self.take(metrics)
        self.check(metrics)
        return self.values[metric.id]

    def sql(self, select: Any) -> str:
        """The text of a statement, values and all."""
        return str(select.compile(dialect=self.engine.dialect))

    def count(self, select: str) -> int | None:
        """How many rows a SELECT gives; `None` when DuckDB refuses it."""
        try:
            found = self.duck.execute(f"SELECT count(*) FROM ({select}\n)").fetchone()
        except duckdb.Error:
            return None
        return int(found[0]) if found else None


@dataclass(frozen=True)
class _Plan:
    """An expectation that can run: Great Expectations' object, its metrics by name, and all they need."""

    expectation: Expectation
    check: Any
    row_count: Any
    named: Mapping[str, Any]
    metrics: list[Any]

    @property
    def failures(self) -> Any:
        """The metric that counts failing rows; `None` when rows do not pass or fail one by one."""
        return self.named.get(f"{getattr(self.check, 'map_metric', None)}.unexpected_count")


@dataclass(frozen=True)
class _FailingRows:
    count: int | None
    sample: list[object]
    select: str | None


def _plan(data: _Measurements, expectation: Expectation) -> _Plan | Verdict:
    from great_expectations.validator.metric_configuration import MetricConfiguration

    try:
        check = _build(expectation, batch_id=_ROWS)
        named = _metrics(data, check, _first_question(check))
        domain = {key: check.configuration.kwargs.get(key) for key in ("batch_id", "row_condition")}
        row_count = MetricConfiguration("table.row_count", domain)
        return _Plan(expectation, check, row_count, named, data.graph([*named.values(), row_count]))
    except Exception as error:
        return _not_run(expectation, error)


def _judge(data: _Measurements, plan: _Plan) -> Verdict:
    try:
        data.check(plan.metrics)
        outcome = plan.check.metrics_validate(
            metrics=data.values,
            execution_engine=data.engine,
            runtime_configuration=_first_question(plan.check),
        )
        failing = _failing_rows(data, plan, outcome.result)
    except duckdb.InterruptException:
        raise
    except Exception as error:
        return _not_run(plan.expectation, error)
    return Verdict(
        expectation=plan.expectation,
        passed=bool(outcome.success),
        evaluated=data.values[plan.row_count.id],
        unexpected=failing.count,
        observed=_jsonable(outcome.result.get("observed_value")),
        sample=[_jsonable(value) for value in failing.sample[:SAMPLE_SIZE]],
        failing_rows=failing.select,
        error=None,
    )


def _not_run(expectation: Expectation, error: Exception) -> Verdict:
    return Verdict(expectation, False, None, None, None, [], None, _reason(error))


def _metrics(data: _Measurements, check: Any, question: dict[str, object]) -> Mapping[str, Any]:
    """The metrics that answer a question about `check`, by name."""
    found: Mapping[str, Any] = check.get_validation_dependencies(data.engine, question).metric_configurations
    return found


def _first_question(check: Any) -> dict[str, object]:
    """Asks for no failing values of single rows yet: to look for them is a scan, in vain if all pass."""
    return _question(0 if getattr(check, "map_metric", None) else SAMPLE_SIZE)


def _question(sample: int) -> dict[str, object]:
    return {"result_format": {"result_format": "BASIC", "partial_unexpected_count": sample}}


def _failing_rows(data: _Measurements, plan: _Plan, result: Mapping[str, Any]) -> _FailingRows:
    if plan.failures is not None:
        return _rows_by_condition(data, plan)
    if "unexpected_rows_query.table" in plan.named:
        return _rows_by_query(data, plan, result["observed_value"])
    return _FailingRows(None, result.get("partial_unexpected_list") or [], None)


def _rows_by_condition(data: _Measurements, plan: _Plan) -> _FailingRows:
    """The rows that meet the condition by which Great Expectations counted them."""
    from great_expectations.validator.metric_configuration import MetricConfiguration

    count = int(data.values[plan.failures.id] or 0)  # an empty table has None
    parameters = {**plan.failures.metric_value_kwargs}
    parameters.pop("result_format", None)
    name = f"{plan.check.map_metric}.condition"
    metric = MetricConfiguration(name, plan.failures.metric_domain_kwargs, parameters)
    condition, table_domain, columns_domain = data.value(metric)
    select = _select_failing(data, plan.check.map_metric, condition, table_domain | columns_domain)
    return _FailingRows(count, _failing_values(data, plan) if count else [], select)


def _select_failing(data: _Measurements, metric: str, condition: Any, domain: dict[str, Any]) -> str:
    import sqlalchemy as sa

    rows = data.engine.get_domain_records({**domain, "batch_id": _KEYED_ROWS})
    rows = rows.subquery() if isinstance(rows, sa.Select) else rows
    if metric in ("column_values.unique", "compound_columns.unique"):
        # Their condition is about a subquery of counts, which has no row id.
        columns: list[Any] = [sa.column(name) for name in domain.get("column_list") or [domain["column"]]]
        repeated = sa.select(*columns).select_from(rows).group_by(*columns).having(sa.func.count() > 1)
        key = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
        condition = sa.and_(*(column.is_not(None) for column in columns), key.in_(repeated))
    return data.sql(sa.select(sa.column(data.row_id)).select_from(rows).where(condition))


def _failing_values(data: _Measurements, plan: _Plan) -> list[object]:
    named = _metrics(data, plan.check, _question(SAMPLE_SIZE))
    values = data.value(named[f"{plan.check.map_metric}.unexpected_values"])
    if (first := getattr(plan.check, "column_A", None)) is not None:
        return [dict(zip((first, plan.check.column_B), pair, strict=True)) for pair in values]
    return list(values)


def _rows_by_query(data: _Measurements, plan: _Plan, count: int) -> _FailingRows:
    """The rows that a query finds: `SELECT * FROM {batch}` has row ids, one that groups has none."""
    from great_expectations.expectations.metrics.query_metric_provider import QueryMetricProvider

    sample = data.values[plan.named["unexpected_rows_query.table"].id]
    query = QueryMetricProvider._get_substituted_batch_subquery_from_query_and_batch_selectable(
        query=plan.check.unexpected_rows_query,
        batch_selectable=data.engine.get_domain_records({"batch_id": _KEYED_ROWS}),
        execution_engine=data.engine,
    )
    select = f"SELECT {_quoted(data.row_id)} FROM ({query}\n)"
    if data.count(select) != count:  # a DISTINCT, say, finds more rows when they have an id
        return _FailingRows(None, sample, None)
    return _FailingRows(count, sample, select)


def _cause(error: BaseException) -> BaseException:
    """DuckDB's error, if DuckDB failed; else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, duckdb.Error):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _reason(error: BaseException) -> str:
    """What went wrong, without the statement."""
    said = re.split(r"\n\nLINE |\n\tCandidate functions", str(_cause(error)), maxsplit=1)[0].strip()
    return said or type(error).__name__


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _jsonable(value: Any) -> object:
    """`value` as JSON can say it; what JSON has no word for (decimals, dates, NaN) becomes text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return _jsonable(value.tolist()) if hasattr(value, "tolist") else str(value)

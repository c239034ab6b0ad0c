"""Great Expectations on DuckDB: its verdicts are those of its pandas engine, and its failing rows are countable."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from quality import duckdb_dialect, gx
from quality.gx import Expectation, Verdict, validate

ROW_ID = "databrokkr_row"

DATA = f"""
    CREATE TABLE numbered AS SELECT
        range AS {ROW_ID},
        range::INTEGER AS i,
        CASE WHEN range % 11 = 0 THEN NULL ELSE (range * 37 % 101)::DOUBLE END AS v,
        (range % 5)::INTEGER AS k,
        CASE WHEN range % 13 = 0 THEN NULL ELSE (range % 5)::INTEGER END AS k_or_null,
        (range // 2)::INTEGER AS pair,
        'O''Br\\%' || (range % 7) AS s,
        CASE WHEN range % 3 = 0 THEN NULL ELSE repeat('x', (range % 6)::INTEGER) END AS x,
        TIMESTAMP '2024-01-01' + to_hours(range::INTEGER) AS ts,
        DATE '2024-01-01' + (range % 40)::INTEGER AS d,
        (range / 3)::DECIMAL(18, 2) AS amount,
        range % 2 = 0 AS even,
        NULL::DOUBLE AS nothing
    FROM range(200)
"""

OVER_100 = {"type": "comparison", "column": {"name": "i"}, "operator": ">=", "parameter": 100}
IS_BR1 = {"type": "comparison", "column": {"name": "s"}, "operator": "==", "parameter": "O'Br\\%1"}

# Each of these is run on both engines.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_not_be_null", {"column": "i"}),
    ("expect_column_values_to_not_be_null", {"column": "v"}),
    ("expect_column_values_to_not_be_null", {"column": "v", "mostly": 0.9}),
    ("expect_column_values_to_not_be_null", {"column": "nothing"}),
    ("expect_column_values_to_be_null", {"column": "v"}),
    ("expect_column_values_to_be_null", {"column": "nothing"}),
    ("expect_column_values_to_be_between", {"column": "v", "min_value": 10, "max_value": 90}),
    (
        "expect_column_values_to_be_between",
        {"column": "v", "min_value": 10, "max_value": 90, "strict_min": True, "strict_max": True},
    ),
    ("expect_column_values_to_be_between", {"column": "v", "max_value": 95.5, "mostly": 0.95}),
    ("expect_column_values_to_be_between", {"column": "i", "min_value": 20, "row_condition": OVER_100}),
    ("expect_column_values_to_be_between", {"column": "ts", "min_value": "2024-01-03T05:00:00"}),
    ("expect_column_values_to_be_between", {"column": "nothing", "min_value": 3}),
    ("expect_column_values_to_be_in_set", {"column": "s", "value_set": ["O'Br\\%1", "O'Br\\%2"]}),
    ("expect_column_values_to_be_in_set", {"column": "k_or_null", "value_set": [1, 2, None]}),
    ("expect_column_values_to_be_in_set", {"column": "k", "value_set": []}),
    ("expect_column_values_to_not_be_in_set", {"column": "k_or_null", "value_set": [1, 2]}),
    ("expect_column_values_to_be_unique", {"column": "i"}),
    ("expect_column_values_to_be_unique", {"column": "pair"}),
    ("expect_column_values_to_be_unique", {"column": "v"}),
    ("expect_column_values_to_be_unique", {"column": "k", "row_condition": IS_BR1}),
    ("expect_column_values_to_be_unique", {"column": "nothing"}),
    ("expect_column_value_lengths_to_be_between", {"column": "x", "min_value": 2, "max_value": 4}),
    ("expect_column_value_lengths_to_be_between", {"column": "x", "min_value": 2, "strict_min": True}),
    ("expect_column_value_lengths_to_equal", {"column": "x", "value": 4}),
    ("expect_column_values_to_match_regex", {"column": "s", "regex": r"Br\\%[12]"}),
    ("expect_column_values_to_match_regex", {"column": "x", "regex": "^x{2}"}),
    ("expect_column_values_to_not_match_regex", {"column": "s", "regex": "'Br.*[12]$"}),
    ("expect_column_values_to_match_regex_list", {"column": "s", "regex_list": ["1$", "2$"]}),
    (
        "expect_column_values_to_match_regex_list",
        {"column": "s", "regex_list": ["O", "[0-3]$"], "match_on": "all"},
    ),
    ("expect_column_values_to_not_match_regex_list", {"column": "s", "regex_list": ["1$", "2$"]}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "v", "threshold": 1.2, "double_sided": True}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "v", "threshold": 1, "double_sided": False}),
    ("expect_column_values_to_not_be_outliers", {"column": "v", "method": "std", "multiplier": 1}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "k", "column_B": "i"}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "k", "column_B": "k_or_null"}),
    (
        "expect_column_pair_values_to_be_equal",
        {"column_A": "k", "column_B": "k_or_null", "ignore_row_if": "either_value_is_missing"},
    ),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "i", "column_B": "pair"}),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "i", "column_B": "pair", "or_equal": True},
    ),
    (
        "expect_column_pair_values_to_be_in_set",
        {"column_A": "k", "column_B": "pair", "value_pairs_set": [[0, 0], [1, 0], [2, 1]]},
    ),
    ("expect_compound_columns_to_be_unique", {"column_list": ["k", "pair"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["k", "s"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["k", "s"], "row_condition": OVER_100}),
    (
        "expect_compound_columns_to_be_unique",
        {"column_list": ["s", "k_or_null"], "ignore_row_if": "any_value_is_missing"},
    ),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["k", "pair"], "sum_total": 4}),
    ("expect_multicolumn_values_to_be_equal", {"column_list": ["k", "k_or_null", "pair"]}),
    ("expect_select_column_values_to_be_unique_within_record", {"column_list": ["k", "pair", "i"]}),
    (
        "expect_select_column_values_to_be_unique_within_record",
        {"column_list": ["k", "k_or_null"], "ignore_row_if": "any_value_is_missing"},
    ),
    ("expect_column_max_to_be_between", {"column": "v", "min_value": 90, "max_value": 100}),
    ("expect_column_max_to_be_between", {"column": "v", "max_value": 100, "strict_max": True}),
    ("expect_column_min_to_be_between", {"column": "v", "min_value": 1}),
    ("expect_column_min_to_be_between", {"column": "i", "min_value": 100, "row_condition": OVER_100}),
    ("expect_column_min_to_be_between", {"column": "nothing", "min_value": 1}),
    ("expect_column_mean_to_be_between", {"column": "v", "min_value": 45, "max_value": 55}),
    ("expect_column_median_to_be_between", {"column": "v", "min_value": 45, "max_value": 55}),
    ("expect_column_stdev_to_be_between", {"column": "v", "min_value": 28, "max_value": 30}),
    ("expect_column_sum_to_be_between", {"column": "i", "min_value": 19900, "max_value": 19900}),
    (
        "expect_column_quantile_values_to_be_between",
        {
            "column": "i",
            "quantile_ranges": {"quantiles": [0.25, 0.5], "value_ranges": [[40, 60], [90, 110]]},
            "allow_relative_error": "lower",
        },
    ),
    ("expect_column_unique_value_count_to_be_between", {"column": "k_or_null", "min_value": 5, "max_value": 5}),
    ("expect_column_proportion_of_unique_values_to_be_between", {"column": "pair", "min_value": 0.5}),
    ("expect_column_proportion_of_non_null_values_to_be_between", {"column": "v", "min_value": 0.95}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "k", "value_set": [0, 1, 2]}),
    ("expect_column_distinct_values_to_contain_set", {"column": "k_or_null", "value_set": [0, 1, 2]}),
    ("expect_column_distinct_values_to_equal_set", {"column": "k", "value_set": [0, 1, 2, 3, 4]}),
    ("expect_column_most_common_value_to_be_in_set", {"column": "k_or_null", "value_set": [0, 1, 2, 3, 4]}),
    (
        "expect_column_kl_divergence_to_be_less_than",
        {"column": "k", "partition_object": {"values": [0, 1, 2, 3, 4], "weights": [0.2] * 5}, "threshold": 0.1},
    ),
    ("expect_column_to_exist", {"column": "k"}),
    ("expect_column_to_exist", {"column": "kk"}),
    ("expect_table_column_count_to_be_between", {"min_value": 12, "max_value": 12}),
    ("expect_table_column_count_to_equal", {"value": 12}),
    (
        "expect_table_columns_to_match_set",
        {"column_set": ["i", "v", "k", "k_or_null", "pair", "s", "x", "ts", "d", "amount", "even", "nothing"]},
    ),
    (
        "expect_table_columns_to_match_ordered_list",
        {"column_list": ["i", "v", "k", "k_or_null", "pair", "s", "x", "ts", "d", "amount", "even", "nothing"]},
    ),
    ("expect_table_row_count_to_be_between", {"min_value": 100, "max_value": 199}),
    ("expect_table_row_count_to_equal", {"value": 200}),
]

# Types are named, and patterns written, in the way of the engine; pandas cannot compare Decimal with float.
DUCKDB_CASES: list[tuple[str, dict[str, Any], int | None]] = [
    ("expect_column_values_to_match_like_pattern", {"column": "s", "like_pattern": "O'%1"}, 171),
    ("expect_column_values_to_match_like_pattern_list", {"column": "s", "like_pattern_list": ["%1", "%2"]}, 142),
    ("expect_column_values_to_not_match_like_pattern", {"column": "s", "like_pattern": "%1"}, 29),
    ("expect_column_values_to_not_match_like_pattern_list", {"column": "s", "like_pattern_list": ["%1", "%2"]}, 58),
    ("expect_column_values_to_be_in_set", {"column": "d", "value_set": ["2024-01-05", "2024-01-06"]}, 190),
    ("expect_column_values_to_be_between", {"column": "d", "min_value": "2024-01-05"}, 20),
    ("expect_column_values_to_be_between", {"column": "amount", "max_value": 33.33}, 99),
    ("expect_column_values_to_be_of_type", {"column": "i", "type_": "INTEGER"}, None),
    ("expect_column_values_to_be_in_type_list", {"column": "s", "type_list": ["BLOB", "TEXT"]}, None),
    ("expect_column_type_to_be", {"column": "amount", "type_": "DECIMAL(18,2)"}, None),
    ("expect_table_row_count_to_equal_other_table", {"other_table_name": "numbered"}, None),
    ("unexpected_rows_expectation", {"unexpected_rows_query": "SELECT * FROM {batch} WHERE k = 1"}, 40),
]


@pytest.fixture
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(DATA)
        yield connection


@pytest.fixture(scope="module")
def verdicts() -> Iterator[tuple[duckdb.DuckDBPyConnection, list[Verdict]]]:
    """All cases at once, as a node's checks are run."""
    with duckdb.connect() as connection:
        connection.execute(DATA)
        asked = [Expectation(*case) for case in CASES]
        yield connection, validate(connection, "numbered", asked, ROW_ID)


@pytest.fixture(scope="module")
def frame() -> Any:
    with duckdb.connect() as connection:
        made = connection.execute(f"{DATA}; SELECT * EXCLUDE ({ROW_ID}) FROM numbered").df()
    return made.astype({"k_or_null": float})  # else it has pandas' NA, which Great Expectations cannot compare


def by_pandas(frame: Any, type: str, parameters: Mapping[str, Any]) -> Any:
    """What Great Expectations' own pandas engine finds."""
    gx._import_quietly()
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
    from great_expectations.expectations.registry import get_expectation_impl
    from great_expectations.validator.validator import Validator

    validator = Validator(execution_engine=PandasExecutionEngine(batch_data_dict={"frame": frame}))
    validator.metrics_calculator.show_progress_bars = False
    question = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": 0}}
    configuration = get_expectation_impl(type)(**parameters).configuration
    return validator.graph_validate([configuration], {**question, "catch_exceptions": False})[0]


def judge(duck: duckdb.DuckDBPyConnection, type: str, table: str = "numbered", **parameters: object) -> Verdict:
    (verdict,) = validate(duck, table, [Expectation(type, parameters)], ROW_ID)
    return verdict


def count(duck: duckdb.DuckDBPyConnection, select: str | None) -> int:
    assert select is not None
    (rows,) = duck.execute(f"SELECT count(DISTINCT {ROW_ID}) FROM ({select})").fetchall()
    return int(rows[0])


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_agrees_with_pandas(number: int, verdicts: Any, frame: Any) -> None:
    verdict = verdicts[1][number]
    expected = by_pandas(frame, *CASES[number])

    assert verdict.error is None
    assert verdict.expectation == Expectation(*CASES[number])
    assert verdict.passed == expected.success
    if verdict.failing_rows is not None:
        assert verdict.unexpected == expected.result["unexpected_count"]
        assert verdict.evaluated == expected.result["element_count"]
    if isinstance(verdict.observed, int | float):
        assert verdict.observed == pytest.approx(expected.result["observed_value"])


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_failing_rows_are_those_counted(number: int, verdicts: Any) -> None:
    duck, found = verdicts
    verdict = found[number]

    if (verdict.unexpected is None) != (verdict.failing_rows is None):
        pytest.fail("a count without rows, or rows without a count")
    if verdict.failing_rows is not None:
        assert count(duck, verdict.failing_rows) == verdict.unexpected
        assert bool(verdict.sample) == bool(verdict.unexpected)
    assert len(verdict.sample) <= gx.SAMPLE_SIZE
    json.dumps([verdict.observed, verdict.sample], allow_nan=False)


@pytest.mark.parametrize(("type", "parameters", "unexpected"), DUCKDB_CASES, ids=[case[0] for case in DUCKDB_CASES])
def test_runs_on_duckdb(
    duck: duckdb.DuckDBPyConnection, type: str, parameters: dict[str, Any], unexpected: int | None
) -> None:
    verdict = judge(duck, type, **parameters)

    assert verdict.error is None
    assert verdict.unexpected == unexpected
    assert verdict.passed == (not unexpected)
    if unexpected:
        assert count(duck, verdict.failing_rows) == unexpected


def test_every_expectation_is_tried_here() -> None:
    tried = {case[0] for case in CASES} | {case[0] for case in DUCKDB_CASES}
    assert tried | gx.NOT_IN_SQL == gx._known_types()


@pytest.mark.parametrize(
    ("type", "parameters"),
    [
        ("expect_column_values_to_be_dateutil_parseable", {"column": "s"}),
        ("expect_column_values_to_be_decreasing", {"column": "i"}),
        ("expect_column_values_to_be_increasing", {"column": "i"}),
        ("expect_column_values_to_be_json_parseable", {"column": "s"}),
        ("expect_column_values_to_match_json_schema", {"column": "s", "json_schema": {}}),
        ("expect_column_values_to_match_strftime_format", {"column": "s", "strftime_format": "%Y"}),
        (
            "expect_query_results_to_match_comparison",
            {"base_query": "a", "comparison_query": "b", "comparison_data_source_name": "c"},
        ),
        ("expect_column_values_to_not_be_outliers", {"column": "v"}),
    ],
)
def test_what_great_expectations_has_not_in_sql(
    duck: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, type: str, parameters: dict[str, Any]
) -> None:
    (problem,) = gx.parameter_problems(Expectation(type, parameters))
    assert "cannot run" in problem
    assert judge(duck, type, **parameters).error == problem

    monkeypatch.setattr(gx, "_cannot_run", lambda name, parameters: None)
    verdict = judge(duck, type, **parameters)
    assert verdict.error, "Great Expectations can do this by now: take it out of NOT_IN_SQL"
    assert not verdict.passed


# --- names and parameters


def test_knows_what_great_expectations_registers() -> None:
    gx._import_quietly()
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    assert set(list_registered_expectation_implementations()) == gx._known_types()


def test_unknown_expectation() -> None:
    assert gx.unknown("expect_column_values_to_not_be_null") is None
    assert gx.unknown("ExpectColumnKLDivergenceToBeLessThan") is None
    assert gx.unknown("UnexpectedRowsExpectation") is None
    assert gx.unknown("expect_column_values_to_not_be_nul") == (
        'Great Expectations has no expectation "expect_column_values_to_not_be_nul"; '
        'did you mean "expect_column_values_to_not_be_null"?'
    )
    assert 'mean "expect_table_row_count_to_equal"' in str(gx.unknown("ExpectTableRowCountToEquals"))


def test_names_are_known_without_importing_great_expectations() -> None:
    code = (
        "import sys; from quality import gx; assert gx.unknown('nothing'); gx.about_single_rows('nothing');"
        "print(sorted({'great_expectations', 'sqlalchemy', 'pandas'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_class_names_run_too(duck: duckdb.DuckDBPyConnection) -> None:
    assert judge(duck, "ExpectColumnValuesToNotBeNull", column="v").unexpected == 19


def test_about_single_rows() -> None:
    gx._import_quietly()
    from great_expectations.expectations.registry import get_expectation_impl

    for type in gx._known_types() - gx.NOT_IN_SQL:
        by_row = bool(getattr(get_expectation_impl(type), "map_metric", None))
        against_others = ("unique" in type and "within" not in type) or "outlier" in type or "z_score" in type
        about_type = "type" in type
        assert gx.about_single_rows(type) == (by_row and not against_others and not about_type), type
    assert gx.about_single_rows("ExpectColumnValuesToNotBeNull")


@pytest.mark.parametrize(
    ("type", "parameters", "problems"),
    [
        ("expect_column_values_to_not_be_null", {"column": "v", "mostly": 0.9, "notes": "so"}, []),
        ("expect_column_values_to_not_be_null", {}, ["column is missing; add it"]),
        (
            "expect_column_values_to_not_be_null",
            {"colum": "v"},
            [
                'colum is no parameter of expect_column_values_to_not_be_null; did you mean "column"?',
                "column is missing; add it",
            ],
        ),
        ("expect_column_values_to_not_be_null", {"column": 3}, ["column: str type expected; correct it"]),
        (
            "expect_column_values_to_not_be_null",
            {"column": "v", "mostly": 90},
            ["mostly: ensure this value is less than or equal to 1.0; correct it"],
        ),
        (
            "expect_column_values_to_be_between",
            {"column": "v"},
            ["min_value and max_value cannot both be None; give one"],
        ),
        (
            "expect_column_values_to_be_in_set",
            {"column": "v", "value_set": "abc"},
            ["value_set: value is not a valid list; correct it"],
        ),
        (
            "expect_column_values_to_match_regex_list",
            {"column": "v", "regex_list": ["a"], "match_on": "some"},
            ["match_on: unexpected value, permitted: 'any', 'all'; correct it"],
        ),
        (
            "expect_column_values_to_match_regex",
            {"column": "s", "regex": "(?=a)"},
            [
                'regex: DuckDB cannot read "(?=a)" (Invalid Input Error: invalid perl operator: (?=); '
                "write it in RE2 syntax"
            ],
        ),
        (
            "expect_column_values_to_be_in_set",
            {"column": "v", "value_set": {"$PARAMETER": "allowed"}},
            ["value_set names a suite parameter, of which there are none here; write the value"],
        ),
        (
            "unexpected_rows_expectation",
            {"unexpected_rows_query": "SELECT 1"},
            ["unexpected_rows_query does not read the rows to check; select from {batch}"],
        ),
        (
            "expect_column_values_to_not_be_null",
            {"column": "v", "row_condition": "i > 0"},
            [
                "row_condition: 'i > 0' is not understood; "
                'write col("a") > 0, col("a") == "text" or col("a").notnull()'
            ],
        ),
        (
            "expect_column_values_to_not_be_null",
            {"column": "v", "row_condition": "i > 0", "condition_parser": "pandas"},
            ['condition_parser: "pandas" does not work in a database; leave it out'],
        ),
        ("expect_column_values_to_be_nul", {}, [gx.unknown("expect_column_values_to_be_nul")]),
    ],
)
def test_parameter_problems(
    duck: duckdb.DuckDBPyConnection, type: str, parameters: dict[str, Any], problems: list[str]
) -> None:
    assert gx.parameter_problems(Expectation(type, parameters)) == problems
    if problems:
        assert judge(duck, type, **parameters).error == ". ".join(problems)


@pytest.mark.parametrize("name", ["batch_id", "result_format", "catch_exceptions", "windows"])
def test_how_to_run_is_not_the_authors_to_say(name: str) -> None:
    (problem,) = gx.parameter_problems(
        Expectation("expect_column_values_to_not_be_null", {"column": "v", name: "BASIC"})
    )
    assert problem.startswith(f"{name} is no parameter")


# --- what goes wrong


def test_errors_are_verdicts_and_the_others_still_run(duck: duckdb.DuckDBPyConnection) -> None:
    asked = [
        Expectation("expect_column_values_to_not_be_null", {"column": "v"}),
        Expectation("expect_column_values_to_not_be_null", {"column": "missing"}),
        Expectation("expect_column_sum_to_be_between", {"column": "s", "min_value": 0}),
        Expectation("expect_column_values_to_be_between", {"column": "s", "min_value": 0}),
        Expectation("expect_column_values_to_match_regex", {"column": "i", "regex": "a"}),
        Expectation("expect_column_values_to_match_regex", {"column": "s", "regex": "("}),
        Expectation("expect_no_such_thing", {}),
        Expectation("expect_column_median_to_be_between", {"column": "ts", "min_value": 0}),
        Expectation("expect_column_median_to_be_between", {"column": "missing", "min_value": 0}),
        Expectation("unexpected_rows_expectation", {"unexpected_rows_query": "SELECT nope FROM {batch} WHERE TRUE"}),
        Expectation("expect_column_max_to_be_between", {"column": "v", "max_value": 100}),
    ]
    found = validate(duck, "numbered", asked, ROW_ID)

    assert [verdict.expectation for verdict in found] == asked
    assert [bool(verdict.error) for verdict in found] == [False, *[True] * 9, False]
    assert [verdict.passed for verdict in found] == [*[False] * 10, True]
    assert found[0].unexpected == 19
    reasons = [verdict.error or "" for verdict in found]
    assert "missing" in reasons[1]
    assert reasons[2].startswith("Binder Error: No function matches the given name and argument types 'sum(VARCHAR)'")
    assert "VARCHAR" in reasons[3]
    assert "regexp_matches(INTEGER" in reasons[4]
    assert "missing )" in reasons[5]
    assert "for +: 'datetime.datetime'" in reasons[7]
    assert 'Referenced column "nope" not found' in reasons[9]
    assert not any("SELECT" in reason or "sqlalche.me" in reason for reason in reasons)


def test_a_failing_cast_in_the_view_is_a_verdict(duck: duckdb.DuckDBPyConnection) -> None:
    duck.execute("CREATE VIEW cast_late AS SELECT *, s::INTEGER AS number FROM numbered")
    asked = [
        Expectation("expect_column_values_to_be_between", {"column": "number", "min_value": 0}),
        Expectation("expect_column_values_to_not_be_null", {"column": "v"}),
        Expectation("expect_column_values_to_be_unique", {"column": "number"}),
        Expectation("expect_column_values_to_be_unique", {"column": "pair"}),
    ]
    found = validate(duck, "cast_late", asked, ROW_ID)

    assert [verdict.unexpected for verdict in found] == [None, 19, None, 200]
    assert (found[0].error or "").startswith("Conversion Error: Could not convert string 'O'Br")
    duck.execute("BEGIN")  # refused if a transaction were open
    duck.execute("ROLLBACK")


def test_an_open_transaction_stays_open_and_uncommitted(duck: duckdb.DuckDBPyConnection) -> None:
    duck.execute("BEGIN")
    duck.execute("CREATE TABLE mine AS SELECT * FROM numbered")
    asked = [
        Expectation("expect_column_values_to_not_be_null", {"column": "v"}),
        Expectation("expect_column_values_to_not_be_null", {"column": "missing"}),
        Expectation("expect_column_values_to_match_regex", {"column": "s", "regex": "("}),
        Expectation("expect_column_sum_to_be_between", {"column": "s", "min_value": 0}),
        Expectation("expect_column_values_to_be_unique", {"column": "pair"}),
    ]
    found = validate(duck, "mine", asked, ROW_ID)

    assert [verdict.unexpected for verdict in found] == [19, None, None, None, 200]
    with pytest.raises(duckdb.CatalogException), duck.cursor() as other:
        other.execute("SELECT * FROM mine")
    duck.execute("ROLLBACK")
    with pytest.raises(duckdb.CatalogException):
        duck.execute("SELECT * FROM mine")


def test_a_missing_table_or_row_id_is_the_callers_error(duck: duckdb.DuckDBPyConnection) -> None:
    asked = [Expectation("expect_column_values_to_not_be_null", {"column": "v"})]
    with pytest.raises(duckdb.CatalogException, match="nowhere"):
        validate(duck, "nowhere", asked, ROW_ID)
    with pytest.raises(duckdb.BinderException, match="no_such_id"):
        validate(duck, "numbered", asked, "no_such_id")
    assert validate(duck, "nowhere", [], ROW_ID) == []


def test_an_interrupt_stops_all(duck: duckdb.DuckDBPyConnection) -> None:
    many = "range(1_000_000_000)"
    duck.execute(f"CREATE VIEW endless AS SELECT a.range AS {ROW_ID}, b.range AS b FROM {many} a, {many} b")
    asked = [Expectation("expect_column_sum_to_be_between", {"column": "b", "min_value": n}) for n in range(3)]
    stopped = threading.Event()

    def interrupt() -> None:
        while not stopped.wait(0.05):
            duck.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(duckdb.InterruptException):
            validate(duck, "endless", asked, ROW_ID)
    finally:
        stopped.set()
        thread.join()
    assert judge(duck, "expect_column_values_to_not_be_null", column="v").unexpected == 19


def test_the_same_twice(duck: duckdb.DuckDBPyConnection) -> None:
    asked = [Expectation("expect_column_values_to_not_be_null", {"column": name}) for name in ("v", "no", "v", "no")]
    found = validate(duck, "numbered", asked, ROW_ID)
    assert [verdict.unexpected for verdict in found] == [19, None, 19, None]
    assert found[1].error == found[3].error is not None


# --- the row id, names, and where the table stands


def test_the_row_id_is_not_seen(duck: duckdb.DuckDBPyConnection) -> None:
    assert judge(duck, "expect_table_column_count_to_equal", value=12).observed == 12
    assert not judge(duck, "expect_column_to_exist", column=ROW_ID).passed
    verdict = judge(duck, "expect_table_columns_to_match_set", column_set=["i"], exact_match=False)
    assert isinstance(verdict.observed, list)
    assert ROW_ID not in verdict.observed
    rows = judge(duck, "unexpected_rows_expectation", unexpected_rows_query="SELECT * FROM {batch}")
    assert isinstance(rows.sample[0], dict)
    assert ROW_ID not in rows.sample[0]


def test_names_that_need_quotes(duck: duckdb.DuckDBPyConnection) -> None:
    duck.execute('CREATE TABLE "Select ""x"" :y%" AS SELECT i AS "Row ""Id"" :1", k AS "Group" FROM numbered')
    duck.execute('ALTER TABLE "Select ""x"" :y%" ADD COLUMN "a.b c" INTEGER')
    asked = [
        Expectation("expect_column_values_to_be_in_set", {"column": "Group", "value_set": [1]}),
        Expectation("expect_column_values_to_be_unique", {"column": "Group"}),
        Expectation("expect_column_values_to_not_be_null", {"column": "a.b c"}),
        Expectation("expect_compound_columns_to_be_unique", {"column_list": ["Group", "a.b c"]}),
        Expectation("expect_table_columns_to_match_ordered_list", {"column_list": ["Group", "a.b c"]}),
        Expectation(
            "unexpected_rows_expectation", {"unexpected_rows_query": 'SELECT * FROM {batch} WHERE "Group" = 2'}
        ),
    ]
    found = validate(duck, 'Select "x" :y%', asked, 'Row "Id" :1')

    assert [verdict.error for verdict in found] == [None] * 6
    assert [verdict.unexpected for verdict in found] == [160, 200, 200, 0, None, 40]
    for verdict in found:
        if verdict.failing_rows is not None:
            rows = duck.execute(f'SELECT DISTINCT "Row ""Id"" :1" FROM ({verdict.failing_rows})').fetchall()
            assert len(rows) == verdict.unexpected


def test_temporary_views_and_attached_databases(duck: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    duck.execute(f"ATTACH '{tmp_path / 'other.db'}' AS other")
    duck.execute("CREATE TABLE other.held AS SELECT * FROM numbered")
    duck.execute("CREATE TEMP VIEW seen AS SELECT * FROM other.held WHERE i < 50")
    verdict = judge(duck, "expect_column_values_to_not_be_null", table="seen", column="v")

    assert (verdict.evaluated, verdict.unexpected) == (50, 5)
    assert count(duck, verdict.failing_rows) == 5


def test_nothing_is_left_behind(
    duck: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    everything = "SELECT 'table', table_name FROM duckdb_tables() UNION SELECT 'view', view_name FROM duckdb_views()"
    before = set(duck.execute(everything).fetchall())
    show_warning = warnings.showwarning
    validate(duck, "numbered", [Expectation(*case) for case in CASES], ROW_ID)

    assert set(duck.execute(everything).fetchall()) == before
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert warnings.showwarning is show_warning


def test_importing_great_expectations_leaves_warnings_alone() -> None:
    code = (
        "import logging, warnings; from quality import gx; show = warnings.showwarning; gx._import_quietly();"
        "assert warnings.showwarning is show; logging.captureWarnings(True); assert warnings.showwarning is not show"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_nothing_keeps_a_closed_connection_open(tmp_path: Path) -> None:
    path = tmp_path / "held.db"
    broken = [Expectation("expect_column_sum_to_be_between", {"column": name, "min_value": 0}) for name in "sd"]
    with duckdb.connect(path) as duck:
        duck.execute(DATA)
        validate(duck, "numbered", [*(Expectation(*case) for case in CASES), *broken], ROW_ID)

    # Refused while a connection that may write is open.
    with duckdb.connect(path, read_only=True) as again:
        assert again.execute("SELECT count(*) FROM numbered").fetchall() == [(200,)]


def test_a_result_is_not_taken_for_another(duck: duckdb.DuckDBPyConnection) -> None:
    lent = duckdb_dialect.BorrowedConnection(duck)
    first, second = lent.cursor(), lent.cursor()
    first.execute("SELECT 1")
    second.execute("SELECT 2")
    with pytest.raises(duckdb.ProgrammingError, match="this result is gone"):
        first.fetchall()
    assert second.fetchall() == [(2,)]


# --- conditions and queries


@pytest.mark.parametrize(
    "condition", ['col("i") >= 100', OVER_100, {"type": "and", "conditions": [OVER_100, OVER_100]}]
)
def test_row_condition(duck: duckdb.DuckDBPyConnection, condition: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = judge(duck, "expect_column_values_to_not_be_null", column="v", row_condition=condition)

    assert (verdict.evaluated, verdict.unexpected) == (100, 9)
    assert count(duck, verdict.failing_rows) == 9
    rows = duck.execute(f"SELECT min(i), max(i) FROM numbered WHERE {ROW_ID} IN ({verdict.failing_rows})")
    assert rows.fetchall() == [(110, 198)]


def test_row_condition_with_its_parser(duck: duckdb.DuckDBPyConnection) -> None:
    verdict = judge(
        duck,
        "expect_column_max_to_be_between",
        column="i",
        max_value=99,
        row_condition='col("s") == "none"',
        condition_parser="great_expectations",
    )
    assert (verdict.error, verdict.passed, verdict.evaluated) == (None, False, 0)


@pytest.mark.parametrize(
    ("query", "found", "by_row"),
    [
        ("SELECT * FROM {batch} WHERE k = 1", 40, True),
        ("SELECT * FROM {batch} WHERE k = 9", 0, True),
        ("SELECT k, count(*) AS n FROM {batch} GROUP BY k HAVING n > 1", 5, False),
        ("SELECT DISTINCT * EXCLUDE (i, v, k_or_null, pair, s, x, ts, d, amount, even) FROM {batch}", 5, False),
        ("SELECT * FROM {batch} WHERE s || ':k 12:30' = 'O''Br\\%1:k 12:30' AND k::VARCHAR = '1'", 6, True),
        ("SELECT a.* FROM {batch} a JOIN (SELECT 1 AS k) b ON a.k = b.k", 40, True),
    ],
)
def test_unexpected_rows(duck: duckdb.DuckDBPyConnection, query: str, found: int, by_row: bool) -> None:
    verdict = judge(duck, "unexpected_rows_expectation", unexpected_rows_query=query)

    assert verdict.error is None
    assert verdict.passed == (found == 0)
    assert (verdict.evaluated, verdict.observed) == (200, found)
    assert verdict.unexpected == (found if by_row else None)
    assert len(verdict.sample) == min(found, gx.SAMPLE_SIZE)
    if by_row:
        assert count(duck, verdict.failing_rows) == found
    else:
        assert verdict.failing_rows is None


def test_samples_name_the_columns(duck: duckdb.DuckDBPyConnection) -> None:
    pair = judge(duck, "expect_column_pair_values_to_be_equal", column_A="k", column_B="d")
    assert pair.error is not None  # DuckDB compares no number with a date
    pair = judge(duck, "expect_column_pair_values_to_be_equal", column_A="k", column_B="amount")
    assert {"k": 1, "amount": "0.33"} in pair.sample
    several = judge(duck, "expect_compound_columns_to_be_unique", column_list=["k", "s"])
    assert {"k": 0, "s": "O'Br\\%0"} in several.sample
    distinct = judge(duck, "expect_column_distinct_values_to_be_in_set", column="k", value_set=[0, 1, 2])
    assert sorted(distinct.sample, key=str) == [3, 4]
    assert distinct.unexpected is None


# --- values


def table(duck: duckdb.DuckDBPyConnection, type: str, *values: str) -> str:
    rows = ", ".join(f"({number}, ({value})::{type})" for number, value in enumerate(values))
    duck.execute(f"CREATE OR REPLACE TABLE given AS SELECT a AS {ROW_ID}, b FROM (VALUES {rows}) t(a, b)")
    return "given"


def test_nan_and_infinity(duck: duckdb.DuckDBPyConnection) -> None:
    name = table(duck, "DOUBLE", "'nan'", "'inf'", "'-inf'", "1", "NULL")

    between = judge(duck, "expect_column_values_to_be_between", name, column="b", min_value=0, max_value=10)
    assert between.unexpected == count(duck, between.failing_rows) == 3
    assert sorted(between.sample, key=str) == ["-inf", "inf", "nan"]
    assert judge(duck, "expect_column_values_to_not_be_null", name, column="b").unexpected == 1
    assert judge(duck, "expect_column_values_to_be_unique", name, column="b").passed
    most = judge(duck, "expect_column_max_to_be_between", name, column="b", min_value=0)
    assert not most.passed
    assert not judge(duck, "expect_column_mean_to_be_between", name, column="b", min_value=0).passed
    bounded = judge(duck, "expect_column_values_to_be_between", name, column="b", min_value=0, max_value=float("inf"))
    assert bounded.unexpected == count(duck, bounded.failing_rows) == 2
    for verdict in (between, most, bounded):
        json.dumps([verdict.observed, verdict.sample], allow_nan=False)


@pytest.mark.parametrize("type", ["DECIMAL(18,2)", "DOUBLE", "REAL"])
def test_a_tenth_is_a_tenth(duck: duckdb.DuckDBPyConnection, type: str) -> None:
    name = table(duck, type, "0.1", "0.2", "0.3")

    verdict = judge(duck, "expect_column_values_to_be_between", name, column="b", min_value=0.1, max_value=0.2)
    assert verdict.unexpected == count(duck, verdict.failing_rows) == 1
    assert judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=[0.1, 0.3]).unexpected == 1


@pytest.mark.parametrize("values", [[1, 2.5, float("nan")], [2.5, 1, float("nan")], [float("nan"), None, 2.5, 1]])
def test_lists_of_mixed_numbers(duck: duckdb.DuckDBPyConnection, values: list[object]) -> None:
    name = table(duck, "DOUBLE", "1", "2", "2.5", "'nan'", "NULL")

    verdict = judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=values)
    assert verdict.sample == [2.0]
    verdict = judge(duck, "expect_column_values_to_not_be_in_set", name, column="b", value_set=values)
    assert verdict.unexpected == count(duck, verdict.failing_rows) == 3


def test_lists_of_other_mixtures(duck: duckdb.DuckDBPyConnection) -> None:
    name = table(duck, "VARCHAR", "'1'", "'a'", "'it''s \\ :b %'", "NULL")

    verdict = judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=["a", "it's \\ :b %", "1"])
    assert (verdict.error, verdict.passed) == (None, True)
    verdict = judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=["a"])
    assert verdict.sample == ["1", "it's \\ :b %"]


def test_decimals(duck: duckdb.DuckDBPyConnection) -> None:
    name = table(duck, "DECIMAL(38,10)", "12345678901234567890.0123456789", "1", "1")

    assert judge(duck, "expect_column_values_to_be_unique", name, column="b").sample == ["1.0000000000"] * 2
    value = Decimal("12345678901234567890.0123456789")
    verdict = judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=[value])
    assert verdict.unexpected == count(duck, verdict.failing_rows) == 2
    assert judge(duck, "expect_column_mean_to_be_between", name, column="b", min_value=4e18).passed


def test_integers_stay_exact(duck: duckdb.DuckDBPyConnection) -> None:
    name = table(duck, "BIGINT", str(2**53), str(2**53 + 1), str(2**53 + 2))

    verdict = judge(duck, "expect_column_values_to_be_between", name, column="b", max_value=2**53)
    assert verdict.sample == [2**53 + 1, 2**53 + 2]
    verdict = judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=[2**53 + 1])
    assert verdict.sample == [2**53, 2**53 + 2]
    assert judge(duck, "expect_column_max_to_be_between", name, column="b", max_value=2**53 + 2).observed == 2**53 + 2


@pytest.mark.parametrize("value", [2**53 + 1, Decimal("0.1000000000000000055")])
def test_a_bound_that_would_be_rounded_is_refused(value: object) -> None:
    (problem,) = gx.parameter_problems(
        Expectation("expect_column_values_to_be_between", {"column": "i", "min_value": value})
    )
    assert problem.startswith(f"min_value: Great Expectations would take {value} for")
    for exact in (2**60, Decimal("0.1"), 5, True):
        asked = Expectation("expect_column_values_to_be_between", {"column": "i", "min_value": exact})
        assert gx.parameter_problems(asked) == []


def test_huge_integers(duck: duckdb.DuckDBPyConnection) -> None:
    huge = 2**126
    name = table(duck, "HUGEINT", str(huge), "1", "NULL")

    assert judge(duck, "expect_column_values_to_be_in_set", name, column="b", value_set=[1]).sample == [huge]
    assert judge(duck, "expect_column_sum_to_be_between", name, column="b", min_value=huge).passed
    assert judge(duck, "expect_column_mean_to_be_between", name, column="b", max_value=2.0**125 + 1).passed


@pytest.mark.parametrize("case", CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_an_empty_table(verdicts: Any, frame: Any, case: tuple[str, dict[str, Any]]) -> None:
    duck, _ = verdicts
    duck.execute("CREATE OR REPLACE TEMP VIEW none AS SELECT * FROM numbered WHERE i < 0")
    verdict = judge(duck, case[0], "none", **case[1])

    if case[0] == "expect_column_kl_divergence_to_be_less_than":
        assert verdict.error == "division by zero"  # of no values at all
        return
    assert verdict.error is None
    assert verdict.evaluated == 0
    if verdict.failing_rows is not None:
        assert verdict.passed
        assert verdict.unexpected == count(duck, verdict.failing_rows) == 0


@pytest.mark.parametrize(
    ("type", "names"),
    [
        ("INTEGER", ["INTEGER", "int", "int4"]),
        ("DECIMAL(10,2)", ["DECIMAL", "numeric", "DECIMAL(10,2)"]),
        ("TIMESTAMPTZ", ["TIMESTAMP WITH TIME ZONE", "timestamptz"]),
        ("HUGEINT", ["HUGEINT"]),
        ("VARCHAR", ["VARCHAR", "text", "string"]),
        ("STRUCT(a INTEGER)", ["STRUCT", "STRUCT(a INTEGER)"]),
        ("INTEGER[]", ["LIST", "INTEGER[]"]),
    ],
)
def test_types_by_any_of_their_names(duck: duckdb.DuckDBPyConnection, type: str, names: list[str]) -> None:
    name = table(duck, type, "NULL")
    for known in names:
        assert judge(duck, "expect_column_values_to_be_of_type", name, column="b", type_=known).passed, known
        assert judge(duck, "expect_column_type_to_be", name, column="b", type_=known).passed, known
    for other in ("DATE", "DECIMAL(9,1)", "no such type"):
        verdict = judge(duck, "expect_column_values_to_be_of_type", name, column="b", type_=other)
        assert (verdict.passed, verdict.error) == (False, None), other


def test_values_of_all_kinds_are_json(duck: duckdb.DuckDBPyConnection) -> None:
    for type, value in {
        "BLOB": "'ab'::BLOB",
        "UUID": "uuid()",
        "TIME": "'10:00'",
        "INTERVAL": "'1 day'",
        "STRUCT(a DATE, b DECIMAL(4,1)[])": "{'a': '2024-01-01', 'b': [1.5]}",
        "MAP(VARCHAR, DATE)": "MAP {'a': '2024-01-01'}",
        "BIT": "'101'",
    }.items():
        verdict = judge(duck, "expect_column_values_to_be_null", table(duck, type, value), column="b")
        assert (verdict.error, verdict.unexpected) == (None, 1), type
        json.dumps(verdict.sample, allow_nan=False)


def test_many_failing_rows_stay_in_duckdb(duck: duckdb.DuckDBPyConnection) -> None:
    duck.execute(f"CREATE TEMP VIEW many AS SELECT range AS {ROW_ID}, range AS b FROM range(1_000_000)")
    verdict = judge(duck, "expect_column_values_to_be_null", "many", column="b")

    assert verdict.unexpected == count(duck, verdict.failing_rows) == 1_000_000
    assert len(verdict.sample) == gx.SAMPLE_SIZE

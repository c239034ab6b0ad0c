"""Great Expectations on a relation in a DuckDB connection: the only importer of great_expectations.

Its SQL engine measures; this module gives it the connection, asks for all metrics of all expectations together (so that they
share scans), and turns what it says into verdicts. It is imported when first used: that costs seconds.
"""

import ast
import datetime
import difflib
import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

SAMPLE_SIZE = 20

# Fields of every expectation that are not about data and that mean nothing, or something else, in a check of ours.
_NOT_OURS = {"batch_id", "catch_exceptions", "id", "rendered_content", "result_format", "windows"}
_REGEX_PARAMETERS = ("regex", "regex_list")
_WHOLE, _KEYED = "whole", "keyed"  # our names for the table without its row id, and with it


@dataclass(frozen=True)
class Expectation:
    """What to check. `type` is Great Expectations' name, in snake case or as its class is written."""

    type: str
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class Verdict:
    """What became of one expectation. It never passes when it could not run: then `error` says why.

    `evaluated` counts the rows looked at, `unexpected` those that failed (None unless rows pass or fail one by one).
    `observed` and `sample` (at most 20 failing values; for several columns, a dict each) are ready for JSON.
    `failing_rows` is a SELECT of the row id of every row that failed, to be run on the same connection.
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
    """None when Great Expectations has this expectation, else what to say. Does not import Great Expectations."""
    name = _snake_case(type)
    if name in _known_types():
        return None
    return f"Great Expectations has no expectation {type!r}{_did_you_mean(name, _known_types())}"


def parameter_problems(expectation: Expectation) -> list[str]:
    """What is wrong with an expectation's parameters, a sentence each, naming the parameter; empty when nothing is."""
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
    """One verdict per expectation, in order, on the table or view `table` of `duck`, seen without its column `row_id`.

    `row_id` is unique and not null. Runs on `duck` itself, in its transaction if one is open, and changes nothing; a
    result that is still being fetched from `duck` is lost. What goes wrong with one expectation is that verdict's `error`.
    An expectation that fails while it reads (a failing cast in the view, say) makes DuckDB abort an open transaction, so
    prefer to call this outside one.
    Raises duckdb.Error when the table or its row id is missing.
    """
    if not expectations:
        return []
    _import_quietly()
    with _Table(duck, table, row_id) as data:
        plans = [_plan(data, expectation) for expectation in expectations]
        data.measure(config for plan in plans if isinstance(plan, _Plan) for config in plan.metrics)
        return [plan if isinstance(plan, Verdict) else _judge(data, plan) for plan in plans]

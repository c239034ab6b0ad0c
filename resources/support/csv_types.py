"""What type the texts of a CSV column have, found so that no value changes by becoming that type.

A column gets a type only when every text of it is how that type is written: `007`, `+49` and `1e5x` stay text, `1.50`
becomes DECIMAL and prints as `1.50` again, only a number with an exponent becomes DOUBLE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BOOLEAN, INTEGER, LONG_INTEGER, DECIMAL, EXPONENT, DATE, TIMESTAMP, TIMESTAMPTZ, TEXT = (
    1 << bit for bit in range(9)
)

_CLOCK = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
_INTEGERS |= {f"U{name}" for name in _INTEGERS}
_FRACTION = {"TIMESTAMP_S": 0, "TIMESTAMP_MS": 3, "TIMESTAMP_NS": 9, "TIME_NS": 9}


@dataclass(frozen=True)
class Shapes:
    """How the texts of a column look: the kinds seen, and the longest whole part, fraction and mantissa."""

    kinds: int = 0
    whole: int = 0
    fraction: int = 0
    mantissa: int = 0

    def __or__(self, other: Shapes) -> Shapes:
        return Shapes(
            self.kinds | other.kinds,
            max(self.whole, other.whole),
            max(self.fraction, other.fraction),
            max(self.mantissa, other.mantissa),
        )

    @property
    def sql_type(self) -> str:
        """The type that holds all the texts unchanged; VARCHAR where none does."""
        single = {
            BOOLEAN: "BOOLEAN",
            INTEGER: "BIGINT",
            DATE: "DATE",
            TIMESTAMP: "TIMESTAMP",
            TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
        }
        if self.kinds in single:
            return single[self.kinds]
        if self.kinds and not self.kinds & ~(INTEGER | LONG_INTEGER | DECIMAL):
            return self._decimal()
        if self.kinds & EXPONENT and not self.kinds & ~(INTEGER | DECIMAL | EXPONENT):
            return "DOUBLE" if self._fits_double() else "VARCHAR"
        return "VARCHAR"

    def _decimal(self) -> str:
        """With 18 or 38 digits, so that a later file with larger numbers still fits."""
        digits = self.whole + self.fraction
        if digits > 38:
            return "VARCHAR"
        return f"DECIMAL({18 if digits <= 18 else 38},{self.fraction})"

    def _fits_double(self) -> bool:
        """A double keeps 15 digits of any number, and the 17 that programs print of one."""
        return self.whole <= 15 and self.whole + self.fraction <= 17 and self.mantissa <= 17


def shape_aggregates(text: str) -> list[str]:
    """Four SQL aggregates over the SQL text `text`: the fields of `Shapes`, in their order."""
    point = f"instr({text}, '.')"
    exponent = f"instr(lower({text}), 'e')"
    sign = f"starts_with({text}, '-')::INT"
    return [
        f"bit_or({_kind(text)})",
        f"max(CASE WHEN {point} > 0 THEN {point} WHEN {exponent} > 0 THEN {exponent} ELSE length({text}) + 1 END"
        f" - 1 - {sign})",
        f"max(CASE WHEN {point} > 0 AND {exponent} = 0 THEN length({text}) - {point} ELSE 0 END)",
        f"max(CASE WHEN {exponent} > 0 THEN {exponent} - 1 - {sign} - ({point} > 0)::INT ELSE 0 END)",
    ]


def _kind(text: str) -> str:
    """The tests are in the order of their cost; a type whose text is the text again needs no pattern."""
    return f"""CASE
        WHEN {text} IS NULL THEN 0
        WHEN TRY_CAST({text} AS BIGINT)::VARCHAR = {text} THEN {INTEGER}
        WHEN length({text}) = 10 AND TRY_CAST({text} AS DATE)::VARCHAR = {text} THEN {DATE}
        WHEN regexp_full_match({text}, '-?(0|[1-9][0-9]*)?\\.[0-9]+') THEN {DECIMAL}
        WHEN regexp_full_match({text}, '-?(0|[1-9][0-9]*)') THEN {LONG_INTEGER}
        WHEN regexp_full_match({text}, '{_CLOCK}') AND TRY_CAST({text} AS TIMESTAMP) IS NOT NULL THEN {TIMESTAMP}
        WHEN regexp_full_match({text}, '{_CLOCK}{_ZONE}') AND TRY_CAST({text} AS TIMESTAMPTZ) IS NOT NULL
            THEN {TIMESTAMPTZ}
        WHEN lower({text}) IN ('true', 'false') THEN {BOOLEAN}
        WHEN regexp_full_match({text}, '-?(0|[1-9][0-9]*)(\\.[0-9]+)?[eE][+-]?[0-9]+')
            AND isfinite(TRY_CAST({text} AS DOUBLE)) THEN {EXPONENT}
        ELSE {TEXT} END::USMALLINT"""


def holds(text: str, sql_type: str) -> str:
    """SQL: whether the SQL text `text` is NULL or becomes a `sql_type` without losing anything.

    DuckDB's own cast rounds `1.5` to a BIGINT 2, cuts the time off a DATE, drops the offset of a TIMESTAMP, and makes
    1e400 infinite. `sql_type` is written as DuckDB prints types.
    """
    if sql_type == "VARCHAR":
        return "true"
    cast = f"TRY_CAST({text} AS {sql_type})"
    rule = _exactness(text, cast, sql_type)
    return f"""CASE WHEN {text} IS NULL THEN true WHEN {cast}::VARCHAR = {text} THEN true
        WHEN {cast} IS NULL THEN false ELSE {rule} END"""


def _exactness(text: str, cast: str, sql_type: str) -> str:
    """The rule for a text that can be cast but is not written as the type prints it."""
    if sql_type in _INTEGERS:
        return rf"regexp_full_match(trim({text}), '[+-]?[0-9]+(\.0*)?')"
    if decimal := re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", sql_type):
        return rf"regexp_full_match(trim({text}), '[+-]?[0-9]*(\.[0-9]{{0,{decimal[1]}}}0*)?')"
    if sql_type in {"FLOAT", "DOUBLE"}:
        number = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
        names = r"[+-]?(inf|infinity|nan)"
        return f"""(isfinite({cast}) AND regexp_full_match(trim({text}), '{number}')
            OR regexp_full_match(lower(trim({text})), '{names}'))"""
    if sql_type == "DATE":
        return rf"NOT contains({text}, ':') OR regexp_matches({text}, '[ T]00:00(:00(\.0*)?)?\s*$')"
    if sql_type.startswith(("TIMESTAMP", "TIME")):
        return _clock_exactness(text, sql_type)
    return "true"


def _clock_exactness(text: str, sql_type: str) -> str:
    digits = _FRACTION.get(sql_type, 6)
    finer = rf"regexp_matches({text}, '\.[0-9]{{{digits}}}0*[1-9]')"
    if sql_type.endswith("WITH TIME ZONE"):
        return f"NOT {finer}"
    if sql_type.startswith("TIME") and not sql_type.startswith("TIMESTAMP"):
        return f"NOT {finer} AND NOT contains({text}, '-')"
    offset = rf"regexp_matches({text}, ':[0-9.]+\s*([+-][0-9:]+|[A-Za-z_/]+)\s*$')"
    utc = rf"regexp_matches({text}, '(Z|UTC|[+-]00(:?00)?)\s*$')"
    return f"NOT {finer} AND (NOT {offset} OR {utc})"

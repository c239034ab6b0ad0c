"""What type the texts of a CSV column have, found so that no value changes by becoming that type.

A column gets a type only when every text of it is how that type is written: `007`, `+49` and `1e5x` stay text, `1.50`
becomes DECIMAL and prints as `1.50` again, only a number with an exponent becomes DOUBLE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BOOLEAN, INTEGER, LONG_INTEGER, DECIMAL, EXPONENT, DATE, TIMESTAMP, TIMESTAMPTZ, TEXT = (1 << bit for bit in range(9))

NUMBERS = INTEGER | LONG_INTEGER | DECIMAL | EXPONENT
_SINGLE = {
    BOOLEAN: "BOOLEAN",
    INTEGER: "BIGINT",
    DATE: "DATE",
    TIMESTAMP: "TIMESTAMP",
    TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
}
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
        """The type that holds all the texts unchanged; VARCHAR where none does. Needs the digits of numbers."""
        if self.kinds in _SINGLE:
            return _SINGLE[self.kinds]
        if self.needs_digits and not self.kinds & EXPONENT:
            return self._decimal()
        if self.needs_digits and not self.kinds & LONG_INTEGER and self._fits_double():
            return "DOUBLE"
        return "VARCHAR"

    @property
    def needs_digits(self) -> bool:
        """Whether the type hangs on how long the numbers are."""
        return self.kinds not in _SINGLE and self.kinds != 0 and not self.kinds & ~NUMBERS

    def _decimal(self) -> str:
        """With 18 or 38 digits, so that a later file with larger numbers still fits."""
        digits = self.whole + self.fraction
        if digits > 38:
            return "VARCHAR"
        return f"DECIMAL({18 if digits <= 18 else 38},{self.fraction})"

    def _fits_double(self) -> bool:
        """A double keeps 15 digits of any number, and the 17 that programs print of one, with point and sign."""
        return self.whole <= 15 and self.whole + self.fraction <= 17 and self.mantissa <= 19


def kinds(text: str, likely: int = 0) -> str:
    """SQL: all the kinds of the SQL text `text`, as an aggregate; the kinds in `likely` are tried first."""
    if likely & LONG_INTEGER:
        likely |= INTEGER  # whose pattern a short one has too
    tests = sorted(_tests(text), key=lambda test: not test[0] & likely)
    cases = " ".join(f"WHEN {condition} THEN {kind}" for kind, condition in tests)
    return f"bit_or(CASE WHEN {text} IS NULL THEN 0 {cases} ELSE {TEXT} END::USMALLINT)"


def digits(text: str) -> list[str]:
    """SQL: the longest whole part, fraction and mantissa of numbers, as aggregates; a sign may count as a digit."""
    point, exponent = f"instr({text}, '.')", f"instr(lower({text}), 'e')"
    return [
        f"max(CASE WHEN {point} > 0 THEN {point} WHEN {exponent} > 0 THEN {exponent} ELSE strlen({text}) + 1 END) - 1",
        f"max(CASE WHEN {point} > 0 AND {exponent} = 0 THEN strlen({text}) - {point} ELSE 0 END)",
        f"max({exponent}) - 1",
    ]


def _tests(text: str) -> list[tuple[int, str]]:
    """Each kind with its condition, in the order in which they are tried."""
    number = "-?(0|[1-9][0-9]*)"
    return [
        (INTEGER, f"TRY_CAST({text} AS BIGINT)::VARCHAR = {text}"),
        (DECIMAL, f"regexp_full_match({text}, '-?(0|[1-9][0-9]*)?\\.[0-9]+')"),
        (DATE, f"strlen({text}) = 10 AND TRY_CAST({text} AS DATE)::VARCHAR = {text}"),
        (LONG_INTEGER, f"regexp_full_match({text}, '{number}')"),
        (TIMESTAMP, f"regexp_full_match({text}, '{_CLOCK}') AND TRY_CAST({text} AS TIMESTAMP) IS NOT NULL"),
        (TIMESTAMPTZ, f"regexp_full_match({text}, '{_CLOCK}{_ZONE}') AND TRY_CAST({text} AS TIMESTAMPTZ) IS NOT NULL"),
        (BOOLEAN, f"lower({text}) IN ('true', 'false')"),
        (
            EXPONENT,
            f"regexp_full_match({text}, '{number}(\\.[0-9]+)?[eE][+-]?[0-9]+') "
            f"AND isfinite(TRY_CAST({text} AS DOUBLE))",
        ),
    ]


def holds(text: str, sql_type: str) -> str:
    """SQL: whether the SQL text `text` is NULL or becomes a `sql_type` without losing anything.

    DuckDB's own cast rounds `1.5` to a BIGINT 2, cuts the time off a DATE, drops the offset of a TIMESTAMP, makes 1e400
    infinite, and a day of the word epoch. `sql_type` is written as DuckDB prints types.
    """
    if sql_type == "VARCHAR":
        return "true"
    cast = f"TRY_CAST({text} AS {sql_type})"
    rule = _exactness(text, cast, sql_type)
    timeless = f"WHEN NOT isfinite({cast}) THEN false" if sql_type.startswith(("DATE", "TIMESTAMP")) else ""
    return f"""CASE WHEN {text} IS NULL THEN true WHEN {cast} IS NULL THEN false {timeless}
        WHEN {cast}::VARCHAR = {text} THEN true ELSE {rule} END"""


def _exactness(text: str, cast: str, sql_type: str) -> str:
    """The rule for a text that can be cast but is not written as the type prints it."""
    if sql_type in _INTEGERS:
        return rf"regexp_full_match(trim({text}), '[+-]?[0-9]+(\.0*)?')"
    if decimal := re.fullmatch(r"DECIMAL\(\d+,(\d+)\)", sql_type):
        plain = rf"regexp_full_match(trim({text}), '[+-]?[0-9]*(\.[0-9]{{0,{decimal[1]}}}0*)?')"
        short = rf"regexp_full_match(trim({text}), '[+-]?[0-9.]{{1,17}}[eE][+-]?[0-9]+')"
        return f"{plain} OR {short} AND {cast}::DOUBLE = TRY_CAST({text} AS DOUBLE)"
    if sql_type in {"FLOAT", "DOUBLE"}:
        number = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
        names = r"[+-]?(inf|infinity|nan)"
        return f"""(isfinite({cast}) AND regexp_full_match(trim({text}), '{number}')
            OR regexp_full_match(lower(trim({text})), '{names}'))"""
    if sql_type == "DATE":
        midnight = rf"regexp_matches({text}, '[ T]00:00(:00(\.0*)?)?\s*$')"
        return f"regexp_matches({text}, '[0-9]') AND (NOT contains({text}, ':') OR {midnight})"
    if sql_type.startswith(("TIMESTAMP", "TIME")):
        return _clock_exactness(text, sql_type)
    return "true"


def _clock_exactness(text: str, sql_type: str) -> str:
    digits = _FRACTION.get(sql_type, 6)
    finer = rf"regexp_matches({text}, '\.[0-9]{{{digits}}}0*[1-9]')"
    if sql_type.endswith("WITH TIME ZONE"):
        return f"NOT {finer} AND regexp_matches({text}, '[0-9]')"
    if sql_type.startswith("TIME") and not sql_type.startswith("TIMESTAMP"):
        return f"NOT {finer} AND NOT contains({text}, '-')"
    offset = rf"regexp_matches({text}, ':[0-9.]+\s*([+-][0-9:]+|[A-Za-z_/]+)\s*$')"
    utc = rf"regexp_matches({text}, '(Z|UTC|[+-]00(:?00)?)\s*$')"
    return f"NOT {finer} AND regexp_matches({text}, '[0-9]') AND (NOT {offset} OR {utc})"

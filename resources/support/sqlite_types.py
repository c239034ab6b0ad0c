"""What a column that SQLite declares holds, in both directions.

SQLite gives a column an affinity by the words of its declared type, but lets any row hold a value of another kind.
Authors mean more by some of these words: DECIMAL(12,2), DATE, BOOLEAN. Source: "Datatypes In SQLite", section 3.1.

A type that SQLite's own numbers would change is stored as text, which the word TEXT in the declaration brings about:
`TEXT DECIMAL(20,0)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from databrokkr_assets.core.names import quoted
from resources.support.fitting import refused_value

ANY = ""
"""The kind of a column whose declaration says nothing: its values do."""

EXACT_DIGITS = 15
"""How many decimal digits a double keeps."""

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC) ?\( ?(\d+) ?(?:, ?(\d+) ?)?\)")
_MEANT = {
    "BOOL": "BOOLEAN",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_NS": "TIMESTAMP_NS",
    "TIME": "TIME",
    "UUID": "UUID",
    "JSON": "JSON",
    "INTERVAL": "INTERVAL",
    "NUMERIC": "DOUBLE",
    "DECIMAL": "DOUBLE",
}
_BY_AFFINITY = {"INTEGER": "BIGINT", "TEXT": "VARCHAR", "BLOB": "BLOB", "REAL": "DOUBLE"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_AS_THEY_ARE = {
    "BOOLEAN": "BOOLEAN",
    "DOUBLE": "DOUBLE",
    "FLOAT": "FLOAT",
    "BLOB": "BLOB",
    "VARCHAR": "TEXT",
    "DATE": "DATE",
    "TIME": "TIME",
    "TIMESTAMP": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP_NS",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "UUID": "UUID",
    "JSON": "TEXT JSON",
    "INTERVAL": "INTERVAL",
    "HUGEINT": "TEXT DECIMAL(39,0)",
    "UBIGINT": "TEXT DECIMAL(20,0)",
}
_NESTED = re.compile(r"(STRUCT|MAP)\(|.*\[\d*\]$", re.DOTALL)
_LIKE_A_NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


def affinity(declared: str) -> str:
    """`INTEGER`, `TEXT`, `BLOB`, `REAL` or `NUMERIC`, as SQLite finds it."""
    words = declared.upper()
    if "INT" in words:
        return "INTEGER"
    if any(word in words for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if "BLOB" in words or not words.strip():
        return "BLOB"
    return "REAL" if any(word in words for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def kind(declared: str) -> str:
    """The DuckDB type in which a column that is declared so arrives; `ANY` when its values are to say."""
    words = re.sub(r"\s+", " ", declared.strip().upper())
    meant = words.removeprefix("TEXT ")
    if found := _DECIMAL.fullmatch(meant):
        return _decimal(int(found[1]), int(found[2] or 0))
    bare = re.sub(r" ?\([^)]*\)", "", meant)
    if bare in _MEANT:
        return _MEANT[bare]
    return _BY_AFFINITY.get(affinity(declared), ANY) if words else ANY


def _decimal(digits: int, scale: int) -> str:
    if 1 <= digits <= 38 and scale <= digits:
        return f"DECIMAL({digits},{scale})"
    return "HUGEINT" if digits == 39 and scale == 0 else "DOUBLE"


def decimal_digits(own: str) -> tuple[int, int] | None:
    """Digits and scale of a DuckDB DECIMAL; `None` for any other type."""
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", own)
    return (int(found[1]), int(found[2])) if found else None


def declaration(own: str) -> str:
    """The declared type of a column that is made for values of the DuckDB type `own`."""
    if own in _INTEGERS:
        return own.removeprefix("U") if own != "UINTEGER" else "BIGINT"
    if digits := decimal_digits(own):
        return own if digits[0] <= EXACT_DIGITS else f"TEXT {own}"
    return "TEXT JSON" if _NESTED.match(own) else _AS_THEY_ARE.get(own, "TEXT")


@dataclass(frozen=True)
class Wire:
    """How a column of DuckDB type `own` goes into one that SQLite declares as `declared`."""

    name: str
    own: str
    declared: str

    @property
    def staged(self) -> str:
        """The type that carries it: `BIGINT`, `DOUBLE`, `BLOB` or `TEXT`."""
        if self.own in _INTEGERS or self.own == "BOOLEAN":
            return "BIGINT"
        if self.own in ("DOUBLE", "FLOAT") or (decimal_digits(self.own) and affinity(self.declared) != "TEXT"):
            return "DOUBLE"
        return "BLOB" if self.own == "BLOB" else "TEXT"

    @property
    def value(self) -> str:
        """The value as it is carried, as SQL of DuckDB; it raises for one that SQLite would change."""
        column = quoted(self.name)
        carrier = "VARCHAR" if self.staged == "TEXT" else self.staged
        through = "JSON" if _NESTED.match(self.own) else self.own
        value = f"CAST(CAST({self._guarded(column)} AS {through}) AS {carrier})"
        return f"{value} AS {column}"

    def _guarded(self, column: str) -> str:
        if self.own in ("DOUBLE", "FLOAT"):
            return refused_value(self.name, f"isnan({column})", "holds NaN, which SQLite cannot store")
        if self.staged == "DOUBLE":
            changed = f"CAST(CAST({column} AS DOUBLE) AS {self.own}) IS DISTINCT FROM {column}"
            return refused_value(self.name, changed, f"is {self.declared}, in which SQLite keeps 15 digits only")
        if self.staged == "TEXT" and affinity(self.declared) not in ("TEXT", "BLOB"):
            number = f"regexp_full_match(trim(CAST({column} AS VARCHAR)), '{_LIKE_A_NUMBER}')"
            why = f"is {self.declared}, in which SQLite makes a number of a text such as 007"
            return refused_value(self.name, number, why)
        return column

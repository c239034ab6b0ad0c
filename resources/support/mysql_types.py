"""MySQL's types and DuckDB's: how a column is read and written so that no value changes.

DuckDB's scanner alone would read a decimal of more than 38 digits as DOUBLE, a zero date as NULL, a TINYINT(1) as
BOOLEAN, and text of a binary collation as BLOB. So the server is asked for text wherever there is doubt, and DuckDB
casts it, under a guard that names the column. `docs/types.md` shows the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import literal, quoted
from resources.support.mysql_server import ticked

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

# ------------------------------------------------------------------------------------------------- reading

# The protocol's own numbers of types and flags, which never change.
_INTEGERS = {1: "TINYINT", 2: "SMALLINT", 3: "INTEGER", 8: "BIGINT", 9: "INTEGER"}
_PLAIN = {
    4: "FLOAT",
    5: "DOUBLE",
    7: "TIMESTAMP WITH TIME ZONE",
    10: "DATE",
    11: "TIME",
    12: "TIMESTAMP",
    13: "SMALLINT",
}
_DECIMALS, _BIT, _JSON, _GEOMETRY, _FLOAT, _YEAR = (0, 246), 16, 245, 255, 4, 13
_STRINGS = (15, 247, 248, 249, 250, 251, 252, 253, 254)
_BINARY, _UNSIGNED, _ANY_TEXT = 63, 32, 253
_WORDS = {"tinyint": 1, "smallint": 2, "int": 3, "float": 4, "double": 5, "timestamp": 7, "bigint": 8, "mediumint": 9}
_WORDS |= {"date": 10, "time": 11, "datetime": 12, "year": 13, "bit": 16, "json": 245, "decimal": 246}
_WORDS |= dict.fromkeys(("geometry", "point", "linestring", "polygon", "geometrycollection"), _GEOMETRY)
_WORDS |= dict.fromkeys(("multipoint", "multilinestring", "multipolygon", "geomcollection"), _GEOMETRY)

_TIMED = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIME")
_MARK = re.compile(r"\[\[databrokkr (?P<column>\d+)\]\](?P<value>.*?)\[\[end\]\]", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column as the protocol describes it: number of the type, length, scale, character set and flags.

    `as_text` asks for the server's text whatever the type, `no_day` tells that dates that are none become NULL.
    """

    name: str
    kind: int
    length: int = 0
    scale: int = 0
    charset: int = 0
    flags: int = 0
    as_text: bool = False
    no_day: bool = False

    @property
    def own(self) -> str:
        """The DuckDB type in which the column arrives."""
        if self.as_text:
            return "VARCHAR"
        if self.kind in _INTEGERS:
            return f"{'U' if self.flags & _UNSIGNED else ''}{_INTEGERS[self.kind]}"
        if self.kind in _DECIMALS:
            digits = self.length - (self.scale > 0) - (not self.flags & _UNSIGNED)
            return f"DECIMAL({digits},{self.scale})" if 0 < digits <= 38 and self.scale <= digits else "VARCHAR"
        if self.kind == _BIT:
            return "BOOLEAN" if self.length == 1 else "UBIGINT"
        if self.kind == _JSON:
            return "JSON"
        return "BLOB" if self._bytes else _PLAIN.get(self.kind, "VARCHAR")

    @property
    def textual(self) -> bool:
        """Whether it holds text, so that its order is that of its text."""
        return self.kind in _STRINGS and not self._bytes

    @property
    def resumable(self) -> bool:
        """Whether DuckDB orders what arrives as the server orders the column; text compares by bytes on both sides."""
        return self.textual or self.own not in ("VARCHAR", "JSON", "BLOB", "FLOAT")

    def at_least(self, value: str) -> str:
        """The server's condition for rows with this value or a greater one."""
        column = ticked(self.name)
        if self.textual:
            # In hexadecimal, because what a backslash means within quotes depends on the server's mode.
            return f"CAST(CONVERT({column} USING utf8mb4) AS BINARY) >= X'{value.encode().hex()}'"
        if self.own in _TIMED:
            return f"{column} >= {literal(value.removesuffix('+00'))}"
        return f"{column} >= {value}"

    def server(self) -> str:
        """What the server is asked for."""
        return f"{self._sent(ticked(self.name))} AS {ticked(self.name)}"

    def local(self, index: int) -> str:
        """What DuckDB makes of it; `index` is the column's place, by which `bad_value` finds it again."""
        name = quoted(self.name)
        if self.own not in _TIMED:
            return f"CAST({name} AS {self.own}) AS {name}"
        # A zone makes the text of an instant one.
        text = f"({name} || '+00')" if self.own == "TIMESTAMP WITH TIME ZONE" else name
        instead = "NULL"
        if not (self.no_day and self.own != "TIME"):
            instead = f"error('[[databrokkr {index}]]' || {name} || '[[end]]')"
        cast = f"TRY_CAST({text} AS {self.own})"
        return f"CASE WHEN {name} IS NULL OR {cast} IS NOT NULL THEN {cast} ELSE {instead} END AS {name}"

    @property
    def arrives_as_bytes(self) -> bool:
        """Whether the server sends bytes, not text."""
        return self._bytes and not self.as_text

    @property
    def _bytes(self) -> bool:
        return self.kind == _GEOMETRY or (self.kind in _STRINGS and self.charset == _BINARY)

    def _sent(self, name: str) -> str:
        if self.as_text and self.kind == _GEOMETRY:
            return f"ST_AsText({name})"
        if self.as_text and (self._bytes or self.kind == _BIT):
            return f"HEX({name})"
        if self._bytes or (self.kind in (*_INTEGERS, 5, _YEAR) and not self.as_text):
            return name
        if self.kind == _FLOAT and not self.as_text:
            return f"{name} * 1e0"  # Its text has six digits only; that of a double has all.
        if self.kind == _BIT:
            return f"{name} + 0"
        return f"CONVERT({name} USING utf8mb4)" if self.textual else f"CAST({name} AS CHAR)"


def told(kind: str) -> str:
    """The DuckDB type in which a column arrives whose type `information_schema` spells, such as `int(11) unsigned`."""
    word = re.split(r"[( ]", kind)[0]
    unsigned = _UNSIGNED if "unsigned" in kind else 0
    length, scale = ([int(number) for number in re.findall(r"\d+", kind.split(")")[0])] + [0, 0])[:2]
    if word == "decimal":
        length += (scale > 0) + (not unsigned)
    charset = _BINARY if word.endswith(("blob", "binary")) else 0
    return Column("", _WORDS.get(word, _ANY_TEXT), length, scale, charset, unsigned).own


def bad_value(error: object) -> tuple[int, str] | None:
    """The index of the column whose guard raised this error, and the value; `None` for any other error."""
    found = _MARK.search(str(error))
    return (int(found["column"]), found["value"]) if found else None


# ------------------------------------------------------------------------------------------------- writing

LONGEST_KEY = 255
"""How many characters a text may have in a key column that we create: an index needs an end."""

_LANDS = {
    "boolean": "tinyint(1)",
    "tinyint": "tinyint",
    "smallint": "smallint",
    "utinyint": "tinyint unsigned",
    "integer": "int",
    "usmallint": "smallint unsigned",
    "bigint": "bigint",
    "uinteger": "int unsigned",
    "ubigint": "bigint unsigned",
    "hugeint": "decimal(39,0)",
    "uhugeint": "decimal(39,0)",
    "float": "float",
    "double": "double",
    "blob": "longblob",
    "date": "date",
    "time": "time(6)",
    "timestamp": "datetime(6)",
    "timestamp_s": "datetime(6)",
    "timestamp_ms": "datetime(6)",
    "timestamp with time zone": "timestamp(6)",
    "uuid": "char(36)",
}
_NESTED = ("list", "array", "struct", "map", "union")
_DEEPEST_SCALE = 30  # MySQL's; MariaDB has 38
_WIDTH = re.compile(r"^((?:tiny|small|medium|big)?int)\(\d+\)")


@dataclass(frozen=True)
class Wire:
    """How a column of an input travels: DuckDB makes `text` of it (of bytes, hexadecimal), the staging table holds it
    as `staged`, and `landed` is the type of the column that is created for it.

    `bad` is DuckDB's condition of a value that the staged type cannot hold.
    """

    name: str
    text: str
    staged: str
    landed: str
    bad: str | None = None

    @property
    def in_bytes(self) -> bool:
        """Whether `text` is hexadecimal."""
        return self.staged.startswith(("longblob", "varbinary"))

    def guarded(self, index: int) -> str:
        """`text`, and an error that `bad_value` reads where the value is bad."""
        if self.bad is None:
            return self.text
        name = f"CAST({quoted(self.name)} AS VARCHAR)"
        return f"CASE WHEN {self.bad} THEN error('[[databrokkr {index}]]' || {name} || '[[end]]') ELSE {self.text} END"


def wire(name: str, own: DuckDBPyType, *, key: bool = False, present: str | None = None) -> Wire:
    """How a column of DuckDB type `own` travels; `present` is the type of the column that is there to take it."""
    column = quoted(name)
    landed = lands(own, key=key)
    staged = landed if present in (None, landed) else lands(own)
    years = f"NOT isfinite({column}) OR year({column}) NOT BETWEEN 1 AND 9999"
    match own.id:
        case "boolean":
            return Wire(name, f"CAST(CAST({column} AS TINYINT) AS VARCHAR)", staged, landed)
        case "float" | "double":
            # The shortest text of a float is that of another double.
            text = f"CAST(CAST({column} AS DOUBLE) AS VARCHAR)"
            return Wire(name, text, staged, landed, f"NOT isfinite({column})")
        case "blob":
            return Wire(name, f"hex({column})", staged, landed)
        case "date" | "timestamp" | "timestamp_s" | "timestamp_ms":
            return Wire(name, f"CAST({column} AS VARCHAR)", staged, landed, years)
        case "timestamp with time zone":
            return _instant(name, landed, years, present)
        case nested if nested in _NESTED:
            return Wire(name, f"CAST(to_json({column}) AS VARCHAR)", staged, landed)
    return Wire(name, f"CAST({column} AS VARCHAR)", staged, landed)


def _instant(name: str, landed: str, years: str, present: str | None) -> Wire:
    """A column of instants, in UTC; `datetime` holds more years than `timestamp`."""
    column = quoted(name)
    text = f"CAST(({column} AT TIME ZONE 'UTC') AS VARCHAR)"
    if present is not None and not present.startswith("timestamp"):
        return Wire(name, text, "datetime(6)", landed, years)
    beyond = f"{column} < '1970-01-01 00:00:01+00' OR {column} >= '2038-01-19 03:14:08+00'"
    return Wire(name, text, landed, landed, f"NOT isfinite({column}) OR {beyond}")


def lands(own: DuckDBPyType, *, key: bool = False) -> str:
    """The type that holds every value of DuckDB type `own`; for a `key`, text and bytes have an end."""
    found = _LANDS.get(own.id, "longtext")
    if own.id == "decimal":
        digits, scale = (int(number) for number in re.findall(r"\d+", str(own)))
        found = f"decimal({digits},{scale})" if scale <= _DEEPEST_SCALE else "longtext"
    if not key:
        return found
    return {"longtext": f"varchar({LONGEST_KEY})", "longblob": f"varbinary({LONGEST_KEY})"}.get(found, found)


def narrowed(kind: str) -> str:
    """A type as `Wire` spells it: without the width in which a client may show an integer."""
    return "tinyint(1)" if kind == "tinyint(1)" else _WIDTH.sub(r"\1", kind)


def by_name(names: Sequence[str], wanted: str) -> str | None:
    """The name among `names` that is `wanted`, but for its case: MySQL's columns have none."""
    return next((name for name in names if name.casefold() == wanted.casefold()), None)

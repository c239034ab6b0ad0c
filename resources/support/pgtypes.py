"""PostgreSQL's types and DuckDB's: how a column is read and written so that no value changes.

DuckDB's scanner alone would read a numeric without precision as DOUBLE and a numeric NaN as 0. So the server itself is
asked for the text of what DuckDB has no type for, and for an error where a value is beyond DuckDB's type: the guard
stands in the query, so it sees the same snapshot as the rows. `docs/types.md` shows the result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from databrokkr_assets.core.names import literal, quoted

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

# ------------------------------------------------------------------------------------------------- reading

_NUMERIC, _OID, _JSON, _JSONB = 1700, 26, 114, 3802

# PostgreSQL's object ids of built-in types, which never change, with DuckDB's type and PostgreSQL's own name.
_SCALARS = {
    16: ("BOOLEAN", "boolean"),
    17: ("BLOB", "bytea"),
    20: ("BIGINT", "bigint"),
    21: ("SMALLINT", "smallint"),
    23: ("INTEGER", "integer"),
    25: ("VARCHAR", "text"),
    700: ("FLOAT", "real"),
    701: ("DOUBLE", "double precision"),
    1043: ("VARCHAR", "text"),
    1082: ("DATE", "date"),
    1083: ("TIME", "time"),
    1114: ("TIMESTAMP", "timestamp"),
    1184: ("TIMESTAMP WITH TIME ZONE", "timestamptz"),
    1186: ("INTERVAL", "interval"),
    2950: ("UUID", "uuid"),
}
_LISTS = {1000: 16, 1005: 21, 1007: 23, 1009: 25, 1015: 1043, 1016: 20, 1021: 700, 1022: 701, 1182: 1082, 2951: 2950}
_TEXTUAL = {18: "char", 19: "name", 25: "text", 1042: "bpchar", 1043: "varchar"}

_MARK = re.compile(r'"(?P<value>[^"]*?) ?\[\[databrokkr (?P<column>\d+)\]\]', re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A column as the server describes it: `oid` and `modifier` are its type's, domains resolved.

    `as_text` asks for the server's text whatever the type. `dimensions` are those that an array was declared with.
    """

    name: str
    oid: int
    modifier: int = -1
    as_text: bool = False
    dimensions: int = 0

    @property
    def own(self) -> str:
        """The DuckDB type in which the column arrives."""
        if self.as_text or self.dimensions > 1:
            return "VARCHAR"
        if self.oid == _NUMERIC:
            precision = self._precision()
            return f"DECIMAL({precision[0]},{precision[1]})" if precision else "VARCHAR"
        if self.oid in (_JSON, _JSONB):
            return "JSON"
        if self.oid == _OID:
            return "BIGINT"
        if self.oid in _LISTS:
            return f"{_SCALARS[_LISTS[self.oid]][0]}[]"
        return _SCALARS[self.oid][0] if self.oid in _SCALARS else "VARCHAR"

    @property
    def textual(self) -> bool:
        """Whether it holds text, so that its order is that of its text."""
        return self.oid in _TEXTUAL

    @property
    def resumable(self) -> bool:
        """Whether DuckDB orders what arrives as the server orders the column; text compares by bytes on both sides."""
        return self.textual or (self.own != "VARCHAR" and not self.own.endswith("[]"))

    def at_least(self, value: str) -> str:
        """The server's condition for rows with this value or a greater one."""
        column = f'{quoted(self.name)}::text COLLATE "C"' if self.textual else quoted(self.name)
        return f"{column} >= {literal(value)}"

    def server(self, index: int, *, adbc: bool = False) -> str:
        """What the server is asked for; `index` is the column's place, by which `bad_value` finds it again."""
        return f"{self._sent(index, adbc)} AS {quoted(self.name)}"

    def local(self) -> str:
        """What DuckDB makes of it."""
        return f"CAST({quoted(self.name)} AS {self.own}) AS {quoted(self.name)}"

    def _sent(self, index: int, adbc: bool) -> str:
        name = quoted(self.name)
        if self.own in ("VARCHAR", "JSON"):
            return name if self.oid in (25, 1043) else f"{name}::text"
        if self.own == "BIGINT":
            return f"{name}::bigint"
        bad = self._beyond(name, adbc)
        kind = self._kind()
        if bad:
            mark = literal(f" [[databrokkr {index}]]")
            # The cast of a text that is no such value: PostgreSQL has no other way to fail within a query.
            name = f"CASE WHEN {bad} THEN (left({name}::text, 60) || {mark})::{kind} ELSE {name} END"
        if adbc and (self.own == "UUID" or self.own == "UUID[]" or self.oid == _NUMERIC):
            return f"({name})::text{'[]' if self.own.endswith('[]') else ''}"
        return name

    def _kind(self) -> str:
        if self.oid == _NUMERIC:
            return self.own.replace("DECIMAL", "numeric")
        if self.oid in _LISTS:
            return f"{_SCALARS[_LISTS[self.oid]][1]}[]"
        return _SCALARS[self.oid][1]

    def _beyond(self, name: str, adbc: bool) -> str | None:
        """The condition of a value that DuckDB, or Arrow as ADBC fills it, cannot hold."""
        finite = f"NOT isfinite({name})"
        match self.own:
            case "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE":
                # DuckDB's timestamps end in January 294247; infinities it knows, Arrow does not.
                late = f"{name} >= '294247-01-01 00:00:00+00'"
                return f"({finite} OR {late})" if adbc else f"(isfinite({name}) AND {late})"
            case "DATE" if adbc:
                return finite
            case "DATE[]" if adbc:
                return f"({self._odd_list(name)} OR 'infinity' = ANY({name}) OR '-infinity' = ANY({name}))"
            case "INTERVAL":
                # DuckDB does not read the longer ones in the text in which a dataset keeps them.
                return f"({finite} OR abs(extract(hour FROM {name})) >= 1000000000)"
            case own if own.endswith("[]"):
                return self._odd_list(name)
            case own if own.startswith("DECIMAL"):
                return f"{name} = 'NaN'"
        return None

    @staticmethod
    def _odd_list(name: str) -> str:
        return f"(array_ndims({name}) > 1 OR array_lower({name}, 1) <> 1)"

    def _precision(self) -> tuple[int, int] | None:
        """Digits and scale of a numeric that DuckDB's DECIMAL holds; `None` for one without precision, or beyond 38."""
        if self.modifier < 4:
            return None
        digits, scale = (self.modifier - 4) >> 16 & 0xFFFF, ((self.modifier - 4 & 0x7FF) ^ 1024) - 1024
        return (digits, scale) if digits <= 38 and 0 <= scale <= digits else None


def bad_value(error: object) -> tuple[int, str] | None:
    """The index of the column whose guard raised this error, and the value; `None` for any other error."""
    found = _MARK.search(str(error))
    return (int(found["column"]), found["value"]) if found else None


# ------------------------------------------------------------------------------------------------- writing

_SMALL = "smallint"
_LANDS = {
    "boolean": "boolean",
    "tinyint": _SMALL,
    "smallint": _SMALL,
    "utinyint": _SMALL,
    "integer": "integer",
    "usmallint": "integer",
    "bigint": "bigint",
    "uinteger": "bigint",
    "ubigint": "numeric(20,0)",
    "hugeint": "numeric(39,0)",
    "uhugeint": "numeric(39,0)",
    "bignum": "numeric",
    "float": "real",
    "double": "double precision",
    "varchar": "text",
    "blob": "bytea",
    "date": "date",
    "time": "time without time zone",
    "time with time zone": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamp_s": "timestamp without time zone",
    "timestamp_ms": "timestamp without time zone",
    "timestamp with time zone": "timestamp with time zone",
    "interval": "interval",
    "uuid": "uuid",
}
# What DuckDB's scanner writes in PostgreSQL's own binary form, and ADBC surely too.
_BINARY = frozenset(_LANDS) - {"hugeint", "uhugeint", "bignum", "time with time zone"} | {"decimal"}
_BINARY_ADBC = frozenset(
    {"boolean", "tinyint", "smallint", "utinyint", "integer", "usmallint", "bigint", "uinteger"}
    | {"float", "double", "varchar", "blob"}
)
_NESTED = ("list", "array", "struct", "map", "union")


@dataclass(frozen=True)
class Wire:
    """How a column of an input travels: DuckDB casts it with `cast`, the staging table holds it as `staged`.

    `landed` is the type of the column that is created for it. Types are spelled as PostgreSQL's `format_type` does.
    """

    name: str
    cast: str
    staged: str
    landed: str


def wire(name: str, own: DuckDBPyType, *, adbc: bool = False) -> Wire:
    """How a column of DuckDB type `own` travels to PostgreSQL."""
    column, landed = quoted(name), lands(own)
    if own.id in ("list", "array") and landed != "json":
        child = _child(own)
        if child.id not in ("decimal", "varchar") and _is_binary(child, adbc):
            return Wire(name, f"CAST({column} AS {_duck(lands(child))}[])", landed, landed)
        # DuckDB writes a list of text as varchar[], and would write a whole table as text for the sake of a text[].
        return Wire(name, f"CAST({column} AS VARCHAR[])", "text[]" if adbc else "character varying[]", landed)
    if own.id in _NESTED:
        return Wire(name, f"CAST(to_json({column}) AS VARCHAR)", "text", landed)
    if _is_binary(own, adbc):
        return Wire(name, f"CAST({column} AS {_duck(landed)})", landed, landed)
    return Wire(name, f"CAST({column} AS VARCHAR)", "text", landed)


def lands(own: DuckDBPyType) -> str:
    """The PostgreSQL type that holds every value of DuckDB type `own`."""
    if str(own) == "JSON" or own.id in ("struct", "map", "union"):
        return "json"
    if own.id in ("list", "array"):
        child = _child(own)
        return "json" if child.id in _NESTED or str(child) == "JSON" else f"{lands(child)}[]"
    if own.id == "decimal":
        return str(own).replace("DECIMAL", "numeric")
    return _LANDS.get(own.id, "text")


def _is_binary(own: DuckDBPyType, adbc: bool) -> bool:
    if own.id == "decimal" and not adbc:
        digits, scale = (int(number) for number in re.findall(r"\d+", str(own)))
        # Beyond, the scanner's arithmetic overflows: found by writing extremes of every precision and scale.
        return scale <= (8 if digits <= 9 else 16 if digits <= 18 else 36)
    return str(own) != "JSON" and own.id in (_BINARY_ADBC if adbc else _BINARY)


def _child(own: DuckDBPyType) -> DuckDBPyType:
    from duckdb.sqltypes import DuckDBPyType as Type

    child = own.children[0][1]
    assert isinstance(child, Type)
    return child


def _duck(landed: str) -> str:
    """DuckDB's name of a PostgreSQL type that it writes in binary form."""
    return {"bytea": "BLOB", "text": "VARCHAR"}.get(landed, landed.replace("numeric", "DECIMAL"))


def by_name(names: Sequence[str], wanted: str) -> str | None:
    """The name among `names` that is `wanted`, or the only one that differs from it in case."""
    if wanted in names:
        return wanted
    near = [name for name in names if name.casefold() == wanted.casefold()]
    return near[0] if len(near) == 1 else None

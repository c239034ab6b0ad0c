"""Types between SQLAlchemy and DuckDB: in what a column arrives, which values it takes, how it is made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql

from databrokkr_assets.core.names import quoted
from resources.support.fitting import refused_value
from resources.support.row_feed import FedColumn

KEY_LENGTH = 250
"""How many characters a text has that is a key: not every database compares longer ones."""

_FINER = re.compile(r"\.\d{6}\d*[1-9]")
_EXACT = 1 << 53
_MOST = 1 << 63


@dataclass(frozen=True)
class _Kind:
    """An Arrow type, the Python types that it takes as they are, and how it takes others, which may raise."""

    carrier: pa.DataType
    takes: frozenset[type]
    plain: Callable[[Any], Any]


def _refused(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not taken")


def _boolean(value: Any) -> bool:
    return bool(value) if type(value) in (bool, int) and value in (0, 1) else _refused(value)


def _integer(value: Any) -> int:
    if isinstance(value, int | Decimal) and value == int(value) and -_MOST <= value < _MOST:
        return int(value)
    _refused(value)


def _double(value: Any) -> float:
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return float(value)
    if isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        return float(value)
    return value if isinstance(value, float) else _refused(value)


def _decimal(value: Any, digits: int, scale: int) -> Decimal:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or number.copy_abs() >= Decimal(10) ** (digits - scale):
        _refused(value)
    whole = number.scaleb(scale, context=_WIDE)
    return number if whole == whole.to_integral_value() else _refused(value)


def _number_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    return repr(value) if type(value) in (int, float) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        value.encode()  # raises for what Arrow could not hold
    return str(value) if isinstance(value, str | UUID) else _refused(value)


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else _refused(value)


def _date(value: Any) -> date:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.date() if value.time() == time() and value.tzinfo is None else _refused(value)
    return value if isinstance(value, date) else _refused(value)


def _moment(value: Any, *, zoned: bool) -> datetime:
    if isinstance(value, str) and not _FINER.search(value):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime) and (value.tzinfo is not None) == zoned:
        return value.astimezone(UTC) if zoned else value
    _refused(value)


def _time(value: Any) -> time:
    if isinstance(value, str) and not _FINER.search(value):
        value = time.fromisoformat(value)
    return value if isinstance(value, time) and value.tzinfo is None else _refused(value)


def _uuid(value: Any) -> str:
    return str(value if isinstance(value, UUID) else UUID(value))


_WIDE = Context(prec=120)
_NONE: frozenset[type] = frozenset()
_KINDS = {
    "BOOLEAN": _Kind(pa.bool_(), frozenset({bool}), _boolean),
    "BIGINT": _Kind(pa.int64(), frozenset({int}), _integer),
    "DOUBLE": _Kind(pa.float64(), frozenset({float}), _double),
    "VARCHAR": _Kind(pa.string(), frozenset({str}), _text),
    "BLOB": _Kind(pa.binary(), frozenset({bytes}), _bytes),
    "DATE": _Kind(pa.date32(), frozenset({date}), _date),
    "TIME": _Kind(pa.time64("us"), _NONE, _time),
    # Not as they are: Arrow would take an offset off, or add one, without a word.
    "TIMESTAMP": _Kind(pa.timestamp("us"), _NONE, partial(_moment, zoned=False)),
    "TIMESTAMP WITH TIME ZONE": _Kind(pa.timestamp("us", "UTC"), _NONE, partial(_moment, zoned=True)),
    "UUID": _Kind(pa.string(), _NONE, _uuid),
    "JSON": _Kind(pa.string(), frozenset({str}), _text),
}


def _kind(own: str, *, number: bool) -> _Kind:
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", own):
        digits, scale = int(found[1]), int(found[2])
        plain = partial(_decimal, digits=digits, scale=scale)
        return _Kind(pa.decimal128(digits, scale), frozenset({Decimal}), plain)
    return _Kind(pa.string(), _NONE, _number_text) if number else _KINDS[own]


@dataclass(frozen=True)
class Field(FedColumn):
    """A column that is read: its name, the DuckDB type `own` in which it arrives, and what the database calls its type.

    `cast` tells that the database prints it as text, `number` that it is a number whose digits only a text holds.
    """

    name: str
    own: str
    told: str
    cast: bool = False
    number: bool = False

    @property
    def kind(self) -> _Kind:
        """What it takes."""
        return _kind(self.own, number=self.number)

    @property
    def carrier(self) -> pa.DataType:
        """The Arrow type in which the values come."""
        return self.kind.carrier

    def array(self, values: Sequence[Any]) -> pa.Array | None:
        """The values as the carrier; `None` when one of them does not fit."""
        kind = self.kind
        try:
            if not set(map(type, values)) - {type(None)} <= kind.takes:
                plain = kind.plain
                values = [None if value is None else plain(value) for value in values]
            return pa.array(values, kind.carrier)
        except (ValueError, TypeError, ArithmeticError):
            return None

    def fits(self, value: Any) -> bool:
        """Whether one value fits."""
        return self.array([value]) is not None

    def misfit(self, value: Any) -> str:
        """Why a value does not fit."""
        return f'"{self.name}" is {self.told} and holds a {type(value).__name__} that is no {self.own}'

    def shown(self, value: Any) -> Any:
        """A value as JSON takes it."""
        if isinstance(value, str):
            return value.encode(errors="backslashreplace").decode()
        return value if value is None or type(value) in (bool, int, float) else str(value)


def field(name: str, kind: sa.types.TypeEngine[Any], *, as_text: bool = False) -> Field:
    """How a column of a reflected type is read."""
    told = _named(kind)
    if as_text:
        return Field(name, "VARCHAR", told, cast=True)
    match kind:
        case sa.Boolean():
            return Field(name, "BOOLEAN", told)
        case sa.Integer():
            return Field(name, "BIGINT", told)
        case sa.Float():
            return Field(name, "DOUBLE", told)
        case sa.Numeric():
            own = decimal(kind.precision, kind.scale)
            return Field(name, own or "VARCHAR", told, number=own is None)
        case sa.JSON():
            return Field(name, "JSON", told, cast=True)
        case sa.DateTime():
            return Field(name, "TIMESTAMP WITH TIME ZONE" if kind.timezone else "TIMESTAMP", told)
        case sa.Date():
            return Field(name, "DATE", told)
        case sa.Time() if not kind.timezone:
            return Field(name, "TIME", told)
        case sa.Uuid():
            return Field(name, "UUID", told)
        case sa.String():
            return Field(name, "VARCHAR", told)
        case sa.LargeBinary():
            return Field(name, "BLOB", told)
        case _:
            return Field(name, "VARCHAR", told, cast=True)


def _named(kind: sa.types.TypeEngine[Any]) -> str:
    try:
        return str(kind)
    except Exception:  # a type of a dialect may not be able to print itself without it
        return type(kind).__name__


def decimal(precision: int | None, scale: int | None) -> str | None:
    """The DuckDB type of numbers with so many digits; `None` where they are not told, or too many."""
    if precision is None or scale is None or not 0 <= scale <= precision or not 1 <= precision <= 38:
        return None
    return f"DECIMAL({precision},{scale})"


_FIRST_SEEN = {
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    str: "VARCHAR",
    bytes: "BLOB",
    date: "DATE",
    time: "TIME",
}


def seen(name: str, values: Sequence[Any], precision: int | None, scale: int | None) -> Field:
    """How a column of a query is read whose type only its first values tell."""
    found = {type(value) for value in values if value is not None}
    if found == {datetime}:
        zoned = all(value.tzinfo is not None for value in values if value is not None)
        return Field(name, "TIMESTAMP WITH TIME ZONE" if zoned else "TIMESTAMP", "a timestamp")
    if found == {Decimal}:
        own = decimal(precision, scale)
        return Field(name, own or "VARCHAR", "a number", number=own is None)
    if found == {UUID}:
        return Field(name, "UUID", "a UUID")
    if found == {int, float} and all(not isinstance(value, float) or not math.isnan(value) for value in values):
        return Field(name, "DOUBLE", "a number")
    only = next(iter(found)) if len(found) == 1 else str
    return Field(name, _FIRST_SEEN.get(only, "VARCHAR"), f"at first a {only.__name__}")


# ------------------------------------------------------------------------------------------------- writing


def _untyped(made: Any) -> Any:
    """A class of SQLAlchemy that has no annotations yet."""
    return made


_MADE: dict[str, sa.types.TypeEngine[Any]] = {
    "BOOLEAN": sa.Boolean(),
    "TINYINT": sa.SmallInteger(),
    "UTINYINT": sa.SmallInteger(),
    "SMALLINT": sa.SmallInteger(),
    "USMALLINT": sa.Integer(),
    "INTEGER": sa.Integer(),
    "UINTEGER": sa.BigInteger(),
    "BIGINT": sa.BigInteger(),
    "FLOAT": sa.Double(),
    "DOUBLE": sa.Double(),
    "BLOB": sa.LargeBinary(),
    "DATE": sa.Date(),
    "TIME": sa.Time()
    .with_variant(_untyped(mssql.TIME)(6), "mssql")
    .with_variant(mysql.TIME(fsp=6), "mysql", "mariadb"),
    "TIMESTAMP": sa.TIMESTAMP()
    .with_variant(_untyped(mssql.DATETIME2)(6), "mssql")
    .with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"),
    "TIMESTAMP WITH TIME ZONE": sa.TIMESTAMP(timezone=True)
    .with_variant(_untyped(mssql.DATETIMEOFFSET)(6), "mssql")
    .with_variant(sa.String(40), "sqlite", "mysql", "mariadb"),
}
_MADE |= {"TIMESTAMP_S": _MADE["TIMESTAMP"], "TIMESTAMP_MS": _MADE["TIMESTAMP"]}
_YEARS = "'0001-01-01' AND {column} < '10000-01-01'"


def made(own: str, *, key: bool = False) -> sa.types.TypeEngine[Any]:
    """The type of a column that is made for values of the DuckDB type `own`; a text for what has none."""
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", own):
        return sa.Numeric(int(found[1]), int(found[2])).with_variant(sa.String(60), "sqlite")
    return _MADE.get(own, sa.String(KEY_LENGTH) if key else sa.Text())


def sent(name: str, own: str, kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    """A column of DuckDB type `own` as SQL of DuckDB, in the type in which a column of type `kind` is given it.

    Running it raises, for `fitting.refusals`, for what Python has no value for.
    """
    column = quoted(name)
    is_text = isinstance(kind.dialect_impl(dialect), sa.String)
    known = own in _MADE or own.startswith("DECIMAL")
    if is_text or not known:
        nested = re.match(r"(STRUCT|MAP)\(|.*\[\d*\]$", own, re.DOTALL)
        return f"CAST({f'CAST({column} AS JSON)' if nested else column} AS VARCHAR) AS {column}"
    if own.startswith(("DATE", "TIMESTAMP")):
        outside = f"NOT ({column} >= {_YEARS.format(column=column)})"
        return f"{refused_value(name, outside, 'holds a time outside of the years 1 to 9999')} AS {column}"
    if own == "TIME":
        return f"{refused_value(name, f'{column} = TIME {chr(39)}24:00:00{chr(39)}', 'holds 24:00:00')} AS {column}"
    return f"CAST({column} AS DOUBLE) AS {column}" if own == "FLOAT" else column

"""Cuts the span between two values into even ranges."""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import quoted

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")
_TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE")


def evenly(duck: DuckDBPyConnection, ends: str, count: int) -> list[str]:
    """Where `count` ranges begin, but for the first, as text; fewer where the values lie close together.

    `ends` names a relation of one row with the least and the greatest value; NULLs give no bounds. Raises SpecError
    for values that are no whole numbers and no times.
    """
    rows = duck.sql(f"SELECT * FROM {quoted(ends)}")
    low, high = rows.columns
    kind = str(rows.types[0])
    if kind in _TIMES:
        number = "epoch_us(CAST({} AS TIMESTAMP))::HUGEINT"
        back = f"CAST(make_timestamp({{}}::BIGINT) AS {_plain(kind)})"
    elif kind in _WHOLE or (kind.startswith("DECIMAL(") and kind.endswith(",0)")):
        number, back = "CAST({} AS HUGEINT)", "{}"
    else:
        raise SpecError(
            f"parts cannot be told by a column of type {kind}",
            mend="name a column of whole numbers, dates or timestamps",
        )
    first, last = number.format(quoted(low)), number.format(quoted(high))
    bound = back.format(f"({first} + (({last} - {first}) * i) // {count})")
    found = duck.execute(
        f"SELECT DISTINCT {bound} AS bound FROM {quoted(ends)}, range(1, {count}) AS steps(i) "
        f"WHERE {quoted(low)} IS NOT NULL AND {bound} > {quoted(low)} ORDER BY bound"
    ).fetchall()
    return [str(value) for (value,) in found]


def _plain(kind: str) -> str:
    # The session is in UTC, so a timestamp without a zone is the same moment.
    return "DATE" if kind == "DATE" else "TIMESTAMP"

"""Reading only what is new by a column that grows, losing no row and doubling none.

Values should grow in the order in which rows are committed: a row that is committed late, with a value below one that
was read, is only seen within the `lookback`, by which each load starts before the last one's end. Rows may share the
greatest value that a load has seen, and some of them may be committed later.
So the next load asks for that value again, and drops as many rows of each content as were seen: the cursor keeps,
beside the value, a hash of every row that carried it, with a count.

The hashes are DuckDB's, over the rows as they arrive, so this serves every source that DuckDB reads. A row is told by
its whole content: one that changed without moving the column comes again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from databrokkr_assets.core.errors import DataError, SpecError
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.core.ports import Cursor

Scalar = Callable[[str], Any]

MOST_TIES = 50_000
"""How many rows may share the greatest value: their hashes stand in the cursor, some two megabytes at most."""

_ORDERED = re.compile(
    r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*\)|FLOAT|DOUBLE|DATE|TIMESTAMP[A-Z_ ]*|VARCHAR|UUID"
)
_TIME = re.compile(r"DATE|TIMESTAMP")
_ENDLESS = ("infinity", "-infinity", "inf", "-inf", "nan")


@dataclass(frozen=True)
class Incremental:
    """Reads by `column`, of DuckDB type `type`, among the stream's `columns`.

    `merging` tells that rows meet the table by key, so that a row read twice does no harm. `ordered` gives the rows in
    the column's order, so that the last of several rows with one key is the newest. `lookback` is how far before the
    greatest value a load starts, and `nulls` whether rows without a value come with each load; both need `merging`.
    """

    column: str
    type: str
    columns: tuple[str, ...]
    merging: bool = False
    ordered: bool = False
    lookback: str | None = None
    nulls: bool = False

    def __post_init__(self) -> None:
        if not _ORDERED.fullmatch(self.type):
            raise SpecError(
                f'"{self.column}" cannot be a cursor: it arrives as {self.type}, which has no order to resume by',
                mend="choose a column of numbers, dates, timestamps or text that grows, or cast it in a `query`",
            )
        if self.lookback:
            self._before("0" if self._counts else "2000-01-01")

    def resumes_at(self, after: Cursor | None) -> str | None:
        """The value from which to read, itself included, as text; `None` to read all rows."""
        if after is None:
            return None
        if after["column"] != self.column:
            raise SpecError(
                f'the dataset was read by the cursor "{after["column"]}" so far, not by "{self.column}"',
                mend=f"set `cursor: {after['column']}`, or load everything once with `disposition: replace`",
            )
        return self._before(str(after["value"])) if self.lookback else str(after["value"])

    @property
    def _repeats(self) -> bool:
        """Whether rows that were seen come again, so that none needs to be told from another."""
        return bool(self.lookback) or self.nulls

    @property
    def _counts(self) -> bool:
        return _TIME.match(self.type) is None

    def _before(self, value: str) -> str:
        """The value less the look-back window, as text. Raises SpecError when the one does not fit the other."""
        import duckdb

        # As a whole number of any size, because an unsigned column has nothing below zero.
        kind = "HUGEINT" if "INT" in self.type else self.type
        window = f"CAST({literal(self.lookback or '')} AS {kind if self._counts else 'INTERVAL'})"
        earlier = f"CAST({literal(value)} AS {kind}) - {window}"
        try:
            with duckdb.connect() as duck:
                duck.execute("SET TimeZone = 'UTC'")
                found = duck.execute(f"SELECT CAST(CAST({earlier} AS {kind}) AS VARCHAR)").fetchone()
        except duckdb.Error as error:
            kind = "a number, e.g. 1000" if self._counts else "a time, e.g. 2 days or 90 minutes"
            raise SpecError(
                f'the lookback "{self.lookback}" does not fit the cursor "{self.column}", which is {self.type}',
                mend=f"write {kind}",
            ) from error
        assert found is not None
        return str(found[0])

    def at_least(self, value: str) -> str:
        """The condition, as SQL of DuckDB, that a row is among those from the value on."""
        at = quoted(self.column)
        return f"{at} >= {self._value(value)}{f' OR {at} IS NULL' if self.nulls else ''}"

    def fresh(self, query: str, after: Cursor | None) -> str:
        """The rows of `query` (those from `resumes_at` on) that no load has seen, each counted."""
        value = self.resumes_at(after)
        if after is None or value is None or self._repeats:
            return self._sorted(f"SELECT {columns(self.columns)} FROM ({query}) AS feed")
        at, here = self._value(value), quoted(self.column)
        # Materialized, because a source may be scanned once only: twice would be two snapshots.
        return self._sorted(
            f"WITH databrokkr_feed AS MATERIALIZED ({query}) "
            f"SELECT {columns(self.columns)} FROM databrokkr_feed WHERE {here} > {at} UNION ALL "
            f"SELECT {columns(self.columns)} FROM ({self._ties(at, after)})"
        )

    def advance(self, after: Cursor | None) -> Callable[[Scalar], Cursor | None]:
        """What `RelationRead.advance` promises: where to resume once the rows are published.

        Raises DataError when the greatest value is an infinity, or when too many rows share it.
        """

        def advanced(scalar: Scalar) -> Cursor | None:
            top = scalar(f"CAST(max({quoted(self.column)}) AS VARCHAR)")
            return after if top is None else self._advanced(scalar, after, str(top))

        return advanced

    def _advanced(self, scalar: Scalar, after: Cursor | None, top: str) -> Cursor:
        if top.lower() in _ENDLESS:
            raise DataError(
                f'the cursor column "{self.column}" holds {top}, after which nothing can come',
                mend=f"leave such rows out with a `query`: … WHERE {quoted(self.column)} < …, or mend them",
            )
        seen: Mapping[str, int] | None = {}
        if after and not scalar(f"max({quoted(self.column)}) > {self._value(after['value'])}"):
            top, seen = after["value"], after.get("boundary")
        if self._repeats:
            return {"column": self.column, "value": top, "columns": list(self.columns), "boundary": None}
        fresh = self._boundary(scalar, self._value(top))
        known = None
        if seen is not None and fresh is not None:
            known = dict(seen)
            for row, count in fresh.items():
                known[row] = known.get(row, 0) + int(count)
        return {"column": self.column, "value": top, "columns": list(self.columns), "boundary": known}

    def _boundary(self, scalar: Scalar, at: str) -> Mapping[str, int] | None:
        """How many rows of each content carry the value; `None` when they are too many and it does not matter."""
        here = f"{quoted(self.column)} = {at}"
        ties = scalar(f"count(*) FILTER (WHERE {here})")
        if ties <= MOST_TIES:
            rows = f"CASE WHEN {here} THEN {self._hash(self.columns)} END"
            return scalar(f"histogram({rows}) FILTER (WHERE {here})") or {}
        if self.merging:
            return None
        raise DataError(
            f'{ties} rows share the newest value of the cursor column "{self.column}", so rows that come later with '
            "that value could not be told from them",
            mend="choose a finer cursor, such as a timestamp or a growing id, or use `disposition: merge` with `keys`",
        )

    def _ties(self, at: str, after: Cursor) -> str:
        """The rows that carry the value the last load ended with, beyond those it had."""
        rows = f"SELECT * FROM databrokkr_feed WHERE {quoted(self.column)} = {at}"
        known = after.get("boundary") or {}
        # A column that is gone takes the hashes with it: then every row of this value counts as new.
        if not known or not set(after["columns"]) <= set(self.columns):
            return rows
        row = self._hash(tuple(after["columns"]))
        return (
            f"SELECT tie.* FROM (SELECT *, {row} AS databrokkr_hash, "
            f"row_number() OVER (PARTITION BY {row}) AS databrokkr_nth FROM ({rows})) AS tie "
            f"LEFT JOIN json_each({literal(json.dumps(known))}) AS known ON tie.databrokkr_hash = known.key "
            "WHERE tie.databrokkr_nth > coalesce(CAST(known.value AS BIGINT), 0)"
        )

    def _sorted(self, query: str) -> str:
        return f"{query} ORDER BY {quoted(self.column)} NULLS FIRST" if self.ordered else query

    def _value(self, text: str) -> str:
        return f"CAST({literal(text)} AS {self.type})"

    @staticmethod
    def _hash(names: tuple[str, ...]) -> str:
        """A hash of a row's content; lengths keep ('ab', 'c') and ('a', 'bc') apart."""
        texts = [f"CAST({quoted(name)} AS VARCHAR)" for name in names]
        parts = [f"coalesce(strlen({text}) || ':' || {text}, '-')" for text in texts]
        return f"md5(concat({', '.join(parts)}))"

"""Takes the whole objects out of a file of JSON lines that has others too, and names the lines that it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from databrokkr_assets.core.ports import Reject
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import LIMIT, Line, repaired

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LINE = "__databrokkr_line"
"""The field that a salvaged object has first: the number of its line."""

LONG_NUMBER = "[0-9][0-9.]{15}|[0-9][eE][+]?[0-9]{3}"
"""Finds the digits of a number that a double may not hold."""

_KINDS = {"ARRAY": "an array", "VARCHAR": "a text", "BOOLEAN": "a boolean", "NULL": "null"}
_LINES_AT_ONCE = 5_000
_CHARACTERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class SalvagedLines:
    """A file of whole objects, each with its `LINE`, and the rejects beside it."""

    path: Path
    rejects: RejectSpool


class JsonSalvage:
    """Sorts the lines of one file. What a whole object is, DuckDB says, so that it can read what is left.

    `exact` names the fields whose long numbers are kept as texts: DuckDB reads every number with a point as a double.
    """

    def __init__(self, duck: DuckDBPyConnection, name: str, exact: Collection[str]) -> None:
        self._duck, self._name, self._exact = duck, name, exact

    def run(self, lines: Iterator[Line], into: Path, out: IO[bytes]) -> SalvagedLines:
        """Write the good lines to `out`, the file at `into`, in bounded memory."""
        salvaged = SalvagedLines(into, RejectSpool(into.with_suffix(".rejects")))
        while held := _some(lines):
            for line, reject in zip(held, self._judged(held), strict=True):
                if reject:
                    salvaged.rejects.add(reject)
                elif line.text.strip():
                    out.write(self._numbered(line).encode())
        salvaged.rejects.close()
        return salvaged

    def _judged(self, lines: list[Line]) -> Iterable[Reject | None]:
        texts = pa.table({"text": ["" if line.problem else line.text for line in lines]})
        objects = self._duck.from_arrow(texts).query(
            "texts",
            """SELECT json_valid(text), CASE WHEN json_valid(text) THEN json_type(text) END,
            CASE WHEN json_valid(text) AND json_type(text) = 'OBJECT'
                THEN len(json_keys(text)) > len(list_distinct(json_keys(text))) END FROM texts""",
        )
        for line, found in zip(lines, objects.fetchall(), strict=True):
            yield self._reject(line, *found) if line.problem or line.text.strip() else None

    def _reject(self, line: Line, valid: bool, kind: str, twice: bool | None) -> Reject | None:
        if not line.problem and len(line.text) * 4 > LIMIT and len(line.text.encode()) > LIMIT - 100:
            line = line._replace(problem=f"longer than {LIMIT:,} bytes")
        if line.problem:
            rule = "json.length" if line.problem.startswith("longer") else "json.encoding"
            return self._named(line, rule, line.problem)
        if not valid:
            return self._named(line, "json.syntax", _why(line.text))
        if kind != "OBJECT":
            return self._named(line, "json.object", f"the line is no object but {_KINDS.get(kind, 'a number')}")
        return self._named(line, "json.duplicate", "the object has a field twice") if twice else None

    def _named(self, line: Line, rule: str, reason: str) -> Reject:
        return Reject(reason, rule, f"{self._name}:{line.number}", repaired(line.text.removesuffix("\r")))

    def _numbered(self, line: Line) -> str:
        text = line.text.strip()
        if self._exact and re.search(LONG_NUMBER, text):
            text = _with_exact_texts(text, self._exact)
        rest = text[1:].lstrip()
        return f'{{"{LINE}":{line.number}{"" if rest.startswith("}") else ","}{rest}\n'


def _some(lines: Iterator[Line]) -> list[Line]:
    held: list[Line] = []
    size = 0
    for line in islice(lines, _LINES_AT_ONCE):
        held.append(line)
        size += len(line.text)
        if size >= _CHARACTERS_AT_ONCE:
            break
    return held


def _why(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return "not JSON: it has an escape that stands for no character"


class _Literal(str):
    """A number with a point or an exponent, as it was written."""


def _with_exact_texts(text: str, exact: Collection[str]) -> str:
    found = json.loads(text, parse_float=_Literal)
    return json.dumps({name: _with_floats(value, str if name in exact else float) for name, value in found.items()})


def _with_floats(value: Any, kind: type) -> Any:
    """The value with each such number as a text, or as DuckDB would have read it."""
    if isinstance(value, _Literal):
        return kind(value)
    if isinstance(value, list):
        return [_with_floats(item, kind) for item in value]
    return {name: _with_floats(item, kind) for name, item in value.items()} if isinstance(value, dict) else value

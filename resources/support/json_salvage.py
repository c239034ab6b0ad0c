"""Takes the whole objects out of a file that has others too, and names the lines of those that it leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from databrokkr_assets.core.ports import Reject
from resources.support.json_documents import DEEPEST
from resources.support.line_numbers import LineNumbers
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import LIMIT, Line, repaired

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LINE = "__databrokkr_line"
"""The field that a salvaged object has first: how many lines or records stand before it."""

LONG_NUMBER = "[0-9][0-9.]{15}|[0-9][eE][+]?[0-9]{3}"
"""Finds the digits of a number that a double may not hold."""

_KINDS = {"ARRAY": "an array", "VARCHAR": "a text", "BOOLEAN": "a boolean", "NULL": "null"}
_RULES = {"longer": "json.length", "nested": "json.depth"}
_FLAT = str.maketrans("\r\n", "  ")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
# the texts that are no object, or one with a field twice
_JUDGEMENT = """
    SELECT place, valid, kind
    FROM (SELECT place, text, json_valid(text) AS valid, CASE WHEN valid THEN json_type(text) END AS kind FROM texts)
    WHERE text <> '' AND CASE WHEN kind = 'OBJECT'
        THEN len(json_keys(text)) > len(list_distinct(json_keys(text))) ELSE true END"""
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
    `within` tells that an object within an object may have a field twice.
    """

    def __init__(self, duck: DuckDBPyConnection, name: str, exact: Collection[str], *, within: bool) -> None:
        self._duck, self._name, self._exact, self._within = duck, name, exact, within

    def run(
        self, lines: Iterator[Line], into: Path, out: IO[bytes], numbers: LineNumbers | None = None
    ) -> SalvagedLines:
        """Write the good lines to `out`, the file at `into`, in bounded memory; their numbers to `numbers`."""
        salvaged = SalvagedLines(into, RejectSpool(into.with_suffix(".rejects")))
        before = 0
        while held := _some(lines):
            rejects = self._rejects(held)
            good = [place for place, line in enumerate(held) if place not in rejects and line.text.strip()]
            out.write("".join(self._numbered(held[place], before + place) for place in good).encode())
            if numbers:
                numbers.add([before + place + 1 for place in good])
            for place in sorted(rejects):
                salvaged.rejects.add(rejects[place])
            before += len(held)
        salvaged.rejects.close()
        return salvaged

    def _rejects(self, lines: list[Line]) -> dict[int, Reject]:
        """The lines that cannot stay, by their places."""
        problems = ((place, line.problem or _problem(line.text)) for place, line in enumerate(lines))
        found = {place: self._problematic(lines[place], problem) for place, problem in problems if problem}
        texts = ["" if place in found else line.text.strip() for place, line in enumerate(lines)]
        table = pa.table({"place": range(len(lines)), "text": texts})
        for place, *judgement in self._duck.from_arrow(table).query("texts", _JUDGEMENT).fetchall():
            found[place] = self._refused(lines[place], *judgement)
        if self._within:
            twice = (place for place, text in enumerate(texts) if text and place not in found and _has_twice(text))
            found |= {place: self._doubled(lines[place]) for place in twice}
        return found

    def _problematic(self, line: Line, problem: str) -> Reject:
        return self._named(line, _RULES.get(problem.partition(" ")[0], "json.encoding"), problem)

    def _refused(self, line: Line, valid: bool, kind: str | None) -> Reject:
        if not valid:
            return self._named(line, "json.syntax", _why(line.text))
        if kind != "OBJECT":
            return self._named(line, "json.object", f"the line is no object but {_KINDS.get(str(kind), 'a number')}")
        return self._doubled(line)

    def _doubled(self, line: Line) -> Reject:
        return self._named(line, "json.duplicate", "the object has a field twice")

    def _named(self, line: Line, rule: str, reason: str) -> Reject:
        return Reject(reason, rule, f"{self._name}:{line.number}", repaired(line.text.removesuffix("\r")))

    def _numbered(self, line: Line, place: int) -> str:
        text = line.text.strip()
        if "\n" in text or "\r" in text:
            text = text.translate(_FLAT)
        if self._exact and re.search(LONG_NUMBER, text):
            text = _with_exact_texts(text, self._exact)
        rest = text[1:].lstrip()
        return f'{{"{LINE}":{place}{"" if rest.startswith("}") else ","}{rest}\n'


def _some(lines: Iterator[Line]) -> list[Line]:
    held: list[Line] = []
    size = 0
    for line in islice(lines, _LINES_AT_ONCE):
        held.append(line)
        size += len(line.text)
        if size >= _CHARACTERS_AT_ONCE:
            break
    return held


def _problem(text: str) -> str | None:
    if len(text) * 4 > LIMIT and len(text.encode()) > LIMIT - 100:
        return f"longer than {LIMIT:,} bytes"
    return f"nested more than {DEEPEST} deep" if _is_deep(text) else None


def _is_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def _has_twice(text: str) -> bool:
    """Whether any object in the text, which is JSON, has a field twice."""
    found: list[bool] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        found.append(len(pairs) > len({name for name, _ in pairs}))

    json.loads(text, object_pairs_hook=look)
    return any(found)


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

"""The capability matrix: what each connector was seen to keep, as the contract suite wrote it down.

`docs/connectors/matrix.json` is written by `pytest tests/contract --write-matrix`, and every run of the whole suite is
compared with it. So a page that is made from it tells nothing that was not tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = Path("connectors/matrix.json")
"""Below `docs/`."""

KEPT = "kept"
"""The outcome of a promise without gaps; any other outcome is why it is not kept, or not wholly."""


@dataclass(frozen=True)
class Promise:
    """A row of the matrix: the test of the suite, and what it promises in plain words."""

    test: str
    words: str


@dataclass(frozen=True)
class Theme:
    """Promises that belong together."""

    title: str
    promises: tuple[Promise, ...]


@dataclass(frozen=True)
class Column:
    """A connector on one system, and the outcome of each promise that it claims, by the test's name."""

    title: str
    connectors: tuple[str, ...]
    delivery: str = ""
    types: tuple[str, ...] = ()
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """The whole."""

    themes: tuple[Theme, ...] = ()
    columns: tuple[Column, ...] = ()

    def supported(self) -> set[str]:
        """The names of the connectors that have a green run."""
        return {name for column in self.columns for name in column.connectors}

    def to_json(self) -> str:
        """The matrix as it is kept in the file."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def stored(docs: Path) -> Matrix:
    """The matrix as it was written down; empty before it was."""
    file = docs / FILE
    if not file.exists():
        return Matrix()
    found = json.loads(file.read_text())
    themes = tuple(Theme(one["title"], tuple(Promise(**each) for each in one["promises"])) for one in found["themes"])
    return Matrix(themes, tuple(_column(one) for one in found["columns"]))


def _column(found: Mapping[str, object]) -> Column:
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Column(**{**found, **lists})  # type: ignore[arg-type]


def page(matrix: Matrix) -> str:
    """The matrix in Markdown: promises down, connectors across, gaps as notes with their reasons."""
    notes: list[str] = []
    tables = [line for theme in matrix.themes for line in _table(theme, matrix.columns, notes)]
    return "\n".join([_HEAD, *_claims(matrix.columns), *tables, *_notes(notes)])


_HEAD = """\
# What each connector keeps

Made from the outcome of the contract suite (`tests/contract`), which runs every promise against the real system. A
promise is kept (**yes**), kept but for a gap that the note names, or not claimed (–). CI runs the suite and fails when
this page says otherwise.
"""


def _claims(columns: Sequence[Column]) -> Iterator[str]:
    yield "| | delivery | types that come back exactly |\n|---|---|---|"
    for column in columns:
        yield f"| {column.title} | {column.delivery or '–'} | {', '.join(column.types) or '–'} |"
    yield ""


def _table(theme: Theme, columns: Sequence[Column], notes: list[str]) -> Iterator[str]:
    rows = [promise for promise in theme.promises if any(promise.test in column.outcomes for column in columns)]
    if not rows:
        return
    yield f"## {theme.title}\n"
    yield f"| promise | {' | '.join(column.title for column in columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for promise in rows:
        cells = (_cell(column.outcomes.get(promise.test), notes) for column in columns)
        yield f"| {promise.words.replace('|', chr(92) + '|')} | {' | '.join(cells)} |"
    yield ""


def _cell(outcome: str | None, notes: list[str]) -> str:
    if outcome is None:
        return "–"
    if outcome == KEPT:
        return "yes"
    if outcome not in notes:
        notes.append(outcome)
    number = notes.index(outcome) + 1
    return f"gap [{number}](#gaps)"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield "## Gaps\n"
        yield from (f"{number}. {note}" for number, note in enumerate(notes, 1))

"""Compares what a session has seen with the capability matrix in the docs, or writes that anew."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from databrokkr_assets.cli import matrix, reference
from databrokkr_assets.cli.matrix import KEPT, Column, Matrix, Promise

from .case import Case, HoldsTypes, Writes
from .cases import CASES
from .recording import Outcomes
from .suite import THEMES, claimed, promises
from .values import TYPES

COMMAND = "pytest tests/contract -n 2 --dist loadgroup --write-matrix"


def written_or_compared(outcomes: Outcomes, *, write: bool) -> str | None:
    """What is wrong with the matrix in the docs; `None` when it tells what was seen, or was written anew.

    Cases that ran in part, or with a failure, are neither compared nor written.
    """
    columns = [column for case in CASES if (column := _column(case, outcomes))]
    stored = matrix.stored(reference.DOCS)
    known = {**_by_title(stored.columns), **_by_title(columns)}
    fresh = Matrix(tuple(_themes()), tuple(known[case.title] for case in CASES if case.title in known))
    if write:
        (reference.DOCS / matrix.FILE).write_text(fresh.to_json())
        reference.write(reference.DOCS, reference.pages())
        return None
    if not columns or fresh == stored:
        return None
    return f"docs/{matrix.FILE} does not tell what this session has seen; look at why, or write it anew: {COMMAND}"


def _column(case: type[Case], seen: Outcomes) -> Column | None:
    outcomes = {}
    for name in claimed(case):
        found = seen.get((case.title, name), {}).values()
        if not found or None in found:
            return None
        gaps = sorted({outcome for outcome in found if outcome and outcome != KEPT})
        outcomes[name] = "; ".join(gaps) or KEPT
    delivery = case.delivery.value if issubclass(case, Writes) else ""
    types = tuple(_types(case)) if issubclass(case, HoldsTypes) else ()
    return Column(case.title, tuple(filter(None, (case.connector, case.via))), delivery, types, outcomes)


def _types(case: type[HoldsTypes]) -> Iterator[str]:
    for name in TYPES:
        if name in case.holds:
            yield f"{name} ({case.bounded[name]})" if name in case.bounded else name


def _themes() -> Iterator[matrix.Theme]:
    for theme in THEMES:
        yield matrix.Theme(theme.title, tuple(Promise(name, _words(test)) for name, test in promises(theme)))


def _words(test: Any) -> str:
    return (inspect.getdoc(test) or "").partition("\n\n")[0].replace("\n", " ")


def _by_title(columns: Iterable[Column]) -> Mapping[str, Column]:
    return {column.title: column for column in columns}

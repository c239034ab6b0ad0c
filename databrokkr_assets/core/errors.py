"""Every error that a person meets, sorted by who mends it.

    DatabrokkrError
    ├── SpecError     edit the YAML or the code: file and line
    ├── AccessError   fix the credential, the grant, the path or the disk
    ├── DataError     look at these rows
    └── Unavailable   tried again already; try later

Each says what is wrong and, always, how to mend it. The exit code of the command line stands on the class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Where:
    """A place in a file; `line` and `column` count from 1."""

    file: Path
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [str(self.file), self.line, self.column]
        return ":".join(str(part) for part in parts if part is not None)


class DatabrokkrError(Exception):
    """What is wrong, where, and how to mend it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, mend: str, where: Where | str | None = None) -> None:
        self.what = what
        self.mend = mend
        self.where = where
        super().__init__(what, mend, where)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}\n  mend: {self.mend}"


class SpecError(DatabrokkrError):
    """The specification or the code asks for something that cannot be."""

    exit_code = 2


class AccessError(DatabrokkrError):
    """A system, file or disk is there but does not let us in."""

    exit_code = 3


class DataError(DatabrokkrError):
    """The rows themselves are wrong: unreadable, refused by a check, or over the error budget."""

    exit_code = 4


class Unavailable(DatabrokkrError):
    """A system did not answer, after retries."""

    exit_code = 5


class SpecErrors(SpecError):
    """Several mistakes of one specification, found together so that they can be mended together."""

    def __init__(self, errors: Iterable[SpecError]) -> None:
        self.errors = list(errors)
        first = self.errors[0]
        super().__init__(first.what, mend=first.mend, where=first.where)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or the list of what there is when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"use one of: {', '.join(names)}" if names else "none is defined yet"

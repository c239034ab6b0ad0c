"""Where the rows of a CSV file stand: below lines that are skipped and a header, above a footer."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from databrokkr_assets.core.errors import DataError, Where
from resources.support.csv_records import Dialect, Fields, Record
from resources.support.text_encodings import CHUNK
from resources.support.text_lines import Line


@dataclass(frozen=True)
class Layout:
    """`above` counts the lines above the first row; `heads` are the records of the header among them.

    `guessed` are those of them that were not said to be skipped. The last `footer` lines that are not empty are none.
    """

    above: int
    heads: tuple[Fields, ...]
    guessed: tuple[Record, ...] = ()
    footer: int = 0
    begins_with_header: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but a header of at most one line, which is all that DuckDB can be told surely."""
        return self.begins_with_header and len(self.heads) <= 1 and not self.footer


def is_filled(record: Record) -> bool:
    """Whether there is anything in a record; an empty line is none."""
    return bool(record.text or record.rule)


def without_footer(lines: Iterator[Line], footer: int) -> Iterator[Line]:
    """The lines but the last `footer` that are not empty, and the empty ones after these."""
    held: deque[Line] = deque()
    filled = 0
    for line in lines:
        held.append(line)
        filled += bool(line.text.strip())
        while filled > footer:
            first = held.popleft()
            filled -= bool(first.text.strip())
            yield first


def start_of_footer(path: Path, footer: int) -> int:
    """At which byte of a file whose lines end with LF its last `footer` lines that are not empty begin."""
    with open(path, "rb") as stream:
        position, filled = stream.seek(0, 2), False
        while position and footer:
            start = max(position - CHUNK, 0)
            stream.seek(start)
            data = stream.read(position - start)
            end = len(data)
            while (newline := data.rfind(b"\n", 0, end)) >= 0:
                footer -= filled or bool(data[newline + 1 : end].strip())
                filled = False
                if not footer:
                    return start + newline + 1
                end = newline
            filled = filled or bool(data[:end].strip())
            position = start
    return position


def needs_reading(path: Path, dialect: Dialect) -> bool:
    """Whether the file, which is in UTF-8, may hold what DuckDB would misread."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return dialect.is_foreign(data)


def column_names(file: str, heads: Sequence[Record]) -> tuple[str, ...]:
    """The names in the lines of a header, joined by `_`; a column without one is called by its place.

    In an upper line, an empty name is the one to its left, as programs write cells that span columns. Raises DataError
    for a header that cannot be read, or names a column twice.
    """
    for head in heads:
        _refuse_unreadable(file, head)
    width = max(len(head.fields) for head in heads)
    upper = [_spread(head.fields, width) for head in heads[:-1]]
    lowest = [(field or "").strip() for field in heads[-1].fields]
    lowest += [""] * (width - len(lowest))
    parts = zip(*upper, lowest, strict=True)
    names = tuple("_".join(filter(None, names)) or f"column{place}" for place, names in enumerate(parts))
    _refuse_double(file, heads[-1].line, names)
    return names


def _spread(fields: Fields, width: int) -> list[str]:
    names: list[str] = []
    for field in fields:
        names.append((field or "").strip() or (names[-1] if names else ""))
    return names + names[-1:] * (width - len(names))


def _refuse_unreadable(file: str, head: Record) -> None:
    problem = head.problem if head.rule else ""
    if not problem and "\r" in head.text and not {'"', "'"} & set(head.text):
        problem = "some of the first lines end with CR, others with LF"
    if problem:
        where = Where(Path(file), head.line)
        raise DataError(f"the header cannot be read: {problem}", where=where, mend="mend this line of the file")


def _refuse_double(file: str, line: int, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise DataError(
                f'the header names a column twice: "{seen[name.casefold()]}" and "{name}"',
                where=Where(Path(file), line),
                mend="rename one in the file, or say `header: false` and name all `columns`; the header is then a row",
            )
        seen[name.casefold()] = name

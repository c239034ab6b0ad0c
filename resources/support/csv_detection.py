"""Finds out how a CSV file is written, from its first lines: delimiter, quotes, escapes, header, lines above the table.

What the author says is not looked for. Where the lines do not tell, the answer is the common one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from resources.support.csv_records import Dialect, Fields, Record, is_unfinished, records
from resources.support.text_lines import Line

_LINES, _CHARACTERS = 100, 1 << 18
_DELIMITERS = ",;\t|"
_BACKSLASH = "\\"
_DATA = re.compile(
    r"[+-]?[$€£]?(\d+([.,]\d+)*|\.\d+)([eE][+-]?\d+)?\s?%?|(?P<time>\d{4}-\d\d-\d\d([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4})"
    "|true|false",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(1[89]|20|21)\d\d")


@dataclass(frozen=True)
class Sample:
    """The first lines of a file; `whole` tells whether these are all."""

    lines: tuple[Line, ...]
    whole: bool

    def records(self, dialect: Dialect) -> list[Record]:
        """The records that are surely complete, empty lines left out."""
        found = [record for record in records(iter(self.lines), dialect) if record.text or record.rule]
        is_cut = found and not self.whole and is_unfinished(found[-1])
        return found[:-1] if is_cut else found


def sampled(lines: Iterator[Line]) -> Sample:
    """The first lines of a file, few enough to be looked at in many ways."""
    found: list[Line] = []
    size = 0
    for line in lines:
        if len(found) == _LINES or size > _CHARACTERS:
            return Sample(tuple(found), whole=False)
        found.append(line)
        size += len(line.text)
    return Sample(tuple(found), whole=True)


def found_dialect(sample: Sample, given: Dialect, delimiter: str | None, quote: str | None, escape: str | None) -> Dialect:
    """`given` with the delimiter, quote and escape that the author says, or the lines show where that is `None`."""
    quotes = (
        replace(given, quote=mark, escape="" if backslash == mark else backslash)
        for mark in _quotes(sample, quote)
        for backslash in _escapes(sample, escape)
    )
    tried = [replace(one, delimiter=delimiter or _delimiter(sample, one)) for one in quotes]
    tried = [one for one in tried if one.quote != "'" or quote or _is_quoted_so(sample, one)]
    return min(tried, key=lambda one: _broken(sample, one))  # the first of those with the fewest mistakes


def _quotes(sample: Sample, quote: str | None) -> list[str]:
    if quote is not None:
        return [quote]
    return ["'", '"'] if any("'" in line.text for line in sample.lines) else ['"']


def _escapes(sample: Sample, escape: str | None) -> list[str]:
    if escape is not None:
        return [escape]
    shown = any(f"{_BACKSLASH}{mark}" in line.text for line in sample.lines for mark in "\"'")
    return [_BACKSLASH, ""] if shown else [""]


def _delimiter(sample: Sample, dialect: Dialect) -> str:
    """The delimiter that gives most records the most fields of one number; a comma where none does."""

    def fields(delimiter: str) -> int:
        found = sample.records(replace(dialect, delimiter=delimiter))
        widths = [len(record.fields) for record in found[lines_above(found) :]]
        return widths[0] if widths and widths.count(widths[0]) * 2 > len(widths) else 1

    return max(_DELIMITERS, key=fields)


def _broken(sample: Sample, dialect: Dialect) -> int:
    return sum(bool(record.rule) for record in sample.records(dialect))


def _is_quoted_so(sample: Sample, dialect: Dialect) -> bool:
    """Whether single quotes are surely quotes: they hold delimiters, or stand around every text but those of a header.

    An apostrophe at the beginning of a text is no quote.
    """
    raw = [field for record in sample.records(replace(dialect, quote="", escape=""))[1:] for field in record.fields]
    shown = [field for field in raw if field and not _is_data(field)]
    if any(field.startswith('"') for field in shown) or not any(field.startswith("'") for field in shown):
        return False
    if _broken(sample, dialect):
        return False
    return _is_even(sample, dialect) and all(len(field) > 1 and field[0] == field[-1] == "'" for field in shown) or (
        _is_even(sample, dialect) and not _is_even(sample, replace(dialect, quote="", escape=""))
    )


def _is_even(sample: Sample, dialect: Dialect) -> bool:
    return len({len(record.fields) for record in sample.records(dialect)}) == 1


def lines_above(found: Sequence[Record]) -> int:
    """How many records stand above the first that has as many fields as most of them; none where most have one."""
    widths = Counter(len(record.fields) for record in found if len(record.fields) > 1)
    if not widths:
        return 0
    width = max(widths, key=lambda one: (widths[one], one))
    return next(place for place, record in enumerate(found) if len(record.fields) == width)


def has_header(found: Sequence[Record], declared: Sequence[str]) -> bool | None:
    """Whether the first of the records holds names; `None` where they do not tell.

    It does where a declared column is named, or where it is a text above numbers or dates. It does not where it is
    itself a number, which few columns are called by; but years and dates, and numbers counted up, may be names.
    """
    if not found or found[0].rule:
        return None
    first, below = found[0].fields, [record.fields for record in found[1:] if not record.rule]
    if {name.casefold() for name in declared} & {(field or "").strip().casefold() for field in first}:
        return True
    if any(_stands_above(first, below, place) for place in range(len(first))):
        return True
    return False if any(map(_is_value, first)) and not _counts(first) else None


def _stands_above(first: Fields, below: Sequence[Fields], place: int) -> bool:
    name = first[place]
    column = [fields[place] for fields in below if len(fields) > place]
    values = [value for value in column if value]
    return bool(name and values) and not _is_data(name or "") and all(map(_is_data, values))


def _is_data(text: str) -> bool:
    return bool(_DATA.fullmatch(text.strip().strip("'\"")))


def _is_value(field: str | None) -> bool:
    found = _DATA.fullmatch((field or "").strip())
    return bool(found and not found["time"] and not _YEAR.fullmatch(found[0]))


def _counts(first: Fields) -> bool:
    """Whether the names are 0, 1, 2 …, as some programs call columns; one more may stand before them."""
    numbers = [field for field in first if _is_value(field)]
    return any(numbers == [str(start + step) for step in range(len(numbers))] for start in (0, 1))

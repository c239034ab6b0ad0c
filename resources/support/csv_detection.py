"""Finds out how a CSV file is written, from its first lines: delimiter, quotes, escapes, header, lines above the table.

What the author says is not looked for. Where the lines do not tell, the answer is the common one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from resources.support.csv_records import Dialect, Record, is_unfinished, records
from resources.support.text_lines import Line

_LINES, _CHARACTERS = 100, 1 << 18
_DELIMITERS = ",;\t|"
_BACKSLASH = "\\"
_TIMES = r"(1[89]|20|21)\d\d|\d{4}-\d\d-\d\d([ T].*)?|\d\d?[./]\d\d?[./]\d{2,4}"
_TIME = re.compile(_TIMES)
_DATA = re.compile(rf"[+-]?[$€£]?(\d+([.,]\d+)*|\.\d+)(e[+-]?\d+)?\s?%?|{_TIMES}|true|false", re.IGNORECASE)


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


@dataclass(frozen=True)
class Given:
    """What the author says of the dialect; `None` is to be found out. `skips` tells that lines may stand above."""

    delimiter: str | None
    quote: str | None
    escape: str | None
    nulls: frozenset[str]
    quoted_nulls: bool
    comment: str
    skips: bool

    def dialects(self, sample: Sample) -> Iterator[Dialect]:
        """The dialects that are worth a look, without their delimiter, from the least to the most common."""
        for quote in _quotes(sample) if self.quote is None else [self.quote]:
            for escape in _escapes(sample, quote) if self.escape is None else [self.escape]:
                yield Dialect(
                    self.delimiter or ",",
                    quote,
                    self.nulls,
                    self.quoted_nulls,
                    "" if escape == quote else escape,
                    self.comment,
                )


def found_dialect(sample: Sample, given: Given) -> Dialect:
    """The dialect, as the author says it or as the lines show it."""
    tried = list(given.dialects(sample))
    if given.delimiter is None:
        tried = [replace(one, delimiter=_delimiter(sample, one, skips=given.skips)) for one in tried]
    fitting = [one for one in tried if one.quote != "'" or given.quote or _is_quoted_so(sample, one)]
    return min(fitting, key=lambda one: _broken(sample, one))  # the first of those with the fewest mistakes


def _quotes(sample: Sample) -> list[str]:
    return ["'", '"'] if any("'" in line.text for line in sample.lines) else ['"']


def _escapes(sample: Sample, quote: str) -> list[str]:
    shown = quote and any(_BACKSLASH + quote in line.text for line in sample.lines)
    # Doubled quotes first: a backslash is an escape only where the file has mistakes without it.
    return ["", _BACKSLASH] if shown else [""]


def _delimiter(sample: Sample, dialect: Dialect, *, skips: bool) -> str:
    """The delimiter that gives most records the most fields of one number; a comma where none does.

    Below lines of other kinds, which it might be part of, it is the one that gives most of them that number.
    """

    def score(delimiter: str) -> tuple[float, int]:
        found = sample.records(replace(dialect, delimiter=delimiter))
        widths = [len(record.fields) for record in found[lines_above(found) if skips else 0 :]]
        if not widths or widths[0] == 1 or widths.count(widths[0]) * 2 <= len(widths):
            return 0, 1
        return (widths.count(widths[0]) / len(widths) if skips else 1), widths[0]

    return max(_DELIMITERS, key=score)


def _broken(sample: Sample, dialect: Dialect) -> int:
    return sum(bool(record.rule) for record in sample.records(dialect))


def _is_quoted_so(sample: Sample, dialect: Dialect) -> bool:
    """Whether single quotes are surely quotes: they hold delimiters, or stand around every text but those of a header.

    An apostrophe at the beginning of a text is no quote.
    """
    raw = replace(dialect, quote="", escape="")
    shown = [field for record in sample.records(raw)[1:] for field in record.fields if field and not _is_data(field)]
    if any(field.startswith('"') for field in shown) or not any(field.startswith("'") for field in shown):
        return False
    if _broken(sample, dialect):
        return False
    around = all(len(field) > 1 and field[0] == field[-1] == "'" for field in shown)
    return around or _evenness(sample, dialect) > _evenness(sample, raw)


def _evenness(sample: Sample, dialect: Dialect) -> int:
    """How many records have the number of fields that most have."""
    widths = Counter(len(record.fields) for record in sample.records(dialect))
    return max(widths.values(), default=0)


def lines_above(found: Sequence[Record]) -> int:
    """How many records stand above the first that has as many fields as most of them; none where most have one."""
    widths = Counter(len(record.fields) for record in found if len(record.fields) > 1)
    if not widths:
        return 0
    width = max(widths, key=lambda one: (widths[one], one))
    return next(place for place, record in enumerate(found) if len(record.fields) == width)


def has_header(found: Sequence[Record], declared: Sequence[str]) -> bool | None:
    """Whether the first of the records holds names; `None` where they do not tell.

    It does where a declared column is named, or where it has a text above numbers or dates. It does not where it has a
    number, which few columns are called by. Years and dates may be names, unless such stand below them too.
    """
    if not found or found[0].rule:
        return None
    first, below = found[0].fields, [record.fields for record in found[1:] if not record.rule]
    if {name.casefold() for name in declared} & {(field or "").strip().casefold() for field in first}:
        return True
    columns = [[fields[place] or "" for fields in below if len(fields) > place] for place in range(len(first))]
    tops = [(field or "").strip() for field in first]
    if any(_is_name(top, column) for top, column in zip(tops, columns, strict=True)):
        return True
    if _counts(tops):
        return None
    return False if any(_is_value(top, column) for top, column in zip(tops, columns, strict=True)) else None


def _is_name(top: str, column: Sequence[str]) -> bool:
    values = [value for value in column if value]
    return bool(top and values) and not _is_data(top) and all(map(_is_data, values))


def _is_data(text: str) -> bool:
    return bool(_DATA.fullmatch(text.strip().strip("'\"")))


def _is_time(text: str) -> bool:
    return bool(_TIME.fullmatch(text.strip()))


def _is_value(top: str, column: Sequence[str]) -> bool:
    if _is_time(top):
        values = [value for value in column if value]
        return bool(values) and all(map(_is_time, values))
    return bool(_DATA.fullmatch(top))


def _counts(tops: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2 …, as some programs call columns that have no name."""
    numbers = [top for top in tops if top]
    return len(numbers) > (2 if tops[0] else 1) and numbers == [str(number) for number in range(len(numbers))]

"""CSV files as a DuckDB query.

Two scans. The first reads every field as text and only counts: it finds the types, and whether a file has mistakes. The
second is DuckDB's typed reader at its full speed over the files without mistakes. A file with mistakes is read in
between by `csv_salvage`, which knows the line of every record. Checking each value in the typed scan itself would take
as long as both, and could not name lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice, takewhile
from pathlib import Path
from typing import Literal

import duckdb

from databrokkr_assets.core.errors import DataError, SpecError, Where, did_you_mean
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import RelationRead
from resources.support.csv_detection import Given, found_dialect, has_header, lines_above, sampled
from resources.support.csv_layout import (
    Layout,
    column_names,
    is_filled,
    needs_reading,
    start_of_footer,
    without_footer,
)
from resources.support.csv_records import Dialect, Record, records
from resources.support.csv_salvage import CsvSalvage, Manner
from resources.support.csv_survey import CsvFile, Survey, Surveyor, typed
from resources.support.csv_types import Shapes
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.line_numbers import COLUMN, ROWS, LineNumbers, with_lines
from resources.support.provenance import told
from resources.support.reject_spool import RejectSpool
from resources.support.text_encodings import encoding_of, is_utf8, wrong_bytes
from resources.support.text_lines import Line, decoded, end_of_lines, lines
from resources.support.work_folder import WorkFolder


def read(reading: Reading) -> RelationRead | None:
    """The rows of CSV files; see `CsvLoad.relation`."""
    given = reading.settings
    options = CsvOptions(
        delimiter=given.delimiter,
        quote=given.quote,
        escape=given.escape,
        header=given.header,
        encoding=given.encoding,
        skip_lines=given.skip_lines,
        skip_footer=given.skip_footer,
        comment=given.comment,
        pads=given.short_rows == "pad",
        null_values=given.null_values,
        packing=reading.packing,
        columns=given.columns,
        provenance=reading.provenance,
    )
    return CsvLoad(reading.duck, options, reading.work).relation(reading.files, first=reading.first)


@dataclass(frozen=True)
class CsvOptions:
    """How the author says the files are written; `columns` holds types as DuckDB prints them.

    `None`, and `auto` where there is a word for it, is to be found out from each file. With `provenance` rows tell
    their file and line.
    """

    delimiter: str | None
    quote: str | None
    escape: str | None
    header: bool | int | Literal["auto"]
    encoding: str
    skip_lines: int | Literal["auto"]
    skip_footer: int
    comment: str | None
    pads: bool
    null_values: tuple[str, ...]
    packing: str | None
    columns: Mapping[str, str]
    provenance: bool


@dataclass(frozen=True)
class _Sketch:
    """What the first lines of a file tell. `skipped` lines stand above the table; `has_header` is `None` if unsure."""

    file: FoundFile
    plain: Path
    encoding: str
    dialect: Dialect
    skipped: int
    has_header: bool | None


class CsvLoad:
    """The CSV files of one load."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, options: CsvOptions, work: WorkFolder) -> None:
        self._duck, self._options, self._work = duck, options, work
        self._declared = {name.casefold(): kind for name, kind in options.columns.items()}
        self._surveyor = Surveyor(duck, self._declared)

    def relation(self, files: Sequence[FoundFile], *, first: bool) -> RelationRead | None:
        """The rows of the files as a query, in the order of the files; `None` when none has a header or a line.

        Raises DataError for a file that is no CSV, SpecError for a declared column that no file of a first load has.
        """
        parts = self._parts(files)
        if not parts:
            return None
        columns = _union(part.names for part in parts)
        if first:
            self._refuse_unknown(columns)
        parts, shapes = self._surveyed(parts)
        types = {name: self._declared.get(name) or shapes.get(name, Shapes()).sql_type for name in columns}
        runs = (self._run_query(list(run), columns, types) for _, run in groupby(parts, key=lambda part: part.kin))
        rejects = [part.rejects for part in parts if part.rejects]
        return RelationRead(" UNION ALL ".join(runs), rejects=lambda: chain.from_iterable(rejects))

    def _refuse_unknown(self, columns: Mapping[str, str]) -> None:
        for name in self._options.columns:
            if name.casefold() not in columns:
                what = f'the column "{name}" is declared, but no file has it'
                raise SpecError(what, mend=did_you_mean(name, columns.values()))

    # --- one file ---

    def _parts(self, files: Sequence[FoundFile]) -> list[CsvFile]:
        """The files that have a header or a row."""
        sketches = list(map(self._sketch, files))
        known = [sketch.has_header for sketch in sketches if sketch.has_header is not None]
        usual = known.count(False) * 2 <= len(known)  # a file that does not tell is like the others
        return [part for sketch in sketches if (part := self._part(sketch, self._heads(sketch, usual=usual)))]

    def _sketch(self, file: FoundFile) -> _Sketch:
        options = self._options
        plain = self._work.plain(file, options.packing)
        encoding = encoding_of(plain, file.key, options.encoding)
        skips = options.skip_lines == "auto"
        skipped = 0 if options.skip_lines == "auto" else options.skip_lines
        sample = sampled(self._lines(plain, encoding, skipped))
        given = Given(
            options.delimiter or ("\t" if ".tsv" in file.path.suffixes else None),
            options.quote,
            options.escape,
            frozenset({"", *options.null_values}),
            "" in options.null_values,
            options.comment or "",
            skips,
        )
        dialect = found_dialect(sample, given)
        found = sample.records(dialect)
        above = lines_above(found) if skips else 0
        verdict = has_header(found[above:], tuple(options.columns))
        return _Sketch(file, plain, encoding, dialect, found[above].line - 1 if above else skipped, verdict)

    def _heads(self, sketch: _Sketch, *, usual: bool) -> int:
        """How many lines the header has."""
        if self._options.header == "auto":
            return int(usual if sketch.has_header is None else sketch.has_header)
        return int(self._options.header)

    def _part(self, sketch: _Sketch, count: int) -> CsvFile | None:
        file, plain = sketch.file, sketch.plain
        found = filter(is_filled, self._records(sketch, sketch.skipped))
        heads = list(islice(found, max(count, 1)))
        if not heads:
            return None
        names = column_names(file.key, heads) if count else self._names(file, heads[0])
        layout = self._layout(sketch, heads[:count])
        part = CsvFile(file, plain, plain, sketch.encoding, names, sketch.dialect, layout, header=count > 0)
        clean = True
        if not is_utf8(part.encoding):
            path, clean = self._work.transcoded(plain, part.encoding, ".csv")
            part = replace(part, path=path)
        is_plain = clean and layout.is_plain and not needs_reading(part.path, part.dialect)
        return part if is_plain else self._salvaged(part)

    def _layout(self, sketch: _Sketch, heads: Sequence[Record]) -> Layout:
        guesses = self._options.skip_lines == "auto" and sketch.skipped
        guessed = filter(is_filled, self._records(sketch, 0)) if guesses else iter(())
        return Layout(
            above=heads[-1].line + heads[-1].text.count("\n") if heads else sketch.skipped,
            heads=tuple(head.fields for head in heads),
            guessed=tuple(takewhile(lambda record: record.line <= sketch.skipped, guessed)),
            footer=self._options.skip_footer,
            begins_with_header=not sketch.skipped,
        )

    def _names(self, file: FoundFile, first: Record) -> tuple[str, ...]:
        """The names of the columns of a file without a header."""
        declared = tuple(self._options.columns)
        if declared and self._options.header == "auto" and len(declared) != len(first.fields):
            raise DataError(
                f"the first line looks like a row of {len(first.fields)} fields, not like names",
                where=Where(Path(file.key), first.line),
                mend="say `header: true` if these are names; else name all `columns`, in their order",
            )
        return declared or tuple(f"column{index}" for index in range(len(first.fields)))

    def _lines(self, plain: Path, encoding: str, skipped: int) -> Iterator[Line]:
        return without_footer(islice(lines(plain, encoding), skipped, None), self._options.skip_footer)

    def _records(self, part: _Sketch | CsvFile, skipped: int) -> Iterator[Record]:
        return records(self._lines(part.plain, part.encoding, skipped), part.dialect)

    def _data(self, part: CsvFile) -> Iterator[Record]:
        """The records below the header."""
        return self._records(part, part.layout.above)

    def _salvaged(self, part: CsvFile) -> CsvFile:
        """The good records of the file, with the rejects beside them."""
        layout, first_end = part.layout, next(map(end_of_lines, decoded(part.plain, part.encoding)))
        end = "\r\n" if first_end == "\r\n" else "\n"
        wrong = wrong_bytes(part.plain, part.encoding)
        manner = Manner(part.dialect, len(part.names), end, wrong, layout.heads, self._options.pads)
        into, rejects = self._work.new(".csv"), RejectSpool(self._work.new(".rejects"))
        numbers = self._line_numbers() if self._options.provenance else None
        doubling = part.dialect.doubling
        salvaged = replace(part, path=into, dialect=doubling, header=True, rejects=rejects, numbers=numbers)
        judge = self._surveyor.judge(salvaged, manner.head, self._work.new(".block"))
        with self._work.writing(into) as out:
            salvage = CsvSalvage(part.file.key, manner, judge, out, rejects, numbers)
            salvage.reject(layout.guessed, "csv.preamble", "the line stands above the table")
            if first_end == "\r":
                salvage.run_slowly(self._data(part))
            else:
                salvage.run(part.path, layout.above, start_of_footer(part.path, layout.footer))
        rejects.close()
        if numbers:
            numbers.close()
        return salvaged

    def _line_numbers(self) -> LineNumbers:
        return LineNumbers(self._work.new(".lines"))

    # --- the first scan ---

    def _surveyed(self, parts: list[CsvFile]) -> tuple[list[CsvFile], dict[str, Shapes]]:
        """The files, those with mistakes salvaged, and the shapes of the columns that are not declared."""
        self._surveyor.look_ahead(parts[0])
        found = {part.file: (part, survey) for kin in _families(parts) for part, survey in self._survey(kin)}
        parts = [found[part.file][0] for part in parts]
        shapes: dict[str, Shapes] = {}
        for _, survey in found.values():
            for name, shape in survey.shapes.items():
                shapes[name] = shapes.get(name, Shapes()) | shape
        return parts, self._surveyor.measured(_families(parts), shapes)

    def _survey(self, kin: list[CsvFile]) -> list[tuple[CsvFile, Survey]]:
        try:
            surveys = self._surveyor.scan(kin)
        except duckdb.Error as error:
            if kin[0].rejects or isinstance(error, duckdb.OutOfMemoryException):
                raise
            if len(kin) == 1:
                return self._survey([self._salvaged(kin[0])])
            middle = len(kin) // 2  # halves: a few broken files among thousands are found in a few scans
            return self._survey(kin[:middle]) + self._survey(kin[middle:])
        return [self._mended(part, survey) for part, survey in zip(kin, surveys, strict=True)]

    def _mended(self, part: CsvFile, survey: Survey) -> tuple[CsvFile, Survey]:
        if part.rejects is None and (survey.misfits or self._overlooked(part, survey)):
            return self._survey([self._salvaged(part)])[0]
        return self._numbered(part, survey) if self._options.provenance else (part, survey)

    def _numbered(self, part: CsvFile, survey: Survey) -> tuple[CsvFile, Survey]:
        """The file with the lines of its rows; salvaged where they cannot be told without reading it."""
        if part.numbers:
            part.numbers.require(survey.rows, part.file.key)
            return part, survey
        numbers = self._line_numbers()
        sure = numbers.add_file(part.path, part.grammar, part.layout.above)
        numbers.close()
        if sure and numbers.count == survey.rows:
            return replace(part, numbers=numbers), survey
        return self._survey([self._salvaged(part)])[0]

    def _overlooked(self, part: CsvFile, survey: Survey) -> bool:
        """Whether DuckDB saw no row where there is one: it does so when it takes the wrong line end for the file's."""
        return not survey.rows and any(map(is_filled, self._data(part)))

    # --- the second scan ---

    def _run_query(self, run: list[CsvFile], columns: Mapping[str, str], types: Mapping[str, str]) -> str:
        part = run[0]
        places = {name.casefold(): f"c{index}" for index, name in enumerate(part.names)}
        values = [
            f"TRY_CAST({places.get(name, 'NULL')} AS {types[name]}) AS {quoted(shown)}"
            for name, shown in columns.items()
        ]
        scan = typed(run, [types[name] for name in places])
        if self._options.provenance:
            values.append(told(columns.values(), [part.file.key for part in run], COLUMN, scan=ROWS))
            scan = with_lines(scan, (part.numbers for part in run if part.numbers))
        return f"SELECT {', '.join(values)} FROM {scan}"


def _families(parts: Iterable[CsvFile]) -> list[list[CsvFile]]:
    """The files that one scan can read, together."""
    families: dict[tuple[object, ...], list[CsvFile]] = {}
    for part in parts:
        families.setdefault(part.kin, []).append(part)
    return list(families.values())


def _union(headers: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """The columns of all files by their folded names, in the order and spelling of their first appearance."""
    columns: dict[str, str] = {}
    for name in chain.from_iterable(headers):
        columns.setdefault(name.casefold(), name)
    return columns

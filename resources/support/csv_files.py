"""CSV files as a DuckDB query.

Two scans. The first reads every field as text and only counts: it finds the types, and whether a file has mistakes. The
second is DuckDB's typed reader at its full speed over the files without mistakes. A file with mistakes is read in
between by `csv_salvage`, which knows the line of every record. Checking each value in the typed scan itself would take
as long as both, and could not name lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path

import duckdb

from databrokkr_assets.core.errors import DataError, SpecError, Where, did_you_mean
from databrokkr_assets.core.names import quoted
from databrokkr_assets.core.ports import RelationRead
from resources.support.csv_records import Dialect, Record, records
from resources.support.csv_salvage import CsvSalvage, Manner
from resources.support.csv_survey import CsvFile, Survey, Surveyor, typed
from resources.support.csv_types import Shapes
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import decoded, end_of_lines, is_utf8, lines, refuse_binary, wrong_bytes
from resources.support.work_folder import WorkFolder

_DELIMITERS = ",;\t|"


def read(reading: Reading) -> RelationRead | None:
    """The rows of CSV files; see `CsvLoad.relation`."""
    given = reading.settings
    options = CsvOptions(
        delimiter=given.delimiter,
        quote=given.quote,
        header=given.header,
        encoding=given.encoding,
        null_values=given.null_values,
        packing=reading.packing,
        columns=given.columns,
    )
    return CsvLoad(reading.duck, options, reading.work).relation(reading.files, first=reading.first)


@dataclass(frozen=True)
class CsvOptions:
    """How the author says the files are written; `columns` holds types as DuckDB prints them."""

    delimiter: str | None
    quote: str
    header: bool
    encoding: str
    null_values: tuple[str, ...]
    packing: str | None
    columns: Mapping[str, str]


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
        parts = [part for part in map(self._part, files) if part]
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

    def _part(self, file: FoundFile) -> CsvFile | None:
        plain = self._work.plain(file, self._options.packing)
        refuse_binary(plain, file.key, self._options.encoding)
        dialect = self._dialect(file, plain)
        head = next(filter(_is_filled, self._records(plain, dialect)), None)
        if head is None:
            return None
        part = CsvFile(file, plain, plain, self._names(file, head), dialect, self._options.header)
        if is_utf8(self._options.encoding):
            return part
        path, clean = self._work.transcoded(plain, self._options.encoding, ".csv")
        part = replace(part, path=path)
        return part if clean else self._salvaged(part)

    def _dialect(self, file: FoundFile, plain: Path) -> Dialect:
        nulls = frozenset({"", *self._options.null_values})
        dialect = Dialect(",", self._options.quote, nulls, "" in self._options.null_values)
        fixed = self._options.delimiter or ("\t" if ".tsv" in file.path.suffixes else None)
        return replace(dialect, delimiter=fixed or self._sniffed(plain, dialect))

    def _sniffed(self, plain: Path, dialect: Dialect) -> str:
        """The delimiter that gives the first records the most fields of one number; a comma where none does."""

        def fields(delimiter: str) -> int:
            found = filter(_is_filled, self._records(plain, replace(dialect, delimiter=delimiter)))
            widths = [len(record.fields) for record in islice(found, 50)]
            return widths[0] if widths and widths.count(widths[0]) * 2 > len(widths) else 1

        return max(_DELIMITERS, key=fields)

    def _names(self, file: FoundFile, head: Record) -> tuple[str, ...]:
        if self._options.header:
            return _header(file, head)
        return tuple(self._options.columns) or tuple(f"column{index}" for index in range(len(head.fields)))

    def _records(self, plain: Path, dialect: Dialect) -> Iterator[Record]:
        return records(lines(plain, self._options.encoding), dialect)

    def _data(self, part: CsvFile) -> Iterator[Record]:
        """The records of a file but its header."""
        found = self._records(part.plain, part.dialect)
        if part.header:
            next(filter(_is_filled, found), None)
        return found

    def _salvaged(self, part: CsvFile) -> CsvFile:
        """The good records of the file, with the rejects beside them."""
        skipped, first_end = self._beginning(part)
        end = "\r\n" if first_end == "\r\n" else "\n"
        manner = Manner(part.dialect, len(part.names), end, wrong_bytes(part.plain, self._options.encoding))
        into = self._work.new(".csv")
        salvaged = replace(part, path=into, header=True, rejects=RejectSpool(self._work.new(".rejects")))
        assert salvaged.rejects
        judge = self._surveyor.judge(salvaged, manner.head, self._work.new(".block"))
        with self._work.writing(into) as out:
            salvage = CsvSalvage(part.file.key, manner, judge, out, salvaged.rejects)
            if first_end == "\r":
                salvage.run_slowly(self._data(part))
            else:
                salvage.run(part.path, skipped)
        salvaged.rejects.close()
        return salvaged

    def _beginning(self, part: CsvFile) -> tuple[int, str]:
        """How many lines the header takes with the empty ones above it, and what ends the lines."""
        end = next(map(end_of_lines, decoded(part.plain, self._options.encoding)))
        head = next(filter(_is_filled, self._records(part.plain, part.dialect)))
        return (head.line + head.text.count("\n") if part.header else 0), end

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
        if part.rejects or not (survey.misfits or self._overlooked(part, survey)):
            return part, survey
        return self._survey([self._salvaged(part)])[0]

    def _overlooked(self, part: CsvFile, survey: Survey) -> bool:
        """Whether DuckDB saw no row where there is one: it does so when it takes the wrong line end for the file's."""
        return not survey.rows and any(map(_is_filled, self._data(part)))

    # --- the second scan ---

    def _run_query(self, run: list[CsvFile], columns: Mapping[str, str], types: Mapping[str, str]) -> str:
        part = run[0]
        places = {name.casefold(): f"c{index}" for index, name in enumerate(part.names)}
        values = (
            f"TRY_CAST({places.get(name, 'NULL')} AS {types[name]}) AS {quoted(shown)}"
            for name, shown in columns.items()
        )
        return f"SELECT {', '.join(values)} FROM {typed(run, [types[name] for name in places])}"


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


def _is_filled(record: Record) -> bool:
    return bool(record.text or record.rule)


def _header(file: FoundFile, head: Record) -> tuple[str, ...]:
    """The names in a header; a column without one is called by its place, as DuckDB does."""
    where = Where(Path(file.key), head.line)
    if head.rule:
        raise DataError(f"the header cannot be read: {head.problem}", where=where, mend="mend this line of the file")
    names = tuple((field or "").strip() or f"column{index}" for index, field in enumerate(head.fields))
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise DataError(
                f'the header names a column twice: "{seen[name.casefold()]}" and "{name}"',
                where=where,
                mend="rename one in the file, or say `header: false` and name all `columns`; the header is then a row",
            )
        seen[name.casefold()] = name
    return names

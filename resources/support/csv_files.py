"""CSV files as a DuckDB query.

Two scans. The first reads every field as text and only counts: it finds the types, and whether a file has mistakes. The
second is DuckDB's typed reader at its full speed over the files without mistakes. A file with mistakes is read in
between by `csv_salvage`, which knows the line of every record. Measured on 766 MB: 2.6 s and 3.1 s; checking each value
in the typed scan itself would take as long (4.5 to 8 s), and could not name lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path

import duckdb

from databrokkr_assets.core.errors import DataError, SpecError, Where, did_you_mean
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Reject, RelationRead
from resources.support.csv_records import Dialect, Fields, Record, records
from resources.support.csv_salvage import Salvaged, salvage
from resources.support.csv_types import TEXT, Shapes, holds, shape_aggregates
from resources.support.found_files import FoundFile
from resources.support.reject_spool import RejectSpool
from resources.support.text_lines import decoded, is_clean, is_utf8, lines, refuse_binary
from resources.support.work_folder import WorkFolder

_FILE = "__file"
_SAMPLE_ROWS = 10_000
_DELIMITERS = ",;\t|"


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


@dataclass(frozen=True)
class CsvFile:
    """One file, ready for DuckDB. `plain` is in its own encoding, `path` is what DuckDB reads."""

    file: FoundFile
    plain: Path
    path: Path
    names: tuple[str, ...]
    dialect: Dialect
    salvaged: Salvaged | None = None

    @property
    def kin(self) -> tuple[object, ...]:
        """Files with the same can be read by one scan."""
        return self.names, self.dialect, self.salvaged is None


@dataclass(frozen=True)
class _Survey:
    """What the first scan found in a file: the shapes of inferred columns, the misfits of declared ones."""

    rows: int
    shapes: Mapping[str, Shapes]
    misfits: int


class CsvLoad:
    """The CSV files of one load."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, options: CsvOptions, work: WorkFolder) -> None:
        self._duck, self._options, self._work = duck, options, work
        self._declared = {name.casefold(): kind for name, kind in options.columns.items()}
        self._text_columns: set[str] = set()

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
        parts, surveys = self._surveyed(parts)
        types = self._types(columns, surveys)
        runs = (
            self._run_query(list(run), columns, types) for _, run in groupby(parts, key=lambda part: part.kin)
        )
        rejects = list(chain.from_iterable(self._spools(part) for part in parts if part.salvaged))
        return RelationRead(" UNION ALL ".join(runs), rejects=lambda: _all(rejects))

    # --- one file ---

    def _part(self, file: FoundFile) -> CsvFile | None:
        plain = self._work.plain(file, self._options.packing)
        refuse_binary(plain, file.key, self._options.encoding)
        dialect = self._dialect(file, plain)
        head = next(filter(_is_filled, self._records(plain, dialect)), None)
        if head is None:
            return None
        part = CsvFile(file, plain, plain, self._names(file, head), dialect)
        return part if is_utf8(self._options.encoding) else self._transcoded(part)

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

    def _records(self, plain: Path, dialect: Dialect) -> Iterator[Record]:
        return records(lines(plain, self._options.encoding), dialect)

    def _data(self, part: CsvFile) -> Iterator[Record]:
        """The records of a file but its header."""
        found = self._records(part.plain, part.dialect)
        if self._options.header:
            next(filter(_is_filled, found), None)
        return found

    def _names(self, file: FoundFile, head: Record) -> tuple[str, ...]:
        if self._options.header:
            return _header(file, head)
        return tuple(self._options.columns) or tuple(f"column{index}" for index in range(len(head.fields)))

    def _transcoded(self, part: CsvFile) -> CsvFile:
        """The file in UTF-8. DuckDB reads nothing of some UTF-16 files and says nothing."""
        path = self._work.new(".csv")
        clean = True
        with self._work.writing(path) as out:
            for text in decoded(part.plain, self._options.encoding):
                clean = clean and is_clean(text)
                out.write(text.encode("utf-8", "replace"))
        return replace(part, path=path) if clean else self._salvage(part)

    def _salvage(self, part: CsvFile) -> CsvFile:
        salvaged = salvage(
            self._data(part), len(part.names), part.dialect.delimiter, part.file.key, self._work.new(".parquet")
        )
        return replace(part, path=salvaged.path, salvaged=salvaged)

    # --- the first scan ---

    def _surveyed(self, parts: list[CsvFile]) -> tuple[list[CsvFile], list[_Survey]]:
        """The files with those that have mistakes salvaged, and what each holds."""
        self._text_columns = self._sampled(parts[0])
        found: dict[str, tuple[CsvFile, _Survey]] = {}
        for kin in _by_kin(parts):
            for part, survey in self._survey(kin):
                found[part.file.key] = part, survey
        ordered = [found[part.file.key] for part in parts]
        return [part for part, _ in ordered], [survey for _, survey in ordered]

    def _survey(self, kin: list[CsvFile]) -> list[tuple[CsvFile, _Survey]]:
        try:
            surveys = self._scan(kin)
        except duckdb.Error as error:
            if kin[0].salvaged:
                raise
            if isinstance(error, duckdb.OutOfMemoryException):
                raise
            if len(kin) > 1:  # halves: a few broken files among thousands are found in a few scans
                middle = len(kin) // 2
                return self._survey(kin[:middle]) + self._survey(kin[middle:])
            return self._survey([self._salvage(kin[0])])
        pairs = list(zip(kin, surveys, strict=True))
        return [self._mended(part, survey) for part, survey in pairs]

    def _mended(self, part: CsvFile, survey: _Survey) -> tuple[CsvFile, _Survey]:
        if part.salvaged or not (survey.misfits or self._overlooked(part, survey)):
            return part, survey
        return self._survey([self._salvage(part)])[0]

    def _overlooked(self, part: CsvFile, survey: _Survey) -> bool:
        """Whether DuckDB saw no row where there is one: it does so when it takes the wrong line end for the file's."""
        if survey.rows:
            return False
        return any(map(_is_filled, self._data(part)))

    def _scan(self, kin: list[CsvFile], rows: str = "") -> list[_Survey]:
        names = [name.casefold() for name in kin[0].names]
        inferred = [name for name in names if name not in self._declared and name not in self._text_columns]
        shapes = chain.from_iterable(shape_aggregates(f"c{names.index(name)}") for name in inferred)
        misfit = f"count(*) FILTER (NOT ({self._all_hold(kin[0])}))"
        columns = ", ".join([_FILE, "count(*)", misfit, *shapes])
        query = f"SELECT {columns} FROM (SELECT * FROM {self._texts(kin)} {rows}) GROUP BY {_FILE}"
        found = {row[0]: _survey_of(row, inferred) for row in self._duck.execute(query).fetchall()}
        return [found.get(str(part.path), _Survey(0, {}, 0)) for part in kin]

    def _sampled(self, part: CsvFile) -> set[str]:
        """The columns that the first rows show to be text: the long scan need not look into them."""
        try:
            survey = self._scan([part], f"LIMIT {_SAMPLE_ROWS}")[0]
        except duckdb.Error:
            return set()
        return {name for name, shapes in survey.shapes.items() if shapes.kinds & TEXT}

    def _all_hold(self, part: CsvFile) -> str:
        return " AND ".join(f"({hold})" for _, hold in self._holds(part)) or "true"

    def _holds(self, part: CsvFile) -> Iterator[tuple[str, str]]:
        for index, name in enumerate(part.names):
            kind = self._declared.get(name.casefold(), "VARCHAR")
            if kind != "VARCHAR":
                misfit = f"concat('column ', {literal(quoted(name))}, ': \"', left(c{index}, 200), '\" does not fit {kind} exactly')"
                yield misfit, holds(f"c{index}", kind)

    # --- the second scan ---

    def _types(self, columns: Mapping[str, str], surveys: list[_Survey]) -> dict[str, str]:
        types = {}
        for name in columns:
            shapes = Shapes()
            for survey in surveys:
                shapes |= survey.shapes.get(name, Shapes())
            types[name] = self._declared.get(name) or shapes.sql_type
        return types

    def _run_query(self, run: list[CsvFile], columns: Mapping[str, str], types: Mapping[str, str]) -> str:
        part = run[0]
        places = {name.casefold(): f"c{index}" for index, name in enumerate(part.names)}
        texts = self._texts(run) if part.salvaged else self._reader(run, [types[name] for name in places])
        values = (
            f"TRY_CAST({places.get(name, 'NULL')} AS {types[name]}) AS {quoted(shown)}"
            for name, shown in columns.items()
        )
        where = f" WHERE {self._all_hold(part)}" if part.salvaged else ""
        return f"SELECT {', '.join(values)} FROM {texts}{where}"

    def _texts(self, kin: list[CsvFile]) -> str:
        if kin[0].salvaged:
            return f"read_parquet({_list(kin)}, filename={literal(_FILE)}, hive_partitioning=false)"
        return self._reader(kin, ["VARCHAR"] * len(kin[0].names))

    def _reader(self, kin: list[CsvFile], types: list[str]) -> str:
        """DuckDB's strict reader, told everything, so that it guesses nothing."""
        dialect = kin[0].dialect
        columns = ", ".join(f"'c{index}': {literal(kind)}" for index, kind in enumerate(types))
        nulls = ", ".join(map(literal, sorted(dialect.nulls)))
        return (
            f"read_csv({_list(kin)}, auto_detect=false, header={self._options.header}, delim={literal(dialect.delimiter)}, "
            f"quote={literal(dialect.quote)}, escape={literal(dialect.quote)}, nullstr=[{nulls}], "
            f"allow_quoted_nulls={dialect.quoted_nulls}, columns={{{columns}}}, filename={literal(_FILE)}, "
            f"hive_partitioning=false, strict_mode=true)"
        )

    def _spools(self, part: CsvFile) -> Iterator[RejectSpool]:
        """The rejects of a salvaged file: those of its grammar, then those of its values."""
        assert part.salvaged
        yield part.salvaged.rejects
        reasons = ", ".join(f"CASE WHEN NOT ({hold}) THEN {misfit} END" for misfit, hold in self._holds(part))
        if reasons:
            yield RejectSpool.of_query(
                self._duck,
                f"SELECT concat_ws('; ', {reasons}) AS reason, 'csv.type' AS rule, "
                f"{literal(part.file.key + ':')} || line AS position, text AS payload "
                f"FROM {self._texts([part])} WHERE NOT ({self._all_hold(part)}) ORDER BY line",
                self._work.new(".rejects"),
            )

    def _refuse_unknown(self, columns: Mapping[str, str]) -> None:
        for name in self._options.columns:
            if name.casefold() not in columns:
                raise SpecError(
                    f'the column "{name}" is declared, but no file has it',
                    mend=did_you_mean(name, columns.values()),
                )


def _is_filled(record: Record) -> bool:
    return bool(record.text or record.rule)


def _list(kin: Iterable[CsvFile]) -> str:
    return f"[{', '.join(literal(str(part.path)) for part in kin)}]"


def _by_kin(parts: Iterable[CsvFile]) -> list[list[CsvFile]]:
    families: dict[tuple[object, ...], list[CsvFile]] = {}
    for part in parts:
        families.setdefault(part.kin, []).append(part)
    return list(families.values())


def _all(spools: Iterable[RejectSpool]) -> Iterator[Reject]:
    return chain.from_iterable(spools)


def _union(headers: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """The columns of all files by their folded names, in the order and spelling of their first appearance."""
    columns: dict[str, str] = {}
    for name in chain.from_iterable(headers):
        columns.setdefault(name.casefold(), name)
    return columns


def _survey_of(row: tuple[object, ...], inferred: list[str]) -> _Survey:
    _, rows, misfits, *numbers = row
    shapes = {
        name: Shapes(*(int(str(number or 0)) for number in numbers[4 * index : 4 * index + 4]))
        for index, name in enumerate(inferred)
    }
    return _Survey(int(str(rows)), shapes, int(str(misfits)))


def _header(file: FoundFile, head: Record) -> tuple[str, ...]:
    where = Where(Path(file.key), head.line)
    if head.rule:
        raise DataError(f"the header cannot be read: {head.problem}", where=where, mend="mend the first line")
    names = _named(head.fields)
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            both = f'"{seen[name.casefold()]}" and "{name}"'
            raise DataError(
                f"the header names a column twice: {both}",
                where=where,
                mend="rename one in the file, or say `header: false` and name all `columns` (the header is then a row)",
            )
        seen[name.casefold()] = name
    return names


def _named(fields: Fields) -> tuple[str, ...]:
    """The names of a header; a column without one is called by its place, as DuckDB does."""
    return tuple((field or "").strip() or f"column{index}" for index, field in enumerate(fields))

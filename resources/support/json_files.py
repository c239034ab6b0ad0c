"""Files of JSON lines, and of JSON documents, as a DuckDB query.

Documents are taken apart into lines first; see `json_documents`.

Two scans: the first finds the structure of every object, because DuckDB's own reader drops a field that first appears
late, makes dates of texts, and doubles of whole numbers beyond 64 bits; the second reads with the columns it was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb

from databrokkr_assets.core.errors import DataError, Where
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.ports import Reject, RelationRead
from resources.support.csv_types import holds
from resources.support.file_formats import Reading
from resources.support.found_files import FoundFile
from resources.support.json_checks import doubled, nested_look, number_look
from resources.support.json_documents import DEEPEST, Document, has_lines
from resources.support.json_salvage import LINE, LONG_NUMBER, JsonSalvage, SalvagedLines
from resources.support.json_structures import Structure, has_numbers, merged, parsed, sql_type, struct_paths
from resources.support.json_types import holds_parts, is_nested
from resources.support.line_numbers import COLUMN, ROWS, Grammar, LineNumbers, with_lines
from resources.support.provenance import told
from resources.support.reject_spool import RejectSpool
from resources.support.text_encodings import encoding_of, is_utf8, wrong_bytes
from resources.support.text_lines import LIMIT, Line, lines
from resources.support.work_folder import WorkFolder

_FILE = "__databrokkr_file"
_ROWS_AT_ONCE = 10_000
_OPENED = "(2 * strlen(json) - strlen(replace(json::VARCHAR, '[', '')) - strlen(replace(json::VARCHAR, '{', '')))"


def read(reading: Reading) -> RelationRead | None:
    """The objects of files of JSON lines; see `JsonLoad.relation`."""
    return _relation(reading, None)


def read_documents(reading: Reading) -> RelationRead | None:
    """The records of JSON documents; see `JsonLoad.relation`."""
    path = reading.settings.records
    return _relation(reading, tuple(path.split(".")) if path else ())


def _relation(reading: Reading, keys: tuple[str, ...] | None) -> RelationRead | None:
    given = reading.settings
    options = JsonOptions(given.encoding, reading.packing, given.columns, keys, reading.provenance)
    return JsonLoad(reading.duck, options, reading.work).relation(reading.files)


@dataclass(frozen=True)
class JsonOptions:
    """How the author says the files are written; `columns` holds types as DuckDB prints them.

    `keys` lead to the records of a document; `None` for JSON lines. With `provenance` objects tell their file and line,
    those of a document their number.
    """

    encoding: str
    packing: str | None
    columns: Mapping[str, str]
    keys: tuple[str, ...] | None
    provenance: bool


@dataclass(frozen=True)
class JsonFile:
    """One file, ready for DuckDB. `plain` is in its own encoding, `path` is what DuckDB reads.

    `numbers` are the lines of the objects, where these are to tell them.
    """

    file: FoundFile
    plain: Path
    path: Path
    encoding: str
    document: Document | None = None
    salvaged: SalvagedLines | None = None
    numbers: LineNumbers | None = None

    def lines(self) -> Iterator[Line]:
        """The lines of the file, or the records of the document, as they came."""
        if self.document:
            return self.document.lines(wrong_bytes(self.plain, self.encoding))
        return lines(self.plain, self.encoding)


@dataclass
class _Survey:
    """What the first scan found in a file: its fields, those that may hold long numbers, lines that cannot stay."""

    fields: dict[str, Structure] = field(default_factory=dict)
    long: set[str] = field(default_factory=set)
    broken: bool = False
    deep: bool = False
    objects: int = 0

    def add(self, structure: str | None, keys: int, long: bool) -> None:
        """Take in the objects of one structure, which have `keys` fields each; `None` for one that may be deep."""
        if structure is None:
            self.deep = True
        else:
            self._add(parsed(structure), keys, long)

    def _add(self, structure: Structure, keys: int, long: bool) -> None:
        if not isinstance(structure, dict) or keys != len(structure):
            self.broken = True  # no object, or one with a field twice
            return
        self.fields = dict(merged(self.fields, structure, top=True))  # type: ignore[arg-type]
        if long:
            self.long.update(name for name, below in structure.items() if has_numbers(below))


class JsonLoad:
    """The files of JSON lines, or of documents, of one load."""

    def __init__(self, duck: duckdb.DuckDBPyConnection, options: JsonOptions, work: WorkFolder) -> None:
        self._duck, self._options, self._work = duck, options, work
        self._exact = {name for name, kind in options.columns.items() if "DECIMAL" in kind}

    def relation(self, files: Sequence[FoundFile]) -> RelationRead | None:
        """The objects of the files as a query, in the order of the files; `None` when there is no object.

        Raises DataError for a file that is no text, for fields whose names differ only by case, and when no line of all
        the files is an object.
        """
        surveyed = self._fitting(self._survey([self._part(file) for file in files]))
        if self._options.provenance:
            surveyed = [one for part, survey in surveyed for one in self._numbered(part, survey)]
        fields: dict[str, Structure] = {}
        for _, survey in surveyed:
            fields = dict(merged(fields, survey.fields, top=True))  # type: ignore[arg-type]
        parts = [part for part, _ in surveyed]
        rejects = list(chain.from_iterable(self._spools(part) for part in parts if part.salvaged))
        fields.pop(LINE, None)
        if not fields and not self._options.columns:
            _refuse_no_object(rejects)
            return None
        _refuse_alike(fields, parts)
        long = set().union(*(survey.long for _, survey in surveyed)) - {LINE, *self._options.columns}
        types = self._exact_types(parts, fields, sorted(long & fields.keys()))
        return RelationRead(self._query(parts, fields, types), rejects=lambda: chain.from_iterable(rejects))

    # --- one file ---

    def _part(self, file: FoundFile) -> JsonFile:
        plain = self._work.plain(file, self._options.packing)
        encoding = encoding_of(plain, file.key, self._options.encoding)
        part, clean = JsonFile(file, plain, plain, encoding), True
        if not is_utf8(encoding):
            path, clean = self._work.transcoded(plain, encoding, ".jsonl")
            part = replace(part, path=path)
        keys = self._options.keys
        if keys is not None and (keys or not has_lines(part.path)):
            document = Document(part.path, file.key, keys)
            into = self._work.new(".jsonl")
            with self._work.writing(into) as out:
                clean = document.split(out) and clean
            part = replace(part, path=into, document=document)
        return part if clean else self._salvage(part)

    def _salvage(self, part: JsonFile, *, within: bool = False) -> JsonFile:
        into = self._work.new(".jsonl")
        numbers = self._line_numbers() if self._options.provenance else None
        with self._work.writing(into) as out:
            sorter = JsonSalvage(self._duck, part.file.key, self._exact, within=within)
            salvaged = sorter.run(part.lines(), into, out, numbers)
        if numbers:
            numbers.close()
        return replace(part, path=into, salvaged=salvaged, numbers=numbers)

    def _line_numbers(self) -> LineNumbers:
        return LineNumbers(self._work.new(".lines"))

    def _numbered(self, part: JsonFile, survey: _Survey) -> list[tuple[JsonFile, _Survey]]:
        """The file with the lines of its objects; salvaged where they cannot be told without reading it."""
        if part.numbers:
            part.numbers.require(survey.objects, part.file.key)
            return [(part, survey)]
        numbers = self._line_numbers()
        sure = numbers.add_file(part.path, Grammar())
        numbers.close()
        if sure and numbers.count == survey.objects:
            return [(replace(part, numbers=numbers), survey)]
        return self._fitting(self._survey([self._salvage(part)]))

    # --- the first scan ---

    def _survey(self, parts: list[JsonFile]) -> list[tuple[JsonFile, _Survey]]:
        """The files, those with broken lines salvaged, and what each holds."""
        try:
            surveys = self._scan(parts)
        except duckdb.Error as error:
            if isinstance(error, duckdb.OutOfMemoryException):
                raise
            if len(parts) > 1:  # halves: a few broken files among thousands are found in a few scans
                middle = len(parts) // 2
                return self._survey(parts[:middle]) + self._survey(parts[middle:])
            if parts[0].salvaged:
                raise
            return self._survey([self._salvage(parts[0])])
        return [self._looked_into(part, survey) for part, survey in zip(parts, surveys, strict=True)]

    def _looked_into(self, part: JsonFile, survey: _Survey) -> tuple[JsonFile, _Survey]:
        """The file without objects that are nested too deep: DuckDB falls over them."""
        if not survey.deep:
            return part, survey
        if not part.salvaged and Document(part.path, part.file.key).is_deep():
            part = self._salvage(part)
        return part, self._scan([part], guarded=False)[0]

    def _scan(self, parts: list[JsonFile], *, guarded: bool = True) -> list[_Survey]:
        deep = f"strlen(json) > {2 * DEEPEST} AND {_OPENED} > {DEEPEST}" if guarded else "false"
        found = {str(part.path): _Survey() for part in parts}
        rows = self._duck.execute(f"""
            SELECT {_FILE}, CASE WHEN {deep} THEN NULL ELSE json_structure(json)::VARCHAR END AS structure,
                len(json_keys(json)) AS keys, bool_or(regexp_matches(json::VARCHAR, '{LONG_NUMBER}')), count(*)
            FROM {_objects(parts)}
            GROUP BY ALL ORDER BY count(*) DESC, structure""")
        while some := rows.fetchmany(_ROWS_AT_ONCE):
            for path, structure, keys, long, count in some:
                found[path].add(structure, keys, long)
                found[path].objects += count
        return list(found.values())

    def _fitting(self, surveyed: list[tuple[JsonFile, _Survey]]) -> list[tuple[JsonFile, _Survey]]:
        """The files, salvaged where a line cannot stay or a declared number is longer than DuckDB would read it."""
        misfits = self._misfitting([part for part, _ in surveyed if not part.salvaged])
        twice = self._doubled(surveyed)
        fitting = []
        for part, survey in surveyed:
            within = str(part.path) in twice
            mend = survey.broken or survey.long & self._exact or str(part.path) in misfits
            if within or (mend and not part.salvaged):
                fitting += self._survey([self._salvage(part, within=within)])
            else:
                fitting.append((part, survey))
        return fitting

    def _doubled(self, surveyed: list[tuple[JsonFile, _Survey]]) -> set[str]:
        """The files in which an object within an object has a field twice, of which a STRUCT would keep one."""
        paths: set[str] = set()
        for _, survey in surveyed:
            for name, below in survey.fields.items():
                paths.update(struct_paths({name: below}, "$"))
        paths.discard("$")
        if not paths:
            return set()
        parts = [part for part, _ in surveyed]
        found = self._duck.execute(f"SELECT DISTINCT {_FILE} FROM {_objects(parts)} WHERE {doubled(paths)}")
        return {row[0] for row in found.fetchall()}

    def _misfitting(self, parts: list[JsonFile]) -> set[str]:
        if not parts or not any(True for _ in self._holds()):
            return set()
        rows = f"SELECT DISTINCT {_FILE} FROM {self._declared(parts)} WHERE NOT ({self._all_hold()})"
        return {row[0] for row in self._duck.execute(rows).fetchall()}

    def _all_hold(self) -> str:
        return " AND ".join(f"({hold})" for _, hold in self._holds()) or "true"

    def _holds(self) -> Iterator[tuple[str, str]]:
        for name, kind in self._options.columns.items():
            if kind != "VARCHAR":
                shown = f"left({quoted(name)}::VARCHAR, 200)"
                misfit = (
                    f"concat('column ', {literal(quoted(name))}, ': \"', {shown}, '\" does not fit {kind} exactly')"
                )
                yield misfit, _holds(name, kind)

    def _declared(self, parts: list[JsonFile], *more: str) -> str:
        """The declared columns as they are written."""
        columns = [f"{literal(name)}: '{_written(kind)}'" for name, kind in self._options.columns.items()]
        return _reader(parts, [*columns, *more])

    # --- numbers that are too long ---

    def _exact_types(self, parts: list[JsonFile], fields: Mapping[str, Structure], names: list[str]) -> dict[str, str]:
        """The types of fields whose long numbers a BIGINT or DOUBLE would change."""
        if not names:
            return {}
        columns = [f"{literal(name)}: '{'JSON' if _is_nested(fields[name]) else 'VARCHAR'}'" for name in names]
        looks = (
            nested_look(name, sql_type(fields[name], as_json="JSON")) if _is_nested(fields[name]) else number_look(name)
            for name in names
        )
        row = self._duck.execute(f"SELECT {', '.join(looks)} FROM {_reader(parts, columns)}").fetchone()
        kinds = zip(names, row or (), strict=True)
        return {name: kind for name, kind in kinds if kind}

    # --- the second scan ---

    def _query(self, parts: list[JsonFile], fields: Mapping[str, Structure], exact: Mapping[str, str]) -> str:
        columns, values = [], []
        for name in dict.fromkeys([*fields, *self._options.columns]):
            read, kind = self._reading(name, fields, exact)
            columns.append(f"{literal(name)}: {literal(read)}")
            values.append(quoted(name) if read == kind else f"TRY_CAST({quoted(name)} AS {kind}) AS {quoted(name)}")
        where = f" WHERE {self._all_hold()}" if any(part.salvaged for part in parts) else ""
        scan = _reader(parts, columns)
        if self._options.provenance:
            keys = [part.file.key for part in parts]
            values.append(told([*fields, *self._options.columns], keys, COLUMN, scan=ROWS))
            scan = with_lines(scan, (part.numbers for part in parts if part.numbers))
        return f"SELECT {', '.join(values)} FROM {scan}{where}"

    def _reading(self, name: str, fields: Mapping[str, Structure], exact: Mapping[str, str]) -> tuple[str, str]:
        """As which type a column is read, and what it then becomes."""
        if kind := self._options.columns.get(name):
            return _written(kind), kind
        if name in exact:
            return ("JSON" if _is_nested(fields[name]) else "VARCHAR"), exact[name]
        return sql_type(fields[name], as_json="JSON"), sql_type(fields[name], as_json="VARCHAR")

    # --- rejects ---

    def _spools(self, part: JsonFile) -> Iterator[RejectSpool]:
        assert part.salvaged
        yield part.salvaged.rejects
        if any(True for _ in self._holds()):
            yield self._misfit_spool(part)

    def _misfit_spool(self, part: JsonFile) -> RejectSpool:
        """The lines whose values do not fit the declared types, with their texts out of the file itself."""
        spool = RejectSpool(self._work.new(".rejects"))
        reasons = ", ".join(f"CASE WHEN NOT ({hold}) THEN {misfit} END" for misfit, hold in self._holds())
        found = self._duck.execute(
            f"SELECT {LINE}, concat_ws('; ', {reasons}) FROM {self._declared([part], f'{LINE}: BIGINT')} "
            f"WHERE NOT ({self._all_hold()}) ORDER BY 1"
        )
        texts = enumerate(part.lines())
        while row := found.fetchone():
            line = next(line for place, line in texts if place == row[0])
            spool.add(Reject(row[1], "json.type", f"{part.file.key}:{line.number}", line.text.removesuffix("\r")))
        spool.close()
        return spool


def _list(parts: Iterable[JsonFile]) -> str:
    return f"[{', '.join(literal(str(part.path)) for part in parts)}]"


def _objects(parts: Iterable[JsonFile]) -> str:
    """SQL: the objects of the files as texts, in the column `json`."""
    return (
        f"read_json_objects({_list(parts)}, format='newline_delimited', filename={literal(_FILE)}, "
        f"maximum_object_size={LIMIT}, hive_partitioning=false)"
    )


def _reader(parts: Iterable[JsonFile], columns: Iterable[str]) -> str:
    return (
        f"read_json({_list(parts)}, format='newline_delimited', records=true, columns={{{', '.join(columns)}}}, "
        f"maximum_object_size={LIMIT}, "
        f"hive_partitioning=false, filename={literal(_FILE)})"
    )


def _is_nested(structure: Any) -> bool:
    return isinstance(structure, dict | list) or structure == "JSON"


def _written(kind: str) -> str:
    """As what a declared column is read before it is cast: as text, or as JSON where the type has parts."""
    return "JSON" if is_nested(kind) else "VARCHAR"


def _holds(name: str, kind: str) -> str:
    return holds_parts(quoted(name), kind) if is_nested(kind) else holds(quoted(name), kind)


def _refuse_alike(fields: Iterable[str], parts: Sequence[JsonFile]) -> None:
    where = Where(Path(parts[0].file.key)) if len(parts) == 1 else None
    seen: dict[str, str] = {}
    for name in fields:
        if not name:
            raise DataError("an object has a field without a name", where=where, mend="name it in the file")
        if name.casefold() in seen:
            raise DataError(
                f'the fields "{seen[name.casefold()]}" and "{name}" differ only by case',
                where=where,
                mend="rename one of them in the files; a table cannot have both",
            )
        seen[name.casefold()] = name


def _refuse_no_object(rejects: list[RejectSpool]) -> None:
    first = next(chain.from_iterable(rejects), None)
    if first is None:
        return
    array = "; this is an array" if first.payload.lstrip().startswith("[") else ""
    raise DataError(
        f"no line is a JSON object; the first one: {first.reason}",
        where=first.position,
        mend=f"write one object a line{array}; documents of other forms are read with `format: json`",
    )

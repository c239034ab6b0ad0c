"""Files on a disk, of any format: read once each, and written so that nobody sees half a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import ByteSize, Field, model_validator

from databrokkr_assets.core.disposition import Append, Disposition, Replace
from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import columns, quoted
from databrokkr_assets.core.ports import (
    Batch,
    Cursor,
    LandsFiles,
    ReadsAsRelation,
    RelationRead,
    Sink,
    Source,
    Stream,
    Taken,
)
from databrokkr_assets.core.settings import Names
from databrokkr_assets.core.spec import (
    Arrivals,
    ConnectionSettings,
    LandsCopies,
    Origin,
    Place,
    SinkSettings,
    SourceSettings,
    WatchesFiles,
    Zone,
)
from databrokkr_assets.engine.shaping import PROVENANCE
from resources.base import Connector
from resources.support import found_files
from resources.support.chosen_store import folder_of, gives, local_only, origin_of, place_of, store_of
from resources.support.file_formats import FORMATS, FormatName, Reading, format_of, packing_of, writable
from resources.support.file_settings import FileSettings
from resources.support.found_files import FoundFile
from resources.support.store_disk import CopiesStore
from resources.support.store_folders import OpensFolders
from resources.support.stores import FileStore, OpensStore

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from resources.support.work_folder import WorkFolder

_ROWS_AT_ONCE = 10_000
_TARGET_BYTES = 128_000_000
T = TypeVar("T")


class FilesSource(FileSettings, SourceSettings, WatchesFiles, LandsCopies):
    """Reads files: each once, and again when it has changed.

    With `append`, the default, the rows of a changed file come again; where files are rewritten, use `merge`.
    """

    type: Literal["files"]
    """The connector."""
    select: Names = ()
    """The columns to load; without it all of them."""
    seen_by: Literal["mtime", "hash"] = "mtime"
    """How a file is known again: by its size and time, or by its size and SHA-256 (every file is then read to tell)."""
    settle: float = Field(default=2.0, ge=0)
    """Seconds that a file must have been left alone before the sensor takes it as arrived."""
    landing: bool = False
    """Whether a copy of each file, as it came, is kept in the lake, from which `databrokkr reload` can repeat loads."""

    @model_validator(mode="after")
    def _of_its_store(self) -> FilesSource:
        if self.connection is None:
            for path in self.path:
                local_only(path)
        elif self.seen_by == "hash":
            raise ValueError("`seen_by: hash` is for local files; a store's own version, or size and time, tell a file")
        return self

    @model_validator(mode="after")
    def _lands_nothing_masked(self) -> FilesSource:
        if self.landing and self.masked:
            raise ValueError("a copy would hold in the clear what is `masked`; leave out one, `landing` or `masked`")
        if self.landing and self.zone is Zone.LANDING:
            raise ValueError("in the zone `landing` stand the copies; leave `zone` out, or choose another")
        return self

    @property
    def lands(self) -> bool:
        """Whether copies are kept."""
        return self.landing

    def accepts(self, connection: str) -> bool:
        """Connections of every type that opens a store of files."""
        return gives(OpensStore, connection)

    def default_disposition(self) -> Disposition:
        """Append: only files that were not seen before are read."""
        return Append()

    def open(self, connection: ConnectionSettings | None, place: Place) -> FilesReader:
        """A reader of the files that match when it is used."""
        return FilesReader(self, place, connection)

    def open_copies(self, copies: Sequence[Taken], place: Place) -> FilesReader:
        """A reader of copies of files that one load took."""
        return CopiesReader(self, place, copies)

    def origins(self, connection: ConnectionSettings | None) -> tuple[Origin, ...]:
        """The files, or the folders that globs start at."""
        return tuple(dict.fromkeys(origin_of(connection, path) for path in self.path))

    def find(self, store: FileStore) -> list[FoundFile]:
        """The files that match now, by path, whether seen or not."""
        found = (file for path in self.path for file in sorted(store.find(path), key=lambda file: file.path))
        return list({file.key: file for file in found}.values())

    def arrivals(self, place: Place, after: Cursor | None, connection: ConnectionSettings | None = None) -> Arrivals:
        """The arrivals, and the cursor for the next look; it never holds hashes."""
        seen = found_files.seen_files(after)
        now = time.time()
        with store_of(connection, place, self.connection) as store:
            found = self.find(store)
        arrived = [
            file
            for file in found
            if not found_files.is_seen(file, seen.get(file.key), look_inside=False)
            and found_files.age_seconds(file, now) >= self.settle
            and not _is_blank(self, file)
        ]
        marks = {file.key: found_files.mark_of(file, "mtime") for file in arrived}
        paths = [file.key if connection else str(file.path) for file in arrived]
        return Arrivals(paths, found_files.advanced(marks, after))


class FilesReader(Source, ReadsAsRelation, LandsFiles):
    """Reads the new files of a source."""

    def __init__(self, settings: FilesSource, place: Place, connection: ConnectionSettings | None = None) -> None:
        self._settings, self._place, self._connection = settings, place, connection
        self._keep: list[object] = []
        self._taken: tuple[Taken, ...] = ()

    def streams(self) -> Iterable[Stream]:
        """One, called after the file or folder."""
        return [Stream(Path(self._settings.path[0]).stem, keys=self._settings.keys)]

    def relation(self, duck: DuckDBPyConnection, stream: Stream, after: Cursor | None) -> RelationRead | None:
        """The rows of the new files as a query, file after file, line after line; no rows when nothing is new.

        Raises AccessError when no file matches, DataError for a file that is not of its format, SpecError for files of
        several formats. `advance` and `rejects` raise Unavailable when a file changed meanwhile.
        """
        from resources.support.work_folder import WorkFolder

        work = WorkFolder(duck, self._settings.limits)
        self._keep.append(work)  # the query needs its files; they go with this reader
        with self._store() as store:
            marks = self._new(store, after)
            found = [file for file in marks if not _is_blank(self._settings, file)]
            files = store.bring(found, work.path)
        named = zip(found, files, strict=True)
        self._taken = tuple(Taken(file.key, file.path.name, brought.path) for file, brought in named)
        read = self._read(duck, files, work, first=after is None) if files else None
        if read is None:
            return _nothing_new(after, list(marks))
        read = replace(read, query=self._selected(duck, read.query, first=after is None))
        seen = found_files.advanced({file.key: marks[file] for file in found}, after)
        cursor = {**seen, "columns": _columns(duck, read.query)}
        return replace(
            read,
            advance=lambda scalar: self._unchanged(files, cursor),
            rejects=lambda: self._unchanged(files, read.rejects()),
        )

    def read(self, stream: Stream, after: Cursor | None) -> Iterator[Batch]:
        """The rows of the new files in Arrow batches; the last batch has no rows but the cursor."""
        from databrokkr_assets.engine.duckdb import open_duck

        with open_duck() as duck:
            duck.execute("SET preserve_insertion_order = true")
            relation = self.relation(duck, stream, after)
            if relation is None:
                return
            with _explaining(relation.explain):
                records = duck.execute(relation.query).to_arrow_reader(_ROWS_AT_ONCE)
                yield from (Batch(batch) for batch in records)
            yield from _with_rejects(records.schema, relation)

    def taken(self) -> Sequence[Taken]:
        """The files that are read, without blank ones; archives are whole."""
        return self._taken

    def _selected(self, duck: DuckDBPyConnection, query: str, *, first: bool) -> str:
        """The columns that the author wants; raises SpecError for one that no file of a first load has."""
        wanted = self._settings.select
        if not wanted:
            return query
        names = {name.lower(): name for name in duck.sql(query).columns}
        for name in wanted:
            if first and name.lower() not in names:
                raise SpecError(f'no file has the column "{name}"', mend=did_you_mean(name, names.values()))
        told = PROVENANCE if self._settings.provenance else ()
        there = [names[name.lower()] for name in (*wanted, *told) if name.lower() in names]
        return f"SELECT {columns(there)} FROM ({query})"

    def _store(self) -> FileStore:
        return store_of(self._connection, self._place, self._settings.connection)

    def _new(self, store: FileStore, after: Cursor | None) -> dict[FoundFile, list[Any]]:
        """The files to read, with what the cursor is to remember of each."""
        found = self._settings.find(store)
        everything = after is None or isinstance(self._settings.how, Replace)
        if not found and everything:
            where = ", ".join(place_of(self._connection, self._place, path) for path in self._settings.path)
            mend = "check `path`, and that this user may list the folder and read it"
            raise AccessError(f"no file matches {where}", mend=mend)
        seen = {} if everything else found_files.seen_files(after)
        return {
            file: found_files.mark_of(file, self._settings.seen_by)
            for file in found
            if not found_files.is_seen(file, seen.get(file.key))
        }

    def _read(
        self, duck: DuckDBPyConnection, files: list[FoundFile], work: WorkFolder, *, first: bool
    ) -> RelationRead | None:
        """The rows of the files, archives taken apart; `None` when there are neither rows nor columns."""
        from resources.support.archives import taken_apart
        from resources.support.child import Child

        parts = files
        with _explaining(lambda error: _explained(error, files, parts)), Child(work.path, work.limits) as child:
            parts = [
                part for part in taken_apart(files, self._settings, work, child) if not _is_blank(self._settings, part)
            ]
            if not parts:
                return None
            form = _one_format(self._settings, parts)
            self._settings.refuse_misfits(form)
            told = self._settings.provenance
            reading = Reading(duck, parts, self._settings, work, child, first=first, provenance=told)
            read = FORMATS[form].reader()(reading)
        return read and replace(read, explain=lambda error: _explained(error, files, parts))

    def _unchanged(self, files: list[FoundFile], result: T) -> T:
        """`result`, unless a file changed since it was found. Raises Unavailable then: nothing is published."""
        if changed := found_files.written_since(files):
            raise found_files.vanished(changed)
        return result


class CopiesReader(FilesReader):
    """Reads copies by the settings of the source that they are of, and not the source."""

    def __init__(self, settings: FilesSource, place: Place, copies: Sequence[Taken]) -> None:
        super().__init__(settings, place)
        self._copies = tuple(copies)

    def _store(self) -> FileStore:
        return CopiesStore(self._place, self._copies)


@contextmanager
def _explaining(explain: Callable[[Exception], Exception | None]) -> Iterator[None]:
    """Within the block, errors are raised in our words where `explain` has some."""
    try:
        yield
    except Exception as error:
        ours = explain(error)
        if ours is None:
            raise
        raise ours from error


def _explained(error: Exception, files: list[FoundFile], parts: list[FoundFile]) -> DatabrokkrError | None:
    """What went wrong while the files, or their parts, were being read; `None` where it is not the files."""
    import duckdb

    if not isinstance(error, FileNotFoundError | duckdb.Error):
        return None
    if changed := found_files.written_since(files):
        return found_files.vanished(changed)
    named = [part.key for part in parts if str(part.path) in str(error)]
    of_values = isinstance(error, duckdb.InvalidInputException | duckdb.ConversionException)
    if not (named or of_values or type(error) is duckdb.Error):  # the last is what it says of a damaged Parquet file
        return None
    where = named[0] if named else f"one of {len(files)} files, {files[0].key} …"
    mend = "export the file again or move it away; nothing was loaded"
    return DataError(f"cannot be read: {error}", where=where, mend=mend)


def _nothing_new(after: Cursor | None, blank: list[FoundFile]) -> RelationRead | None:
    """No rows in the columns of the last load; the cursor stays. Raises DataError when there was no load."""
    if after is None:
        raise DataError(
            "is empty, so its columns are unknown",
            where=blank[0].key,
            mend="write a header or a row into it, or remove it",
        )
    columns = after.get("columns", {})
    values = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in columns.items())
    return RelationRead(f"SELECT {values} WHERE false") if values else None


def _columns(duck: DuckDBPyConnection, query: str) -> dict[str, str]:
    return {row[0]: row[1] for row in duck.execute(f"DESCRIBE {query}").fetchall()}


def _with_rejects(schema: pa.Schema, relation: RelationRead) -> Iterator[Batch]:
    """The rejects in batches without rows, then the cursor."""
    import pyarrow as pa

    no_rows = pa.RecordBatch.from_pylist([], schema=schema)
    rejects = relation.rejects()
    while some := tuple(islice(rejects, _ROWS_AT_ONCE)):
        yield Batch(no_rows, rejects=some)
    yield Batch(no_rows, relation.advance(lambda scalar: None))


def _one_format(settings: FilesSource, files: list[FoundFile]) -> FormatName:
    """The format of all files. Raises SpecError when they have several, or none that is known."""
    if settings.format:
        return settings.format
    formats = {file.format: file.key for file in files}
    if None in formats:
        raise SpecError(
            f"the extension of {formats[None]} tells no format",
            mend="say `format: csv` or what it is, or narrow `path`",
        )
    if len(formats) > 1:
        examples = " and ".join(f"{key} is {form}" for form, key in sorted(formats.items(), key=str))
        raise SpecError(f"the files have several formats: {examples}", mend="read them with one source each")
    return next(form for form in formats if form)


def _is_blank(settings: FilesSource, file: FoundFile) -> bool:
    """Whether there is nothing in the file yet: no bytes is no table, but it is no Parquet file either."""
    form = settings.format or file.format
    return file.size == 0 and (form is None or FORMATS[form].is_text)


class FilesSink(SinkSettings):
    """Writes a dataset into one file (`replace`), or each load into a new file of a folder (`append`).

    With `partition_by` or `target_size`, into several files of a folder, for both. `_databrokkr_manifest.json` there
    says which of them count, and a `files` source goes by it. Other readers of the folder may see files of two loads
    for a while: those that a `replace` has superseded stay for an hour.
    """

    type: Literal["files"]
    """The connector."""
    path: str
    """The file to replace, e.g. `out/report.parquet`, or the folder to append to, e.g. `out/changes`; with
    `partition_by` or `target_size` always a folder."""
    format: FormatName | None = None
    """Without it the file's extension tells; a folder needs it. `xml`, `fixed_width` and `text` can only be read."""
    compression: Literal["gzip", "zstd"] | None = None
    """`gzip` or `zstd`; without it the extension tells. Parquet is compressed with zstd unless told otherwise."""
    partition_by: Names = ()
    """Columns to split the files by, into folders such as `country=DE/day=2024-01-31`; the files have them, too."""
    target_size: ByteSize | None = Field(default=None, ge=1_000_000)
    """About how large files are to be, e.g. `128MB`, measured as Parquet; as text, rows take several times as much."""

    def accepts(self, connection: str) -> bool:
        """Connections of every type that opens a store which can be written."""
        return gives(OpensFolders, connection)

    @model_validator(mode="after")
    def _whole(self) -> FilesSink:
        if self.connection is None:
            local_only(self.path)
        if self.disposition == "merge":
            raise ValueError("files cannot be merged into; use `append` or `replace`")
        named = format_of(Path(self.path))
        form = self.format or named
        if not form:
            raise ValueError(f'the extension of "{self.path}" tells no format; add e.g. `format: parquet`')
        if Path(self.path).suffix.lower() in FORMATS[form].read_only:
            raise ValueError(f'"{self.path}" can only be read; write {FORMATS[form].extensions[0]}')
        if not FORMATS[form].writes:
            raise ValueError(f"{FORMATS[form].title} can only be read; write one of {', '.join(writable())}")
        packing = packing_of(Path(self.path))
        if packing and FORMATS[form].packs_itself:
            what = f"{FORMATS[form].title} is packed within; leave out {Path(self.path).suffix}"
            raise ValueError(f"{what}, and say `compression: {packing}` if you like")
        if packing not in (None, "gzip", "zstd"):
            raise ValueError(f"files packed by {packing} can only be read; write .gz or .zst")
        if self._several:
            if named:
                raise ValueError(f'several files need a folder; give one as `path` in place of "{self.path}"')
            return self
        if self.disposition == "append" and named:
            raise ValueError(f'append writes one file a load; give a folder as `path` in place of "{self.path}"')
        if self.disposition != "append" and not Path(self.path).suffix:
            raise ValueError(f'replace writes one file, and "{self.path}" looks like a folder; give a file as `path`')
        return self

    def open(self, connection: ConnectionSettings | None, place: Place) -> Sink:
        """A writer of the file or the folder."""
        from resources.support.file_writer import FilesWriter

        path = Path(self.path)
        form = self.format or format_of(path) or "parquet"
        packing = self.compression or packing_of(path)
        if self._several:
            from resources.support.file_partitions import FilesLayout, PartitionsWriter

            layout = FilesLayout(form, packing, self.partition_by, int(self.target_size or _TARGET_BYTES))
            return PartitionsWriter(lambda: folder_of(connection, place, self.connection, self.path), layout)
        inside, name = (self.path, None) if isinstance(self.how, Append) else (str(path.parent), path.name)
        return FilesWriter(lambda: folder_of(connection, place, self.connection, inside), name, form, packing)

    @property
    def _several(self) -> bool:
        """Whether a load is written into several files."""
        return bool(self.partition_by or self.target_size)

    def origin(self, connection: ConnectionSettings | None) -> Origin:
        """The file or the folder that is written."""
        return origin_of(connection, self.path)


connector = Connector(
    name="files",
    summary="Files of any format on a disk: each file read once, written whole or not at all.",
    kind="file",
    source=FilesSource,
    sink=FilesSink,
)

"""The formats of files. Adding one is a file of its own, `<format>_files.py`, and its line in `FORMATS`.

A format's file has a `Reads` function, and a `Writes` function where it can be written; options of its own stand in
`file_settings.py`. Its code is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from databrokkr_assets.core.ports import RelationRead

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from resources.support.child import Child
    from resources.support.file_settings import FileSettings
    from resources.support.found_files import FoundFile
    from resources.support.work_folder import WorkFolder

FormatName = Literal["csv", "jsonl", "json", "parquet", "avro", "orc", "arrow", "excel", "xml", "fixed_width", "text"]
"""The formats, as `format:` says them."""

Packing = Literal["gzip", "zstd", "bz2", "zip", "tar"]
"""How files are packed; `zip` and `tar` are archives, which hold files of their own."""

ARCHIVES = frozenset({"zip", "tar"})

_PACKINGS: dict[str, Packing] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".zip": "zip", ".tar": "tar"}
_TARS = (".tgz", ".tzst", ".tbz2", ".tar.gz", ".tar.zst", ".tar.bz2")


@dataclass(frozen=True)
class Reading:
    """What a format is given to read: local files of this one format, archives taken apart already, none blank.

    `work` holds the temporary files, and unpacks. `child` is the process that reads what a native library could fall
    over. `first` tells that nothing was read before, so that a declared column must be in the files; `provenance` that
    each row is to tell its file and its place in it, by `provenance.told`.
    """

    duck: DuckDBPyConnection
    files: Sequence[FoundFile]
    settings: FileSettings
    work: WorkFolder
    child: Child
    first: bool
    provenance: bool

    @property
    def packing(self) -> Packing | None:
        """The compression that the author names for these files; that of an archive is done with."""
        named = self.settings.compression
        return None if named in ARCHIVES else named

    def plain(self, file: FoundFile) -> Path:
        """The file unpacked; see `WorkFolder.plain`."""
        return self.work.plain(file, self.packing)


@dataclass(frozen=True)
class Writing:
    """What a format is given to write: the rows of `query` into one new file at `path`.

    `packing` is the compression asked for, `None` for the format's own.
    """

    duck: DuckDBPyConnection
    query: str
    path: Path
    packing: str | None


Reads: TypeAlias = Callable[[Reading], RelationRead | None]
"""The rows of the files as a query, in the order of the files; `None` when they hold neither rows nor columns.

Raises DataError for a file that is not of the format.
"""

Writes: TypeAlias = Callable[[Writing], int]
"""Writes the file and gives the number of its rows. Raises DataError for a value that the format cannot hold."""


@dataclass(frozen=True)
class Format:
    """One format. `reads` and `writes` name its functions as `module:function`, below `resources.support`."""

    title: str
    """As a person calls it."""
    extensions: tuple[str, ...]
    """The first is the one that written files get; none where only `format:` can tell."""
    reads: str
    writes: str | None = None
    read_only: tuple[str, ...] = ()
    """More extensions, of kin that cannot be written."""
    is_text: bool = False
    """Whether a file without bytes is one that nothing was written into yet, rather than a broken one."""
    packs_itself: bool = False
    """Whether compression is part of the format, and so shows in no extension."""

    def reader(self) -> Reads:
        """The function that reads it."""
        reads: Reads = _loaded(self.reads)
        return reads

    def writer(self) -> Writes:
        """The function that writes it, for a format that has one."""
        assert self.writes, f"{self.title} is read only"
        writes: Writes = _loaded(self.writes)
        return writes


FORMATS: dict[FormatName, Format] = {
    "csv": Format("CSV", (".csv", ".tsv"), "csv_files:read", "file_output:write_csv", is_text=True),
    "jsonl": Format("JSON lines", (".jsonl", ".ndjson"), "json_files:read", "file_output:write_jsonl", is_text=True),
    "json": Format("JSON", (".json",), "json_files:read_documents", "file_output:write_json", is_text=True),
    "parquet": Format("Parquet", (".parquet",), "parquet_files:read", "file_output:write_parquet", packs_itself=True),
    "avro": Format("Avro", (".avro",), "avro_files:read", "avro_files:write", packs_itself=True),
    "orc": Format("ORC", (".orc",), "orc_files:read", "orc_files:write", packs_itself=True),
    "arrow": Format(
        "Arrow",
        (".arrow", ".feather", ".ipc"),
        "arrow_files:read",
        "arrow_files:write",
        read_only=(".arrows",),
        packs_itself=True,
    ),
    "excel": Format(
        "Excel",
        (".xlsx",),
        "excel_files:read",
        "excel_output:write",
        read_only=(".xlsm", ".xlsb", ".xls", ".ods"),
        packs_itself=True,
    ),
    "xml": Format("XML", (".xml",), "xml_files:read"),
    "fixed_width": Format("fixed width", (), "fixed_width_files:read", is_text=True),
    "text": Format("text", (), "line_files:read", is_text=True),
}


def _loaded(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(f"resources.support.{module}"), function)


def format_of(path: Path) -> FormatName | None:
    """The format that a path's extension names, looking through that of a packing; `None` when it names none."""
    plain = path.with_suffix("") if path.suffix.lower() in _PACKINGS else path
    return _BY_EXTENSION.get(plain.suffix.lower())


def packing_of(path: Path) -> Packing | None:
    """The packing that a path's extension names; `None` when it names none."""
    if path.name.lower().endswith(_TARS):
        return "tar"
    return _PACKINGS.get(path.suffix.lower())


def is_known(path: Path) -> bool:
    """Whether the extension tells of something that can be read: a format, or an archive that may hold some."""
    return format_of(path) is not None or packing_of(path) in ARCHIVES


def writable() -> list[str]:
    """The names of the formats that can be written."""
    return [name for name, form in FORMATS.items() if form.writes]


_BY_EXTENSION: dict[str, FormatName] = {
    extension: name for name, form in FORMATS.items() for extension in (*form.extensions, *form.read_only)
}

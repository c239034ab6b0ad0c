"""What an author says about files to read: where they are, and how they are written, format by format.

A key that only some formats know carries `Of`. Where a file is of another format, the key is refused, so that nobody
believes in a setting without effect.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.settings import Names, Settings, SqlType
from resources.support.file_formats import FORMATS, FormatName, Packing, format_of


class Of(tuple[FormatName, ...]):
    """The formats that a key is for: `Annotated[str, Of(("csv", "jsonl"))]`."""

    __slots__ = ()


_TEXTS = Of(("csv", "jsonl", "json", "fixed_width", "text"))
_TYPED = Of(("csv", "jsonl", "json", "fixed_width", "excel", "xml"))

LineCount = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
"""A number of lines."""
HeaderLines = Annotated[int, Field(strict=True, ge=1, le=20)]
"""A number of lines that together name the columns."""


class Limits(Settings):
    """How much a file may take, so that a hostile one does no harm. Raise what a file that you trust goes beyond."""

    unpacked_mb: int = Field(default=50_000, ge=1)
    """Megabytes that a packed file, or an archive with all that is read of it, may become."""
    ratio: int = Field(default=200, ge=1)
    """How many times its size a packed file may become; counted once it has become 64 MB."""
    members: int = Field(default=10_000, ge=1)
    """How many files and folders an archive may hold."""
    memory_mb: int = Field(default=1_000, ge=200)
    """Megabytes of memory that reading may take where a library reads for us: all formats but CSV and JSON."""
    seconds: int = Field(default=600, ge=1)
    """Seconds that the same may take for one file."""


Place = Annotated[tuple[int, int], Field(description="The first character, counted from 1, and how many there are.")]


class FixedWidth(Settings):
    """Where the columns of a file of fixed width stand."""

    columns: Mapping[str, Place] = Field(min_length=1)
    """Each column with its first character, counted from 1, and its number of characters: `id: [1, 8]`."""
    skip_lines: LineCount = 0
    """How many lines stand above the first row."""
    trim: bool = True
    """Whether blanks around a value are left out. A value of nothing but blanks is NULL in any case."""
    short_lines: Literal["reject", "pad"] = "reject"
    """What is done with a line that ends before its last column does: `reject` sets it aside, `pad` takes it as if
    blanks followed, which is right for files whose lines lost their last blanks."""

    @property
    def width(self) -> int:
        """How many characters a line has at least."""
        return max(start + width - 1 for start, width in self.columns.values())

    @field_validator("columns")
    @classmethod
    def _in_a_line(cls, columns: Mapping[str, tuple[int, int]]) -> Mapping[str, tuple[int, int]]:
        for name, (start, width) in columns.items():
            if start < 1 or width < 1:
                raise ValueError(f'"{name}" stands at [{start}, {width}]; both numbers count from 1')
        return columns


class Excel(Settings):
    """Which cells of a workbook are read."""

    sheet: int | Names = 1
    """A sheet by its name or its number, counted from 1, several by a list of names, or `*` for all."""
    range: str | None = Field(default=None, pattern=r"^[A-Za-z]{1,3}[0-9]*:[A-Za-z]{1,3}[0-9]*$|^[0-9]+:[0-9]*$")
    """The cells: `B3:F100`, `B3:F` (to the end), `B:F`; without it, all that are filled."""
    header: bool = True
    """Whether the first filled row names the columns."""
    fill_merged: bool = False
    """Whether every one of the cells that were merged has the value, and not only the first."""


class Xml(Settings):
    """Which elements of an XML document are rows."""

    row: str
    """The path of the elements that are rows, from the top: `orders/order`; `*` is any name, `//order` an element at
    any depth. A name with a prefix of `namespaces` is one of that namespace, a name without a prefix is of any."""
    namespaces: Mapping[str, str] = Field(default_factory=dict)
    """Prefixes of this source with the namespaces that they stand for."""


class FileSettings(Settings):
    """Which files, and how they are written."""

    path: Names
    """A file, a glob such as `in/**/*.csv`, or a folder: every file of a known format below it. Or a list of these.
    With a `connection` it is within its store, or a URL where that is `http`."""
    format: FormatName | None = None
    """Without it the file's extension tells; `fixed_width` and `text` have none. `jsonl` is one JSON object a line."""
    compression: Packing | None = None
    """How the files are packed; without it the extension tells: `.gz`, `.zst`, `.bz2`, `.zip`, `.tar`, `.tar.gz`
    and their like. Of an archive, each file in it is read as a file of its own."""
    members: str | None = None
    """Which files of an archive are read, as a pattern such as `*.csv`; without it, those of the format."""
    limits: Limits = Limits()
    """How much a file may take, so that a hostile one does no harm."""
    delimiter: Annotated[str | None, Of(("csv",))] = Field(default=None, min_length=1, max_length=4)
    """CSV: the text between two fields, of at most four bytes; without it, it is found out from the first lines."""
    quote: Annotated[str | None, Of(("csv",))] = Field(default=None, max_length=1)
    """CSV: the character around a field that holds delimiters or line ends; empty for none. Without it, `"`, or `'`
    where the first lines are surely written so."""
    escape: Annotated[str | None, Of(("csv",))] = Field(default=None, max_length=1)
    r"""CSV: the character that makes the next one a plain one, such as `\`; empty where a quote within quotes is
    written twice. Without it, the first lines tell."""
    header: Annotated[bool | HeaderLines | Literal["auto"], Of(("csv",))] = "auto"
    """CSV: whether the first line names the columns, or how many lines do, joined by `_`. `auto` takes it for names
    unless it holds numbers, which are then a row. Without a header, `columns` names them, in their order."""
    skip_lines: Annotated[LineCount | Literal["auto"], Of(("csv",))] = 0
    """CSV: how many lines stand above the table. `auto` finds it by the number of fields, and sets the lines aside."""
    skip_footer: Annotated[LineCount, Of(("csv",))] = 0
    """CSV: how many lines stand below the table; empty ones do not count."""
    comment: Annotated[str | None, Of(("csv",))] = Field(default=None, min_length=1, max_length=4)
    """CSV: what a line that is left out begins with, e.g. `#`."""
    short_rows: Annotated[Literal["reject", "pad"], Of(("csv",))] = "reject"
    """CSV: what is done with rows of too few fields: `reject` sets them aside, `pad` makes what they lack NULL."""
    encoding: Annotated[str, _TEXTS] = "utf-8"
    """CSV and JSON: the encoding of the text, by its Python name, e.g. `cp1252`, `utf-16`; `auto` finds out each
    file's, where it is not UTF-8 by a guess."""
    records: Annotated[str | None, Of(("json",))] = None
    """JSON: where in a document its records are, e.g. `results.items`; without it, at the top."""
    fixed_width: Annotated[FixedWidth | None, Of(("fixed_width",))] = None
    """Fixed width: where the columns stand."""
    excel: Annotated[Excel, Of(("excel",))] = Excel()
    """Excel: which cells are read."""
    xml: Annotated[Xml | None, Of(("xml",))] = None
    """XML: which elements are rows."""
    null_values: Annotated[Names, Of(("csv", "fixed_width", "excel", "xml"))] = ()
    """CSV: texts that stand for NULL when they are not in quotes; an empty field does so always. `""` makes quoted
    fields NULL too."""
    columns: Annotated[Mapping[str, SqlType], _TYPED] = Field(default_factory=dict)
    """CSV and JSON: types of columns; the other columns get the narrowest type that changes no value."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        if encoding == "auto":
            return encoding
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError(f'there is no encoding "{encoding}"; use e.g. utf-8, cp1252, latin-1 or utf-16') from None
        return encoding

    @field_validator("columns")
    @classmethod
    def _known_types(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        import duckdb

        known = {}
        for name, kind in columns.items():
            try:
                known[name] = str(duckdb.sqltype(kind))
            except duckdb.Error as error:
                raise ValueError(f'the column "{name}": {str(error).splitlines()[0]}') from None
        return known

    @model_validator(mode="after")
    def _marks_differ(self) -> FileSettings:
        """DuckDB's own bounds, and marks that cannot be told from each other."""
        if self.quote and not self.quote.isascii():
            raise ValueError("`quote` is one ASCII character")
        others = {'"' if self.quote is None else self.quote, self.escape, "\r", "\n"}
        for key, mark in (("delimiter", self.delimiter), ("comment", self.comment)):
            if mark and (len(mark.encode()) > 4 or others & set(mark)):
                raise ValueError(f"`{key}` has at most four bytes, and holds no quote, escape or line end")
        if self.escape and self.escape == self.quote != '"':
            raise ValueError("leave out `escape` where a quote within quotes is written twice")
        return self

    @model_validator(mode="after")
    def _keys_fit_the_format(self) -> FileSettings:
        form = self.format or format_of(Path(self.path[0]))
        for what, mend in self._misfits(form) if form else ():
            raise ValueError(f"{what}; {mend}")
        return self

    def refuse_misfits(self, form: FormatName) -> None:
        """Raises SpecError for a key that files of this format do not have or lack, once they tell their format."""
        for what, mend in self._misfits(form):
            raise SpecError(what, mend=mend)

    def _misfits(self, form: FormatName) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys for files of this format, and how to mend it."""
        for key, of in self._foreign_keys(form):
            yield f"`{key}` is for {_titles(of)}, and the files are {FORMATS[form].title}", f"remove `{key}`"
        if form == "xml" and self.xml is None:
            yield "XML does not say which elements are rows", "add e.g. `xml: {row: orders/order}`"
        if form == "fixed_width" and self.fixed_width is None:
            mend = "add `fixed_width: {columns: {name: [first character, number of characters], …}}`"
            yield "a file of fixed width does not say where its columns stand", mend

    def _foreign_keys(self, form: FormatName) -> Iterator[tuple[str, Of]]:
        """The keys that ask for something and are not for files of this format."""
        for key, field in type(self).model_fields.items():
            if getattr(self, key) == field.get_default(call_default_factory=True):
                continue
            for of in (mark for mark in field.metadata if isinstance(mark, Of) and form not in mark):
                yield key, of


def _titles(of: Of) -> str:
    return ", ".join(FORMATS[name].title for name in of)

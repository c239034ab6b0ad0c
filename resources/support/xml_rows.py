"""Finds the rows of an XML document; in the child process."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from databrokkr_assets.core.errors import DataError
from resources.support.typed_texts import POSITION

if TYPE_CHECKING:
    from lxml.etree import _Element

_ROWS_AT_ONCE = 5_000
_TEXT = "#text"
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_EXPORT = "export it again or move it away; nothing was loaded"


def survey(source: str, row: str, namespaces: dict[str, str]) -> dict[str, bool]:
    """The parts that rows have, in the order in which they appear, each with whether it takes JSON to hold it."""
    nested: dict[str, bool] = {}
    for element in _rows(source, _Path.of(row, namespaces)):
        for name, values in _parts(element).items():
            is_nested = len(values) > 1 or not isinstance(values[0], str | None)
            nested[name] = nested.get(name, False) or is_nested
    return nested


def store(
    source: str,
    target: str,
    columns: dict[str, tuple[str, bool]],
    nulls: list[str],
    row: str,
    namespaces: dict[str, str],
) -> None:
    """Write the rows as a Parquet file of texts, with the lines at which they begin.

    `columns` gives, by their names, the part that each holds and whether it is JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([*((name, pa.string()) for name in columns), (POSITION, pa.int64())])
    held: list[dict[str, Any]] = []
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as stored:
        for element in _rows(source, _Path.of(row, namespaces)):
            parts = _parts(element)
            held.append(
                {name: _shown(parts.get(part), is_nested, nulls) for name, (part, is_nested) in columns.items()}
            )
            held[-1][POSITION] = element.sourceline
            if len(held) >= _ROWS_AT_ONCE:
                stored.write_batch(pa.RecordBatch.from_pylist(held, schema=schema))
                held.clear()
        stored.write_batch(pa.RecordBatch.from_pylist(held, schema=schema))


def _shown(values: list[Any] | None, as_json: bool, nulls: list[str]) -> str | None:
    if values is None or values == [None]:
        return None
    if as_json:
        return json.dumps(values if len(values) > 1 else values[0], ensure_ascii=False)
    text: str = values[0]
    return None if text in nulls else text


@dataclass(frozen=True)
class _Path:
    """The path of the rows. A step is a name in any namespace, `{namespace}name`, or `*`."""

    steps: tuple[str, ...]
    anywhere: bool

    @classmethod
    def of(cls, row: str, namespaces: Mapping[str, str]) -> _Path:
        steps = (_step(step, namespaces) for step in row.strip("/").split("/"))
        return cls(tuple(steps), row.startswith("//"))

    def matches(self, tags: list[str]) -> bool:
        """Whether the element with these names above it and its own is a row."""
        if len(tags) < len(self.steps) or not (self.anywhere or len(tags) == len(self.steps)):
            return False
        return all(map(_is_step, self.steps, tags[-len(self.steps) :]))

    def may_begin(self, tag: str) -> bool:
        """Whether a document whose top element is this one may have rows."""
        return self.anywhere or _is_step(self.steps[0], tag)


def _step(step: str, namespaces: Mapping[str, str]) -> str:
    prefix, colon, name = step.partition(":")
    return f"{{{namespaces.get(prefix, prefix)}}}{name}" if colon else step


def _is_step(step: str, tag: str) -> bool:
    return step in ("*", tag) or step == _local(tag)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _rows(source: str, path: _Path) -> Iterator[_Element]:
    """The elements that are rows, each gone when the next is asked for. Raises DataError for a broken document."""
    from lxml import etree

    tags: list[str] = []
    within = 0
    events = etree.iterparse(
        source,
        events=("start", "end"),
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        for event, element in events:
            if event == "start":
                tags.append(str(element.tag))
                if len(tags) == 1:
                    _refuse_stranger(element, path)
                if within or path.matches(tags):
                    within += 1
                continue
            tags.pop()
            if within == 1:
                yield element
            within = max(within - 1, 0)
            if not within:
                _forget(element)
    except etree.XMLSyntaxError as error:
        raise DataError(f"is no whole XML document: line {error.lineno}: {error.msg}", mend=_EXPORT) from error


def _refuse_stranger(top: _Element, path: _Path) -> None:
    declared = top.getroottree().docinfo.internalDTD
    if declared is not None and next(declared.iterentities(), None) is not None:
        mend = "write it without them; entities can be made to swell without end, and to read other files"
        raise DataError("declares entities, which are not expanded", mend=mend)
    if not path.may_begin(str(top.tag)):
        what = f"begins with <{_local(str(top.tag))}>, and `xml: {{row: …}}` with {path.steps[0]}"
        raise DataError(what, mend="write the path of the rows from the top element, or `//name` for any depth")


def _forget(element: _Element) -> None:
    """Free what was read."""
    element.clear(keep_tail=False)
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _parts(row: _Element) -> dict[str, list[Any]]:
    """What a row holds: its children by their names, attributes as `@name`; what is more than a text as structures."""
    parts: defaultdict[str, list[Any]] = defaultdict(list)
    for child in row:
        parts[_local(str(child.tag))].append(_value(child))
    for name, value in row.attrib.items():
        parts[f"@{_local(str(name))}"].append(str(value) or None)
    if text := _own_text(row):
        parts[_TEXT].append(text)
    return parts


def _value(element: _Element) -> Any:
    """A text, `None` where there is none, or a structure."""
    attributes = {f"@{_local(str(name))}": str(value) for name, value in element.attrib.items() if name != _NIL}
    if not len(element) and not attributes:
        return None if element.attrib.get(_NIL) in ("true", "1") else element.text or None
    below: defaultdict[str, list[Any]] = defaultdict(list)
    for child in element:
        below[_local(str(child.tag))].append(_value(child))
    structure = {**attributes, **{name: values if len(values) > 1 else values[0] for name, values in below.items()}}
    if text := _own_text(element):
        structure[_TEXT] = text
    return structure


def _own_text(element: _Element) -> str:
    """The text of an element that stands between its children; nothing where that is only how it is laid out."""
    texts = [element.text or "", *(child.tail or "" for child in element)]
    return "".join(texts) if any(text.strip() for text in texts) else ""

"""Reads a `defs.yaml` with the place of every key, and refuses what YAML itself lets pass: a key given twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from databrokkr_assets.core.errors import SpecError, Where

KeyPath = tuple[str | int, ...]

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML as Dagster reads it: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """One YAML document: its data, its file, and where each path of keys stands in it."""

    file: Path
    data: Mapping[str, Any]
    places: Mapping[KeyPath, tuple[int, int]]

    @property
    def type(self) -> str:
        """The component that the document instantiates."""
        return str(self.data.get("type", ""))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The component's attributes, as they stand in the file."""
        return self.data.get("attributes") or {}

    def where(self, path: KeyPath) -> Where:
        """The place of `path`, or of its nearest ancestor that stands in the file."""
        while path and path not in self.places:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return Where(self.file, line, column)


def read_documents(file: Path) -> list[Document]:
    """Every document of a YAML file.

    Raises SpecError, with line and column, for what is not YAML, not UTF-8, not a mapping, or has a key twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"cannot be read: {error}", mend="make it a readable UTF-8 text file", where=Where(file)
        ) from error
    try:
        return [_document(file, node) for node in yaml.compose_all(text, Loader=_Loader) if node is not None]
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, error) from error
    except yaml.YAMLError as error:
        raise SpecError(
            f"is not YAML: {error}", mend="remove the character that YAML forbids", where=Where(file)
        ) from error


def _syntax_error(file: Path, error: yaml.MarkedYAMLError) -> SpecError:
    mark = error.problem_mark or error.context_mark
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file)
    reason = ", ".join(part for part in (error.context, error.problem) if part)
    return SpecError(f"is not valid YAML: {reason}", mend="check the indentation, colons and quotes there", where=where)


def _document(file: Path, root: yaml.Node) -> Document:
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(
            "does not hold a mapping",
            mend="begin with `type: databrokkr_assets.Pipeline`",
            where=_where(file, root),
        )
    places = dict(_places(file, root, ()))
    loader = _Loader("")
    try:
        data = loader.construct_document(root)
    finally:
        loader.dispose()
    return Document(file, data, places)


def _places(file: Path, node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, tuple[int, int]]]:
    if isinstance(node, yaml.MappingNode):
        _refuse_doubles(file, node)
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, (key.start_mark.line + 1, key.start_mark.column + 1)
            yield from _places(file, value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), (item.start_mark.line + 1, item.start_mark.column + 1)
            yield from _places(file, item, (*path, index))


def _refuse_doubles(file: Path, node: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise SpecError("a key must be plain text", mend="write `name: value`", where=_where(file, key))
        line = key.start_mark.line + 1
        if key.value in seen and key.value != "<<":
            raise SpecError(
                f'the key "{key.value}" stands here and on line {seen[key.value]}',
                mend="keep one of the two, or rename one",
                where=_where(file, key),
            )
        seen[key.value] = line


def _where(file: Path, node: yaml.Node) -> Where:
    return Where(file, node.start_mark.line + 1, node.start_mark.column + 1)

"""Finds one type for each field of many JSON objects, so that no value changes by becoming that type.

A structure is what DuckDB's `json_structure` gives for one object: a name of a type, a list of one structure, or an
object of them. Structures of all objects merge into one, so a field that first appears late is not missed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from databrokkr_assets.core.names import quoted

Structure = str | list[Any] | dict[str, Any]

_INTEGERS = {"UBIGINT", "HUGEINT", "BIGINT"}
_MOST_FIELDS = 200
_MOST_LEVELS = 20


def parsed(text: str) -> Structure:
    """A structure as `json_structure` prints it."""
    return _tidy(json.loads(text), in_list=False)


def _tidy(structure: Structure, *, in_list: bool) -> Structure:
    if isinstance(structure, dict):
        return {name: _tidy(below, in_list=in_list) for name, below in structure.items()}
    if isinstance(structure, list):
        return [_tidy(structure[0], in_list=True)]
    if structure in _INTEGERS:
        return "BIGINT"
    # of a single value, "JSON" tells of an object without fields; within a list, also of values of several types
    return {} if structure == "JSON" and not in_list else structure


def merged(one: Structure, other: Structure, *, top: bool = False) -> Structure:
    """The structure that takes both; `JSON` where nothing else does."""
    if one == other or other == "NULL":
        return one
    if one == "NULL":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        both = {**one, **{name: merged(one.get(name, "NULL"), below) for name, below in other.items()}}
        return both if top or _is_struct(both) else "JSON"
    if isinstance(one, list) and isinstance(other, list):
        return [merged(one[0], other[0])]
    return "DOUBLE" if {str(one), str(other)} == {"BIGINT", "DOUBLE"} else "JSON"


def _is_struct(fields: dict[str, Any]) -> bool:
    """Not names that are data (a dictionary), and not names that DuckDB takes for one."""
    return len(fields) <= _MOST_FIELDS and len({name.casefold() for name in fields}) == len(fields)


def _becomes_struct(structure: dict[str, Any], depth: int) -> bool:
    return bool(structure) and _is_struct(structure) and "" not in structure and depth < _MOST_LEVELS


def sql_type(structure: Structure, *, as_json: str, depth: int = 0) -> str:
    """The DuckDB type of a structure; `as_json` is the type for what has no single type, or is nested deep."""
    if isinstance(structure, dict):
        if not _becomes_struct(structure, depth):
            return as_json
        parts = {name: sql_type(below, as_json=as_json, depth=depth + 1) for name, below in structure.items()}
        return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in parts.items())})"
    if isinstance(structure, list):
        if depth >= _MOST_LEVELS:
            return as_json
        return f"{sql_type(structure[0], as_json=as_json, depth=depth + 1)}[]"
    return {"NULL": "VARCHAR", "JSON": as_json}.get(structure, structure)


def struct_paths(structure: Structure, path: str, depth: int = 0) -> Iterator[str]:
    """The JSON paths of all that becomes a STRUCT, in which a field that stands twice would be lost."""
    if isinstance(structure, dict) and _becomes_struct(structure, depth):
        yield path
        for name, below in structure.items():
            yield from struct_paths(below, f"{path}.{_path_step(name)}", depth + 1)
    elif isinstance(structure, list):
        yield from struct_paths(structure[0], f"{path}[*]", depth + 1)


def _path_step(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def has_numbers(structure: Structure) -> bool:
    """Whether a number is in it somewhere, which might be too long for its type."""
    if isinstance(structure, dict):
        return any(map(has_numbers, structure.values()))
    if isinstance(structure, list):
        return has_numbers(structure[0])
    return structure in {"BIGINT", "DOUBLE"}

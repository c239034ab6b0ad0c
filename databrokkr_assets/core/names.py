"""Names: what a pipeline, node or connection may be called, and how SQL quotes an identifier."""

from __future__ import annotations

import re

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

QUARANTINE_SUFFIX = "__quarantine"


def is_name(text: str) -> bool:
    """Whether `text` can name a pipeline, node or connection: it becomes an asset key, a folder and an SQL table."""
    return re.match(NAME, text) is not None


def quoted(identifier: str) -> str:
    """`identifier` as a quoted SQL name; dots are part of the name, not separators."""
    escaped = identifier.replace('"', '""')
    return f'"{escaped}"'


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def same(keys: tuple[str, ...], left: str, right: str) -> str:
    """The condition that two relations have the same keys; NULLs are the same as each other."""
    return " AND ".join(f"{left}.{quoted(key)} IS NOT DISTINCT FROM {right}.{quoted(key)}" for key in keys)


def columns(names: tuple[str, ...] | list[str], of: str | None = None) -> str:
    """A comma-separated list of quoted columns, each of the relation `of` when it is given."""
    prefix = f"{quoted(of)}." if of else ""
    return ", ".join(prefix + quoted(name) for name in names)

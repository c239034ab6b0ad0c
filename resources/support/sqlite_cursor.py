"""Where reading a SQLite file resumes, as SQLite itself can tell."""

from __future__ import annotations

import re

from databrokkr_assets.core.names import literal, quoted
from resources.support.cursor import Incremental


def narrowed(incremental: Incremental, value: str) -> str:
    """A condition for SQLite that all rows from `value` on meet, and as few others as can be told without a cast."""
    column = quoted(incremental.column)
    nulls = f" OR {column} IS NULL" if incremental.nulls else ""
    match incremental.type:
        case "BIGINT" | "DOUBLE":
            return f"{column} >= {value}{nulls}" if re.fullmatch(r"-?[0-9.]+(e[+-]?[0-9]+)?", value) else "true"
        case "VARCHAR":
            return f"{column} COLLATE BINARY >= {literal(value)}{nulls}"
        case "DATE" | "TIMESTAMP" if re.match(r"\d{4}-", value):
            # Some are written in other ways, which have another order.
            plain = f"{column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'"
            return f"({column} >= {literal(value[:10])} OR NOT {plain}){nulls}"
        case _:
            return "true"

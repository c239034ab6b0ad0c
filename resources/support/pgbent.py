"""Which values PostgreSQL would change when it casts them to the type of a target's column."""

from __future__ import annotations

import re


def bent(staged: str, target: str, column: str, base: str | None = None) -> str | None:
    """The condition of a value in the staged `column` that the target's type would change; `None` when none can be.

    PostgreSQL rounds, cuts and shifts silently when it casts: 1.5 to an integer, 'abc' to varchar(2), a time with an
    offset to one without. `base` is the type that a domain is made of, which bends values all the same.
    """
    if staged == target or (staged, target) == ("character varying[]", "text[]"):
        return None
    base = base or target
    cast, textual = f"CAST({column} AS {target})", staged in ("text", "text[]", "character varying[]")
    changed = _changed_text(cast, base, column) if textual else _differ(cast, column, staged)
    if staged == "text" and _via(base) in ("timestamptz", "timetz", "interval") and base != "date":
        changed = rf"{changed} OR {column} ~ '\.\d{{6}}\d*[1-9]'"
    return f"{column} IS NOT NULL AND ({changed})"


def _changed_text(cast: str, base: str, column: str) -> str:
    may_fail = f"{cast} IS NOT DISTINCT FROM NULL"  # false, but for the cast itself, which may fail
    if base == "money":
        # Its text is the locale's, so it can only be compared with itself, or as a plain number.
        number, as_text = _differ(cast, column, "numeric"), _differ(cast, column, "text")
        return rf"CASE WHEN {column} ~ '^\s*[-+]?[0-9]*\.?[0-9]*\s*$' THEN {number} ELSE {as_text} END"
    if base in ("real", "double precision"):
        # Over text, because a cast from double precision to numeric keeps 15 digits.
        return _differ(f"CAST({cast} AS text)", column, "numeric")
    via = _via(base)
    if via is None:
        return may_fail
    if base == "date":
        return f"CASE WHEN {column} ~ ':' THEN {_differ(cast, column, via)} ELSE {may_fail} END"
    return _differ(cast, column, via)


def _differ(one: str, other: str, via: str) -> str:
    return f"CAST({one} AS {via}) IS DISTINCT FROM CAST({other} AS {via})"


_VIA = {
    "numeric": "numeric",
    "smallint": "numeric",
    "integer": "numeric",
    "bigint": "numeric",
    "oid": "bigint",
    "date": "timestamptz",
    "timestamp without time zone": "timestamptz",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "timetz",
    "time with time zone": "timetz",
    "interval": "interval",
    "bit": "bit varying",
    "bit varying": "bit varying",
    "character": "text",
    "character varying": "text",
    "name": "text",
    '"char"': "text",
}


def _via(target: str) -> str | None:
    """The type over which a text and its cast to `target` can be compared; `None` where the cast itself refuses."""
    if target.endswith("[]"):
        via = _via(target[:-2])
        return f"{via}[]" if via else None
    return _VIA.get(_plain(target))


def _plain(target: str) -> str:
    """A type without lengths, scales and the fields of an interval."""
    plain = re.sub(r"\(.*?\)", "", target)
    return "interval" if plain.startswith("interval ") else plain

"""SQL that looks for what a type would change or lose in JSON: long numbers, and fields that stand twice."""

from __future__ import annotations

from collections.abc import Collection

from databrokkr_assets.core.names import literal, quoted


def number_look(name: str) -> str:
    """SQL: the type for a field of numbers where BIGINT or DOUBLE would change one, else NULL."""
    column = quoted(name)
    whole = f"regexp_full_match({column}, '-?[0-9]+')"
    beyond = f"bool_or({whole} AND TRY_CAST({column} AS BIGINT) IS NULL)"
    inexact = f"bool_or({whole} AND coalesce(abs(TRY_CAST({column} AS DECIMAL(38,0))) > 9007199254740992, true))"
    infinite = f"bool_or(isinf(TRY_CAST({column} AS DOUBLE)) AND NOT contains(lower({column}), 'inf'))"
    longest = f"max(length(ltrim({column}, '-'))) FILTER ({whole})"
    return f"""CASE
        WHEN {infinite} THEN 'VARCHAR'
        WHEN bool_and({whole}) THEN CASE WHEN NOT {beyond} THEN 'BIGINT' WHEN {longest} <= 38 THEN 'DECIMAL(38,0)'
            ELSE 'VARCHAR' END
        WHEN {inexact} THEN 'VARCHAR' END"""


def nested_look(name: str, kind: str) -> str:
    """SQL: VARCHAR for a nested field of type `kind` with a whole number that its type would change, else NULL."""
    text = f"{quoted(name)}::VARCHAR"
    beyond = f"regexp_extract_all({text}, '-?[0-9]{{19,}}')"
    found = f"len(list_filter({beyond}, lambda x: TRY_CAST(x AS BIGINT) IS NULL)) > 0"
    if "DOUBLE" in kind:
        found = f"({found} OR regexp_matches({text}, '(^|[\\[:,\\s])-?[0-9]{{16,}}([^0-9.eE]|$)'))"
    return f"CASE WHEN bool_or({found}) THEN 'VARCHAR' END"


def doubled(paths: Collection[str]) -> str:
    """SQL: whether an object at one of the JSON paths has a field twice, in the column `json`."""
    single = [literal(path) for path in sorted(paths) if "*" not in path]
    keys = [f"json_keys(json, [{', '.join(single)}])"] if single else []
    keys += [f"json_keys(json, {literal(path)})" for path in sorted(paths) if "*" in path]
    return " OR ".join(f"len(list_filter({found}, lambda k: len(k) > len(list_distinct(k)))) > 0" for found in keys)

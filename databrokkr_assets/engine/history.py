"""Each version of a row, with the time from which and until which it was the current one (SCD type 2)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO
from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.names import columns, literal, quoted, same
from databrokkr_assets.engine.shaping import PROVENANCE


def current(published: str) -> str:
    """Of a history, the rows that are current."""
    return f"SELECT * FROM ({published}) WHERE {quoted(VALID_TO)} IS NULL"


def versions(
    staged: str,
    names: Sequence[str],
    published: str,
    known: Sequence[str],
    keys: tuple[str, ...],
    gone: str,
    at: datetime,
) -> str:
    """What changes in a history: versions that are new, and current ones that are closed.

    `staged` are the rows as they are now, one for each key, with columns `names`; `published` is the history so far
    with columns `known`; `gone` are keys that were deleted. Where a row came from makes no new version of it.
    """
    refuse_own_columns(names)
    moment = f"CAST({literal(at.isoformat())} AS TIMESTAMPTZ)"
    there = {name.lower() for name in known}
    alike = [
        f"new.{quoted(name)} IS NOT DISTINCT FROM {f'old.{quoted(name)}' if name.lower() in there else 'NULL'}"
        for name in names
        if name not in PROVENANCE
    ]
    return (
        f"WITH databrokkr_current AS ({current(published)}), databrokkr_fresh AS MATERIALIZED ("
        f"SELECT {columns(list(names))}, {moment} AS {quoted(VALID_FROM)}, NULL::TIMESTAMPTZ AS {quoted(VALID_TO)} "
        f"FROM ({staged}) AS new ANTI JOIN databrokkr_current AS old ON {' AND '.join(alike)}), "
        f"databrokkr_over AS (SELECT {columns(keys)} FROM databrokkr_fresh "
        f"UNION ALL SELECT {columns(keys)} FROM ({gone})) "
        f"SELECT * FROM databrokkr_fresh UNION ALL BY NAME "
        f"SELECT old.* REPLACE ({moment} AS {quoted(VALID_TO)}) FROM databrokkr_current AS old "
        f"SEMI JOIN databrokkr_over AS over ON {same(keys, 'old', 'over')}"
    )


def first_versions(staged: str, names: Sequence[str], at: datetime) -> str:
    """The first rows of a history, all of them current."""
    refuse_own_columns(names)
    moment = f"CAST({literal(at.isoformat())} AS TIMESTAMPTZ)"
    return (
        f"SELECT {columns(list(names))}, {moment} AS {quoted(VALID_FROM)}, NULL::TIMESTAMPTZ AS {quoted(VALID_TO)} "
        f"FROM ({staged})"
    )


def refuse_own_columns(names: Sequence[str]) -> None:
    """Raise SpecError when rows bring a column that a history adds."""
    for name in names:
        if name.lower() in (VALID_FROM, VALID_TO):
            raise SpecError(
                f'a history adds the column "{name}", but it comes already', mend="`rename` the one that comes"
            )

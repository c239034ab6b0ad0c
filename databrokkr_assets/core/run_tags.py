"""What a run's tags ask for: they go with the run through every door, the UI's launchpad included."""

from __future__ import annotations

from collections.abc import Mapping

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import Range

FROM, TO = "databrokkr/from", "databrokkr/to"
"""The tags of a run whose sources read a range of their cursors again: from, included, and to, not included."""


def tags_of(values: Range) -> dict[str, str]:
    """The tags that ask for a range."""
    return {FROM: values.low, TO: values.high}


def range_of(tags: Mapping[str, str]) -> Range | None:
    """The range that a run's tags ask for; `None` for a common run. Raises SpecError for half a range."""
    if FROM not in tags and TO not in tags:
        return None
    if FROM not in tags or TO not in tags:
        raise SpecError(f"a range needs both tags, {FROM} and {TO}", mend="add the other tag to the run")
    return Range(tags[FROM], tags[TO])

"""What a run's tags ask for: they go with the run through every door, the UI's launchpad included."""

from __future__ import annotations

from collections.abc import Mapping

from databrokkr_assets.core.errors import SpecError
from databrokkr_assets.core.spec import FromCopies, Range

FROM, TO = "databrokkr/from", "databrokkr/to"
"""The tags of a run whose sources read a range of their cursors again: from, included, and to, not included."""

RELOAD = "databrokkr/reload"
"""The tag, `true`, of a run whose sources read again what was landed."""

Again = Range | FromCopies
"""What is to be read again."""


def tags_of(again: Again) -> dict[str, str]:
    """The tags that ask for it."""
    return {FROM: again.low, TO: again.high} if isinstance(again, Range) else {RELOAD: "true"}


def again_of(tags: Mapping[str, str]) -> Again | None:
    """What a run's tags ask for; `None` for a common run. Raises SpecError for tags that do not go together."""
    has_range = FROM in tags or TO in tags
    if RELOAD in tags:
        if has_range or tags[RELOAD] != "true":
            raise SpecError(f"{RELOAD} is `true`, and stands alone", mend="correct the tags of the run")
        return FromCopies()
    if not has_range:
        return None
    if FROM not in tags or TO not in tags:
        raise SpecError(f"a range needs both tags, {FROM} and {TO}", mend="add the other tag to the run")
    return Range(tags[FROM], tags[TO])

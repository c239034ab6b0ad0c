"""The whole suite over one case, in one line: `TestShelf = contract(ShelfCase)`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

# Before they are imported: so that a failed assertion of the suite shows its values in a plugin's tests, too.
_PARTS = ("reading", "writing", "crashing", "faults", "naming", "holding")
pytest.register_assert_rewrite(*(f"{__package__}.{part}" for part in _PARTS))

from resources.registry import connector  # noqa: E402

from .case import Case  # noqa: E402
from .crashing import Crashing  # noqa: E402
from .faults import Checked, Down, Refused  # noqa: E402
from .holding import Bounded, Holding  # noqa: E402
from .naming import Naming  # noqa: E402
from .reading import Arriving, Changing, Deleting, Discovering, Reading, Resuming  # noqa: E402
from .theme import NEEDS, Theme  # noqa: E402
from .writing import Fencing, Merging, Writing  # noqa: E402

THEMES: tuple[type[Theme], ...] = (
    Discovering, Checked, Reading, Holding, Resuming, Arriving, Deleting, Changing, Writing, Merging, Fencing,
    Crashing, Down, Refused, Naming, Bounded,
)  # fmt: skip
"""The parts of the suite, in the order of the matrix."""


def contract(case: type[Case]) -> type:
    """A class of tests: what the case claims, on its real system. Raises TypeError for a gap that names no test."""
    members: dict[str, Any] = {"case": case, "pytestmark": [pytest.mark.xdist_group(case.title)]}
    themes = [theme for theme in THEMES if _is_able(case, theme.abilities)]
    kept = claimed(case)
    for theme in themes:
        # What is None is not collected.
        members |= {name: None for name, _ in promises(theme) if name not in kept}
    _require_known(case)
    return type(f"Test{case.__name__.removesuffix('Case')}", tuple(themes), members)


def claimed(case: type[Case]) -> list[str]:
    """The names of the tests that the case's abilities claim."""
    return [
        name
        for theme in THEMES
        for name, test in promises(theme)
        if _is_able(case, (*theme.abilities, *getattr(test, NEEDS, ())))
    ]


def promises(theme: type[Theme]) -> list[tuple[str, Any]]:
    """The tests of a theme, by name, as they stand in its text."""
    return [
        (name, member) for name, member in vars(theme).items() if name.startswith("test") and inspect.isfunction(member)
    ]


def _is_able(case: type[Case], abilities: tuple[type, ...]) -> bool:
    """Whether the case, or the connector's connection, has all the abilities."""
    connection = connector(case.via or case.connector).connection
    return all(issubclass(case, one) or (connection is not None and issubclass(connection, one)) for one in abilities)


def _require_known(case: type[Case]) -> None:
    known = {name for theme in THEMES for name, _ in promises(theme)}
    for name in case.gaps:
        if name.partition("[")[0] not in known:
            raise TypeError(f"{case.__name__}.gaps names {name}, which is no test of the suite")

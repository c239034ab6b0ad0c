"""Globs over a store find what the same globs find on the disk."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from resources.support.store_folders import fits

NAMES = st.sampled_from(["a", "b", "ab", ".a", "_a", "a.b"])
PATTERNS = st.sampled_from(["a", "*", "?", "a*", "[ab]", "[!a]", "**", ".*", "*.b"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple)), st.lists(PATTERNS, min_size=1, max_size=4))
def test_the_same_as_on_the_disk(paths: set[tuple[str, ...]], patterns: list[str]) -> None:
    # Whether `a/**` finds a file called `a`, Pythons answer in different ways.
    assume(patterns[-1] != "**" or len(patterns) == 1)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            file = Path(folder, *path[:-1], f"{path[-1]}.x")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        files = [tuple(Path(at, name).relative_to(folder).parts) for at, _, names in os.walk(folder) for name in names]
        wanted = [*patterns[:-1], patterns[-1] if patterns[-1] == "**" else f"{patterns[-1]}.x"]
        matches = glob.iglob("/".join([folder, *wanted]), recursive=True)
        expected = {Path(match).relative_to(folder).parts for match in matches if Path(match).is_file()}
        assert {file for file in files if fits(list(file), wanted)} == expected

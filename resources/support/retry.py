"""Trying again: a few times, with pauses that grow and are spread by chance so that clients do not come together."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_PAUSE = 0.6
"""Seconds before the second try; three tries take about two seconds."""


def retried(call: Callable[[], Result], *, tries: int, passing: Callable[[Exception], bool]) -> Result:
    """The result of `call`, which is tried up to `tries` times as long as what it raises is `passing`."""
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            if attempt == tries or not passing(error):
                raise
        time.sleep(_PAUSE * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
    raise AssertionError("`tries` is at least one")

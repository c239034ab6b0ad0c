"""What is installed: connectors and transforms, found through entry points and loaded when asked for by name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from databrokkr_assets.core.errors import SpecError, did_you_mean

CONNECTORS = "databrokkr.connectors"
TRANSFORMS = "databrokkr.transforms"


@cache
def _group(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """The names in an entry-point group, sorted. Loads nothing."""
    return sorted(_group(group))


@cache
def load(group: str, name: str) -> Any:
    """The object behind `name`. Raises SpecError when there is none, or when its package cannot be imported."""
    word = group.removeprefix("databrokkr.").removesuffix("s")
    point = _group(group).get(name)
    if point is None:
        raise SpecError(f'there is no {word} "{name}"', mend=did_you_mean(name, _group(group)))
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f'the {word} "{name}" cannot be loaded: {error}',
            mend=f"install what its package {point.dist.name if point.dist else point.value} needs",
        ) from error


def origin(group: str, name: str) -> str:
    """The distribution that brings `name`, with its version."""
    dist = _group(group)[name].dist
    return f"{dist.name} {dist.version}" if dist else "unknown"


def missing_extra(extra: str, what: str) -> SpecError:
    """The error for an optional dependency that is not installed; prints the command that installs it."""
    return SpecError(
        f'{what} needs packages of the extra "{extra}" that are not installed',
        mend=f'run: uv pip install "databrokkr[{extra}]"',
    )

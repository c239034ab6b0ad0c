"""The components that a `defs.yaml` can name. Found when asked for, so that importing the package loads nothing."""

from __future__ import annotations

from typing import Any

_COMPONENTS = ("Connections", "Lake", "Pipeline")


def __dir__() -> list[str]:
    return [*globals(), *_COMPONENTS]


def __getattr__(name: str) -> Any:
    if name in _COMPONENTS:
        from databrokkr_assets.factory import components

        return getattr(components, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

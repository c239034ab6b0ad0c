"""Resolves `{{ env.X }}` and Dagster's other template variables in what an author wrote."""

from __future__ import annotations

import os
from typing import Any

import dagster as dg


class _Environment:
    """The environment, remembering what was asked for in vain."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def __call__(self, name: str, default: str | None = None) -> str:
        value = os.environ.get(name, default)
        if value is None:
            self.missing.append(name)
            return ""
        return value

    def __getattr__(self, name: str) -> str:
        if name.startswith(("jinja", "__")):  # jinja2 looks for attributes of its own
            raise AttributeError(name)
        return self(name)


def resolved(value: Any, context: dg.ResolutionContext) -> tuple[Any, tuple[str, ...]]:
    """`value` with its templates filled in, and the environment variables that are not set."""
    environment = _Environment()
    found = context.with_scope(env=environment).resolve_value(value)
    return found, tuple(dict.fromkeys(environment.missing))

"""Resolves `{{ env.X }}` and Dagster's other template variables in what an author wrote.

Jinja's native templates, which Dagster uses, read every text as a Python literal where they can: "0123" stays text,
"123" becomes a number, "1e5" 100000.0. A password or a value that a check compares must not change so: text without a
template is left alone here, and what comes from the environment is always text; the models make numbers of it where
they want some.
"""

from __future__ import annotations

import os
import re
from collections import UserString
from typing import Any

import dagster as dg

_ONE_EXPRESSION = re.compile(r"\s*\{\{(?:(?!\}\}).)*\}\}\s*", re.DOTALL)
_NO_LITERAL = "- \n"
"""No Python literal begins like this, so Jinja leaves a text that does as text."""


class _Environment:
    """The environment, remembering what was asked for in vain."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def __call__(self, name: str, default: str | None = None) -> UserString:
        value = os.environ.get(name, default)
        if value is None:
            self.missing.append(name)
        return UserString(value or "")  # to Jinja no `str`, so no literal

    def __getattr__(self, name: str) -> UserString:
        if name.startswith(("jinja", "__")):  # jinja2 looks for attributes of its own
            raise AttributeError(name)
        return self(name)


def resolved(value: Any, context: dg.ResolutionContext) -> tuple[Any, tuple[str, ...]]:
    """`value` with its templates filled in, and the environment variables that are not set."""
    environment = _Environment()
    found = _filled(value, context.with_scope(env=environment))
    return found, tuple(dict.fromkeys(environment.missing))


def _filled(value: Any, context: dg.ResolutionContext) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, context.at_path(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, context.at_path(index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or not ("{{" in value or "{%" in value):
        return value
    if not _ONE_EXPRESSION.fullmatch(value):
        return str(context.resolve_value(_NO_LITERAL + value)).removeprefix(_NO_LITERAL)
    found = context.resolve_value(value.strip())
    return str(found) if isinstance(found, UserString) else found

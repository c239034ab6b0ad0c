"""The base of every settings model: what a connector, transform or check declares once.

From one model come validation, the JSON Schema, the docs page and the form in an editor.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Settings(BaseModel):
    """Strict and frozen: an unknown key is a mistake, and settings never change after they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str])]
"""One name or a list of names."""

SqlType = Annotated[str, Field(description="A DuckDB type, such as `BIGINT`, `DECIMAL(12,2)` or `TIMESTAMPTZ`.")]

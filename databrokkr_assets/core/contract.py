"""A contract: what may change in what a source gives, and what happens otherwise."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import model_validator

from databrokkr_assets.core.settings import Settings


class Change(StrEnum):
    """What becomes of a change."""

    EVOLVE = "evolve"
    FREEZE = "freeze"
    DISCARD_ROW = "discard_row"
    DISCARD_VALUE = "discard_value"


class Contract(Settings):
    """What may change, and what happens otherwise.

    `evolve` takes the change on, `freeze` stops the load, `discard_row` sets the rows concerned aside in quarantine,
    and `discard_value` loads them without the value.
    """

    tables: Change = Change.EVOLVE
    """Of a source of several tables: whether tables that are new become nodes; `evolve` or `freeze`."""
    columns: Change = Change.EVOLVE
    """Columns that the dataset does not have. `freeze` also stops at a column that does not come any more."""
    types: Change = Change.EVOLVE
    """Values that are not of the column's type. `evolve` widens the column where a wider type holds all values of both;
    where there is none, a value that does not fit the column sets its row aside."""

    @model_validator(mode="before")
    @classmethod
    def _one_word_for_all(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        tables = given if given in (Change.EVOLVE, Change.FREEZE) else Change.EVOLVE
        return {"tables": tables, "columns": given, "types": given}

    @model_validator(mode="after")
    def _tables_have_no_values(self) -> Contract:
        if self.tables not in (Change.EVOLVE, Change.FREEZE):
            raise ValueError("`tables` is `evolve` or `freeze`; a table has no rows to discard before it is read")
        return self

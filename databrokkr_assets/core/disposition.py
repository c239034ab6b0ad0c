"""How rows meet a table.

A disposition is a value, `Merge(("id",))`, so that a connector can say which ones it offers by their types and
no code asks for a string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Append:
    """Rows are added; what was there stays."""

    name: ClassVar[str] = "append"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Replace:
    """The load becomes the whole table, at one moment."""

    name: ClassVar[str] = "replace"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Merge:
    """A row replaces the row with the same keys, or is added. Of several rows with one key in a load the last wins."""

    keys: tuple[str, ...]
    name: ClassVar[str] = "merge"

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.keys)})"


@dataclass(frozen=True)
class History:
    """Each version of a row is kept (slowly changing dimension, type 2), told by the columns `VALID_FROM`, `VALID_TO`.

    A row that differs from the current one with the same keys closes that one and becomes the current one; a row that
    is the same changes nothing.
    """

    keys: tuple[str, ...]
    name: ClassVar[str] = "history"

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.keys)})"


VALID_FROM = "valid_from"
"""The column that tells when a row of a history became the current one: the load's time."""

VALID_TO = "valid_to"
"""The column that tells until when it was; NULL for the current one."""

Disposition = Append | Replace | Merge | History

"""The statements that bring staged rows into a table, for databases that differ in how they quote and compare only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge
from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import quoted
from databrokkr_assets.engine.shaping import PROVENANCE

Compare = Callable[[Sequence[str], Sequence[str]], str]
"""The condition that two lists of columns hold the same values, NULLs being the same as each other."""


def all_same(left: Sequence[str], right: Sequence[str]) -> str:
    """The condition in standard SQL."""
    alike = (f"{one} IS NOT DISTINCT FROM {other}" for one, other in zip(left, right, strict=True))
    return " AND ".join(alike) or "1 = 1"


@dataclass(frozen=True)
class Applying:
    """The table `target`, as SQL names it, and the query `rows`, which gives rows in the types of its `columns`.

    Each key comes in `rows` once at most, and none of `keys` is NULL. `quote` quotes a name, `same` compares contents.
    """

    target: str
    rows: str
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    quote: Callable[[str], str] = quoted
    same: Compare = all_same

    def insert(self) -> str:
        """The statement that adds the rows."""
        listed = self._listed(self.columns)
        return f"INSERT INTO {self.target} ({listed}) SELECT {listed} FROM ({self.rows}) AS given"

    def delete(self) -> str:
        """The statement that removes the rows of the table whose keys are among the rows."""
        keys = self._listed(self.keys)
        wanted = f"({keys})" if len(self.keys) > 1 else keys
        return f"DELETE FROM {self.target} WHERE {wanted} IN (SELECT {keys} FROM ({self.rows}) AS given)"

    def close(self, at: str) -> str:
        """The statement that ends, at the moment `at` (SQL), current versions that came otherwise or not at all."""
        # The keys, too: a database may find 'A' and 'a' equal. But where a row came from makes no new version of it.
        content = [name for name in self.columns if name not in PROVENANCE]
        alike = self.same(self._of("given", content), self._of("past", content))
        return (
            f"UPDATE {self.target} AS past SET {self.quote(VALID_TO)} = {at} WHERE past.{self.quote(VALID_TO)} IS NULL "
            f"AND NOT EXISTS (SELECT 1 FROM ({self.rows}) AS given WHERE {self._met('past')} AND {alike})"
        )

    def open(self, at: str) -> str:
        """The statement that adds, from the moment `at` on, the rows that have no current version."""
        into = self._listed((*self.columns, VALID_FROM, VALID_TO))
        given = ", ".join(self._of("given", self.columns))
        return (
            f"INSERT INTO {self.target} ({into}) SELECT {given}, {at}, NULL FROM ({self.rows}) AS given "
            f"WHERE NOT EXISTS (SELECT 1 FROM {self.target} AS past "
            f"WHERE past.{self.quote(VALID_TO)} IS NULL AND {self._met('past')})"
        )

    def _met(self, other: str) -> str:
        pairs = zip(self._of("given", self.keys), self._of(other, self.keys), strict=True)
        return " AND ".join(f"{one} = {another}" for one, another in pairs)

    def _of(self, relation: str, names: Sequence[str]) -> list[str]:
        return [f"{relation}.{self.quote(name)}" for name in names]

    def _listed(self, names: Sequence[str]) -> str:
        return ", ".join(map(self.quote, names))


def keys_of(how: Disposition) -> tuple[str, ...]:
    """The columns by which rows meet the table; none where they do not."""
    return how.keys if isinstance(how, Merge | History) else ()


def require_keys(how: Disposition, names: Sequence[str], target: str) -> None:
    """Raise SpecError when a key is no column of the rows, or could be several of them but for its case."""
    for key in keys_of(how):
        near = [name for name in names if name.casefold() == key.casefold()]
        if key not in names and len(near) != 1:
            raise SpecError(f'the key "{key}" is no column', mend=did_you_mean(key, names), where=target)


def refuse_history_columns(how: object, names: Sequence[str], target: str) -> None:
    """Raise SpecError when rows for a history bring one of the columns that it adds."""
    taken = [name for name in names if name.casefold() in (VALID_FROM, VALID_TO)]
    if isinstance(how, History) and taken:
        raise SpecError(
            f'a history adds the column "{taken[0]}", but it comes already',
            mend="rename the one that comes in a transform, or write the history as it is with `disposition: replace`",
            where=target,
        )

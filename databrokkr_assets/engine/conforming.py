"""Finds the staged rows that cannot join a dataset as they are, and casts the others without changing a value."""

from __future__ import annotations

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.engine.job import ROW_ID, STAGED

FAILED = "databrokkr_failed"
"""The table of staged rows that will not be published: row id, stage, rule and reason; a row may stand in it twice."""


@dataclass(frozen=True)
class Change:
    """A column whose staged type is not the dataset's."""

    staged: str
    published: str
    before: str
    after: str

    @property
    def cast(self) -> str:
        """The select expression that gives the column its published type and spelling."""
        return f"TRY_CAST({quoted(self.staged)} AS {self.after}) AS {quoted(self.published)}"

    @property
    def loses(self) -> str:
        """The condition of a row whose value the cast would lose or bend."""
        there = f"TRY_CAST({quoted(self.staged)} AS {self.after})"
        back = f"TRY_CAST({there} AS {self.before})"
        return f"{quoted(self.staged)} IS NOT NULL AND {back} IS DISTINCT FROM {quoted(self.staged)}"


def changes(staged: dict[str, str], published: dict[str, str]) -> list[Change]:
    """The columns to cast; names are matched without regard to case, as SQL does."""
    known = {name.lower(): name for name in published}
    return [
        Change(name, known[name.lower()], kind, published[known[name.lower()]])
        for name, kind in staged.items()
        if name.lower() in known and (kind != published[known[name.lower()]] or name != known[name.lower()])
    ]


def select(staged: dict[str, str], casts: list[Change]) -> str:
    """The select list of the staged columns as the dataset will have them."""
    cast = {change.staged: change.cast for change in casts}
    return ", ".join(cast.get(name, quoted(name)) for name in staged)


def prepare(duck: DuckDBPyConnection) -> None:
    """Make the empty table of failed rows."""
    duck.execute(f"CREATE OR REPLACE TEMP TABLE {FAILED} (row_id BIGINT, stage VARCHAR, rule VARCHAR, reason VARCHAR)")


def fail(duck: DuckDBPyConnection, row_ids: str, stage: str, rule: str, reason: str) -> None:
    """Mark the rows whose ids the query `row_ids` selects; published rows (negative ids) cannot fail any more."""
    duck.execute(
        f"INSERT INTO {FAILED} SELECT DISTINCT id, {literal(stage)}, {literal(rule)}, {literal(reason)} "
        f"FROM ({row_ids}) AS failing(id) WHERE id >= 0"
    )


def fail_lossy(duck: DuckDBPyConnection, casts: list[Change]) -> None:
    """Mark the rows that would lose a value in a cast."""
    for change in casts:
        if change.before != change.after:
            reason = f'column "{change.published}": the value does not fit {change.after} (it came as {change.before})'
            rows = f"SELECT {quoted(ROW_ID)} FROM {STAGED} WHERE {change.loses}"
            fail(duck, rows, "cast", f"type.{change.published}", reason)


def fail_keyless(duck: DuckDBPyConnection, keys: tuple[str, ...]) -> None:
    """Mark the rows without a key: a merge could not find them again."""
    missing = " OR ".join(f"{quoted(key)} IS NULL" for key in keys)
    rows = f"SELECT {quoted(ROW_ID)} FROM {STAGED} WHERE {missing}"
    fail(duck, rows, "key", "key", f"a key column is NULL ({', '.join(keys)})")


def require_keys(keys: tuple[str, ...], staged: dict[str, str], node: str) -> None:
    """Raise SpecError when a key is no column."""
    for key in keys:
        if key not in staged:
            raise SpecError(f'the key "{key}" is no column', mend=did_you_mean(key, staged), where=node)


def has_doubles(duck: DuckDBPyConnection, keys: tuple[str, ...]) -> bool:
    """Whether two staged rows have one key."""
    found = duck.execute(f"SELECT 1 FROM {STAGED} GROUP BY {columns(keys)} HAVING count(*) > 1 LIMIT 1").fetchone()
    return found is not None


def last_of_each_key(keys: tuple[str, ...]) -> str:
    """The clause that keeps, of several staged rows with one key, the last."""
    return f"QUALIFY row_number() OVER (PARTITION BY {columns(keys)} ORDER BY {quoted(ROW_ID)} DESC) = 1"


def failing_rows(payload_from: str) -> str:
    """The select of failed rows as quarantine keeps them: one for each row, its reasons joined."""
    return (
        "SELECT stage, rule, reason, position, payload FROM ("
        f"SELECT row_id, min(stage) AS stage, string_agg(DISTINCT rule, '; ') AS rule, "
        f"string_agg(DISTINCT reason, '; ') AS reason FROM {FAILED} GROUP BY row_id) AS failed "
        f"JOIN ({payload_from}) AS staged USING (row_id)"
    )

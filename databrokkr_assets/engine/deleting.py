"""Rows that a source says are deleted: by a flag on a row, or by keys that do not come any more."""

from __future__ import annotations

import re
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import SpecError, did_you_mean
from databrokkr_assets.core.names import columns, quoted, same

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|DECIMAL|FLOAT|DOUBLE")

GONE = "databrokkr_gone"
"""The table of the keys that go: of rows that the dataset has."""


@dataclass(frozen=True)
class Deletes:
    """How a source says that rows are deleted: by the column `flag`, or (`missing`) by not sending them any more."""

    flag: str | None = None
    missing: bool = False

    def condition(self, staged: dict[str, str]) -> str:
        """The condition of a row that says so, over columns (name to type). Raises SpecError for an unknown column."""
        if self.flag is None:
            return "false"
        known = {name.lower(): name for name in staged}
        name = known.get(self.flag.lower())
        if name is None:
            mend = did_you_mean(self.flag, staged)
            raise SpecError(f'the column "{self.flag}", which tells deleted rows, does not come', mend=mend)
        if staged[name] == "BOOLEAN" or _NUMBER.match(staged[name]):
            return f"coalesce(CAST({quoted(name)} AS BOOLEAN), false)"
        return f"{quoted(name)} IS NOT NULL"


def gather(
    duck: DuckDBPyConnection, flagged: str, came: str | None, published: str | None, keys: tuple[str, ...]
) -> int:
    """Note the keys that go, and give their number.

    `flagged` are the keys of rows marked as deleted, `came` those of all rows that came, where a key that is missing
    among them goes; `published` are the rows of the dataset, `None` where none can go.
    """
    if published is None:
        duck.execute(f"CREATE OR REPLACE TEMP TABLE {GONE} AS SELECT * FROM ({flagged}) WHERE false")
        return 0
    kept = f"SELECT DISTINCT {columns(keys)} FROM ({published})"
    gone = f"SELECT there.* FROM ({kept}) AS there SEMI JOIN ({flagged}) AS flagged ON {same(keys, 'there', 'flagged')}"
    if came is not None:
        gone += (
            f" UNION SELECT there.* FROM ({kept}) AS there ANTI JOIN ({came}) AS came ON {same(keys, 'there', 'came')}"
        )
    duck.execute(f"CREATE OR REPLACE TEMP TABLE {GONE} AS {gone}")
    found = duck.execute(f"SELECT count(*) FROM {GONE}").fetchone()
    assert found is not None
    return int(found[0])

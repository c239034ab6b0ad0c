"""Fits staged rows to a dataset's columns by its contract; finds those that cannot join it as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.contract import Change, Contract
from databrokkr_assets.core.errors import DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import columns, literal, quoted
from databrokkr_assets.engine.job import ROW_ID, STAGED
from databrokkr_assets.engine.widening import wider

FAILED = "databrokkr_failed"
"""The table of staged rows that will not be published: row id, stage, rule and reason; a row may stand in it twice."""


@dataclass(frozen=True)
class Retyped:
    """A column whose staged type or spelling is not the dataset's. `nulled` loads what does not fit as NULL."""

    staged: str
    published: str
    before: str
    after: str
    nulled: bool = False

    @property
    def cast(self) -> str:
        """The select expression that gives the column its published type and spelling."""
        there = f"TRY_CAST({quoted(self.staged)} AS {self.after})"
        value = f"CASE WHEN {self.loses} THEN NULL ELSE {there} END" if self.nulled else there
        return f"{value} AS {quoted(self.published)}"

    @property
    def loses(self) -> str:
        """The condition of a row whose value the cast would lose or bend."""
        there = f"TRY_CAST({quoted(self.staged)} AS {self.after})"
        back = f"TRY_CAST({there} AS {self.before})"
        return f"{quoted(self.staged)} IS NOT NULL AND {back} IS DISTINCT FROM {quoted(self.staged)}"


@dataclass(frozen=True)
class Fit:
    """How staged columns become those of the dataset.

    `left_out` are columns that the contract keeps away, `widened` the published columns that get a wider type, and
    `discarded` the number of values that it leaves out.
    """

    retyped: tuple[Retyped, ...] = ()
    left_out: tuple[str, ...] = ()
    widened: Mapping[str, str] = field(default_factory=dict)
    discarded: int = 0

    @property
    def changes(self) -> bool:
        """Whether the rows have to be staged again to fit."""
        return bool(self.retyped or self.left_out)

    def select(self, staged: Iterable[str]) -> str:
        """The select list of the staged columns as the dataset will have them."""
        cast = {one.staged: one.cast for one in self.retyped}
        return ", ".join(cast.get(name, quoted(name)) for name in staged if name not in self.left_out)


def fitted(
    duck: DuckDBPyConnection, staged: Mapping[str, str], published: Mapping[str, str], contract: Contract, node: str
) -> Fit:
    """The fit of staged columns (name to type) to published ones; rows that the contract discards are marked failed.

    Names are matched without regard to case, as SQL does. Raises DataError for a change that the contract forbids.
    """
    known = {name.lower(): name for name in published}
    fresh = [name for name in staged if name.lower() not in known]
    _freeze_columns(fresh, [name for key, name in known.items() if key not in {one.lower() for one in staged}],
                    contract, node)  # fmt: skip
    found = [
        Retyped(name, known[name.lower()], kind, published[known[name.lower()]])
        for name, kind in staged.items()
        if name.lower() in known and (kind != published[known[name.lower()]] or name != known[name.lower()])
    ]
    discarded = _discard_columns(duck, fresh, contract)
    left_out = tuple(fresh) if contract.columns in (Change.DISCARD_ROW, Change.DISCARD_VALUE) else ()
    return _retyped(duck, found, contract, node, Fit(left_out=left_out, discarded=discarded))


def _freeze_columns(fresh: Sequence[str], gone: Sequence[str], contract: Contract, node: str) -> None:
    if contract.columns is Change.FREEZE and (fresh or gone):
        parts = [f"new: {columns(list(fresh))}"] if fresh else []
        parts += [f"gone: {columns(list(gone))}"] if gone else []
        raise DataError(
            f"the columns have changed, which the contract forbids ({'; '.join(parts)})",
            mend="set `contract: {columns: evolve}` to take the change on, `rename` for a column that has a new name",
            where=node,
        )


def _discard_columns(duck: DuckDBPyConnection, fresh: Sequence[str], contract: Contract) -> int:
    """Mark the rows that have a value in a new column, or count those values, as the contract says."""
    if contract.columns is Change.DISCARD_ROW:
        for name in fresh:
            rows = f"SELECT {quoted(ROW_ID)} FROM {STAGED} WHERE {quoted(name)} IS NOT NULL"
            fail(duck, rows, "contract", f"column.{name}", f'the contract has no column "{name}"')
    if contract.columns is not Change.DISCARD_VALUE or not fresh:
        return 0
    return sum(_counts(duck, [f"count({quoted(name)})" for name in fresh]))


def _retyped(duck: DuckDBPyConnection, found: Sequence[Retyped], contract: Contract, node: str, fit: Fit) -> Fit:
    misfits = _counts(duck, [f"count(*) FILTER (WHERE {one.loses})" for one in found])
    done: list[Retyped] = []
    widened: dict[str, str] = {}
    for one, count in zip(found, misfits, strict=True):
        wide = wider(duck, one.before, one.after) if count and contract.types is Change.EVOLVE else None
        if wide:
            widened[one.published] = wide
            done.append(replace(one, after=wide))
            continue
        if count and contract.types is Change.FREEZE:
            raise DataError(
                f'{count} values of "{one.published}" do not fit {one.after}; they come as {one.before}',
                mend="mend them at the source, or set `contract: {types: evolve}` or `discard_row`",
                where=node,
            )
        nulled = contract.types is Change.DISCARD_VALUE
        if count and not nulled:
            reason = f'column "{one.published}": the value does not fit {one.after} (it came as {one.before})'
            rows = f"SELECT {quoted(ROW_ID)} FROM {STAGED} WHERE {one.loses}"
            fail(duck, rows, "cast", f"type.{one.published}", reason)
        fit = replace(fit, discarded=fit.discarded + (count if nulled else 0))
        done.append(replace(one, nulled=nulled))
    return replace(fit, retyped=tuple(done), widened=widened)


def _counts(duck: DuckDBPyConnection, aggregates: Sequence[str]) -> tuple[int, ...]:
    """Aggregates over the staged rows, in one scan."""
    row = duck.execute(f"SELECT {', '.join(aggregates)} FROM {STAGED}").fetchone() if aggregates else ()
    return tuple(row or ())


def prepare(duck: DuckDBPyConnection) -> None:
    """Make the empty table of failed rows."""
    duck.execute(f"CREATE OR REPLACE TEMP TABLE {FAILED} (row_id BIGINT, stage VARCHAR, rule VARCHAR, reason VARCHAR)")


def fail(duck: DuckDBPyConnection, row_ids: str, stage: str, rule: str, reason: str) -> None:
    """Mark the rows whose ids the query `row_ids` selects; published rows (negative ids) cannot fail any more."""
    duck.execute(
        f"INSERT INTO {FAILED} SELECT DISTINCT id, {literal(stage)}, {literal(rule)}, {literal(reason)} "
        f"FROM ({row_ids}) AS failing(id) WHERE id >= 0"
    )


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

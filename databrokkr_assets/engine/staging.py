"""From a query to a published version: stage, set aside what cannot stay, check, publish.

Sources and transforms end here alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.contract import Change
from databrokkr_assets.core.disposition import VALID_FROM, VALID_TO, Disposition, History, Merge, Replace
from databrokkr_assets.core.names import QUARANTINE_SUFFIX, columns, quoted, same
from databrokkr_assets.core.ports import Cursor, Reject, Taken
from databrokkr_assets.core.spec import OnFail
from databrokkr_assets.engine import conforming, deleting, history, quarantine
from databrokkr_assets.engine.job import ROW_ID, STAGED, WHOLE, Blocked, Job, Outcome, Stopped, own_columns
from databrokkr_assets.engine.progress import watched
from databrokkr_assets.lake.dataset import LoadRecord, Snapshot
from databrokkr_assets.lake.landing import Landing, forget
from databrokkr_assets.lake.publishing import Stage, load_id_of, publish, sweep

Scalar = Callable[[str], Any]


@dataclass(frozen=True)
class Rows:
    """The rows of a load: a query, and what is known once it ran.

    `as_given` is the select list that shows staged columns to `advance` as the source calls them. `staged` stages the
    rows where that is not done by running `query`. `taken` are the files that were read, for those who keep copies.
    `reloaded` tells that they are those of landed loads, and `aside` is the query of what was set aside of them.
    """

    query: str
    rejects: Callable[[], Iterable[Reject]] = lambda: ()
    advance: Callable[[Scalar], Cursor | None] = lambda scalar: None
    explain: Callable[[Exception], Exception | None] = lambda error: None
    as_given: Callable[[Sequence[str]], str] = lambda names: "*"
    inputs: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    staged: Callable[[Stage], None] | None = None
    taken: Callable[[], Sequence[Taken]] = lambda: ()
    reloaded: bool = False
    aside: str | None = None


class Staging:
    """One load of one dataset on one DuckDB connection. Used once.

    `clearing` is the condition of published rows that an append takes the place of.
    """

    def __init__(
        self,
        duck: DuckDBPyConnection,
        job: Job,
        before: Snapshot | None,
        how: Disposition,
        clearing: str | None = None,
    ) -> None:
        self.duck = duck
        self.job = job
        self.before = before
        self.how = how
        self.clearing = clearing
        self.number = (before.number if before else 0) + 1
        self.stage = Stage(job.dataset, duck, self.number, job.load_id)
        self.began = time.monotonic()
        self.at = datetime.now(UTC)
        self.landing = Landing.at(job.landing, self.at.isoformat(), job.load_id) if job.landing else None
        self.landed = False
        self.checks: tuple[CheckResult, ...] = ()
        self.rows_in = 0
        self.quarantined = 0
        self.deleted = 0
        self.fit = conforming.Fit()
        self.reasons: tuple[tuple[str, str, int], ...] = ()

    def run(self, rows: Rows) -> Outcome:
        """Stage, check and publish `rows`. Raises Blocked, or any of our errors; then nothing was published."""
        swept = sweep(self.job.dataset, self.before)
        if self.job.landing:
            forget(self.job.landing, map(load_id_of, swept))
        self.stage.begin()
        try:
            return self._run(rows)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        """Remove what is staged and landed, unless the log may have it."""
        self.stage.discard()
        if self.landing and not self.stage.committing:
            self.landing.remove()

    def _run(self, rows: Rows) -> Outcome:
        quarantine.prepare(self.duck)
        with watched(self.job.listener, self.job.node, self.stage.store.url):
            self._write(rows)
        if self.landing:
            self.landed = self.landing.keep(rows.taken())
        quarantine.add(self.duck, rows.rejects())
        if rows.aside:
            quarantine.copy(self.duck, rows.aside)
        rejected = quarantine.unreadable(self.duck)
        self.rows_in = self.stage.rows + quarantine.count(self.duck)
        self._view()
        cursor = rows.advance(self._scalar(rows.as_given(self.stage.schema.names)))
        if self._nothing_new(cursor):
            return self._given_up(rows)
        self._set_aside(complete=not rejected)
        self.quarantined = quarantine.publish_rejected(self.duck, self.job, self.number)
        self.reasons = quarantine.reasons(self.duck)
        self._keep_budget(rejected)
        if self._changes_nothing(cursor):
            return self._given_up(rows)
        after = publish(
            self.job.dataset,
            self.before,
            self.stage,
            Merge(self._version_keys) if isinstance(self.how, History) else self.how,
            self._record(cursor, rows),
            gone=deleting.GONE if self.deleted and isinstance(self.how, Merge) else None,
            widened=self.fit.widened,
            clearing=self.clearing,
        )
        return self._outcome(after, published=True, facts=rows.facts)

    def _given_up(self, rows: Rows) -> Outcome:
        """A load that brings nothing is no version of its own."""
        self._discard()
        return self._outcome(self.before, published=False, facts=rows.facts)

    def _write(self, rows: Rows) -> None:
        if rows.staged is not None:
            rows.staged(self.stage)
            return
        try:
            self.stage.write(rows.query, ordered=self._by_key)
        except duckdb.Error as error:
            ours = rows.explain(error)
            if ours is None:
                raise
            raise ours from error

    def _view(self) -> None:
        self.duck.execute(f"CREATE OR REPLACE TEMP VIEW {STAGED} AS {self.stage.query(row_id=ROW_ID)}")

    def _scalar(self, shown: str) -> Scalar:
        def scalar(expression: str) -> Any:
            found = self.duck.execute(f"SELECT {expression} FROM (SELECT {shown} FROM {STAGED})").fetchone()
            return found[0] if found else None

        return scalar

    def _set_aside(self, *, complete: bool) -> None:
        """Move failed rows to quarantine: rows that fit no column, have no key, or that a check refuses.

        `complete` tells that every row that came could be read.
        """
        staged = dict(zip(self.stage.schema.names, map(str, self.duck.sql(self.stage.query()).types), strict=True))
        conforming.prepare(self.duck)
        if self._conforms():
            contract = self.job.contract
            self.fit = conforming.fitted(self.duck, staged, self._published_types(), contract, self.job.node)
        latest = self._keys(staged)
        flagged = self.job.deletes.condition(staged)
        self._gather_deleted(flagged, latest, complete)
        if self.fit.changes or latest or self.job.deletes.flag or self._failed():
            self._rewrite(self.fit.select(staged), latest, f"NOT ({flagged})")
        self._check()
        if self._failed():
            self._rewrite(columns(self.stage.schema.names))
        if isinstance(self.how, History):
            self._make_versions()

    def _conforms(self) -> bool:
        """Whether rows must fit the columns there are: a `replace` brings its own, unless the contract forbids."""
        contract = self.job.contract
        evolves = contract.columns is Change.EVOLVE and contract.types is Change.EVOLVE
        return self.before is not None and not (isinstance(self.how, Replace) and evolves)

    def _published_types(self) -> dict[str, str]:
        assert self.before is not None
        own = dict(own_columns(self.duck, self.before))
        return {
            name: kind for name, kind in own.items() if not self._keeps_versions or name not in (VALID_FROM, VALID_TO)
        }

    @property
    def _by_key(self) -> bool:
        """Whether rows meet by key, so that their order tells which of them is the last."""
        return isinstance(self.how, Merge | History)

    @property
    def _keeps_versions(self) -> bool:
        return isinstance(self.how, History)

    @property
    def _version_keys(self) -> tuple[str, ...]:
        """What tells a version of a row apart."""
        assert isinstance(self.how, History)
        return (*self.how.keys, VALID_FROM)

    def _keys(self, staged: dict[str, str]) -> str:
        """Mark the rows without a key; gives the clause that keeps the last of the rows with one key."""
        if not isinstance(self.how, Merge | History):
            return ""
        keys = self._staged_keys()
        conforming.require_keys(keys, staged, self.job.node)
        conforming.fail_keyless(self.duck, keys)
        return conforming.last_of_each_key(keys) if conforming.has_doubles(self.duck, keys) else ""

    def _staged_keys(self) -> tuple[str, ...]:
        """The keys as the staged columns spell them."""
        assert isinstance(self.how, Merge | History)
        spelling = {one.published: one.staged for one in self.fit.retyped}
        return tuple(spelling.get(key, key) for key in self.how.keys)

    def _gather_deleted(self, flagged: str, latest: str, complete: bool) -> None:
        if not isinstance(self.how, Merge | History):
            return
        deletes = self.job.deletes
        keys = self.fit.select(self._staged_keys())
        # A row that could not be read may be any row: then none counts as missing.
        missing = deletes.missing and complete
        self.deleted = deleting.gather(
            self.duck,
            f"SELECT {keys} FROM ({self._sound(latest)}) WHERE {flagged}",
            f"SELECT {keys} FROM {STAGED}" if missing else None,
            self._standing() if deletes.flag or missing else None,
            self.how.keys,
        )

    def _standing(self) -> str | None:
        """The rows of the dataset that stand as of now; of a history the current ones."""
        if self.before is None:
            return None
        rows = self.before.query(self.duck)
        if self.clearing:
            return f"SELECT * FROM ({rows}) WHERE ({self.clearing}) IS NOT TRUE"
        return history.current(rows) if self._keeps_versions and VALID_TO in self.before.schema.names else rows

    def _make_versions(self) -> None:
        """Turn the staged rows, which tell how things are, into what changes in the history."""
        assert isinstance(self.how, History)
        names, staged = self.stage.schema.names, self.stage.query()
        at = self.at
        if self.before is None:
            query = history.first_versions(staged, names, at)
        else:
            own = own_columns(self.duck, self.before)
            gone = f"SELECT * FROM {deleting.GONE}"
            known = [name for name, _ in own]
            query = history.versions(staged, names, self.before.query(self.duck), known, self.how.keys, gone, at)
        self.stage.write(query, ordered=False)
        self._view()

    def _changes_nothing(self, cursor: Cursor | None) -> bool:
        """Whether a history stays as it is: a full read mostly finds nothing new."""
        if self.before is None or not self._keeps_versions or self.stage.rows or self.quarantined:
            return False
        return cursor is None or self.before.last is None or cursor == self.before.last.cursor

    def _failed(self) -> bool:
        return self.duck.execute(f"SELECT 1 FROM {conforming.FAILED} LIMIT 1").fetchone() is not None

    def _sound(self, latest: str = "") -> str:
        """The staged rows that did not fail; with `latest` the last of each key."""
        return (
            f"SELECT staged.* FROM {STAGED} AS staged ANTI JOIN {conforming.FAILED} AS failed "
            f"ON staged.{quoted(ROW_ID)} = failed.row_id {latest}"
        )

    def _rewrite(self, selected: str, latest: str = "", kept: str = "true") -> None:
        """Stage again without the failed rows, which go to quarantine."""
        payload = (
            f"SELECT {quoted(ROW_ID)} AS row_id, "
            f"'row ' || ({quoted(ROW_ID)} & ((1::BIGINT << 40) - 1)) + 1 AS position, "
            f"CAST(to_json(struct_pack({', '.join(f'{quoted(n)} := {quoted(n)}' for n in self.stage.schema.names)})) "
            f"AS VARCHAR) AS payload FROM {STAGED}"
        )
        self.duck.execute(f"INSERT INTO {quarantine.REJECTED} {conforming.failing_rows(payload)}")
        rows = f"SELECT {selected} FROM ({self._sound(latest)}) WHERE {kept}"
        self.stage.write(rows, ordered=self._by_key)
        self._view()
        conforming.prepare(self.duck)

    def _check(self) -> None:
        self.duck.execute(f"CREATE OR REPLACE TEMP VIEW {WHOLE} AS {self._whole()}")
        self.checks = tuple(self.job.gate(self.duck))
        if any(check.blocks for check in self.checks):
            raise Blocked(self._outcome(self.before, published=False, facts={}))
        for check in self.checks:
            if not check.passed and check.on_fail is OnFail.QUARANTINE and check.failing:
                conforming.fail(self.duck, check.failing, "check", check.name, f"{check.asked} failed")

    def _whole(self) -> str:
        """Staged rows, and of the published ones those that stay."""
        staged = f"SELECT * FROM {STAGED}"
        standing = self._standing()
        if standing is None or isinstance(self.how, Replace):
            return staged
        own = f"EXCLUDE ({VALID_FROM}, {VALID_TO})" if self._keeps_versions else ""
        kept = f"SELECT * {own}, -1 - row_number() OVER () AS {quoted(ROW_ID)} FROM ({standing}) AS old"
        if isinstance(self.how, Merge | History):
            kept += f" ANTI JOIN {STAGED} AS new ON {same(self.how.keys, 'old', 'new')}"
            kept += (
                f" ANTI JOIN {deleting.GONE} AS gone ON {same(self.how.keys, 'old', 'gone')}" if self.deleted else ""
            )
        return f"{staged} UNION ALL BY NAME {kept}"

    def _keep_budget(self, rejected: int) -> None:
        limit = self.job.max_rejects
        if limit is not None and rejected > limit:
            aside = self.job.node.rsplit("/", 1)[-1] + QUARANTINE_SUFFIX
            raise Stopped(
                f"{rejected} rows could not be read, {limit} are allowed",
                mend=f"look at them in the asset {aside}, or raise `max_rejects`",
                outcome=self._outcome(self.before, published=False, facts={}),
            )

    def _nothing_new(self, cursor: Cursor | None) -> bool:
        """An append or merge of no rows that moves no cursor: nothing to check, and only a longer log."""
        if self.before is None or self.before.last is None or isinstance(self.how, Replace) or self.clearing:
            return False
        if self.rows_in:
            return False
        return cursor is None or cursor == self.before.last.cursor

    def _record(self, cursor: Cursor | None, rows: Rows) -> LoadRecord:
        last = self.before.last if self.before else None
        return LoadRecord(
            load_id=self.job.load_id,
            run_id=self.job.run_id,
            number=self.number,
            # To what reads the changes, rows that were taken back are as if all were new.
            disposition=Replace.name if self.clearing else self.how.name,
            keys=self._record_keys(),
            folder=self.stage.folder,
            at=self.at.isoformat(),
            rows=self.stage.rows,
            rejected=self.quarantined,
            bytes=self.stage.bytes,
            cursor=cursor if cursor is not None or last is None else last.cursor,
            inputs=rows.inputs,
            deleted=self.deleted,
            rewrote=bool(self.fit.widened),
            landed=self.landed,
            reloaded=rows.reloaded,
        )

    def _record_keys(self) -> tuple[str, ...]:
        if isinstance(self.how, History):
            return self._version_keys
        return self.how.keys if isinstance(self.how, Merge) else ()

    def _outcome(self, snapshot: Snapshot | None, *, published: bool, facts: Mapping[str, Any]) -> Outcome:
        return Outcome(
            node=self.job.node,
            load_id=self.job.load_id,
            rows_in=self.rows_in,
            rows_out=self.stage.rows if published else 0,
            seconds=time.monotonic() - self.began,
            quarantined=self.quarantined,
            bytes=self.stage.bytes if published else 0,
            published=published,
            version=snapshot.version if snapshot else None,
            total_rows=snapshot.rows() if snapshot else None,
            columns=own_columns(self.duck, snapshot) if snapshot else (),
            checks=self.checks,
            reasons=self.reasons,
            deleted=self.deleted,
            discarded=self.fit.discarded,
            target=self.job.dataset.store.url,
            facts=facts,
        )

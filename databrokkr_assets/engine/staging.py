"""From a query to a published version: stage, set aside what cannot stay, check, publish.

Sources and transforms end here alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from databrokkr_assets.core.checks import CheckResult
from databrokkr_assets.core.disposition import Disposition, Merge, Replace
from databrokkr_assets.core.names import QUARANTINE_SUFFIX, columns, quoted, same
from databrokkr_assets.core.ports import Cursor, Reject
from databrokkr_assets.core.spec import OnFail
from databrokkr_assets.engine import conforming, quarantine
from databrokkr_assets.engine.job import ROW_ID, STAGED, WHOLE, Blocked, Job, Outcome, Stopped, own_columns
from databrokkr_assets.engine.progress import watched
from databrokkr_assets.lake.dataset import LoadRecord, Snapshot
from databrokkr_assets.lake.publishing import Stage, publish, sweep

Scalar = Callable[[str], Any]


@dataclass(frozen=True)
class Rows:
    """The rows of a load: a query, and what is known once it ran."""

    query: str
    rejects: Callable[[], Iterable[Reject]] = lambda: ()
    advance: Callable[[Scalar], Cursor | None] = lambda scalar: None
    explain: Callable[[Exception], Exception | None] = lambda error: None
    inputs: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Staging:
    """One load of one dataset on one DuckDB connection. Used once."""

    def __init__(self, duck: DuckDBPyConnection, job: Job, before: Snapshot | None, how: Disposition) -> None:
        self.duck = duck
        self.job = job
        self.before = before
        self.how = how
        self.number = (before.number if before else 0) + 1
        self.stage = Stage(job.dataset, duck, self.number, job.load_id)
        self.began = time.monotonic()
        self.checks: tuple[CheckResult, ...] = ()
        self.rows_in = 0
        self.quarantined = 0
        self.reasons: tuple[tuple[str, str, int], ...] = ()

    def run(self, rows: Rows) -> Outcome:
        """Stage, check and publish `rows`. Raises Blocked, or any of our errors; then nothing was published."""
        sweep(self.job.dataset, self.before)
        self.stage.begin()
        try:
            return self._run(rows)
        except BaseException:
            self.stage.discard()
            raise

    def _run(self, rows: Rows) -> Outcome:
        quarantine.prepare(self.duck)
        with watched(self.job.listener, self.job.node, self.stage.store.url):
            self._write(rows)
        quarantine.add(self.duck, rows.rejects())
        rejected = quarantine.count(self.duck)
        self.rows_in = self.stage.rows + rejected
        self._view()
        cursor = rows.advance(self._scalar)
        if self._nothing_new(cursor):
            self.stage.discard()
            return self._outcome(self.before, published=False, facts=rows.facts)
        self._set_aside()
        self.quarantined = quarantine.publish_rejected(self.duck, self.job, self.number)
        self.reasons = quarantine.reasons(self.duck)
        self._keep_budget(rejected)
        after = publish(self.job.dataset, self.before, self.stage, self.how, self._record(cursor, rows.inputs))
        return self._outcome(after, published=True, facts=rows.facts)

    def _write(self, rows: Rows) -> None:
        try:
            self.stage.write(rows.query, ordered=isinstance(self.how, Merge))
        except duckdb.Error as error:
            ours = rows.explain(error)
            if ours is None:
                raise
            raise ours from error

    def _view(self) -> None:
        self.duck.execute(f"CREATE OR REPLACE TEMP VIEW {STAGED} AS {self.stage.query(row_id=ROW_ID)}")

    def _scalar(self, expression: str) -> Any:
        found = self.duck.execute(f"SELECT {expression} FROM {STAGED}").fetchone()
        return found[0] if found else None

    def _set_aside(self) -> None:
        """Move failed rows to quarantine: rows that fit no column, have no key, or that a check refuses."""
        staged = dict(zip(self.stage.schema.names, map(str, self.duck.sql(self.stage.query()).types), strict=True))
        casts: list[conforming.Change] = []
        if self.before and not isinstance(self.how, Replace):
            casts = conforming.changes(staged, dict(own_columns(self.duck, self.before)))
        conforming.prepare(self.duck)
        conforming.fail_lossy(self.duck, casts)
        latest = self._keys(staged, casts)
        if casts or latest or self._failed():
            self._rewrite(conforming.select(staged, casts), latest)
        self._check()
        if self._failed():
            self._rewrite(columns(self.stage.schema.names), "")

    def _keys(self, staged: dict[str, str], casts: list[conforming.Change]) -> str:
        if not isinstance(self.how, Merge):
            return ""
        spelling = {change.published: change.staged for change in casts}
        keys = tuple(spelling.get(key, key) for key in self.how.keys)
        conforming.require_keys(keys, staged, self.job.node)
        conforming.fail_keyless(self.duck, keys)
        return conforming.last_of_each_key(keys) if conforming.has_doubles(self.duck, keys) else ""

    def _failed(self) -> bool:
        return self.duck.execute(f"SELECT 1 FROM {conforming.FAILED} LIMIT 1").fetchone() is not None

    def _rewrite(self, selected: str, clause: str) -> None:
        """Stage again without the failed rows, which go to quarantine."""
        payload = (
            f"SELECT {quoted(ROW_ID)} AS row_id, "
            f"'row ' || ({quoted(ROW_ID)} & ((1::BIGINT << 40) - 1)) + 1 AS position, "
            f"CAST(to_json(struct_pack({', '.join(f'{quoted(n)} := {quoted(n)}' for n in self.stage.schema.names)})) "
            f"AS VARCHAR) AS payload FROM {STAGED}"
        )
        self.duck.execute(f"INSERT INTO {quarantine.REJECTED} {conforming.failing_rows(payload)}")
        self.stage.write(
            f"SELECT {selected} FROM {STAGED} AS staged ANTI JOIN {conforming.FAILED} AS failed "
            f"ON staged.{quoted(ROW_ID)} = failed.row_id {clause}",
            ordered=isinstance(self.how, Merge),
        )
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
        if self.before is None or isinstance(self.how, Replace):
            return staged
        kept = f"SELECT *, -1 - row_number() OVER () AS {quoted(ROW_ID)} FROM ({self.before.query(self.duck)}) AS old"
        if isinstance(self.how, Merge):
            kept += f" ANTI JOIN {STAGED} AS new ON {same(self.how.keys, 'old', 'new')}"
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
        if self.before is None or self.before.last is None or isinstance(self.how, Replace):
            return False
        if self.rows_in:
            return False
        return cursor is None or cursor == self.before.last.cursor

    def _record(self, cursor: Cursor | None, inputs: Mapping[str, int]) -> LoadRecord:
        last = self.before.last if self.before else None
        return LoadRecord(
            load_id=self.job.load_id,
            run_id=self.job.run_id,
            number=self.number,
            disposition=self.how.name,
            keys=self.how.keys if isinstance(self.how, Merge) else (),
            folder=self.stage.folder,
            at=datetime.now(UTC).isoformat(),
            rows=self.stage.rows,
            rejected=self.quarantined,
            bytes=self.stage.bytes,
            cursor=cursor if cursor is not None or last is None else last.cursor,
            inputs=inputs,
        )

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
            target=self.job.dataset.store.url,
            facts=facts,
        )

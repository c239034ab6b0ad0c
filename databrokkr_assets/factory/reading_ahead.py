"""Sources of one run are read side by side: nothing orders them, and their systems are mostly what one waits for.

Dagster runs the steps of a run one after the other in the run's process. The first source step starts the others too, a
few at a time; the step of each then waits for its own load, and reports it as if it had done it.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import dagster as dg

from databrokkr_assets.core.spec import Pipeline
from databrokkr_assets.engine.job import Outcome

_POLL_SECONDS = 0.2

_IN_PROCESS = {"in_process", "execute_in_process_executor"}
"""Dagster's executors that run all steps in one process, by name."""

Load = Callable[[str], Outcome]
"""Does a node's work."""


class ReadingAhead:
    """The loads of a pipeline's sources in this process, by run."""

    def __init__(self, pipeline: Pipeline, pool_of: Callable[[str], str | None]) -> None:
        self._pipeline = pipeline
        self._pool_of = pool_of
        self._started: dict[tuple[str, str], Future[Outcome]] = {}
        self._lock = Lock()

    def load(self, context: dg.AssetExecutionContext, node: str, load: Load) -> Outcome:
        """The outcome of `load(node)`, which may have begun already; raises what it raised."""
        siblings = self._siblings(context)
        if self._pipeline.parallel_reads == 1 or len(siblings) < 2:
            return load(node)
        with self._lock:
            if (context.run.run_id, node) not in self._started:
                self._start(context, node, siblings, load)
            mine = self._started.pop((context.run.run_id, node))
        return mine.result()

    def _siblings(self, context: dg.AssetExecutionContext) -> list[str]:
        """The sources that this run executes in this process, in running order."""
        if context.job_def.executor_def.name not in _IN_PROCESS:
            return []
        chosen = context.run.step_keys_to_execute
        steps = {self._step(name): name for name in self._pipeline.sources}
        there = [one.name for one in context.job_def.nodes_in_topological_order]
        return [steps[one] for one in there if one in steps and (chosen is None or one in chosen)]

    def _step(self, node: str) -> str:
        return f"{self._pipeline.name}__{node}"

    def _start(self, context: dg.AssetExecutionContext, node: str, siblings: Iterable[str], load: Load) -> None:
        threads = ThreadPoolExecutor(self._pipeline.parallel_reads, thread_name_prefix="databrokkr-read")
        later = [name for name in siblings if name != node]
        for name in (node, *later):
            work = contextvars.copy_context()
            pool = None if name == node else self._pool_of(name)  # this step holds its own slot already
            held = _Slot(context.instance, pool, context.run.run_id, self._step(name))
            self._started[context.run.run_id, name] = threads.submit(work.run, held.during, load, name)
        threads.shutdown(wait=False)


class _Slot:
    """A slot of a pool, held while a load runs ahead of its step."""

    def __init__(self, instance: dg.DagsterInstance, pool: str | None, run_id: str, step: str) -> None:
        self._storage = instance.event_log_storage
        self._pool = pool
        self._run_id = run_id
        self._step = step

    def during(self, load: Load, node: str) -> Outcome:
        """Run the load once there is a slot."""
        if self._pool is None:
            return load(node)
        while not self._storage.claim_concurrency_slot(self._pool, self._run_id, self._step).is_claimed:
            time.sleep(_POLL_SECONDS)
        try:
            return load(node)
        finally:
            self._storage.free_concurrency_slot_for_step(self._run_id, self._step)

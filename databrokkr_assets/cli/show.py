"""How results look in a terminal: progress while it runs, one table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

from databrokkr_assets.engine.progress import Progress
from databrokkr_assets.factory.work import LISTENER
from databrokkr_assets.service.pipelines import Known
from databrokkr_assets.service.running import NodeReport, RunReport
from databrokkr_assets.service.status import NodeStatus


def ran(report: RunReport) -> None:
    """The table of a run, and below it why what failed failed."""
    out = console()
    shown = table("node", "state", ">rows in", ">rows out", ">quarantined", ">size", ">seconds", "checks")
    for node in report.nodes:
        shown.add_row(
            node.node,
            _state(node),
            f"{node.rows_in:,}",
            f"{node.rows_out:,}",
            f"{node.quarantined:,}" if node.quarantined else "-",
            size(node.bytes) if node.bytes else "-",
            f"{node.seconds:.2f}",
            verdicts(node),
        )
    out.print(shown)
    for node in report.nodes:
        for check in node.checks:
            if not check["passed"]:
                out.print(f"[yellow]{node.node}[/]  {check['on_fail']} {check['name']}: ", end="")
                out.print(check["says"], markup=False)
        if node.error:
            out.print(f"[red]{node.node} failed[/]  ", end="")
            out.print(node.error, markup=False)
    out.print(f"run {report.run_id}, {report.seconds:.1f} s")


def checked(known: Sequence[Known]) -> None:
    """Each pipeline as sound or with its mistakes."""
    out = console()
    for pipeline in known:
        out.print(f"{'[red]broken' if pipeline.mistakes else '[green]ok    '}[/]  {pipeline.name}")
        for mistake in pipeline.mistakes:
            out.print(f"        {mistake['where']}: {mistake['what']}", markup=False, highlight=False)
            out.print(f"        mend: {mistake['mend']}", markup=False, highlight=False)
    if not known:
        out.print("there are no pipelines yet; make a folder with a defs.yaml below defs/")


def stands(found: Sequence[NodeStatus]) -> None:
    """Each node's last load."""
    shown = table("pipeline", "node", "state", ">rows", ">quarantined", "last run (UTC)")
    for node in found:
        rows = "-" if node.rows is None else f"{node.rows:,}"
        aside = f"{node.quarantined:,}" if node.quarantined else "-"
        shown.add_row(node.pipeline, node.node, node.state, rows, aside, (node.at or "-").removesuffix("+00:00"))
    console().print(shown)


def installed(rows: Sequence[dict[str, Any]]) -> None:
    """The connectors."""
    shown = table("connector", "source", "sink", "from", "what it is")
    for row in rows:
        yes = {True: "yes", False: "-"}
        shown.add_row(row["name"], yes[row["source"]], yes[row["sink"]], row["from"], row["summary"])
    console().print(shown)


@contextmanager
def watching(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show how far the work is while the block runs, on a terminal. What is yielded shows a line of its own there."""
    if quiet:
        yield lambda text: None
        return
    with Console(stderr=True).status("starting …") as status:
        token = LISTENER.set(_Told(status))
        try:
            yield status.update
        finally:
            LISTENER.reset(token)


class _Told:
    """Turns progress into one line: node, step, rows, bytes and rate."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._node = ""
        self._since = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.node != self._node:
            self._node, self._since = progress.node, time.monotonic()
        seconds = max(time.monotonic() - self._since, 0.001)
        parts = [f"{progress.node}: {progress.step}"]
        if progress.rows is not None:
            parts.append(f"{progress.rows:,} rows, {progress.rows / seconds:,.0f}/s")
        if progress.bytes is not None:
            parts.append(f"{size(progress.bytes)}, {size(progress.bytes / seconds)}/s")
        self._status.update("  ".join([*parts, f"{seconds:.0f} s"]))


def size(count: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def verdicts(node: NodeReport) -> str:
    """The checks of a node in a few words."""
    if not node.checks:
        return "-"
    passed = sum(1 for check in node.checks if check["passed"])
    failed = [f"{check['on_fail']} {check['name']}" for check in node.checks if not check["passed"]]
    return ", ".join(([f"{passed} passed"] if passed else []) + failed)


def _state(node: NodeReport) -> str:
    if node.state == "done":
        return "[green]done[/]" if node.published else "[dim]nothing new[/]"
    return f"[red]{node.state}[/]" if node.state == "failed" else f"[yellow]{node.state}[/]"


def table(*columns: str) -> Table:
    """An empty table; a column whose name starts with `>` is aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return made


def console() -> Console:
    """The terminal, or a wide page in its place."""
    # A pipe has no width of its own; tables stay whole there.
    return Console() if sys.stdout.isatty() else Console(width=160)

"""Runs of this command that died: told by their process, which each writes into its run's tags.

A run that was killed cannot free the pools that it holds. Where Dagster's daemon runs, its run monitoring does that; a
command that is used by itself looks after its own.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

TAG = "databrokkr/process"
"""The tag of a run that names its process: host, number and start."""


def own_tag() -> dict[str, str]:
    """The tag for a run of this process."""
    return {TAG: f"{socket.gethostname()} {os.getpid()} {_start_of(os.getpid())}"}


def free_what_the_dead_hold(instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs of dead processes of this machine as failed, and free their pools; gives the ids of the runs."""
    import dagster as dg

    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        if TAG in run.tags and _is_dead(run.tags[TAG]):
            instance.report_run_failed(run, "Its process is gone: it was killed, or the machine was restarted.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead.append(run.run_id)
    return dead


def _is_dead(tag: str) -> bool:
    """Whether the process is surely gone; one of another machine may be alive."""
    host, number, start = tag.rsplit(" ", 2)
    return host == socket.gethostname() and _start_of(int(number)) != start


def _start_of(number: int) -> str:
    """When a process started, in the kernel's ticks since boot and with the boot's own id; `-` when there is none."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return f"{fields[19]}@{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return "-"

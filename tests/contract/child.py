"""Runs a node in a process of its own, which can be killed after a step, be without powers, out of disk, or measured.

A server that has loaded what is needed forks one child for each run, so that a run takes no longer than its work. The
server speaks pickled values over its standard input and output.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.engine.duckdb import MEMORY_LIMIT
from databrokkr_assets.engine.job import Outcome
from resources.registry import connector

from .bench import Plan

_SLOW = 0.0002
"""Seconds from which a call counts as a step that talks to a disk or a server."""

_PR_SET_SECUREBITS, _NO_ROOT = 28, 3

END = -1
"""The step behind the last one: the work is done, and nobody has heard of it."""


@dataclass(frozen=True)
class Run:
    """What a child is to do, and what is to befall it."""

    plan: Plan
    node: str
    kill_after: int | None = None
    file_size: int | None = None
    powerless: bool = False
    memory: str | None = None


@dataclass(frozen=True)
class Done:
    """What became of it: how it was ended, or the outcome, or the error by its class and words.

    `steps` are those that talked to a disk or a server; `peak` is the memory used at most, in megabytes.
    """

    signal: int = 0
    outcome: Outcome | None = None
    error: type[Exception] | None = None
    says: str = ""
    mend: str = ""
    steps: tuple[int, ...] = ()
    peak: int = 0
    modules: tuple[str, ...] = ()


def run_in_child(run: Run) -> Done:
    """Run a node in a child of the server, which is started at need."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    pickle.dump(run, server.stdin)
    server.stdin.flush()
    done: Done = pickle.load(server.stdout)
    return done


@cache
def _server() -> subprocess.Popen[bytes]:
    # By name, so that what is pickled is this module's and not that of a script.
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close() -> None:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.close()
        server.stdout.close()
        server.wait()

    atexit.register(close)
    return server


# ----- the server


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""
    with suppress(EOFError):
        while True:
            run: Run = pickle.load(requests)
            done = _forked(run)
            for name in done.modules:
                with suppress(ImportError):
                    importlib.import_module(name)
            pickle.dump(replace(done, modules=()), replies)
            replies.flush()


def _forked(run: Run) -> Done:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with open(writing, "wb") as pipe:
            pickle.dump(_done(run), pipe)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    done: Done = pickle.loads(told) if told else Done()
    return replace(done, signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)


# ----- the child


def _done(run: Run) -> Done:
    before = set(sys.modules)
    if run.memory:
        os.environ[MEMORY_LIMIT] = run.memory
    if run.powerless:
        _give_up_powers()
    if run.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run.file_size, resource.RLIM_INFINITY))
    steps = _Steps(run)
    try:
        done = Done(outcome=steps.watching(lambda: run.plan.worker().run(run.node)))
    except Exception as error:
        mend = error.mend if isinstance(error, DatabrokkrError) else ""
        done = Done(error=type(error), says=f"{type(error).__name__}: {error}", mend=mend)
    if run.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if run.kill_after == END:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(done, steps=tuple(steps.slow), peak=_peak(), modules=tuple(_ordinary(set(sys.modules) - before)))


def _ordinary(modules: set[str]) -> list[str]:
    """Modules that a server may load for the children to come."""
    return sorted(name for name in modules if not name.startswith("_"))


def _peak() -> int:
    # Not ru_maxrss: the kernel carries the peak of the process that started this one over into it.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


def _give_up_powers() -> None:
    """Root without capabilities is bound by permissions as everybody is; nor does a program it starts get them back."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0) != 0 or libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


@dataclass
class _Steps:
    """Counts calls that leave the connector and the engine for a library, and kills the process after one of them.

    So the places between two steps need no list that somebody keeps: wherever a disk or a server is talked to, a run is
    killed behind it.
    """

    run: Run
    slow: list[int] = field(default_factory=list)
    _count: int = 0
    _stack: list[tuple[int, float] | None] = field(default_factory=list)

    def watching(self, work: Callable[[], Outcome]) -> Outcome:
        """The result of `work`, whose steps are counted."""
        self._own = {"databrokkr_assets", "resources", _package(self.run.plan.connector)}
        sys.setprofile(self._seen)
        try:
            return work()
        finally:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self._stack.append(self._left(frame, event))
        elif self._stack and (step := self._stack.pop()) is not None:
            number, began = step
            if number == self.run.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            if time.perf_counter() - began > _SLOW:
                self.slow.append(number)

    def _left(self, frame: FrameType, event: str) -> tuple[int, float] | None:
        caller = frame if event == "c_call" else frame.f_back
        if caller is None or not self._is_own(caller) or (event == "call" and self._is_own(frame)):
            return None
        if event == "call" and frame.f_globals.get("__name__", "").startswith("importlib"):
            return None
        self._count += 1
        return self._count, time.perf_counter()

    def _is_own(self, frame: FrameType) -> bool:
        return str(frame.f_globals.get("__name__", "")).partition(".")[0] in self._own


def _package(name: str) -> str:
    """The package that a connector comes from."""
    found = connector(name)
    model = found.source or found.sink
    return model.__module__.partition(".")[0] if model else ""


def main() -> None:
    """Serve until the standard input ends; what a library prints must not come between the answers."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)

"""How much memory this process has needed at most."""

from __future__ import annotations

from pathlib import Path


def peak_kilobytes() -> int:
    """The peak of this process's resident memory, in KiB.

    Not `ru_maxrss`: the kernel carries the peak of the process that started this one over into that.
    """
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

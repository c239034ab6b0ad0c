"""The other side of `child.py`: bounds itself, then answers calls, one JSON line each, until its input ends.

A call is `[function, arguments]`; the answer is `{"result": …}` or `{"error": {kind, what, mend, where}}`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from databrokkr_assets.core.errors import DatabrokkrError
from databrokkr_assets.core.plugins import missing_extra

_PR_SET_PDEATHSIG = 1


def main(answers: int, parent: int, memory_mb: int, unpacked_mb: int) -> None:
    """Answer the calls on standard input to the descriptor `answers`."""
    _end_with(parent)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_DATA, memory_mb << 20)
    _bound(resource.RLIMIT_FSIZE, unpacked_mb * 1_000_000)
    with open(answers, "w", encoding="utf-8") as out:
        for line in sys.stdin:
            function, arguments = json.loads(line)
            out.write(json.dumps(_answer(function, arguments, memory_mb, unpacked_mb)) + "\n")
            out.flush()


def _end_with(parent: int) -> None:
    """Die when the parent does. Elsewhere than on Linux, a call is finished first: the end of the input ends us."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _bound(limit: int, most: int) -> None:
    """RLIMIT_DATA bounds what is allocated; RLIMIT_AS would count libraries, files and reservations as well."""
    _, hard = resource.getrlimit(limit)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))


def _answer(name: str, arguments: dict[str, Any], memory_mb: int, unpacked_mb: int) -> dict[str, Any]:
    """The function's result, or its error. Whatever a library raises is said about the file that it reads."""
    try:
        return {"result": _function(name)(**arguments)}
    except DatabrokkrError as error:
        return _error(type(error).__name__, error.what, error.mend, str(error.where or ""))
    except ModuleNotFoundError as error:
        missing = missing_extra("formats", f"a file of this format ({error.name})")
        return _error("SpecError", missing.what, missing.mend)
    except MemoryError:
        return _error("DataError", f"takes more than {memory_mb:,} MB of memory to be read", _raise("memory_mb"))
    except OSError as error:
        return _said_by_the_disk(error, unpacked_mb)
    except Exception as error:
        return _error("DataError", f"cannot be read: {type(error).__name__}: {_short(error)}")


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(f"resources.support.{module}"), function)
    return loaded


def _said_by_the_disk(error: OSError, unpacked_mb: int) -> dict[str, Any]:
    if error.errno == errno.EFBIG:
        return _error("DataError", f"becomes more than {unpacked_mb:,} MB when it is read", _raise("unpacked_mb"))
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        mend = "free disk space there, or set TMPDIR to a larger disk"
        return _error("AccessError", f"cannot write a temporary file: {error.strerror}", mend)
    return _error("DataError", f"cannot be read: {_short(error)}")


def _raise(limit: str) -> str:
    return f"move it away; nothing was loaded. If you trust it, raise `limits: {{{limit}: …}}`"


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:500]


def _error(kind: str, what: str, mend: str = "", where: str = "") -> dict[str, Any]:
    return {"error": {"kind": kind, "what": what, "mend": mend, "where": where}}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

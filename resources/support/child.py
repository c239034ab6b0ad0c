"""A process of its own for what native libraries read out of files that others wrote.

Such a library may fall over bytes that were made for it, or take all memory. In here that is an error about one file,
not the end of a process that serves others. `child_main.py` is the other side.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from databrokkr_assets.core.errors import AccessError, DatabrokkrError, DataError, SpecError, Unavailable
from resources.support.file_settings import Limits

_MAIN = "resources.support.child_main"
_LONGEST_ANSWER = 64 << 20
_KINDS = {kind.__name__: kind for kind in (SpecError, AccessError, DataError, Unavailable)}
_MOVE_IT = "export it again or move it away; nothing was loaded"


class Child:
    """One process for one load, started when it is first asked, ended when the `with` block is left.

    It gets no environment but what Python needs to start, so no secret, and it ends when this process does.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._limits = limits
        self._log = folder / "child.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._rest = b""

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        """End the process; another call would start a new one."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            os.close(self._answers)
            self._process, self._rest = None, b""

    def call(self, function: str, file: str, **arguments: Any) -> Any:
        """What `function` (`module:function`, below `resources.support`) gives for these arguments; all is JSON.

        `file` is the key of the file that is read. Raises what the function raises where it is an error of ours, and
        DataError naming the file when the process dies, or takes more memory or time than it may.
        """
        process = self._process or self._start()
        assert process.stdin
        try:
            process.stdin.write(json.dumps([function, arguments]).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(self._line(file))
        except (BrokenPipeError, EOFError):
            code = process.wait()
            self.__exit__()
            self._refuse_death(code, file)
        except DataError:
            self.__exit__()  # it is still at it
            raise
        if error := answer.get("error"):
            raise _KINDS[error["kind"]](error["what"], mend=error["mend"] or _MOVE_IT, where=error["where"] or file)
        return answer["result"]

    def _start(self) -> subprocess.Popen[bytes]:
        self._answers, its_end = os.pipe()
        bounds = [str(os.getpid()), str(self._limits.memory_mb), str(self._limits.unpacked_mb)]
        try:
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    # -P: no module is ever taken from the folder that it stands in
                    [sys.executable, "-P", "-X", "utf8", "-m", _MAIN, str(its_end), *bounds],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(its_end,),
                    cwd=self._log.parent,
                    env=_environment(self._log.parent),
                )
        finally:
            os.close(its_end)
        return self._process

    def _line(self, file: str) -> bytes:
        """The next line of the answers. Raises EOFError when the process is gone."""
        until = time.monotonic() + self._limits.seconds
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not waiting.select(max(0, until - time.monotonic())):
                    raise self._beyond(file, f"takes longer than {self._limits.seconds} seconds", "seconds")
                piece = os.read(self._answers, 1 << 16)
                if not piece:
                    raise EOFError
                self._rest += piece
                if len(self._rest) > _LONGEST_ANSWER:
                    raise DataError("has too many columns or parts", where=file, mend=_MOVE_IT)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _refuse_death(self, code: int, file: str) -> NoReturn:
        last = self._log.read_bytes()[-2000:].decode("utf-8", "replace").strip()
        if "memory" in last.lower() or "bad_alloc" in last:
            raise self._beyond(file, f"takes more than {self._limits.memory_mb:,} MB of memory", "memory_mb")
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        what = f"cannot be read: the process that reads it died ({how}) {last.splitlines()[-1] if last else ''}"
        raise DataError(what.strip(), where=file, mend=f"it is damaged, or was made to do harm: {_MOVE_IT}")

    def _beyond(self, file: str, what: str, limit: str) -> DatabrokkrError:
        mend = f"move it away; nothing was loaded. If you trust it, raise `limits: {{{limit}: …}}`"
        return DataError(f"{what} to be read", where=file, mend=mend)


def _environment(folder: Path) -> dict[str, str]:
    """What the process needs to find our modules and to stay within its memory, and nothing else of ours."""
    return {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "TMPDIR": str(folder),
        "TZ": "UTC",
        # allocators that reserve much would use up the limit; threads reserve their stacks
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "2",
        "ARROW_IO_THREADS": "2",
    }

"""Diagnostics: lines on stderr, and the log file that is the stderr of a job's worker."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from agent_dispatch.errors import DispatchError

LOG_SUFFIX = ".log"
"""How the name of a worker's log ends, after the id of its job."""


def write_to_stderr(text: str) -> None:
    """Write lines to stderr, unless it is closed or has no reader."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


class JobLog(io.TextIOBase):
    """The stderr of a worker: a private file, which is made with the first write."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        """Write to the descriptor that `open_log` returns."""
        self._open_log = open_log
        self._fd: int | None = None

    def write(self, text: str) -> int:
        """Append `text`; an error is ignored, because there is no other place to report it."""
        with suppress(DispatchError, OSError):
            if self._fd is None:
                self._fd = self._open_log()
            os.write(self._fd, text.encode(errors="backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

"""What is said beside the answers: on stderr, and in the log of a job's worker."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from agent_dispatch.errors import DispatchError

LOG_SUFFIX = ".log"
"""How the name of a worker's log ends, after the id of its job."""


def write_to_stderr(text: str) -> None:
    """Write lines to stderr, if it is open and has a reader."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)


class JobLog(io.TextIOBase):
    """The stderr of a worker: a private file, made with the first word, which is seldom said."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        """Write to what `open_log` opens."""
        self._open_log = open_log
        self._fd: int | None = None

    def write(self, text: str) -> int:
        """Append `text`; if the log cannot be written, there is no other place to say so."""
        with suppress(DispatchError, OSError):
            if self._fd is None:
                self._fd = self._open_log()
            os.write(self._fd, text.encode(errors="backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Close it; all that was said is in the file already."""
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

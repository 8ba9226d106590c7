"""What the worker of a job says on stderr: a private file, made with the first word."""

import contextlib
import io
import os
from collections.abc import Callable

from agent_dispatch.errors import DispatchError


class JobLog(io.TextIOBase):
    """A stderr whose file is made when something is said, which is seldom."""

    def __init__(self, open_log: Callable[[], int]) -> None:
        """Write to what `open_log` opens."""
        self._open_log = open_log
        self._fd: int | None = None

    def write(self, text: str) -> int:
        """Append `text`; where the log cannot be written there is nobody left to tell."""
        with contextlib.suppress(DispatchError, OSError):
            if self._fd is None:
                self._fd = self._open_log()
            os.write(self._fd, text.encode(errors="backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Close it; what was said is there at once."""
        super().close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

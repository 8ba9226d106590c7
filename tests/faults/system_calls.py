"""Lets the n-th system call of any code fail, or kills the process there.

The interpreter calls its profiler before every function written in C, and raises what the profiler
raises. So nothing has to be replaced, and no call is missed.
"""

import os
import signal
import sys
from abc import ABC, abstractmethod
from types import FrameType, TracebackType
from typing import Self

_MODULES = ("posix", "fcntl", "_io")
_CALLS = frozenset(
    {
        *("open", "read", "pread", "write", "ftruncate", "fsync", "flock"),
        *("access", "stat", "lstat", "fstat", "statvfs", "listdir", "scandir", "readlink"),
        *("mkdir", "rmdir", "rename", "replace", "unlink", "symlink"),
        *("chmod", "fchmod", "fchown", "utime"),
    }
)
"""The calls that can fail. close(2) frees the descriptor even if it reports an error, which cannot
be imitated here. A process may still die at it."""


class _SystemCalls(ABC):
    """Counts the system calls of this thread inside its block."""

    def __init__(self, at: int, calls: frozenset[str]) -> None:
        self.calls = 0
        self._at = at
        self._counted = calls

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, call: object) -> None:
        if (
            event == "c_call"
            and getattr(call, "__module__", "") in _MODULES
            and getattr(call, "__name__", "") in self._counted
        ):
            self.calls += 1
            if self.calls == self._at:
                self._strike()

    @abstractmethod
    def _strike(self) -> None: ...


class Failing(_SystemCalls):
    """Makes one system call fail."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__(at, _CALLS)
        self._number = number

    def _strike(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


class Dying(_SystemCalls):
    """Kills the process at one system call, before it is made."""

    def __init__(self, at: int) -> None:
        super().__init__(at, _CALLS | {"close"})

    def _strike(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

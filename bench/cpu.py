"""CPU time of a program and of all that descends from it, the dead included.

`/proc` adds a dead child to its parent only if somebody waited for it, and a short-lived helper
need not be waited for. The kernel's task clock follows every fork and loses nothing.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable

_SYSCALLS = {"x86_64": 298, "aarch64": 241}
"""perf_event_open(2)."""
_TYPE_SOFTWARE, _TASK_CLOCK = 1, 1
_ATTR_SIZE = 64
# Without kernel and hypervisor an ordinary user may ask (perf_event_paranoid 2); a clock is the
# same either way.
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6
_CLOEXEC = 8

_libc = ctypes.CDLL(None, use_errno=True)


class CpuMeter:
    """Counts the CPU time that a process and its descendants use from now on."""

    def __init__(self, pid: int) -> None:
        """Start to count; OSError where this machine does not let us."""
        number = _SYSCALLS.get(platform.machine())
        if platform.system() != "Linux" or number is None:
            raise OSError(errno.ENOSYS, "no task clock on this kind of machine")
        flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV
        head = struct.pack("<IIQQQQQ", _TYPE_SOFTWARE, _ATTR_SIZE, _TASK_CLOCK, 0, 0, 0, flags)
        attributes = ctypes.create_string_buffer(head, _ATTR_SIZE)
        call: Callable[..., int] = _libc.syscall
        self._fd = call(number, attributes, pid, -1, -1, ctypes.c_ulong(_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def seconds(self) -> float:
        """CPU seconds so far."""
        nanoseconds: int = struct.unpack("<Q", os.read(self._fd, 8))[0]
        return nanoseconds / 1e9

    def close(self) -> None:
        """Stop counting."""
        os.close(self._fd)


def why_not_counted() -> str | None:
    """Why CPU time cannot be counted here; None if it can."""
    try:
        CpuMeter(os.getpid()).close()
    except OSError as error:
        return error.strerror
    return None

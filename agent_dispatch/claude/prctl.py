"""Attributes of this process that only Linux has (prctl(2)).

Standard library only, because the guard needs it.
"""

import contextlib
import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)  # Opened once, before any fork.


def _prctl(option: int, value: int) -> bool:
    """Set a process attribute; False where the system has no prctl or refuses."""
    try:
        return bool(_LIBC.prctl(option, value, 0, 0, 0) == 0)
    except AttributeError:
        return False


def set_subreaper(wanted: bool) -> bool:
    """Let orphans below this process become its children, or not; False if unsupported."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def die_with_parent() -> bool:
    """Let the kernel kill this process when its parent ends; False if unsupported."""
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_process_name(name: str) -> None:
    """Name this process for `ps` and `top`, where supported; at most 15 bytes."""
    with contextlib.suppress(AttributeError):
        _LIBC.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)

"""Finds the processes of a run and signals them, but no stranger that reuses one of their ids.

Standard library only, because the guard needs it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

_MARKED_TIMEOUT_S = 5.0
_NAP_S = 0.005
_ANCESTOR_TRIES = 10
_QUIET_SEARCHES = 3
"""How many searches in a row must find no marked process: one search takes as long as a process
that forks and exits every few milliseconds, and may miss it."""


# -- descendants (proc(5), Linux)


def living_descendants(root: int) -> list[int]:
    """Processes below `root` that are not zombies."""
    found: list[int] = []
    todo = [root]
    while todo:
        for pid in _children(todo.pop()):
            todo.append(pid)
            if state_and_parent(pid)[0] not in "ZX":
                found.append(pid)
    return found


def is_below(pid: int, root: int) -> bool:
    """Whether a living process is a descendant of `root`."""
    for _ in range(_ANCESTOR_TRIES):
        ancestor = pid
        while ancestor > 1:
            state, parent = state_and_parent(ancestor)
            if state in "ZX":
                break
            if parent == root:
                return True
            ancestor = parent
        if ancestor == pid or ancestor <= 1:
            return False
        # An ancestor has just ended, so its children have another parent now: try again.
    return False


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children.extend(map(int, file.read().split()))
    except FileNotFoundError:
        # The process is gone, or the kernel was built without CONFIG_PROC_CHILDREN.
        if os.path.exists("/proc/self/task") and not _has_children_files():
            return [p for p in _all_pids() if state_and_parent(p)[1] == pid]
    except (ProcessLookupError, PermissionError):
        pass
    return children


def _has_children_files() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def state_and_parent(pid: int) -> tuple[str, int]:
    """State letter and parent from /proc/PID/stat; ("X", 0) for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0].decode(), int(fields[1])


# -- processes with a marker in their environment


def marked_processes(marker: str) -> Iterable[int]:
    """Living processes whose environment holds `marker`, except this one; the newest first.

    This finds processes that no guard can see any more, for example after the guard was killed. It
    misses a process that cleared its environment.
    """
    if os.path.isdir("/proc/self"):
        newest_first = sorted(_all_pids(), reverse=True)
        return (pid for pid in newest_first if is_marked(pid, marker.encode()))
    import subprocess  # Only where there is no /proc (macOS).

    listing = subprocess.run(
        ["ps", "-axEww", "-o", "pid=,command="], capture_output=True, text=True, check=False
    )
    rows = (line.split(None, 1) for line in listing.stdout.splitlines() if marker in line)
    return [int(row[0]) for row in rows if int(row[0]) != os.getpid()]


def is_marked(pid: int, marker: bytes) -> bool:
    """Whether another living process has `marker` in its environment."""
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            marked = marker in file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return marked and state_and_parent(pid)[0] not in "ZX"


def kill_marked(marker: str) -> int:
    """Kill every process that carries `marker`; return how many there were.

    Waits at most 5 s for a process that may not be signalled or hangs in the kernel.
    """

    def is_ours(pid: int) -> bool:
        return is_marked(pid, marker.encode())

    killed: set[int] = set()
    give_up_at = time.monotonic() + _MARKED_TIMEOUT_S
    searches_left = _QUIET_SEARCHES
    while searches_left and time.monotonic() < give_up_at:
        if stopped := kill_all(lambda: marked_processes(marker), is_ours):
            killed |= stopped
            searches_left = 2 * _QUIET_SEARCHES
        else:
            searches_left -= 1
        time.sleep(_NAP_S)  # Until the kernel has removed them.
    return len(killed)


# -- signals


def kill_all(list_living: Callable[[], Iterable[int]], is_ours: Callable[[int], bool]) -> set[int]:
    """Stop all processes before killing any, so that none can fork in between."""
    stopped: set[int] = set()
    found_more = True
    while found_more:
        found_more = False
        # Each is stopped when it is found; by the end of the search it may have forked and exited.
        for pid in list_living():
            if pid not in stopped:
                signal_each([pid], signal.SIGSTOP, is_ours)
                stopped.add(pid)
                found_more = True
    signal_each(stopped, signal.SIGKILL, is_ours)
    return stopped


def signal_each(pids: Iterable[int], signum: int, is_ours: Callable[[int], bool]) -> None:
    """Signal those of the processes that are still ours."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not _signal_by_pidfd(pid, signum, is_ours):
                os.kill(pid, signum)


def _signal_by_pidfd(pid: int, signum: int, is_ours: Callable[[int], bool]) -> bool:
    """Signal a process of ours, but no stranger that has had its id since we found it.

    Returns:
        False if there is no pidfd: on macOS, an old kernel, or at the limit of open files.

    Raises:
        ProcessLookupError: It is gone.
    """
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return False
    try:
        # While the descriptor is open, the id cannot come to mean another process.
        if is_ours(pid):
            signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        raise
    except OSError:  # A sandbox may allow the one call and refuse the other.
        return False
    finally:
        os.close(pidfd)
    return True

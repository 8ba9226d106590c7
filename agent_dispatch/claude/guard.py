"""The guard: one small process beside each agent, which ends every process of the run.

It has a session of its own and is the subreaper of all that the agent starts, so each orphan below
it becomes its child. When `waitpid` says ECHILD, the tree is proved to be empty. It ends the tree
when its owner asks, when the owner is gone (EOF on the lifeline, also after
SIGKILL), and when the agent has exited and left something behind. Descriptors that were handed to
it, such as the lock of a concurrency slot, stay open until the tree is empty.

Standard library only and one file: the fork server forks it in about a millisecond. Where there is
no fork server it is started as `python -I -S guard.py FDS…`.

The owner writes single bytes to the lifeline (`END_ON_CANCEL` …) and reads lines from the status
pipe, in this order:

    up                   the guard runs
    start PID            the agent's program runs
    fail ERRNO STAGE     instead of `start`: `fork`, `chdir` or `exec` failed
    exit CODE            how the agent ended; negative for a signal
    done COUNT           the tree is empty; COUNT processes were left behind and ended
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

LIFELINE, STATUS = 3, 4
"""Where the two pipes stand among the descriptors of a request."""

END_ON_CANCEL = b"c"
END_ON_DEADLINE = b"d"
END_NOW = b"k"

GRACE_S = {END_ON_CANCEL: 0.6, END_ON_DEADLINE: 0.5, END_NOW: 0.0}
"""Seconds from SIGTERM to SIGKILL. Claude Code 2.1.330 obeys SIGTERM, and ends the commands of its
Bash tool, in about 0.2 s (measured); its own client ends a server 0.45 s after the first signal."""

FAREWELL_S = 2.0
"""How long a child with a farewell may take to pass it on and leave, before SIGTERM."""

SETTLE_S = 0.1
"""How long helpers may take to leave by themselves once the agent has exited."""

LEFTOVER_GRACE_S = 0.2
"""Seconds from SIGTERM to SIGKILL for what the agent left behind."""

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_NAME = 15  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_WATCHED_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_RESET_SIGNALS = (*_WATCHED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGQUIT)
_FIRST_NAP_S = 0.005
_LONGEST_NAP_S = 1.0
_FAREWELL_NAP_S = 0.05
_MARKED_TIMEOUT_S = 5.0
_LINE_TRIES = 10
_QUIET_LOOKS = 3
"""How often nobody must be found by a mark before nobody is there: a process that forks and leaves
every few milliseconds may be missed by one look at all processes, which takes as long."""


_LIBC = ctypes.CDLL(None)  # Opened once, before any fork.


def prctl(option: int, value: int) -> bool:
    """Set a process attribute; False where the system has no prctl or refuses."""
    try:
        return bool(_LIBC.prctl(option, value, 0, 0, 0) == 0)
    except AttributeError:
        return False


def set_subreaper(wanted: bool) -> bool:
    """Have orphans below this process become its children, or not; False where that cannot be."""
    return prctl(_PR_SET_CHILD_SUBREAPER, int(wanted))


def die_with_parent() -> bool:
    """Have the kernel kill this process when its parent ends; False where that cannot be."""
    return prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def set_process_name(name: str) -> None:
    """Name this process for `ps` and `top`, where the system can; at most 15 bytes."""
    with contextlib.suppress(AttributeError):
        _LIBC.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def run(request: Mapping[str, object], fds: Sequence[int]) -> None:
    """Be the guard of one agent; return when its tree is empty.

    A bug of the guard is told on the status pipe and raised.

    Args:
        request: `program`, the JSON of `[argv, cwd, env]`; and `marker`, a word that all of the
            run's processes have in their environment. `"subreaper": false`: do without, as on
            systems that have no prctl(2). `farewell`: what the child reads on its stdin when it is
            told to end other than by `END_NOW`, or when the owner is gone; the sixth descriptor
            writes to that stdin. Such a child leads to another place, and what it starts there
            stays: only the child itself is ended.
        fds: The agent's stdin, stdout and stderr, the lifeline, the status pipe. Whatever follows
            is only kept open. All are closed in the end.
    """
    try:
        _Guard(request, fds).run()
    except Exception as error:
        with contextlib.suppress(OSError):
            os.write(fds[STATUS], f"fail {errno.EIO} fork {error!r}\n".encode())
        raise


class _Guard:
    """This process, as the guard of one agent from the request to the empty tree."""

    def __init__(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        self._request = request
        self._stdio = list(fds[:LIFELINE])
        self._lifeline, self._status = fds[LIFELINE], fds[STATUS]
        wanted = bool(request.get("subreaper", True)) and not request.get("farewell")
        self._subreaper = set_subreaper(wanted) and wanted
        self._leader = 0
        self._exec_told = False
        self._exit_code: int | None = None
        self._kill_at: float | None = None
        self._term_at: float | None = None
        self._farewell = str(request.get("farewell", "")).encode()
        self._farewell_fd = fds[STATUS + 1] if self._farewell else None
        self._forced = False
        with contextlib.suppress(PermissionError):  # Already a session leader.
            os.setsid()
        set_process_name("dispatch-guard")
        self._wake_read, wake_write = os.pipe()
        _watch_signals(self._wake_read, wake_write)
        self._poll = select.poll()
        self._poll.register(self._wake_read, select.POLLIN)

    def run(self) -> None:
        """Run the agent and end its tree."""
        self._tell("up")
        os.set_blocking(self._lifeline, False)
        self._poll.register(self._lifeline, select.POLLIN)
        self._read_lifeline()
        if self._kill_at is not None or not self._start():
            return  # The owner gave up before, or there is no process to run the agent in.
        while self._exit_code is None:
            self._wait(self._until_kill())
            if self._kill_at is not None:
                self._say_farewell()
            if self._term_at is not None and time.monotonic() >= self._term_at:
                self._term_at = None
                self._signal_group(signal.SIGTERM)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_group(signal.SIGKILL)
            self._reap()
        if not self._exec_told:
            self._read_exec()
        exited = f"exit {self._exit_code}"
        if self._farewell or (self._reap() and self._subreaper):
            self._tell(f"{exited}\ndone 0")
        else:
            self._tell(exited)
            self._tell(f"done {self._sweep()}")

    # -- starting

    def _start(self) -> bool:
        """Start the agent's process; False if the system refuses, which is told."""
        try:
            self._leader, self._exec_told_by = self._fork_agent()
        except OSError as error:
            self._tell(f"fail {error.errno} fork")
            return False
        finally:
            for fd in self._stdio:
                os.close(fd)
        self._poll.register(self._exec_told_by, select.POLLIN)
        return True

    def _fork_agent(self) -> tuple[int, int]:
        """Fork it; return its pid and where it tells why its program cannot be executed."""
        told_by, tell = os.pipe()
        guard = os.getpid()
        # Blocked from before the fork until the child has default handlers: none is swallowed.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED_SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            os.close(told_by)
            raise
        finally:
            if os.getpid() == guard:
                os.close(tell)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if pid == 0:
            _become_agent(str(self._request["program"]), self._stdio, tell, guard)
        return pid, told_by

    # -- waiting

    def _wait(self, timeout_s: float | None) -> None:
        for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            if fd == self._lifeline:
                self._read_lifeline()
            elif fd == self._wake_read:
                self._read_signals()
            else:
                self._read_exec()

    def _until_kill(self) -> float | None:
        if self._kill_at is None:
            return None
        if self._farewell_fd is not None:
            return _FAREWELL_NAP_S
        next_at = self._kill_at if self._term_at is None else self._term_at
        return max(next_at - time.monotonic(), _FIRST_NAP_S)

    def _say_farewell(self) -> None:
        """Write the last words and end the child's stdin; tried again if the pipe is full."""
        if self._farewell_fd is None:
            return
        with contextlib.suppress(BrokenPipeError):
            try:
                # The owner shares this setting, and undoes its own when it closes its end.
                os.set_blocking(self._farewell_fd, False)
                # All or nothing: it is shorter than what a pipe takes at once.
                os.write(self._farewell_fd, self._farewell)
            except BlockingIOError:
                return
        os.close(self._farewell_fd)
        self._farewell_fd = None

    def _read_lifeline(self) -> None:
        try:
            orders = os.read(self._lifeline, 64)
        except BlockingIOError:
            return
        if not orders:
            self._poll.unregister(self._lifeline)
            self._end(END_ON_CANCEL)
        for order in orders:
            self._end(bytes([order]))

    def _read_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            signals = os.read(self._wake_read, 4096)
            if set(signals) & {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
                self._end(END_ON_CANCEL)

    def _read_exec(self) -> None:
        """The agent's program runs (EOF: the pipe closes on exec), or its process says why not."""
        failure = os.read(self._exec_told_by, 4096)
        self._poll.unregister(self._exec_told_by)
        os.close(self._exec_told_by)
        self._exec_told = True
        self._tell(failure.decode() if failure else f"start {self._leader}")

    # -- ending

    def _end(self, order: bytes) -> None:
        first = self._kill_at is None
        if order == END_NOW and self._farewell_fd is not None:
            os.close(self._farewell_fd)
            self._farewell_fd = None
        patience_s = FAREWELL_S if self._farewell and order != END_NOW else 0.0
        kill_at = time.monotonic() + patience_s + GRACE_S.get(order, GRACE_S[END_ON_CANCEL])
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)
        self._forced = True
        if first and patience_s:
            self._term_at = time.monotonic() + patience_s
            self._say_farewell()
        elif first and self._leader and self._exit_code is None:
            self._signal_group(signal.SIGTERM)

    def _signal_group(self, signum: int) -> None:
        """Signal the agent's process group; only while its leader is not reaped."""
        try:
            os.killpg(self._leader, signum)
        except ProcessLookupError:  # Not yet a group of its own.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signum)
        except PermissionError:
            pass  # macOS says so of a group whose last member is a zombie.

    def _reap(self) -> bool:
        """Reap the children that have exited; True when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._leader:
                self._exit_code = os.waitstatus_to_exitcode(status)

    def _sweep(self) -> int:
        """End whatever is left of the tree; return how many processes that were."""
        list_living = self._descendants if self._subreaper else self._marked
        is_ours = self._is_descendant if self._subreaper else self._is_marked
        began = time.monotonic()
        left: set[int] = set()
        nap_s = _FIRST_NAP_S
        while True:
            empty = self._reap()
            # Without a subreaper ECHILD says nothing of the grandchildren.
            living = [] if empty and self._subreaper else list_living()
            if empty and not living:
                return len(left)
            waited = time.monotonic() - began
            if self._forced or waited >= SETTLE_S + LEFTOVER_GRACE_S:
                left.update(living)
                left.update(_kill_all(list_living, is_ours))
            elif waited >= SETTLE_S:
                _signal_each(set(living) - left, signal.SIGTERM, is_ours)
                left.update(living)
            self._wait(nap_s)
            # A process that may not be signalled is waited for, not spun on.
            nap_s = min(nap_s * 1.2, _LONGEST_NAP_S)

    def _descendants(self) -> list[int]:
        return living_descendants(os.getpid())

    def _marked(self) -> list[int]:
        # The group first: getpgid() fails once the leader is reaped, its members live on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGKILL)
        return list(marked_processes(str(self._request["marker"])))

    def _is_descendant(self, pid: int) -> bool:
        return _is_below(pid, os.getpid())

    def _is_marked(self, pid: int) -> bool:
        return _is_marked(pid, str(self._request["marker"]).encode())

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._status, line.encode() + b"\n")


def _watch_signals(wake_read: int, wake_write: int) -> None:
    """Let signals wake the poll on `wake_read`."""
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for signum in _WATCHED_SIGNALS:
        signal.signal(signum, _awake)


def _become_agent(program: str, stdio: Sequence[int], tell: int, guard: int) -> NoReturn:
    """Turn this forked process into the agent; tell on `tell` if that fails."""
    stage = "exec"
    try:
        os.setsid()
        if die_with_parent() and os.getppid() != guard:
            os._exit(127)  # The guard died before the signal was bound to it.
        for signum in _RESET_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        argv, cwd, env = json.loads(program)
        # Copies first: a descriptor may itself be 0, 1 or 2.
        for target, fd in enumerate([os.dup(fd) for fd in stdio]):
            os.dup2(fd, target, inheritable=True)
        stage = "chdir"
        os.chdir(cwd)
        stage = "exec"
        os.execve(argv[0], argv, env)
    except OSError as error:
        os.write(tell, f"fail {error.errno} {stage}".encode())
    except Exception as error:
        os.write(tell, f"fail {errno.EINVAL} {stage} {error!r}".encode())
    finally:
        os._exit(127)


def _awake(signum: int, frame: object) -> None:
    """Let the wake-up descriptor do the work."""


def _signal_each(pids: Iterable[int], signum: int, is_ours: Callable[[int], bool]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not _signal_by_pidfd(pid, signum, is_ours):
                os.kill(pid, signum)


def _signal_by_pidfd(pid: int, signum: int, is_ours: Callable[[int], bool]) -> bool:
    """Signal a process of ours, and no stranger that got its number since it was found.

    Returns:
        False where that cannot be had: macOS, an old kernel, no descriptor left.

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
        # Asked with the descriptor open: from here on it means this very process.
        if is_ours(pid):
            signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        raise
    except OSError:  # A sandbox may allow the one call and refuse the other.
        return False
    finally:
        os.close(pidfd)
    return True


def _kill_all(list_living: Callable[[], Iterable[int]], is_ours: Callable[[int], bool]) -> set[int]:
    """Stop everybody before killing anybody, so that nobody forks away between the two."""
    stopped: set[int] = set()
    found_more = True
    while found_more:
        found_more = False
        # Each as soon as it is found: one that forks and leaves is gone when the search ends.
        for pid in list_living():
            if pid not in stopped:
                _signal_each([pid], signal.SIGSTOP, is_ours)
                stopped.add(pid)
                found_more = True
    _signal_each(stopped, signal.SIGKILL, is_ours)
    return stopped


def living_descendants(root: int) -> list[int]:
    """Processes below `root` that are not zombies (proc(5), Linux)."""
    found: list[int] = []
    todo = [root]
    while todo:
        for pid in _children(todo.pop()):
            todo.append(pid)
            if _state_and_parent(pid)[0] not in "ZX":
                found.append(pid)
    return found


def _is_below(pid: int, root: int) -> bool:
    """Whether a living process is a descendant of `root`."""
    for _ in range(_LINE_TRIES):
        above = pid
        while above > 1:
            state, parent = _state_and_parent(above)
            if state in "ZX":
                break
            if parent == root:
                return True
            above = parent
        if above == pid or above <= 1:
            return False
        # One between the two has just gone: who was below it has another parent now.
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
            return [int(p) for p in _proc_pids() if _state_and_parent(int(p))[1] == pid]
    except (ProcessLookupError, PermissionError):
        pass
    return children


def _has_children_files() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def _proc_pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _state_and_parent(pid: int) -> tuple[str, int]:
    """State letter and parent from /proc/PID/stat; ("X", 0) for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0].decode(), int(fields[1])


def marked_processes(marker: str) -> Iterable[int]:
    """Living processes whose environment holds `marker`, this one excepted; the newest first.

    The net below the subreaper: it finds what ran away with its environment, also after the guard
    itself was killed. It misses a process that cleared its environment.
    """
    if os.path.isdir("/proc/self"):
        newest_first = sorted(map(int, _proc_pids()), reverse=True)
        return (pid for pid in newest_first if _is_marked(pid, marker.encode()))
    import subprocess  # Only where there is no /proc (macOS).

    listing = subprocess.run(
        ["ps", "-axEww", "-o", "pid=,command="], capture_output=True, text=True, check=False
    )
    rows = (line.split(None, 1) for line in listing.stdout.splitlines() if marker in line)
    return [int(row[0]) for row in rows if int(row[0]) != os.getpid()]


def _is_marked(pid: int, marker: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            marked = marker in file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return marked and _state_and_parent(pid)[0] not in "ZX"


def kill_marked(marker: str) -> int:
    """End whatever still carries `marker`; return how many processes that were.

    One that may not be signalled, or is stuck in the kernel, is waited for, but not for ever.
    """

    def is_ours(pid: int) -> bool:
        return _is_marked(pid, marker.encode())

    killed: set[int] = set()
    give_up_at = time.monotonic() + _MARKED_TIMEOUT_S
    looks_left = _QUIET_LOOKS
    while looks_left and time.monotonic() < give_up_at:
        if stopped := _kill_all(lambda: marked_processes(marker), is_ours):
            killed |= stopped
            looks_left = 2 * _QUIET_LOOKS
        else:
            looks_left -= 1
        time.sleep(_FIRST_NAP_S)  # Until the kernel has taken them away.
    return len(killed)


def main(argv: Sequence[str]) -> None:
    """The slow way in: descriptors by number, the request as JSON on stdin."""
    request = json.load(sys.stdin)
    if (soft := request.get("open_files")) is not None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if os.fork():  # Nobody's child: nobody has to wait for it.
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    fds = [int(word) for word in argv]
    for fd in fds:
        os.set_inheritable(fd, False)
    run(request, fds)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The guard: one small process beside each agent, which ends every process of the run.

It has a session of its own and is the subreaper of everything that the agent starts, so each orphan
below it becomes its child, and ECHILD from `waitpid` proves that the tree is empty. It ends the
tree when its owner asks, when the owner is gone (EOF on the lifeline, also after SIGKILL), and when
the agent has exited and left processes behind. Descriptors that were handed to it, such as the lock
of a concurrency slot, stay open until the tree is empty.

Standard library only, so that the fork server can fork it in about a millisecond. Where there is no
fork server, a new Python runs `main`.

The owner writes single bytes to the lifeline (`END_ON_CANCEL` …) and reads lines from the status
pipe, in this order:

    up                   the guard runs
    start PID            the agent's program runs
    fail ERRNO STAGE …   instead of `start`: `fork`, `chdir` or `exec` failed; more may follow
    exit CODE            how the agent ended; negative for a signal
    done COUNT           the tree is empty; COUNT processes were left behind and have been ended
"""

import contextlib
import errno
import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

from agent_dispatch.claude import slow_start
from agent_dispatch.claude.prctl import die_with_parent, set_process_name, set_subreaper
from agent_dispatch.claude.process_tree import (
    is_below,
    is_marked,
    kill_all,
    living_descendants,
    marked_processes,
    signal_each,
)

LIFELINE, STATUS = 3, 4
"""Where the two pipes stand among the descriptors of a request."""

END_ON_CANCEL = b"c"
END_ON_DEADLINE = b"d"
END_NOW = b"k"

GRACE_S = {END_ON_CANCEL: 0.6, END_ON_DEADLINE: 0.5, END_NOW: 0.0}
"""Seconds from SIGTERM to SIGKILL. Claude Code 2.1.330 obeys SIGTERM, and ends the commands of its
Bash tool, in about 0.2 s (measured); its own client ends a server 0.45 s after the first signal."""

FAREWELL_S = 2.0
"""How long a child with a farewell may take to pass it on and exit, before SIGTERM."""

SETTLE_S = 0.1
"""How long helpers may take to exit by themselves once the agent has exited."""

LEFTOVER_GRACE_S = 0.2
"""Seconds from SIGTERM to SIGKILL for what the agent left behind."""

_WATCHED_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_RESET_SIGNALS = (*_WATCHED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGQUIT)
_FIRST_NAP_S = 0.005
_LONGEST_NAP_S = 1.0
_FAREWELL_NAP_S = 0.05


def run(request: Mapping[str, object], fds: Sequence[int]) -> None:
    """Be the guard of one agent; return when its tree is empty.

    A bug of the guard is reported on the status pipe and raised.

    Args:
        request: `program` is the JSON of `[argv, cwd, env]`. `marker` is a word that all processes
            of the run have in their environment. `"subreaper": false` makes the guard work as on a
            system without prctl(2). `farewell`, if given, is written to the child's stdin before
            the child is ended, except on `END_NOW`; the sixth descriptor writes to that stdin. A
            child with a farewell runs something on another machine: only the child itself is ended,
            and what it starts is left alone.
        fds: The agent's stdin, stdout and stderr, the lifeline, the status pipe. Further ones are
            only kept open. All are closed in the end.
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
        self._exec_reported = False
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
        self._report("up")
        os.set_blocking(self._lifeline, False)
        self._poll.register(self._lifeline, select.POLLIN)
        self._read_lifeline()
        if self._kill_at is not None or not self._start():
            return  # The owner gave up first, or no process could be forked.
        while self._exit_code is None:
            self._wait(self._poll_timeout_s())
            if self._kill_at is not None:
                self._say_farewell()
            if self._term_at is not None and time.monotonic() >= self._term_at:
                self._term_at = None
                self._signal_group(signal.SIGTERM)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._signal_group(signal.SIGKILL)
            self._reap()
        if not self._exec_reported:
            self._read_exec()
        exited = f"exit {self._exit_code}"
        if self._farewell or (self._reap() and self._subreaper):
            self._report(f"{exited}\ndone 0")
        else:
            self._report(exited)
            self._report(f"done {self._sweep()}")

    # -- starting

    def _start(self) -> bool:
        """Start the agent's process; False if the system refuses, which is reported."""
        try:
            self._leader, self._exec_failure = self._fork_agent()
        except OSError as error:
            self._report(f"fail {error.errno} fork")
            return False
        finally:
            for fd in self._stdio:
                os.close(fd)
        self._poll.register(self._exec_failure, select.POLLIN)
        return True

    def _fork_agent(self) -> tuple[int, int]:
        """Fork it; return its pid, and a pipe that says why its program cannot be executed."""
        failure_read, failure_write = os.pipe()
        guard = os.getpid()
        # Blocked from before the fork until the child has default handlers, so that none is lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED_SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            os.close(failure_read)
            raise
        finally:
            if os.getpid() == guard:
                os.close(failure_write)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if pid == 0:
            _become_agent(str(self._request["program"]), self._stdio, failure_write, guard)
        return pid, failure_read

    # -- waiting

    def _wait(self, timeout_s: float | None) -> None:
        for fd, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            if fd == self._lifeline:
                self._read_lifeline()
            elif fd == self._wake_read:
                self._read_signals()
            else:
                self._read_exec()

    def _poll_timeout_s(self) -> float | None:
        if self._kill_at is None:
            return None
        if self._farewell_fd is not None:
            return _FAREWELL_NAP_S
        next_at = self._kill_at if self._term_at is None else self._term_at
        return max(next_at - time.monotonic(), _FIRST_NAP_S)

    def _say_farewell(self) -> None:
        """Write the farewell and close the child's stdin; tried again if the pipe is full."""
        if self._farewell_fd is None:
            return
        with contextlib.suppress(BrokenPipeError):
            try:
                # This flag is shared with the owner, whose stream resets it when it is closed.
                os.set_blocking(self._farewell_fd, False)
                # All or nothing: it is shorter than PIPE_BUF.
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
        """Report that the agent's program runs (exec closes the pipe) or why it does not."""
        failure = os.read(self._exec_failure, 4096)
        self._poll.unregister(self._exec_failure)
        os.close(self._exec_failure)
        self._exec_reported = True
        self._report(failure.decode() if failure else f"start {self._leader}")

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
            pass  # macOS raises this for a group whose last member is a zombie.

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
        """End the processes that are left of the tree; return how many there were."""
        list_living = self._descendants if self._subreaper else self._marked
        is_ours = self._is_descendant if self._subreaper else self._is_marked
        began = time.monotonic()
        left: set[int] = set()
        nap_s = _FIRST_NAP_S
        while True:
            empty = self._reap()
            # Without a subreaper, ECHILD says nothing about grandchildren.
            living = [] if empty and self._subreaper else list_living()
            if empty and not living:
                return len(left)
            waited = time.monotonic() - began
            if self._forced or waited >= SETTLE_S + LEFTOVER_GRACE_S:
                left.update(living)
                left.update(kill_all(list_living, is_ours))
            elif waited >= SETTLE_S:
                signal_each(set(living) - left, signal.SIGTERM, is_ours)
                left.update(living)
            self._wait(nap_s)
            # Pause longer and longer for a process that may not be signalled.
            nap_s = min(nap_s * 1.2, _LONGEST_NAP_S)

    def _descendants(self) -> list[int]:
        return living_descendants(os.getpid())

    def _marked(self) -> list[int]:
        # The group first: getpgid() fails once the leader is reaped, but its members live on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGKILL)
        return list(marked_processes(str(self._request["marker"])))

    def _is_descendant(self, pid: int) -> bool:
        return is_below(pid, os.getpid())

    def _is_marked(self, pid: int) -> bool:
        return is_marked(pid, str(self._request["marker"]).encode())

    def _report(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._status, line.encode() + b"\n")


def _watch_signals(wake_read: int, wake_write: int) -> None:
    """Let signals wake the poll on `wake_read`."""
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for signum in _WATCHED_SIGNALS:
        signal.signal(signum, _awake)


def _become_agent(program: str, stdio: Sequence[int], failure_write: int, guard: int) -> NoReturn:
    """Turn this forked process into the agent; if that fails, say why on `failure_write`."""
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
        os.write(failure_write, f"fail {error.errno} {stage}".encode())
    except Exception as error:
        os.write(failure_write, f"fail {errno.EINVAL} {stage} {error!r}".encode())
    finally:
        os._exit(127)


def _awake(signum: int, frame: object) -> None:
    """Do nothing: the wake-up descriptor gets the signal."""


def main(argv: Sequence[str]) -> None:
    """Start without a fork server."""
    slow_start.start(run, argv)

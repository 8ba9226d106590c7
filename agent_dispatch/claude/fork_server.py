"""The fork server: a small process, forked early, that forks guards and workers on request.

Starting Python for each guard would cost more than everything else that a dispatch does. Forking a
small process that has imported its modules already takes about a millisecond. So an owner of runs
first forks one fork server, while it has one thread, no event loop and few modules. This module and
the guard need the standard library only, because a fork copies the page tables of all imports.

The fork server has a session of its own, ignores the signals that end its owner, holds none of the
owner's descriptors, and ends when the owner's end of its socket is closed. Each request
(`claude.frames`) names the kind of process to fork. That process carries out one request and exits.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from agent_dispatch.claude import frames, guard
from agent_dispatch.claude.open_files import soft_limit
from agent_dispatch.claude.prctl import die_with_parent, set_process_name, set_subreaper
from agent_dispatch.claude.process_tree import state_and_parent

Entry = Callable[[Mapping[str, object], Sequence[int]], object]
"""Carries out a request in a forked process, which then exits.

The descriptors belong to that process.
"""

KIND = "kind"
"""The key of a request that holds its kind."""

GUARD, WORKER = "guard", "worker"
"""The kinds of requests."""

UP = b"up"
"""A worker writes this once it has its job's descriptors."""

GO = b"go"
"""The submitter's answer: the job belongs to the worker from now on."""

ONLY_GUARDS: Mapping[str, Entry] = {GUARD: guard.run}


class ForkServer:
    """The owner's handle. When it is closed, the server ends; its children go on."""

    def __init__(
        self, sock: socket.socket | None, pid: int | None = None, pidfd: int | None = None
    ) -> None:
        """Take the server's socket and pidfd, which are closed with this handle.

        Args:
            sock: The owner's end, non-blocking; None if there is no server.
            pid: The server's process.
            pidfd: From pidfd_open(2); None if the system has none.
        """
        self.sock = sock
        self._pid = pid
        self._pidfd = pidfd
        self.open_files = soft_limit()
        """The soft limit of open files of forked processes; the owner may raise its own later."""

    def close(self) -> None:
        """Let the server end. Safe to call twice."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def is_running(self) -> bool:
        """Whether it runs or waits for a processor, by /proc: not stopped, not ended."""
        return self._pid is not None and state_and_parent(self._pid)[0] in "RDS"

    def give_up(self) -> None:
        """Kill a server that does not answer, even a stopped one; its children go on.

        The kernel then closes the descriptors of requests that it has not read, and so frees their
        locks. Safe to call twice.
        """
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.close()


def start_fork_server(entries: Mapping[str, Entry] = ONLY_GUARDS) -> ForkServer:
    """Fork a fork server. To be called before any thread and before `trio.run`.

    Args:
        entries: What a forked process runs, by the kind of its request.

    Returns:
        The handle; one without a socket if the system refuses to fork.

    Raises:
        RuntimeError: This process has several threads; a fork would copy their locks.
    """
    if threading.active_count() > 1:
        raise RuntimeError("start_fork_server() must come before the first thread")
    # A program that executed us may have set it; we reap only our own children.
    set_subreaper(False)
    ours, theirs = socket.socketpair()
    # Objects that exist now are never collected, so forked processes keep sharing their pages.
    gc.collect()
    gc.freeze()
    owner_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        return ForkServer(None)
    if pid == 0:
        _be_fork_server(theirs, entries, owner_pid)
    theirs.close()
    ours.setblocking(False)
    return ForkServer(ours, pid, _pidfd_of(pid))


def _pidfd_of(pid: int) -> int | None:
    """Open a descriptor that always means this child; None if the system has none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # An old kernel, or the limit of open files.
        return None


def _be_fork_server(owner: socket.socket, entries: Mapping[str, Entry], owner_pid: int) -> NoReturn:
    try:
        # A stopped server does not read EOF when its owner ends, and would keep the locks of
        # requests that it has not read.
        if die_with_parent() and os.getppid() != owner_pid:
            os._exit(0)
        os.setsid()
        set_process_name("dispatch-fork")
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        # The kernel reaps forked processes; guards and workers report to their owners themselves.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _drop_descriptors(owner.fileno())
        # A collection would write to shared pages, and so copy them.
        gc.disable()
        _serve(owner, entries)
    finally:
        os._exit(0)


def _serve(owner: socket.socket, entries: Mapping[str, Entry]) -> None:
    while (frame := frames.receive(owner)) is not None:
        payload, fds = frame
        try:
            pid = os.fork()
        except OSError:
            # The owner finds out by EOF on the request's descriptors.
            pid = None
        if pid == 0:
            owner.close()
            _carry_out(payload, fds, entries)
        for fd in fds:
            os.close(fd)


def _carry_out(payload: bytes, fds: Sequence[int], entries: Mapping[str, Entry]) -> NoReturn:
    status = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        # None if descriptors were lost at the limit of open files; the owner finds out by EOF.
        if (request := frames.decode(payload, fds)) is not None:
            entries[str(request[KIND])](request, fds)
            status = 0
    finally:
        os._exit(status)


def _drop_descriptors(kept: int) -> None:
    """Close all descriptors but `kept`; 0, 1 and 2 become the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))

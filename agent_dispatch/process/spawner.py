"""The spawner: a process forked before anything else, which forks guards and keeps them at work.

Starting Python for each guard would cost more than everything else a dispatch does; a fork of a
small process that has the modules already costs about a millisecond. So an owner forks one
spawner first of all, while it has a single thread, no loop and few modules: this module and the
guard need the standard library only, because a fork of a process that has imported Trio takes
twice as long. The spawner is a session of its own, ignores the signals that end its owner, holds
none of the owner's descriptors, and ends when the owner's end of its socket is closed. What it
forked ends when its work is done.

The spawner passes a request (`process.frames`) on to one of its idle processes, which says when
it is idle again: a guard whose tree is empty serves the next run. One idle process is always
made ahead, so that the fork, the larger part of a guard's start, is over when a request comes.

An owner that has one run at a time, such as a worker, needs one process for itself alone. It may
ask, by a door of their own for those whom the owner forks, for one to be lent (`lend_one`), which
is back among the others when the borrower is gone; or fork one, where that has become larger
(`start_one`).
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from agent_dispatch.process import frames, guard
from agent_dispatch.process.open_files import raise_soft_limit, set_soft_limit, soft_limit

Entry = Callable[[Mapping[str, object], Sequence[int]], None]
"""Carries out a request with its descriptors, which are its own to close, in a forked process."""

Prepare = Callable[[], Entry]

_IDLE = b"i"
_LENT = "lent"
"""In a request: its descriptor is a socket from which the next requests come, until it ends."""
_AHEAD_S = 0.02
"""How long after a request the next process is made ahead: the request's own start comes first."""
_TRIM_S = 5.0
"""How long the processes of a burst wait for another one before all but one of them leave."""


class Spawner:
    """The owner's handle; closing it, or dying, ends the spawner and nothing that is at work."""

    def __init__(
        self,
        sock: socket.socket | None,
        side_door: socket.socket | None = None,
        pidfd: int | None = None,
    ) -> None:
        """Wrap the owner's end, non-blocking; None: there is no spawner to ask.

        Args:
            sock: The owner's end.
            side_door: The same for `lend_one`, in processes that the owner forks.
            pidfd: The spawner's (pidfd_open(2)), ours to close; None where there is none.
        """
        self.sock = sock
        self.side_door = side_door
        self._pidfd = pidfd
        self.open_files = soft_limit()
        """The soft limit of open files for what is started; the owner may raise its own now."""

    def sent(self) -> None:
        """Take note that a request is on its way."""

    def close(self) -> None:
        """Let the spawner end. May be called twice."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        if self.side_door is not None:
            self.side_door.close()
            self.side_door = None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def give_up(self) -> None:
        """End a spawner that does not answer, a stopped one too; nothing that is at work ends.

        The descriptors of requests that it has not read are closed with it, and the locks behind
        them are free. May be called twice.
        """
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.close()


class OnlyProcess(Spawner):
    """The same for a process that carries out one request at a time, with no spawner in between.

    While it is busy there is no spawner to ask.
    """

    def __init__(self, sock: socket.socket | None) -> None:
        super().__init__(sock)
        self._busy: socket.socket | None = None

    def sent(self) -> None:
        """Ask it no more before it is idle again."""
        self._busy, self.sock = self.sock, None

    def close(self) -> None:
        """Let it end when it is idle. May be called twice."""
        super().close()
        if self._busy is not None:
            self._busy.close()
            self._busy = None

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until it can be asked again; False if it is gone or takes longer."""
        if self._busy is None:
            return self.sock is not None
        self._busy.settimeout(timeout_s)
        try:
            is_idle = self._busy.recv(1) == _IDLE
        except OSError:
            is_idle = False
        self._busy.setblocking(False)
        if is_idle:
            self.sock, self._busy = self._busy, None
        return is_idle


def start_spawner(prepare: Prepare = guard.prepare, *, lender: Spawner | None = None) -> Spawner:
    """Fork a spawner; call it before any thread, before `trio.run`, best before `import trio`.

    Args:
        prepare: Called in each forked process before there is a request for it; returns what
            carries out requests, one after the other.
        lender: Whose side door is to stay open in what is forked.

    Returns:
        The handle. Where forking is refused, one that goes the slow way.

    Raises:
        RuntimeError: This process has threads already; a fork would copy their locks.
    """
    # A wrapper that became us may have left it on; we reap our own children only.
    guard.set_subreaper(False)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    kept = [theirs.fileno()]
    if lender is not None and lender.side_door is not None:
        kept.append(lender.side_door.fileno())
    sock, pid = _start(lambda owner: _be_spawner(owner, theirs, prepare, kept))
    theirs.close()
    return Spawner(sock, ours, None if pid is None else _pidfd_of(pid))


def start_one(prepare: Prepare = guard.prepare) -> OnlyProcess:
    """Fork a process that carries out one request after the other; as `start_spawner` else."""
    sock, _ = _start(lambda sock: _be_only_process(sock, prepare))
    return OnlyProcess(sock)


def lend_one(lender: Spawner) -> OnlyProcess:
    """Have a process of `lender` to ourselves, for as long as the handle is open or we live.

    For a process that was forked with the side door open, which is closed behind it: a process of
    its own is all that it may have.

    Returns:
        The handle; one that goes the slow way if there is none to be had.
    """
    if lender.side_door is None:
        return OnlyProcess(None)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, lender.side_door as door:
        lender.side_door = None
        try:
            # Small, so it goes whole or not at all, whoever else is at the door.
            frames.encode({_LENT: True}, [theirs.fileno()]).send_some(door)
        except OSError:
            ours.close()
            return OnlyProcess(None)
    return OnlyProcess(ours)


def _start(
    be: Callable[[socket.socket], NoReturn],
) -> tuple[socket.socket | None, int | None]:
    if threading.active_count() > 1:
        raise RuntimeError("start_spawner() must come before the first thread")
    ours, theirs = socket.socketpair()
    # What exists now is never collected, so forks go on sharing its pages.
    gc.collect()
    gc.freeze()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        return None, None
    if pid == 0:
        be(theirs)
    theirs.close()
    ours.setblocking(False)
    return ours, pid


def _pidfd_of(pid: int) -> int | None:
    """A handle on a child of ours that never means another process; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # An old kernel, or the limit of open files.
        return None


def _be_spawner(
    owner: socket.socket, side_door: socket.socket, prepare: Prepare, kept: Sequence[int]
) -> NoReturn:
    try:
        os.setsid()
        guard.set_process_name("dispatch-spawn")
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        # The kernel reaps what is forked here; the guards tell their owners how it went. So it
        # does with what the forked leave behind: the process above us may reap nobody.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        guard.set_subreaper(True)
        _drop_descriptors(owner.fileno(), *kept)
        # A collection would touch, and so copy, pages that are shared until then.
        gc.disable()
        # Each process at work takes one; they themselves get what we were started with.
        open_files = soft_limit()
        raise_soft_limit()

        def prepare_limited() -> Entry:
            set_soft_limit(open_files)
            return prepare()

        _Pool(owner, side_door, prepare_limited).run()
    finally:
        os._exit(0)


def _be_only_process(owner: socket.socket, prepare: Prepare) -> NoReturn:
    try:
        _drop_descriptors(owner.fileno())
        gc.disable()
        _be_process(owner, prepare)
    finally:
        os._exit(1)


class _Pool:
    """The forked processes: idle ones, each at the other end of a socket, and busy ones."""

    def __init__(self, owner: socket.socket, side_door: socket.socket, prepare: Prepare) -> None:
        self._owner = owner
        self._doors = {sock.fileno(): sock for sock in (owner, side_door)}
        self._prepare = prepare
        self._idle: list[socket.socket] = []
        self._busy: dict[int, socket.socket] = {}
        self._may_make_ahead = True
        self._poll = select.poll()
        for fd in self._doors:
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Serve the owner until it is gone."""
        self._keep_house()
        quiet_since = time.monotonic()
        while self._owner.fileno() in self._doors:
            timeout_s = self._until_housekeeping(time.monotonic() - quiet_since)
            ready = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                self._keep_house()
            fds = {fd for fd, _ in ready}
            # The processes first: a request is not to meet one that died, nor to take over the
            # number of its socket while that is still to be heard.
            for fd in fds - self._doors.keys():
                self._hear(fd)
            for fd in fds & self._doors.keys():
                frame = frames.receive(self._doors[fd])
                if frame is None:
                    self._drop(self._doors.pop(fd))
                    continue
                self._pass_on(*frame)
                quiet_since = time.monotonic()
                self._may_make_ahead = True

    def _until_housekeeping(self, quiet_s: float) -> float | None:
        if not self._idle:
            return max(_AHEAD_S - quiet_s, 0) if self._may_make_ahead else None
        return max(_TRIM_S - quiet_s, 0) if len(self._idle) > 1 else None

    def _keep_house(self) -> None:
        # Once per request: what made one fail or die would do the same to the next.
        if not self._idle and self._may_make_ahead and (sock := self._fork()) is not None:
            self._idle.append(sock)
        self._may_make_ahead = False
        while len(self._idle) > 1:
            # What has served last is the readiest: it stays, and gets the next request.
            self._drop(self._idle.pop(0))

    def _pass_on(self, payload: bytes, fds: list[int]) -> None:
        """Give a request to an idle process, or to a new one; refuse it if there is none.

        Refused, and lost on the way to a process that died, is the same to the owner: EOF on
        the descriptors that it waits for.
        """
        while self._idle:
            if self._give(self._idle.pop(), payload, fds):
                break
        else:
            if (sock := self._fork(fds)) is not None:
                self._give(sock, payload, fds)
        for fd in fds:
            os.close(fd)

    def _give(self, sock: socket.socket, payload: bytes, fds: list[int]) -> bool:
        frame = frames.Frame(payload, fds)
        try:
            while not frame.send_some(sock):
                pass
        except OSError:
            self._drop(sock)
            return False
        self._busy[sock.fileno()] = sock
        return True

    def _hear(self, fd: int) -> None:
        """A process is idle again, or gone."""
        sock = self._busy.pop(fd, None) or next(s for s in self._idle if s.fileno() == fd)
        if sock in self._idle:
            self._idle.remove(sock)
        try:
            alive = sock.recv(1) == _IDLE
        except OSError:
            alive = False
        if alive:
            self._idle.append(sock)
        else:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._poll.unregister(sock)
        sock.close()

    def _fork(self, passing: Sequence[int] = ()) -> socket.socket | None:
        try:
            ours, theirs = socket.socketpair()
        except OSError:  # The limit of open files: the next one may find room again.
            return None
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return None
        if pid == 0:
            # Or an agent's process could ask for unguarded ones, and the others never see EOF.
            for sock in (ours, *self._doors.values(), *self._idle, *self._busy.values()):
                sock.close()
            # They come with the request; a copy would outlast it, and keep its job owned.
            for fd in passing:
                os.close(fd)
            _be_process(theirs, self._prepare)
        theirs.close()
        self._poll.register(ours, select.POLLIN)
        return ours


def _be_process(sock: socket.socket, prepare: Prepare) -> NoReturn:
    status = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        _serve(sock, prepare())
        status = 0
    finally:
        os._exit(status)


def _serve(sock: socket.socket, carry_out: Entry) -> None:
    while (frame := frames.receive(sock)) is not None:
        payload, fds = frame
        request = frames.decode(payload, fds)
        if request is None:
            for fd in fds:
                os.close(fd)
        elif _LENT in request:
            # Whichever way the borrower goes: we are back then.
            gone = contextlib.suppress(ConnectionResetError, EOFError)
            with socket.socket(fileno=fds[0]) as borrower, gone:
                _serve(borrower, carry_out)
        else:
            carry_out(request, fds)
        if not _tell_idle(sock):
            break


def _tell_idle(sock: socket.socket) -> bool:
    try:
        sock.sendall(_IDLE)
    except OSError:
        return False  # The spawner, or the only owner, has ended; so do we.
    return True


def _drop_descriptors(*kept: int) -> None:
    """Close all descriptors but `kept`, and point 0, 1 and 2 at the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    first = 3
    for fd in sorted(kept):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))

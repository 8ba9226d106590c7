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

An owner that has one run at a time, such as a worker, does without a spawner in between: it forks
one process that does the same for it alone (`start_one`).
"""

import gc
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from agent_dispatch.process import frames, guard

Entry = Callable[[Mapping[str, object], Sequence[int]], None]
"""Carries out a request with its descriptors, which are its own to close, in a forked process."""

Prepare = Callable[[], Entry]

_IDLE = b"i"
_AHEAD_S = 0.02
"""How long after a request the next process is made ahead: the request's own start comes first."""
_TRIM_S = 5.0
"""How long the processes of a burst wait for another one before all but one of them leave."""


class Spawner:
    """The owner's handle; closing it, or dying, ends the spawner and nothing that is at work."""

    def __init__(self, sock: socket.socket | None) -> None:
        """Wrap the owner's end, non-blocking; None: there is no spawner to ask."""
        self.sock = sock

    def sent(self) -> None:
        """Take note that a request is on its way."""

    def close(self) -> None:
        """Let the spawner end. May be called twice."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


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


def start_spawner(prepare: Prepare = guard.prepare) -> Spawner:
    """Fork a spawner; call it before any thread, before `trio.run`, best before `import trio`.

    Args:
        prepare: Called in each forked process before there is a request for it; returns what
            carries out requests, one after the other.

    Returns:
        The handle. Where forking is refused, one that goes the slow way.

    Raises:
        RuntimeError: This process has threads already; a fork would copy their locks.
    """
    return Spawner(_start(lambda sock: _be_spawner(sock, prepare)))


def start_one(prepare: Prepare = guard.prepare) -> OnlyProcess:
    """Fork a process that carries out one request after the other; as `start_spawner` else."""
    return OnlyProcess(_start(lambda sock: _be_only_process(sock, prepare)))


def _start(be: Callable[[socket.socket], NoReturn]) -> socket.socket | None:
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
        return None
    if pid == 0:
        be(theirs)
    theirs.close()
    ours.setblocking(False)
    return ours


def _be_spawner(owner: socket.socket, prepare: Prepare) -> NoReturn:
    try:
        os.setsid()
        guard.set_process_name("dispatch-spawn")
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        # The kernel reaps what is forked here; the guards tell their owners how it went.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _drop_descriptors(keep=owner.fileno())
        # A collection would touch, and so copy, pages that are shared until then.
        gc.disable()
        _Pool(owner, prepare).run()
    finally:
        os._exit(0)


def _be_only_process(owner: socket.socket, prepare: Prepare) -> NoReturn:
    try:
        _drop_descriptors(keep=owner.fileno())
        gc.disable()
        _be_process(owner, prepare)
    finally:
        os._exit(1)


class _Pool:
    """The forked processes: idle ones, each at the other end of a socket, and busy ones."""

    def __init__(self, owner: socket.socket, prepare: Prepare) -> None:
        self._owner = owner
        self._prepare = prepare
        self._idle: list[socket.socket] = []
        self._busy: dict[int, socket.socket] = {}
        self._may_make_ahead = True
        self._poll = select.poll()
        self._poll.register(owner, select.POLLIN)

    def run(self) -> None:
        """Serve the owner until it is gone."""
        self._keep_house()
        quiet_since = time.monotonic()
        while True:
            timeout_s = self._until_housekeeping(time.monotonic() - quiet_since)
            ready = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
            if not ready:
                self._keep_house()
            fds = {fd for fd, _ in ready}
            # The processes first: a request is not to meet one that died, nor to take over the
            # number of its socket while that is still to be heard.
            for fd in fds - {self._owner.fileno()}:
                self._hear(fd)
            if self._owner.fileno() in fds:
                frame = frames.receive(self._owner)
                if frame is None:
                    return
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
            if (sock := self._fork()) is not None:
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

    def _fork(self) -> socket.socket | None:
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
            for sock in (ours, self._owner, *self._idle, *self._busy.values()):
                sock.close()
            _be_process(theirs, self._prepare)
        theirs.close()
        self._poll.register(ours, select.POLLIN)
        return ours


def _be_process(sock: socket.socket, prepare: Prepare) -> NoReturn:
    status = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        carry_out = prepare()
        while (frame := frames.receive(sock)) is not None:
            payload, fds = frame
            request = frames.decode(payload, fds)
            if request is None:
                for fd in fds:
                    os.close(fd)
            else:
                carry_out(request, fds)
            if not _tell_idle(sock):
                break
        status = 0
    finally:
        os._exit(status)


def _tell_idle(sock: socket.socket) -> bool:
    try:
        sock.sendall(_IDLE)
    except OSError:
        return False  # The spawner, or the only owner, has ended; so do we.
    return True


def _drop_descriptors(keep: int) -> None:
    """Close all descriptors but `keep`, and point 0, 1 and 2 at the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))

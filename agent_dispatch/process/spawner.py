"""The spawner: a process forked before anything else, which forks guards on request.

Starting Python for each guard would cost more than everything else a dispatch does; a fork of a
small process that has the modules already costs about a millisecond. So an owner forks one
spawner first of all, while it has a single thread, no loop and few modules: this module and the
guard need the standard library only, because a fork of a process that has imported Trio takes
twice as long. The spawner is a session of its own, ignores the signals that end its owner, holds
none of the owner's descriptors, and ends when the owner's end of its socket is closed. What it
forked lives on. One forked process always waits for the next request, so that the fork itself,
the larger part of a guard's start, is over when the request comes.

A request is a frame on a stream socket: a length, JSON, and the descriptors as SCM_RIGHTS with
the first byte (unix(7)). `process.launcher` sends it.
"""

import gc
import json
import math
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

from agent_dispatch.process import guard

Entry = Callable[[Mapping[str, object], Sequence[int], Callable[[], None]], None]
"""Runs a request with its descriptors, in a process of its own; calls back once it is under way."""

Prepare = Callable[[], Entry]

_HEADER = struct.Struct("!I")
_FD = struct.Struct("i")
_MAX_FDS = 32
_TAKEN, _REFUSED, _OWNER_GONE = b"t", b"r", b"e"
_MAX_DEATHS = 2
"""How many of its processes in a row may come to nothing before a request is refused instead."""


class Spawner:
    """The owner's handle; closing it, or dying, ends the spawner and nothing that it forked."""

    def __init__(self, sock: socket.socket | None) -> None:
        """Wrap the owner's end, non-blocking; None: there is no spawner to ask."""
        self.sock = sock

    def close(self) -> None:
        """Let the spawner end. May be called twice."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Frame:
    """One request on its way, in as many pieces as the socket takes."""

    def __init__(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Encode a request; `fds` stay the caller's to close."""
        payload = json.dumps({**request, "fds": len(fds)}).encode()
        self._left = memoryview(_HEADER.pack(len(payload)) + payload)
        rights = struct.pack(f"{len(fds)}i", *fds)
        self._rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]

    def send_some(self, sock: socket.socket) -> bool:
        """Send what fits; True when all is sent.

        Raises:
            BlockingIOError: Nothing fits now.
            OSError: The spawner is gone.
        """
        sent = sock.sendmsg([self._left], self._rights)
        self._left, self._rights = self._left[sent:], []
        return not self._left


def start_spawner(prepare: Prepare = guard.prepare, *, requests: float = math.inf) -> Spawner:
    """Fork a spawner; call it before any thread, before `trio.run`, best before `import trio`.

    Args:
        prepare: Called in each forked process before there is a request for it; returns what
            runs the request.
        requests: After so many it ends. A later one that comes before that is noticed is refused,
            any other goes the slow way.

    Returns:
        The handle. Where forking is refused, one that goes the slow way.

    Raises:
        RuntimeError: This process has threads already; a fork would copy their locks.
    """
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
        return Spawner(None)
    if pid == 0:
        _run_spawner(theirs, prepare, requests)
    theirs.close()
    ours.setblocking(False)
    return Spawner(ours)


def _run_spawner(sock: socket.socket, prepare: Prepare, requests: float) -> NoReturn:
    try:
        os.setsid()
        guard.set_process_name("dispatch-spawn")
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_IGN)
        # The kernel reaps what is forked here; the guards tell their owners how it went.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _drop_descriptors(keep=sock.fileno())
        # A collection would touch, and so copy, pages that are shared until then.
        gc.disable()
        taken = died = 0
        while taken < requests:
            word = _fork_next(sock, prepare) if died < _MAX_DEATHS else _refuse_next(sock)
            if word == _OWNER_GONE:
                break
            taken += word == _TAKEN
            died = died + 1 if not word else 0
    finally:
        os._exit(0)


def _fork_next(sock: socket.socket, prepare: Prepare) -> bytes:
    """Fork the process that takes the next request, and wait until it is under way.

    So the fork is over before the request comes. Returns what the process said; nothing if it
    could not be made or was killed.
    """
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        return b""
    if pid == 0:
        os.close(read)
        _take_next(sock, write, prepare)
    os.close(write)
    word = os.read(read, 1)
    if word == _TAKEN:
        # The next fork would take the processor from this start; unless somebody waits for it.
        poll = select.poll()
        poll.register(read, select.POLLIN)
        poll.register(sock, select.POLLIN)
        poll.poll()
    os.close(read)
    return word


def _refuse_next(sock: socket.socket) -> bytes:
    """Take a request for which there is no process; its owner learns so by EOF."""
    frame = _receive_frame(sock)
    for fd in frame[1] if frame else ():
        os.close(fd)
    return _REFUSED if frame else _OWNER_GONE


def _take_next(sock: socket.socket, tell: int, prepare: Prepare) -> NoReturn:
    status = 1
    try:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        run = prepare()
        frame = _receive_frame(sock)
        os.write(tell, _OWNER_GONE if frame is None else _TAKEN)
        # Or an agent's process could ask for unguarded ones.
        sock.close()
        if frame is not None:
            request, fds = frame
            # Fewer than were sent: the limit of open files was reached. Nothing is started then,
            # which the owner learns from EOF on its status pipe.
            if len(fds) == request["fds"]:
                run(request, fds, partial(os.close, tell))
        status = 0
    finally:
        os._exit(status)


def _drop_descriptors(keep: int) -> None:
    """Close all descriptors but `keep`, and point 0, 1 and 2 at the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))


def _receive_frame(sock: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """The next request; None at the end. Exact reads: a frame's rights come with its header."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    header, rights, _, _ = sock.recvmsg(_HEADER.size, socket.CMSG_SPACE(_MAX_FDS * _FD.size), flags)
    if not header:
        return None
    fds = [
        fd
        for _level, _kind, data in rights
        for (fd,) in _FD.iter_unpack(data[: len(data) - len(data) % _FD.size])
    ]
    for fd in fds:
        os.set_inheritable(fd, False)
    rest = _receive_exactly(sock, _HEADER.size - len(header))
    payload = _receive_exactly(sock, _HEADER.unpack(header + rest)[0])
    return json.loads(payload), fds


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    chunks: list[bytes] = []
    while size:
        chunk = sock.recv(min(size, 1 << 20))
        if not chunk:
            raise EOFError("the owner died inside a request")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)

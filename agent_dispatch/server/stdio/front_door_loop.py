"""Answers at the front door, until a message needs the MCP library.

The loop reads and writes with plain system calls, because nothing but the standard library is
loaded yet. `front_door` decides which messages it may answer.
"""

import os
import select
import time

from agent_dispatch.server.stdio.front_door import FrontDoor
from agent_dispatch.server.stdio.wire import Wire, is_hung_up, is_pollable

_CHUNK_BYTES = 64 * 1024


def serve_at_door(wire: Wire, door: FrontDoor) -> bool:
    """Answer the client as long as the door may.

    Returns:
        True if a message is left in `wire.unread`, or an answer in `wire.unwritten`, so that the
        library must take over; False if the client left.
    """
    ends = {fd for fd in (wire.read_fd, wire.write_fd) if is_pollable(fd)}
    for fd in ends:
        os.set_blocking(fd, False)
    if _answer(wire, door):
        wire.handed_over_at = time.monotonic()
        return True
    for fd in ends:
        # Other processes may share the open file description.
        os.set_blocking(fd, True)
    return False


def answer_last(wire: Wire, door: FrontDoor, refusal: str = "") -> None:
    """Answer what the door may answer among the unread lines, before the process ends.

    Args:
        wire: The connection, with the unread lines.
        door: Answers what it may.
        refusal: The error for all other requests; empty to leave them unanswered.
    """
    frames = b""
    for line in wire.unread.splitlines():
        frames += door.answer(line) or (door.refuse(line, refusal) if refusal else b"")
    for fd in (wire.read_fd, wire.write_fd):
        os.set_blocking(fd, True)
    try:
        os.write(wire.write_fd, wire.unwritten + frames)
    except OSError:
        return  # The reader is gone.


class LeaveIfHungUp:
    """Ends the process if the client leaves while modules are loaded.

    As the first entry of `sys.meta_path`, it is called before each module.
    """

    def __init__(self, wire: Wire, door: FrontDoor) -> None:
        self._wire = wire
        self._door = door
        self._is_pollable = is_pollable(wire.read_fd)

    def find_spec(self, *_args: object) -> None:
        """Find no module; part of the protocol of `sys.meta_path`."""
        if self._is_pollable and is_hung_up(self._wire.read_fd):
            while chunk := _read(self._wire.read_fd):
                self._wire.unread += chunk
            answer_last(self._wire, self._door)
            os._exit(0)


def _answer(wire: Wire, door: FrontDoor) -> bool:
    """Answer until the library is needed; False if the client leaves before that."""
    while True:
        line, newline, rest = wire.unread.partition(b"\n")
        if not newline:
            if len(line) > _CHUNK_BYTES:
                return True
            chunk = _read(wire.read_fd)
            if chunk:
                wire.unread += chunk
                continue
            if not line:
                return False
            rest = b""  # Input that ends without a line feed is a line too.
        if line and not line.isspace():
            frame = door.answer(line)
            if frame is None:
                return True
            try:
                wire.unwritten = frame[_write(wire.write_fd, frame) :]
            except OSError:
                return False
        wire.unread = rest
        if wire.unwritten:
            return True


def _read(fd: int) -> bytes:
    """Wait for a chunk and return it; empty at the end of the input, or if it cannot be read."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll()
        return _read(fd)
    except OSError:
        return b""


def _write(fd: int, frame: bytes) -> int:
    """Write as much as possible without waiting; return the number of bytes."""
    try:
        return os.write(fd, frame)
    except BlockingIOError:
        return 0

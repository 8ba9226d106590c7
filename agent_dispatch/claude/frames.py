"""Requests to the fork server on a stream socket: a length, JSON, and descriptors (unix(7)).

The descriptors travel with the first byte. The header is read on its own, so the descriptors of a
frame always arrive with it.
"""

import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

_HEADER = struct.Struct("!I")
_FD = struct.Struct("i")
_MAX_FDS = 32


class Frame:
    """A request that is being sent, in as many pieces as the socket takes."""

    def __init__(self, payload: bytes, fds: Sequence[int]) -> None:
        """Send `payload` with `fds`, which stay the caller's to close."""
        self._left = memoryview(_HEADER.pack(len(payload)) + payload)
        rights = struct.pack(f"{len(fds)}i", *fds)
        self._rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]

    @property
    def is_begun(self) -> bool:
        """Whether some of it was sent, so that the rest must follow."""
        return not self._rights

    def send_some(self, sock: socket.socket) -> bool:
        """Send what fits; True when all is sent.

        Raises:
            BlockingIOError: Nothing fits now.
            OSError: The reader is gone.
        """
        sent = sock.sendmsg([self._left], self._rights)
        self._left, self._rights = self._left[sent:], []
        return not self._left


def encode(request: Mapping[str, object], fds: Sequence[int]) -> Frame:
    """The frame of a request; it contains the number of its descriptors."""
    return Frame(json.dumps({**request, "fds": len(fds)}).encode(), fds)


def decode(payload: bytes, fds: Sequence[int]) -> dict[str, Any] | None:
    """The request; None if it arrived with fewer descriptors than were sent.

    That happens at the limit of open files; then it cannot be carried out.
    """
    request: dict[str, Any] = json.loads(payload)
    return request if len(fds) == request["fds"] else None


def receive(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    """The payload and descriptors of the next frame; None at EOF. The caller closes them.

    Raises:
        EOFError: The other side died inside a frame.
    """
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
    return _receive_exactly(sock, _HEADER.unpack(header + rest)[0]), fds


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    chunks: list[bytes] = []
    while size:
        chunk = sock.recv(min(size, 1 << 20))
        if not chunk:
            raise EOFError("the other side died inside a frame")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)

"""The network of the API's stand-in, and how programs enter it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("namespace.py")


@dataclass(frozen=True, kw_only=True)
class Place:
    """How to start a program: a prefix of its command, and descriptors that it must inherit."""

    prefix: tuple[str, ...] = ()
    pass_fds: tuple[int, ...] = ()

    @property
    def namespaces(self) -> tuple[int, ...]:
        """The descriptors in the order in which a program enters their namespaces."""
        # The user namespace comes first, because it allows entering the other one.
        return self.pass_fds[::-1]


class Network:
    """Either a loopback-only network namespace, or the loopback of this machine."""

    def __init__(self, keeper: socket.socket | None, place: Place, description: str) -> None:
        self._keeper = keeper
        self.place = place
        self.description = description

    def listen(self) -> socket.socket:
        """A listening socket on a free port of 127.0.0.1, reachable from `place`."""
        if self._keeper is None:
            return socket.create_server(("127.0.0.1", 0))
        self._keeper.sendall(b"\0")
        _, fds, _, _ = socket.recv_fds(self._keeper, 1, 1)
        return socket.socket(fileno=fds[0])


@contextmanager
def open_network() -> Iterator[Network]:
    """A namespace while the block runs if the machine allows one, else plain loopback."""
    if sys.platform != "linux":
        yield Network(None, Place(), f"loopback of this machine ({sys.platform}: no namespaces)")
        return
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            command = [sys.executable, "-I", "-S", str(_SCRIPT), "keep", str(theirs.fileno())]
            keeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        try:
            message, fds, _, _ = socket.recv_fds(ours, 1024, 2)
            if not fds:
                yield Network(None, Place(), f"loopback of this machine ({message.decode()})")
                return
            net, user = fds[0], fds[1] if len(fds) > 1 else -1
            prefix = (sys.executable, "-I", "-S", str(_SCRIPT), "enter", str(net), str(user), "--")
            place = Place(prefix=prefix, pass_fds=tuple(fds))
            yield Network(ours, place, "a network namespace with nothing but loopback")
            for fd in fds:
                os.close(fd)
        finally:
            # The keeper ends with its socket, and the namespace with its last process.
            ours.close()
            keeper.wait(timeout=5)

"""The way to another machine for `bench.hosts`: delays all bytes by 25 ms, each way.

    python delay.py ADDRESS

ssh runs it as its `ProxyCommand`. It connects to port 22 of the address.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from queue import Queue

ONE_WAY_S = 0.025
CHUNK_BYTES = 65536


def carry(take: Callable[[], bytes], give: Callable[[bytes], object]) -> None:
    """Give each chunk that was taken after the delay, and an empty one at the end."""
    under_way: Queue[tuple[float, bytes]] = Queue()

    def give_in_time() -> None:
        while True:
            due_at, chunk = under_way.get()
            time.sleep(max(0, due_at - time.monotonic()))
            give(chunk)
            if not chunk:
                return

    giver = threading.Thread(target=give_in_time, daemon=True)
    giver.start()
    chunk = b"more"
    while chunk:
        chunk = take()
        under_way.put((time.monotonic() + ONE_WAY_S, chunk))
    giver.join()


def main() -> None:
    """Carry both ways until the other machine closes the connection."""
    there = socket.create_connection((sys.argv[1], 22))
    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def to_there(chunk: bytes) -> None:
        if chunk:
            there.sendall(chunk)
        else:
            there.shutdown(socket.SHUT_WR)

    def to_ssh(chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(1, chunk) :]

    from_ssh = threading.Thread(
        target=carry, args=(lambda: os.read(0, CHUNK_BYTES), to_there), daemon=True
    )
    from_ssh.start()
    carry(lambda: there.recv(CHUNK_BYTES), to_ssh)


if __name__ == "__main__":
    main()

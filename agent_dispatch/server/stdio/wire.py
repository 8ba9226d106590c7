"""The two descriptors of the wire, moved to where nothing else can read or write them.

Standard library only: this runs before the fork server is forked and before Trio is imported.
"""

import fcntl
import os
import select
import stat

_FIRST_PRIVATE_FD = 3


class Wire:
    """Private duplicates of what stdin and stdout were; closed on exec."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.unread = b""
        """What was read and is still to be answered."""
        self.unwritten = b""
        """What was to be written and did not fit."""
        self.handed_over_at: float | None = None
        """When the front door met what it cannot answer, on the monotonic clock."""


def take_wire() -> Wire:
    """Take stdin and stdout for the protocol, and put harmless descriptors in their place.

    Descriptor 0 becomes the null device, so no child can swallow a request; descriptor 1 becomes
    stderr, so no `print` and no child can break a frame.

    Raises:
        OSError: stdin or stdout is not open.
    """
    wire = Wire(
        read_fd=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD),
        write_fd=fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE_FD),
    )
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 0)
    if null_fd == 2:
        # stderr was closed: opening took its number, and there it is of use.
        os.dup2(null_fd, 1)
        return wire
    os.close(null_fd)
    os.dup2(2, 1)
    return wire


def is_pollable(fd: int) -> bool:
    """Whether `fd` is a pipe or a socket: what a client uses, and what may be made non-blocking.

    A terminal must not be (its open file description is the shell's too), and epoll refuses files.
    """
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_hung_up(fd: int) -> bool:
    """Whether the other end has closed, even if bytes from it are still unread."""
    poller = select.poll()
    poller.register(fd, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    return bool(poller.poll(0))

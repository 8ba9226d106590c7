"""The wire: private duplicates of stdin and stdout, which no other code can read or write.

Standard library only: this runs before the fork server is forked and before Trio is imported.
"""

import fcntl
import os
import select
import stat

_FIRST_PRIVATE_FD = 3


class Wire:
    """Private duplicates of the original stdin and stdout; closed on exec."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.unread = b""
        """Input that was read but not answered."""
        self.unwritten = b""
        """Output that did not fit into the pipe."""
        self.handed_over_at = 0.0
        """When the front door met a message that it may not answer, on the monotonic clock."""


def take_wire() -> Wire:
    """Take stdin and stdout for the protocol, and put harmless descriptors in their place.

    Descriptor 0 becomes the null device, so no child can read a request. Descriptor 1 becomes
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
        # stderr was closed, so the null device got its number and takes its place.
        os.dup2(null_fd, 1)
        return wire
    os.close(null_fd)
    os.dup2(2, 1)
    return wire


def is_pollable(fd: int) -> bool:
    """Whether `fd` is a pipe or a socket, as clients use; only those may be made non-blocking.

    A terminal must not be, because it shares its open file description with the shell. epoll
    refuses files.
    """
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_hung_up(fd: int) -> bool:
    """Whether the other end has closed, even if bytes from it are still unread."""
    poller = select.poll()
    poller.register(fd, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    return bool(poller.poll(0))

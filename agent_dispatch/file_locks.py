"""Locks between processes: `flock` on a file, held until the last copy of its descriptor is closed.

The kernel closes the descriptors of a process that ends, so a lock never outlives its holders.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent_dispatch.files import (
    DISK,
    PRIVATE_FILE,
    READ_ONLY,
    Disk,
    give_to_owner,
    open_private,
    require_regular,
)

_POLL_S = 0.01
_MAX_POLL_S = 0.1


class LockHeldError(Exception):
    """Another process held the lock for the whole time."""

    def __init__(self, path: str, holder: int | None) -> None:
        super().__init__(path)
        self.path = path
        self.holder = holder
        """Its process id, where it is known."""


def take_lock(fd: int, disk: Disk) -> bool:
    """Lock an open file without waiting; False if another process holds its lock."""
    try:
        disk.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_in_place(fd: int, path: str, disk: Disk) -> bool:
    """Whether `path` still names this open file."""
    try:
        return os.path.samestat(disk.fstat(fd), disk.lstat(path))
    except FileNotFoundError:
        return False


def try_lock(path: str, disk: Disk = DISK, *, create: bool = True) -> int | None:
    """Lock the file `path` without waiting.

    Only the process that holds the lock may remove the file. So if the file was removed before we
    locked it, our lock means nothing, and the file that has the name now is tried.

    Args:
        create: Make the file if it is missing.

    Returns:
        The locked descriptor; the lock is free when its last copy is closed. None if another
        process holds the lock.

    Raises:
        FileNotFoundError: The file is missing and `create` is false, or its directory is missing.
        OSError: It cannot be opened, or is not a regular file.
    """
    while True:
        fd = _open_lock(path, disk, create=create)
        try:
            is_ours = take_lock(fd, disk)
            if is_ours and is_in_place(fd, path, disk):
                return fd
        except BaseException:
            disk.close(fd)
            raise
        disk.close(fd)
        if not is_ours:
            return None


def _open_lock(path: str, disk: Disk, *, create: bool) -> int:
    try:
        fd = open_private(path, os.O_RDWR | (os.O_CREAT if create else 0), disk)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        try:
            # Locking needs no right to write, on local file systems.
            fd = open_private(path, os.O_RDONLY, disk)
        except FileNotFoundError:
            if create:
                raise error from None
            raise
    try:
        status = disk.fstat(fd)
        require_regular(status, path)
        if create and status.st_uid == os.geteuid():
            if stat.S_IMODE(status.st_mode) != PRIVATE_FILE:
                disk.fchmod(fd, PRIVATE_FILE)
            give_to_owner(fd, os.path.dirname(path))
    except BaseException:
        disk.close(fd)
        raise
    return fd


def lock_within(path: str, timeout_s: float, disk: Disk = DISK) -> int:
    """Lock the file `path`, which is made if it is missing; return the locked descriptor.

    `flock` has no timeout, so this polls. It blocks its thread: call it in a worker thread or on a
    command line, never on an event loop.

    Raises:
        LockHeldError: Another process held the lock for `timeout_s`.
        OSError: The file cannot be made or opened, or is not a regular file.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _POLL_S
    while (lock := try_lock(path, disk)) is None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise LockHeldError(path, _lock_holder(path))
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _MAX_POLL_S)
    return lock


@contextmanager
def locked(path: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock of `path` for as long as the block runs; the file is never removed.

    Raises:
        LockHeldError: Another process held the lock for `timeout_s`.
        OSError: The file cannot be made or opened, or is not a regular file.
    """
    lock = lock_within(path, timeout_s)
    try:
        yield
    finally:
        os.close(lock)


def _lock_holder(path: str) -> int | None:
    """Ask the kernel which process has a file locked; only Linux tells."""
    try:
        inode = str(os.stat(path).st_ino)
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF
                fields = line.split()
                if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                    return int(fields[4]) if int(fields[4]) > 0 else None
    except FileNotFoundError:
        return None
    return None

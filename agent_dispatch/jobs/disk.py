"""The system calls of the job store, and the few shapes in which it uses them.

Every call goes through a `Disk`, so that a test can let the n-th one fail.
"""

import contextlib
import errno
import fcntl
import os
import stat

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
NOT_A_FILE = (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO)
"""What opening says of a symbolic link, a FIFO, a directory and a socket, in this order."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
"""Never inherited by accident, never through a symbolic link, never waiting for a FIFO."""
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""macOS: its fsync(2) stops at the drive's cache."""
_CHUNK_BYTES = 1 << 20


class Disk:
    """The system calls themselves; each raises `OSError`."""

    def open(self, path: str, flags: int) -> int:
        """Open `path`; a new file is for its owner only."""
        return os.open(path, flags | _SAFE, PRIVATE_FILE)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def read(self, fd: int, size: int) -> bytes:
        """Read what comes, at most `size` bytes."""
        return os.read(fd, size)

    def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read at a place of a file."""
        return os.pread(fd, size, offset)

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of `data`; return how much."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Make what was written durable."""
        if _FULL_SYNC is None:
            os.fsync(fd)
        else:
            fcntl.fcntl(fd, _FULL_SYNC)

    def set_mode(self, fd: int, mode: int) -> None:
        """Set the mode whatever the umask took."""
        os.fchmod(fd, mode)

    def set_path_mode(self, path: str, mode: int) -> None:
        """The same for a directory or FIFO that was just made."""
        os.chmod(path, mode)

    def rename(self, old: str, new: str) -> None:
        """Put a file in the place of another."""
        os.rename(old, new)

    def link(self, old: str, new: str) -> None:
        """Give a file one more name, which must be free."""
        os.link(old, new, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a name."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Make one directory."""
        os.mkdir(path, PRIVATE_DIRECTORY)

    def make_fifo(self, path: str) -> None:
        """Make a FIFO."""
        os.mkfifo(path, PRIVATE_FILE)

    def list(self, path: str) -> list[str]:
        """Names in a directory."""
        return os.listdir(path)

    def status(self, path: str) -> os.stat_result:
        """What is at `path`, a symbolic link itself."""
        return os.lstat(path)

    def status_of(self, fd: int) -> os.stat_result:
        """What a descriptor leads to."""
        return os.fstat(fd)

    def lock(self, fd: int) -> bool:
        """Take the lock (flock(2)) of an open file; False: somebody else has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Give what changes whenever a file is changed or another one takes its place."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def exists(disk: Disk, path: str) -> bool:
    """Whether there is anything of that name."""
    try:
        disk.status(path)
    except FileNotFoundError:
        return False
    return True


def remove(disk: Disk, path: str) -> bool:
    """Remove a name; False if it was not there."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return False
    return True


def names_in(disk: Disk, path: str) -> list[str]:
    """Names in a directory; none if there is no directory of that name."""
    try:
        return disk.list(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise


def make_private_directory(disk: Disk, path: str) -> None:
    """Make a directory and what is missing above it, durable and each for the owner only."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_private_directory(disk, parent)
    try:
        disk.make_directory(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        return
    disk.set_path_mode(path, PRIVATE_DIRECTORY)
    sync_directory(disk, parent)


def write_new(disk: Disk, path: str, content: bytes | bytearray, *, durable: bool = True) -> None:
    """Write a file that must not be there yet; if that fails it is not there afterwards."""
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            disk.set_mode(fd, PRIVATE_FILE)
            write_all(disk, fd, content)
            if durable:
                disk.sync(fd)
        finally:
            disk.close(fd)
    except BaseException:
        remove_quietly(disk, path)
        raise


def write_all(disk: Disk, fd: int, content: bytes | bytearray) -> None:
    """Write all of `content`, however little each call takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[disk.write(fd, rest) :]


def remove_quietly(disk: Disk, *paths: str) -> None:
    """Remove what can be removed, on the way out of something that failed already.

    What stays is litter that `gc` takes away; the failure that led here is the one to tell.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            disk.unlink(path)


def sync_directory(disk: Disk, path: str) -> None:
    """Make renames and new names in a directory durable, where its file system can."""
    fd = disk.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.sync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        disk.close(fd)


def open_regular(disk: Disk, path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; the descriptor is the caller's to close.

    Raises:
        OSError: One of `NOT_A_FILE` for what is not a regular file.
    """
    fd = disk.open(path, os.O_RDONLY)
    try:
        status = disk.status_of(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except BaseException:
        disk.close(fd)
        raise
    return fd, status


def read_all(disk: Disk, fd: int, limit: int) -> bytes:
    """Read to the end of an open file, at most `limit` bytes."""
    chunks: list[bytes] = []
    while limit > 0 and (chunk := disk.read(fd, min(limit, _CHUNK_BYTES))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)

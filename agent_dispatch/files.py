"""Durable private files, and how to fix a system call that failed.

Nothing here waits for a FIFO or a device, and only `read_regular` follows a symbolic link. Most
functions take the system calls as an argument, so that a test can let one fail.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
NOT_A_FILE = (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO)
"""The errno of opening a symbolic link, a FIFO, a directory and a socket, in this order."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

_REMEDIES = {
    errno.ENOSPC: "Free some space on its disk.",
    errno.EDQUOT: "Free some space on its disk.",
    errno.EFBIG: "Raise the limit on the size of files: ulimit -f unlimited",
    errno.EMFILE: "Raise the limit of open files (ulimit -n 4096), or start fewer runs at once.",
    errno.ENFILE: "Close some programs: this machine has reached its limit of open files.",
    errno.EIO: "Check the disk: the system log (dmesg) says more.",
    errno.EROFS: "Mount its disk writable.",
}
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK_BYTES = 1 << 20


def remedy(error: OSError, otherwise: str) -> str:
    """The sentence that says how to fix a failed system call.

    Args:
        error: The failure.
        otherwise: The fix if it depends on the file, such as a missing permission.
    """
    return _REMEDIES.get(error.errno or 0, otherwise)


class NotDurableError(OSError):
    """The file was replaced, but a power cut may undo that."""


def _sync(fd: int) -> None:
    # On macOS, fsync(2) stops at the drive's cache.
    if full_sync := getattr(fcntl, "F_FULLFSYNC", None):
        fcntl.fcntl(fd, full_sync)
    else:
        os.fsync(fd)


class Disk:
    """The system calls, under their own names; a test passes a subclass that replaces some."""

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    read = staticmethod(os.read)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    fsync = staticmethod(_sync)
    fchmod = staticmethod(os.fchmod)
    chmod = staticmethod(os.chmod)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    mkdir = staticmethod(os.mkdir)
    mkfifo = staticmethod(os.mkfifo)
    listdir = staticmethod(os.listdir)
    lstat = staticmethod(os.lstat)
    fstat = staticmethod(os.fstat)
    flock = staticmethod(fcntl.flock)


DISK = Disk()


# -- names


def identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """A value that changes when a file is changed or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def exists(path: str, disk: Disk = DISK) -> bool:
    """Whether there is a file of any kind at `path`; a symbolic link is not followed."""
    try:
        disk.lstat(path)
    except FileNotFoundError:
        return False
    return True


def names_in(path: str, disk: Disk = DISK) -> list[str]:
    """Names in a directory; none if there is no such directory."""
    try:
        return disk.listdir(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise


def remove(path: str, disk: Disk = DISK) -> bool:
    """Remove a file; False if it was missing."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        return False
    return True


def remove_quietly(*paths: str, disk: Disk = DISK) -> None:
    """Remove files after a failure. Errors are ignored, because that failure is reported."""
    for path in paths:
        with suppress(OSError):
            disk.unlink(path)


def make_private_directory(path: str, disk: Disk = DISK) -> None:
    """Make a directory and its missing parents, durably, each for its owner only.

    Raises:
        OSError: It cannot be made, or another kind of file has that name.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_private_directory(parent, disk)
    try:
        disk.mkdir(path, PRIVATE_DIRECTORY)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        return
    # The umask may have cut the mode.
    disk.chmod(path, PRIVATE_DIRECTORY)
    sync_directory(parent, disk)


def sync_directory(path: str, disk: Disk = DISK) -> None:
    """Make renames and new files in a directory durable, if its file system supports that."""
    fd = open_private(path, os.O_RDONLY | os.O_DIRECTORY, disk)
    try:
        disk.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        disk.close(fd)


# -- files


def open_private(path: str, flags: int, disk: Disk = DISK) -> int:
    """Open a file, but no symbolic link; a new file is for its owner only."""
    return disk.open(path, flags | _SAFE, PRIVATE_FILE)


@contextmanager
def opened_regular(path: str, disk: Disk = DISK) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading.

    Raises:
        OSError: One of `NOT_A_FILE` for anything but a regular file.
    """
    fd = open_private(path, os.O_RDONLY, disk)
    try:
        status = disk.fstat(fd)
        require_regular(status, path)
        yield fd, status
    finally:
        disk.close(fd)


def read_all(fd: int, limit: int, disk: Disk = DISK) -> bytes:
    """Read to the end of an open file, at most `limit` bytes."""
    chunks: list[bytes] = []
    while limit > 0 and (chunk := disk.read(fd, min(limit, _CHUNK_BYTES))):
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def read_regular(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Read at most `limit` bytes of a regular file, and its status from before the read.

    Symbolic links are followed, because users may keep the file elsewhere.

    Raises:
        OSError: The file is missing, not readable, or not a regular file (`EINVAL`).
    """
    # Before the file is opened, because opening a device can have side effects.
    require_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        require_regular(status, path)
        return read_all(descriptor, limit), status
    finally:
        os.close(descriptor)


def write_all(fd: int, content: bytes | bytearray, disk: Disk = DISK) -> None:
    """Write all of `content`, even if each call writes only a part."""
    rest = memoryview(content)
    while rest:
        rest = rest[disk.write(fd, rest) :]


def write_new(
    path: str,
    content: bytes | bytearray,
    disk: Disk = DISK,
    *,
    durable: bool = True,
    like: str | None = None,
) -> None:
    """Write a file that must not exist yet; if that fails, it does not exist afterwards.

    Args:
        path: The new file.
        content: Its whole content.
        disk: The system calls.
        durable: The content survives a power cut, once its name does (`sync_directory`).
        like: If root writes, the file is given to the owner of this path.
    """
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, disk)
    try:
        try:
            disk.fchmod(fd, PRIVATE_FILE)
            if like is not None:
                give_to_owner(fd, like)
            write_all(fd, content, disk)
            if durable:
                disk.fsync(fd)
        finally:
            disk.close(fd)
    except BaseException:
        remove_quietly(path, disk=disk)
        raise


def replace_file(
    path: str,
    content: bytes | bytearray,
    temporary: str,
    disk: Disk = DISK,
    *,
    like: str | None = None,
) -> None:
    """Replace a file; after a crash, either the old or the new file is there, whole.

    The caller holds a lock, because the next writer removes the `temporary` file of one that was
    killed. Until `sync_directory`, a power cut may bring the old file back.
    """
    remove(temporary, disk)
    write_new(temporary, content, disk, like=like)
    try:
        disk.rename(temporary, path)
    except BaseException:
        remove_quietly(temporary, disk=disk)
        raise


def replace_durably(path: str, content: bytes) -> None:
    """Replace a file durably; the caller holds its lock.

    Args:
        path: The file itself, not a symbolic link to it.
        content: The whole new content.

    Raises:
        NotDurableError: The file was replaced, but a power cut may undo that.
        OSError: Nothing was replaced.
    """
    directory, name = os.path.split(path)
    like = path if os.path.exists(path) else directory
    replace_file(path, content, os.path.join(directory, f".{name}.tmp"), like=like)
    try:
        sync_directory(directory)
    except OSError as error:
        raise NotDurableError(error.errno, error.strerror, directory) from error


def give_to_owner(fd: int, like: str) -> None:
    """If we are root, give an open file to the owner of the path `like`."""
    if os.geteuid() == 0 and (owner := os.stat(like)).st_uid != 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def require_regular(status: os.stat_result, path: str) -> None:
    """Raise `OSError`, with an errno of `NOT_A_FILE`, for anything but a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)

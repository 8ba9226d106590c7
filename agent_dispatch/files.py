"""Small files read with a bound, written whole, and locked between processes."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_POLL_S = 0.01
_MAX_POLL_S = 0.1
_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700


class LockHeldError(Exception):
    """Another process kept the lock for the whole time; `holder` is its id where it is known."""

    def __init__(self, path: str, holder: int | None) -> None:
        super().__init__(path)
        self.path = path
        self.holder = holder


class NotDurableError(OSError):
    """The new file is in its place, but may be gone again after a power cut."""


def identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Give what changes whenever a file is changed or another one takes its place."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def read_regular(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Read at most `limit` bytes of a regular file, and its status from before the first one.

    A FIFO, device or directory of that name is never waited for or read.

    Raises:
        OSError: The file is missing, not readable, or not a regular file (`EINVAL`).
    """
    # Asked by name first: opening a device can have effects of its own.
    _require_regular(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        chunks: list[bytes] = []
        while limit > 0 and (chunk := os.read(descriptor, min(limit, 1 << 20))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks), status
    finally:
        os.close(descriptor)


def make_private_directory(path: str) -> None:
    """Make a directory and what is missing above it, each for the owner only.

    Raises:
        OSError: It cannot be made, or something else has that name.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_private_directory(parent)
    try:
        os.mkdir(path, _PRIVATE_DIRECTORY)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
    else:
        # The mode of mkdir() is cut by the umask.
        os.chmod(path, _PRIVATE_DIRECTORY)


def write_whole(path: str, content: bytes) -> None:
    """Put `content` in the place of a file; after a crash the old or the new one is there whole.

    The file is for its owner only. The caller holds the lock of the file: the name of the
    temporary file is fixed, so that what a killed writer left behind is taken away by the next.

    Args:
        path: The file itself, not a symbolic link to it.
        content: All of the new file.

    Raises:
        NotDurableError: It was replaced, and only that cannot be made sure.
        OSError: Nothing was replaced.
    """
    directory, name = os.path.split(path)
    replaced = path if os.path.exists(path) else directory
    temporary = os.path.join(directory, f".{name}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _PRIVATE_FILE)
    try:
        try:
            _make_private(descriptor, like=replaced)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    try:
        _sync_directory(directory)
    except OSError as error:
        raise NotDurableError(error.errno, error.strerror, directory) from error


@contextmanager
def locked(path: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock file `path` alone; it is made if missing and never removed.

    The wait is a short poll, because `flock` knows no deadline; it blocks its thread, so it
    belongs in a worker thread or a command line, not on an event loop.

    Raises:
        LockHeldError: Someone else held it for `timeout_s`.
        OSError: The lock file cannot be made or opened.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _POLL_S
    while True:
        descriptor = _open_lock(path)
        try:
            if _try_lock(descriptor) and _is_still_at(descriptor, path):
                yield
                return
            holder = _lock_holder(descriptor)
        finally:
            os.close(descriptor)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise LockHeldError(path, holder)
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, _MAX_POLL_S)


def _open_lock(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, _PRIVATE_FILE)
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        if status.st_uid == os.geteuid():
            _make_private(descriptor, like=os.path.dirname(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_private(descriptor: int, *, like: str) -> None:
    """Set the mode whatever the umask took; root leaves the file to the owner of `like`."""
    os.fchmod(descriptor, _PRIVATE_FILE)
    owner = os.stat(like)
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(descriptor: int, path: str) -> bool:
    """Say whether the file locked is the one that others would lock now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock_holder(descriptor: int) -> int | None:
    """Ask the kernel who holds a lock on the file; Linux alone tells."""
    inode = str(os.fstat(descriptor).st_ino)
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            for line in table:
                # 1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF
                fields = line.split()
                if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                    return int(fields[4]) if int(fields[4]) > 0 else None
    except FileNotFoundError:
        return None
    return None


def _require_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A file system that has no way to sync a directory says so; the file itself is synced.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)

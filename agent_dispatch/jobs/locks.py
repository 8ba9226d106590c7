"""The files in `live/` of a job that has not ended: its lock, its two FIFOs, its markers.

    ID.lock     locked (flock(2)) by the owner, and by the guard until its tree is empty
    ID.alive    FIFO; both hold its write end, so waiters read EOF when the last of them is gone
    ID.bell     FIFO; only the owner holds its read end; a byte means "check marker and mailbox"
    ID.cancel   marker: the job is to be cancelled; the text says who asked
    ID.ending   marker: the owner is ending the job's processes, and with them the jobs inside
    ID.mail     messages of other processes to the owner (see `mailbox`)
    ID.lease, ID.events   of a job that came from another machine (see `remote_callers`)
    ID.tmp      the record being written

The kernel closes the descriptors of a process that ends, so a lock is free exactly when all its
holders are gone; no clock and no process id is needed. A new lock file is locked under a temporary
name before it gets its own, so a job whose lock file is not locked has no owner. A lock file is
removed only while its lock is held, so two processes cannot hold two different files of one name.

Where the file system has no FIFOs, they are missing, and waiters poll.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from agent_dispatch.file_locks import is_in_place, take_lock, try_lock
from agent_dispatch.files import (
    NOT_A_FILE,
    PRIVATE_FILE,
    Disk,
    exists,
    names_in,
    open_private,
    opened_regular,
    read_all,
    remove,
    remove_quietly,
    sync_directory,
    write_new,
)
from agent_dispatch.jobs.ids import is_job_id

LOCK, ALIVE, BELL, CANCEL, ENDING, TMP = ".lock", ".alive", ".bell", ".cancel", ".ending", ".tmp"
MAIL = ".mail"
LEASE, EVENTS = ".lease", ".events"
_BESIDE_THE_LOCK = (ALIVE, BELL, CANCEL, ENDING, MAIL, LEASE, EVENTS, TMP)
UNPLACED = ".new"
"""The suffix of a hidden file: a lock that has not got its own name yet."""
_NO_FIFO_HERE = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_MARKER_BYTES = 1024
_NEW_LOCK_TRIES = 100

NO_FD = -1


class Descriptors(NamedTuple):
    """A job is owned for as long as a process has a copy of these open; `NO_FD` if missing."""

    lock: int
    bell: int
    """Readable when the owner should check the cancel marker and the mailbox."""
    alive: int

    @property
    def to_hand_over(self) -> list[int]:
        """What `JobStore.adopt` needs in the new owner, in this order."""
        return [fd for fd in self if fd != NO_FD]

    @property
    def for_guard(self) -> list[int]:
        """What a guard holds until its tree is empty; the bell is only for the owner."""
        return [fd for fd in (self.lock, self.alive) if fd != NO_FD]


NO_DESCRIPTORS = Descriptors(NO_FD, NO_FD, NO_FD)


class Locks:
    """The folder `live/` of one jobs directory. Safe to use from several threads."""

    def __init__(self, directory: str, disk: Disk) -> None:
        """Use `directory`, which the store makes."""
        self.directory = directory
        self._disk = disk

    def path(self, job_id: str, suffix: str) -> str:
        """The path of a job's file; the caller has checked `job_id`."""
        return os.path.join(self.directory, job_id + suffix)

    # -- for the owner

    def create(self, job_id: str) -> Descriptors:
        """Make the lock and FIFOs of a new job, and hold them; if that fails, none is left."""
        fds = NO_DESCRIPTORS._replace(lock=self._new_lock(job_id))
        try:
            fds = fds._replace(alive=self._new_fifo(job_id, ALIVE))
            if fds.alive != NO_FD:
                fds = fds._replace(bell=self._new_fifo(job_id, BELL))
        except BaseException:
            self.undo(job_id, fds)
            raise
        return fds

    def undo(self, job_id: str, fds: Descriptors) -> None:
        """Undo `create`, as far as possible."""
        paths = [self.path(job_id, suffix) for suffix in (*_BESIDE_THE_LOCK, LOCK)]
        remove_quietly(*paths, disk=self._disk)
        self.close(fds)

    def close(self, fds: Iterable[int]) -> None:
        """Close our copies, the lock first: waiters that wake at EOF must find it free."""
        for fd in fds:
            if fd != NO_FD:
                # The descriptor is closed even if close(2) reports an error.
                with suppress(OSError):
                    self._disk.close(fd)

    def owns(self, job_id: str, lock: int) -> bool:
        """Whether `lock` is the job's lock, and this open file description holds it."""
        return is_in_place(lock, self.path(job_id, LOCK), self._disk) and take_lock(
            lock, self._disk
        )

    def remove(self, job_id: str, lock: int) -> int:
        """Remove every file of a job that has ended, and count them; we hold `lock`.

        Raises:
            OSError: Some are left; retention removes them later.
        """
        if not is_in_place(lock, self.path(job_id, LOCK), self._disk):
            return 0
        # The lock goes last, while we hold it, so that another opener notices the inode change.
        return self.remove_beside_the_lock(job_id) + remove(self.path(job_id, LOCK), self._disk)

    def remove_beside_the_lock(self, job_id: str) -> int:
        """Remove all files of a job but its lock, and count them."""
        return sum(remove(self.path(job_id, suffix), self._disk) for suffix in _BESIDE_THE_LOCK)

    def _new_lock(self, job_id: str) -> int:
        path = self.path(job_id, LOCK)
        for _ in range(_NEW_LOCK_TRIES):
            new = os.path.join(self.directory, f".{job_id}.{os.urandom(8).hex()}{UNPLACED}")
            lock = open_private(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, self._disk)
            try:
                self._disk.fchmod(lock, PRIVATE_FILE)
                # Retention may remove it as litter between these calls; then make another one.
                if take_lock(lock, self._disk):
                    with suppress(FileNotFoundError):
                        self._disk.rename(new, path)
                        return lock
            except BaseException:
                remove_quietly(new, disk=self._disk)
                self._disk.close(lock)
                raise
            self._disk.close(lock)
        raise OSError(errno.EAGAIN, "another process removes each new lock file", path)

    def _new_fifo(self, job_id: str, suffix: str) -> int:
        path = self.path(job_id, suffix)
        try:
            self._disk.mkfifo(path, PRIVATE_FILE)
        except OSError as error:
            if error.errno in _NO_FIFO_HERE:
                return NO_FD
            raise
        self._disk.chmod(path, PRIVATE_FILE)
        # Read and write: the write end of a FIFO cannot be opened without a reader, and the bell
        # must not read EOF when the last process that rang it is gone.
        return open_private(path, os.O_RDWR, self._disk)

    # -- for all other processes

    def try_lock(self, job_id: str, *, create: bool) -> int | None:
        """Take a job's lock; None if it is held.

        Args:
            job_id: The job.
            create: Make the lock file if it is missing. A job that has not ended and has no lock
                file has no owner.

        Returns:
            The locked descriptor, which the caller closes soon.

        Raises:
            FileNotFoundError: There is no lock file, and `create` is false.
        """
        return try_lock(self.path(job_id, LOCK), self._disk, create=create)

    def watch(self, job_id: str) -> int | None:
        """Open a descriptor that reads EOF when the last holder of `alive` is gone.

        Returns:
            None if it has no holder now or cannot be opened; then poll.
        """
        try:
            fd = self._open_fifo(job_id, ALIVE, os.O_RDONLY)
        except OSError:
            return None
        try:
            # Without a writer, `read` returns b"", and no EOF would follow.
            held = bool(self._disk.read(fd, 4096))
        except BlockingIOError:
            held = True
        if not held:
            self._disk.close(fd)
            return None
        return fd

    def ring(self, job_id: str) -> None:
        """Wake the owner, if there is one, so that it checks marker and mailbox."""
        try:
            fd = self._open_fifo(job_id, BELL, os.O_WRONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        try:
            # Full: the owner has not read the last rings yet.
            with suppress(BlockingIOError, BrokenPipeError):
                self._disk.write(fd, b"!")
        finally:
            self._disk.close(fd)

    def owner_is_gone(self, job_id: str) -> bool:
        """Whether the bell has no reader: then only a guard can hold the job's lock."""
        try:
            self._disk.close(self._open_fifo(job_id, BELL, os.O_WRONLY))
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def _open_fifo(self, job_id: str, suffix: str, flags: int) -> int:
        path = self.path(job_id, suffix)
        fd = open_private(path, flags, self._disk)
        try:
            if not stat.S_ISFIFO(self._disk.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a FIFO", path)
        except BaseException:
            self._disk.close(fd)
            raise
        return fd

    def mark_cancel(self, job_id: str, by: str, *, durable: bool = True) -> None:
        """Record that a job is to be cancelled; an earlier name is kept."""
        text = by.encode(errors="replace")[:_MARKER_BYTES]
        path = self.path(job_id, CANCEL)
        try:
            write_new(path, text, self._disk, durable=durable)
        except FileExistsError:
            # Anything but a regular file is an error here, because the owner ignores it.
            with suppress(FileNotFoundError), opened_regular(path, self._disk):
                pass
        if durable:
            sync_directory(self.directory, self._disk)

    def mark_ending(self, job_id: str) -> None:
        """Record that the processes of a job are being ended."""
        with suppress(FileExistsError):
            write_new(self.path(job_id, ENDING), b"", self._disk, durable=False)

    def unmark_ending(self, job_id: str) -> None:
        """Remove that mark: the job goes on with other processes."""
        remove(self.path(job_id, ENDING), self._disk)

    def cancelled_by(self, job_id: str) -> str | None:
        """Who asked for the job to be cancelled; None if nobody did.

        Anything but a regular file is ignored: it must neither end a run nor keep the end of a lost
        job from being recorded.
        """
        try:
            with opened_regular(self.path(job_id, CANCEL), self._disk) as (fd, _):
                return read_all(fd, _MARKER_BYTES, self._disk).decode(errors="replace")
        except OSError as error:
            if error.errno in (errno.ENOENT, *NOT_A_FILE):
                return None
            raise

    def is_ending(self, job_id: str) -> bool:
        """Whether a marker says that the job is about to end."""
        return any(exists(self.path(job_id, suffix), self._disk) for suffix in (CANCEL, ENDING))

    # -- the folder as a whole

    def job_ids(self) -> list[str]:
        """Ids of the jobs with a lock file, in no order; few, even if there are many jobs."""
        locks = [name.removesuffix(LOCK) for name in self.names() if name.endswith(LOCK)]
        return list(filter(is_job_id, locks))

    def names(self) -> list[str]:
        """All names in the folder."""
        return names_in(self.directory, self._disk)

    def remove_unplaced(self, name: str) -> bool:
        """Remove a lock file that never got its own name; False for any other, or one in use."""
        if not (name.startswith(".") and name.endswith(UNPLACED)):
            return False
        path = os.path.join(self.directory, name)
        try:
            lock = open_private(path, os.O_RDWR, self._disk)
        except FileNotFoundError:
            return False
        try:
            return take_lock(lock, self._disk) and remove(path, self._disk)
        finally:
            self._disk.close(lock)


def owners_of(names: Iterable[str]) -> set[str]:
    """Ids of the jobs that files with these names belong to."""
    suffixes = (LOCK, *_BESIDE_THE_LOCK)
    ids = (name.partition(".")[0] for name in names if name.endswith(suffixes))
    return {job_id for job_id in ids if is_job_id(job_id)}

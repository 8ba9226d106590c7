"""What stands in `live/` for a job that is not over: its lock, its two FIFOs, its markers.

    ID.lock     locked (flock(2)) by the owner, and by the guard until its tree is empty
    ID.alive    FIFO; the same hold its write end, so whoever waits reads EOF when they are gone
    ID.bell     FIFO; the owner alone holds its read end: a byte means "look at the markers"
    ID.cancel   somebody wants the job cancelled; the text says who
    ID.ending   the owner is ending the job's processes, so what ran inside them ends too
    ID.tmp      the record being written

The kernel closes descriptors, so a lock is free exactly when nobody is left, with no clock and no
process id. A new lock file is locked under a name of its own before it appears here; one that is
here and not locked has no owner. It is removed under its lock only, so two processes that both
want it cannot hold two different files.

Lock and bell of a job that is over may become those of the next one (see `spares`); whoever has
them open still finds that they are not in their place, or rings in vain. The FIFO `alive` may not:
who waits at it would miss the moment at which nobody has it.

The FIFOs are missing where the file system has none; waiting is polling then.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from enum import Enum

from agent_dispatch.jobs.disk import (
    NOT_A_FILE,
    READ_ONLY,
    Disk,
    exists,
    names_in,
    open_regular,
    read_all,
    remove,
    remove_quietly,
    sync_directory,
    write_new,
)
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.spares import Spares
from agent_dispatch.jobs.store import NO_FD, Descriptors

LOCK, ALIVE, BELL, CANCEL, ENDING, TMP = ".lock", ".alive", ".bell", ".cancel", ".ending", ".tmp"
_BESIDE_THE_LOCK = (ALIVE, BELL, CANCEL, ENDING, TMP)
_NEW, _SPARE = ".new", ".spare"
_NO_FIFO_HERE = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_MARKER_BYTES = 1024
_NEW_LOCK_TRIES = 100


class NotLocked(Enum):
    """Why a lock was not taken."""

    HELD = "held"
    """Somebody has it: the owner, or another process that just looks. Ask again."""
    ABSENT = "absent"
    """There is no lock file, and none was to be made."""


class LiveFiles:
    """The folder `live/` of one jobs directory. Safe to use from several threads."""

    def __init__(self, directory: str, disk: Disk, *, spares: int = 0) -> None:
        """Use `directory`, which the store makes.

        Args:
            directory: Absolute.
            disk: The system calls.
            spares: How many files of jobs that are over to keep for new ones.
        """
        self.directory = directory
        self._disk = disk
        self._locks = Spares(directory, _SPARE, disk, kept=spares)
        self._bells = Spares(directory, _SPARE, disk, kept=spares)

    def path(self, job_id: str, suffix: str) -> str:
        """Say where a file of a job is; `job_id` was checked."""
        return os.path.join(self.directory, job_id + suffix)

    # -- the owner's side

    def create(self, job_id: str) -> Descriptors:
        """Make lock and FIFOs of a new job, and hold them; if that fails none is there."""
        lock = self._new_lock(job_id)
        fds = Descriptors(lock, bell=NO_FD, alive=NO_FD)
        try:
            fds = fds._replace(alive=self._new_fifo(job_id, ALIVE))
            if fds.alive != NO_FD:
                fds = fds._replace(bell=self._new_fifo(job_id, BELL))
        except BaseException:
            self.undo(job_id, fds)
            raise
        return fds

    def undo(self, job_id: str, fds: Descriptors) -> None:
        """Take back `create`, as far as the disk lets us."""
        remove_quietly(self._disk, *(self.path(job_id, name) for name in (*_BESIDE_THE_LOCK, LOCK)))
        self.close(fds)

    def close(self, fds: Iterable[int]) -> None:
        """Close our copies, the lock first: who wakes at the FIFO's end finds it free."""
        for fd in fds:
            if fd != NO_FD:
                # Whatever close(2) reports, the descriptor is gone.
                with contextlib.suppress(OSError):
                    self._disk.close(fd)

    def owns(self, job_id: str, lock: int) -> bool:
        """Whether `lock` is the job's lock, and locked through this very description."""
        return self._is_in_place(job_id, lock) and self._disk.lock(lock)

    def close_spares(self) -> None:
        """Remove what was kept for further jobs; what stays is litter."""
        self._bells.close()
        self._locks.close()

    def remove(self, job_id: str, lock: int) -> int:
        """Take away everything of a job that is over, and count it; `lock` is held by us.

        Raises:
            OSError: Something stays; it is litter, for `gc` to take away.
        """
        if not self._is_in_place(job_id, lock):
            return 0
        count = 0
        # A ring that comes too late rings for the next job, whose owner then looks in vain.
        with contextlib.suppress(FileNotFoundError):
            self._bells.put(self.path(job_id, BELL))
            count += 1
        count += self.remove_beside_the_lock(job_id)
        self._locks.put(self.path(job_id, LOCK))
        return count + 1

    def remove_beside_the_lock(self, job_id: str) -> int:
        """Remove the rest; or all of it, where there is no lock (any more)."""
        return sum(remove(self._disk, self.path(job_id, suffix)) for suffix in _BESIDE_THE_LOCK)

    def _new_lock(self, job_id: str) -> int:
        for attempt in range(_NEW_LOCK_TRIES):
            spare = None if attempt else self._locks.take()
            new = spare or os.path.join(self.directory, f".{job_id}.{os.urandom(8).hex()}{_NEW}")
            try:
                lock = self._disk.open(new, os.O_RDWR | (0 if spare else os.O_CREAT | os.O_EXCL))
            except OSError:
                if spare is None:
                    raise
                remove_quietly(self._disk, spare)
                continue
            try:
                self._disk.set_mode(lock, 0o600)
                # `gc` may take it for litter between the two calls: then make another one.
                if self._disk.lock(lock):
                    with contextlib.suppress(FileNotFoundError):
                        self._disk.rename(new, self.path(job_id, LOCK))
                        return lock
            except BaseException:
                remove_quietly(self._disk, new)
                self._disk.close(lock)
                raise
            self._disk.close(lock)
            if spare is not None:
                # The owner, or the guard, of its last job is about to close it.
                self._locks.give_back(spare)
        reason = "the new lock file was taken away again and again"
        raise OSError(errno.EAGAIN, reason, self.path(job_id, LOCK))

    def _new_fifo(self, job_id: str, suffix: str) -> int:
        path = self.path(job_id, suffix)
        if not (suffix == BELL and self._bells.move_to(path)):
            try:
                self._disk.make_fifo(path)
            except OSError as error:
                if error.errno in _NO_FIFO_HERE:
                    return NO_FD
                raise
            self._disk.set_path_mode(path, 0o600)
        # For both ways: POSIX gives no other means to open the write end while nobody reads, and
        # a bell whose last ringer has gone must not read as ended.
        return self._disk.open(path, os.O_RDWR)

    # -- everybody else's side

    def try_lock(self, job_id: str, *, make: bool) -> int | NotLocked:
        """Take a job's lock if nobody holds it.

        Args:
            make: Make the lock file if there is none: for a job that is not over, that is a job
                without an owner.

        Returns:
            The locked descriptor, to be closed soon; or why there is none.
        """
        while True:
            try:
                lock = self._open_lock(job_id, make=make)
            except FileNotFoundError:
                return NotLocked.ABSENT
            try:
                if not self._disk.lock(lock):
                    self._disk.close(lock)
                    return NotLocked.HELD
                if self._is_in_place(job_id, lock):
                    return lock
            except BaseException:
                self._disk.close(lock)
                raise
            self._disk.close(lock)

    def _open_lock(self, job_id: str, *, make: bool) -> int:
        path = self.path(job_id, LOCK)
        try:
            return self._disk.open(path, os.O_RDWR | (os.O_CREAT if make else 0))
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            # Locking needs no right to write, on local file systems.
            return self._disk.open(path, os.O_RDONLY)

    def _is_in_place(self, job_id: str, lock: int) -> bool:
        try:
            status = self._disk.status(self.path(job_id, LOCK))
        except FileNotFoundError:
            return False
        return os.path.samestat(self._disk.status_of(lock), status)

    def watch(self, job_id: str) -> int | None:
        """Open a descriptor that reads EOF when the last holder of `alive` is gone.

        Returns:
            None if nobody holds it now, or it cannot be opened: then ask again later.
        """
        try:
            fd = self._open_fifo(job_id, ALIVE, os.O_RDONLY)
        except OSError:
            return None
        try:
            # Without a writer at this moment there would be no EOF either.
            held = bool(self._disk.read(fd, 4096))
        except BlockingIOError:
            held = True
        if not held:
            self._disk.close(fd)
            return None
        return fd

    def ring(self, job_id: str) -> bool:
        """Let the owner look at the markers; False if no owner listens."""
        try:
            fd = self._open_fifo(job_id, BELL, os.O_WRONLY)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise
        try:
            self._disk.write(fd, memoryview(b"!"))
        except BlockingIOError:
            pass  # Full of rings that the owner has not heard yet.
        except BrokenPipeError:
            return False
        finally:
            self._disk.close(fd)
        return True

    def owner_is_gone(self, job_id: str) -> bool:
        """Whether a lock that is held is held by a guard alone: its owner's bell is dead."""
        try:
            self._disk.close(self._open_fifo(job_id, BELL, os.O_WRONLY))
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def _open_fifo(self, job_id: str, suffix: str, flags: int) -> int:
        path = self.path(job_id, suffix)
        fd = self._disk.open(path, flags)
        try:
            if not stat.S_ISFIFO(self._disk.status_of(fd).st_mode):
                raise OSError(errno.EINVAL, "not a FIFO", path)
        except BaseException:
            self._disk.close(fd)
            raise
        return fd

    def mark_cancel(self, job_id: str, by: str, *, durable: bool = True) -> None:
        """Say that a job is to be cancelled; the first to say so stays named."""
        text = by.encode(errors="replace")[:_MARKER_BYTES]
        path = self.path(job_id, CANCEL)
        try:
            write_new(self._disk, path, text, durable=durable)
        except FileExistsError:
            # Its owner would not see what is no file.
            with contextlib.suppress(FileNotFoundError):
                fd, _ = open_regular(self._disk, path)
                self._disk.close(fd)
        if durable:
            sync_directory(self._disk, self.directory)

    def mark_ending(self, job_id: str) -> None:
        """Say that the processes of a job are being ended."""
        with contextlib.suppress(FileExistsError):
            write_new(self._disk, self.path(job_id, ENDING), b"", durable=False)

    def cancelled_by(self, job_id: str) -> str | None:
        """Who wants the job cancelled; None: nobody.

        What is no file says nothing: it must neither end a run nor keep a lost job from its end.
        """
        try:
            fd, _ = open_regular(self._disk, self.path(job_id, CANCEL))
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in NOT_A_FILE:
                return None
            raise
        try:
            return read_all(self._disk, fd, _MARKER_BYTES).decode(errors="replace")
        finally:
            self._disk.close(fd)

    def is_ending(self, job_id: str) -> bool:
        """Whether a marker says that the job comes to its end."""
        return any(exists(self._disk, self.path(job_id, suffix)) for suffix in (CANCEL, ENDING))

    # -- the folder as a whole

    def job_ids(self) -> list[str]:
        """Ids of jobs with a lock file, in no order; few at any size of the history."""
        return [
            name[: -len(LOCK)]
            for name in self.names()
            if name.endswith(LOCK) and is_job_id(name[: -len(LOCK)])
        ]

    def names(self) -> list[str]:
        """All names in the folder."""
        return names_in(self._disk, self.directory)

    def remove_unplaced(self, name: str) -> bool:
        """Remove a spare, or a lock that never came into place, if nobody is about to use it.

        Returns:
            Whether a process that is gone has left it; a spare may be anybody's.
        """
        if not (name.startswith(".") and name.endswith((_NEW, _SPARE))):
            return False
        path = os.path.join(self.directory, name)
        try:
            lock = self._disk.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            removed = self._disk.lock(lock) and remove(self._disk, path)
            return removed and name.endswith(_NEW)
        finally:
            self._disk.close(lock)


def owners_of(names: Iterable[str]) -> set[str]:
    """Ids of the jobs that files of these names belong to."""
    suffixes = (LOCK, *_BESIDE_THE_LOCK)
    ids = (name.partition(".")[0] for name in names if name.endswith(suffixes))
    return {job_id for job_id in ids if is_job_id(job_id)}

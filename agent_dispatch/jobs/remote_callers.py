"""A host's files about jobs that callers on other machines have submitted.

    remote/jobs/ID.json    the submitter and a digest of the request, so that a job is taken once
    remote/jobs/ID.begun   a worker has begun; nothing may start the job again
    remote/jobs/ID.gone    the record was removed; kept for 7 days against late repetitions
    live/ID.lease          how long the job goes on without its caller, and when that was heard
    live/ID.events         numbered lines of progress

A lease is measured with CLOCK_MONOTONIC, which stops while the host sleeps. Otherwise a host that
wakes would end its jobs before their callers could reconnect.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from agent_dispatch.errors import NOT_JSON, InvalidRequestError
from agent_dispatch.file_locks import LockHeldError, lock_within
from agent_dispatch.files import (
    DISK,
    Disk,
    make_private_directory,
    names_in,
    open_private,
    opened_regular,
    read_all,
    remove_quietly,
    sync_directory,
    write_all,
)
from agent_dispatch.jobs.errors import JobStoreError, store_errors
from agent_dispatch.jobs.ids import check_job_id
from agent_dispatch.jobs.locks import EVENTS, LEASE

FOLDER = "remote"
KEEP_GONE_S = 7 * 86_400.0
MAX_EVENTS_BYTES = 1 << 20
_TAKEN, _BEGUN, _GONE = ".json", ".begun", ".gone"
_LOCK_S = 10.0
_MAX_BYTES = 64 * 1024


class Submission(msgspec.Struct, frozen=True):
    """The submitter of a job, and what was submitted."""

    digest: str
    """Of the request. The same id with another digest is refused."""
    caller: str = ""
    """The name that a forced command gives the caller; empty without one."""


class Lease:
    """For how long a job goes on without a sign of life from its caller."""

    def __init__(self, path: str) -> None:
        """Use the file `path`, which is removed with the other live files of the job."""
        self._path = path

    def write(self, lease_s: float, *, create: bool = False) -> None:
        """Record that the caller was heard now. Does nothing if the job has ended."""
        flags = os.O_WRONLY | (os.O_CREAT if create else 0)
        try:
            fd = open_private(self._path, flags, DISK)
        except FileNotFoundError:
            return
        try:
            # In place and always of the same length, so that no reader sees half of it.
            os.pwrite(fd, b"%16.3f %24.6f\n" % (lease_s, time.monotonic()), 0)
        finally:
            os.close(fd)

    def exists(self) -> bool:
        """Whether the job has a lease."""
        return os.path.exists(self._path)

    def overdue_s(self) -> float | None:
        """Return the length of a lease that has expired; None if it has not, or there is none."""
        try:
            with opened_regular(self._path) as (fd, _):
                content = read_all(fd, 100, DISK)
        except FileNotFoundError:
            return None
        words = content.split()
        if len(words) != 2:
            return None
        lease_s, heard_at = float(words[0]), float(words[1])
        return lease_s if time.monotonic() - heard_at > lease_s else None


class Submissions:
    """The submissions of remote callers to one jobs directory. All methods block."""

    def __init__(self, jobs: str, *, disk: Disk, now: Callable[[], float]) -> None:
        """Use the folder `remote/jobs` of the directory `jobs`."""
        self._jobs = jobs
        self._directory = os.path.join(jobs, FOLDER, "jobs")
        self._disk = disk
        self._now = now

    def _path(self, job_id: str, suffix: str) -> str:
        return os.path.join(self._directory, check_job_id(job_id) + suffix)

    def take(self, job_id: str, submission: Submission) -> int:
        """Lock a submission, and record it if it is new; return the descriptor of the lock.

        Raises:
            InvalidRequestError: Another request or a job of this machine has this id, or the job
                was removed or withdrawn.
            JobStoreError: Another process keeps the lock.
        """
        path = self._path(job_id, _TAKEN)
        of_another = InvalidRequestError(
            f"Job {job_id} was submitted before with another request; nothing was started."
        )
        # In this order, because a submission is recorded before its job.
        if os.path.exists(os.path.join(self._jobs, job_id + ".json")) and not self.knows(job_id):
            raise of_another
        make_private_directory(self._directory, self._disk)
        try:
            lock = lock_within(path, _LOCK_S, self._disk)
        except LockHeldError as error:
            raise JobStoreError(
                f"Another process has kept {path} locked for {_LOCK_S:g} s."
            ) from error
        try:
            if os.path.exists(self._path(job_id, _GONE)):
                raise InvalidRequestError(
                    f"Job {job_id} was removed or withdrawn; it is not run again."
                )
            content = read_all(lock, _MAX_BYTES, self._disk)
            if not content:
                write_all(lock, msgspec.json.encode(submission), self._disk)
                self._disk.fsync(lock)
                sync_directory(self._directory, self._disk)
            elif _decode(content) != submission:
                raise of_another
        except BaseException:
            os.close(lock)
            raise
        return lock

    def of(self, job_id: str) -> Submission | None:
        """Return the submission of a job; None if the job is not from a remote caller."""
        try:
            with opened_regular(self._path(job_id, _TAKEN), self._disk) as (fd, _):
                return _decode(read_all(fd, _MAX_BYTES, self._disk))
        except FileNotFoundError:
            return None

    def knows(self, job_id: str) -> bool:
        """Return whether a job came from a remote caller, and its record is kept."""
        return os.path.exists(self._path(job_id, _TAKEN))

    def begin(self, job_id: str) -> None:
        """Record, durably, that a worker begins a job, if it came from a remote caller.

        Raises:
            JobStoreError: It cannot be recorded, so the job must not begin.
        """
        if not self.knows(job_id):
            return
        path, flags = self._path(job_id, _BEGUN), os.O_WRONLY | os.O_CREAT
        with store_errors("The beginning of the job cannot be recorded", self._jobs):
            self._disk.close(open_private(path, flags, self._disk))
            # The file is empty: only its name has to survive a power cut.
            sync_directory(self._directory, self._disk)

    def has_begun(self, job_id: str) -> bool:
        """Return whether a worker has begun a job."""
        return os.path.exists(self._path(job_id, _BEGUN))

    def bury(self, job_id: str, *, only_known: bool = False) -> None:
        """Record that a job must never start: its record is removed, or its caller withdrew it."""
        if only_known and not self.knows(job_id):
            return
        make_private_directory(self._directory, self._disk)
        gone = self._path(job_id, _GONE)
        self._disk.close(open_private(gone, os.O_WRONLY | os.O_CREAT, self._disk))
        paths = self._path(job_id, _TAKEN), self._path(job_id, _BEGUN)
        remove_quietly(*paths, disk=self._disk)

    def prepare(self, job_id: str, lease_s: float) -> None:
        """Make the live files of a job of a remote caller, which this process owns.

        Args:
            lease_s: How long it goes on without its caller; 0 for no limit.

        Raises:
            JobStoreError: They cannot be made.
        """
        with store_errors(f"Job {job_id} cannot be prepared", self._jobs):
            flags = os.O_WRONLY | os.O_CREAT
            self._disk.close(open_private(self.events_path(job_id), flags, self._disk))
            if lease_s:
                self.lease(job_id).write(lease_s, create=True)

    def lease(self, job_id: str) -> Lease:
        """Return the lease of a job. Its file may be missing."""
        return Lease(os.path.join(self._jobs, "live", check_job_id(job_id) + LEASE))

    def events_path(self, job_id: str) -> str:
        """Return the file with the numbered progress of a job."""
        return os.path.join(self._jobs, "live", check_job_id(job_id) + EVENTS)

    def clean(self) -> None:
        """Forget the ids of jobs that were removed more than 7 days ago."""
        for name in names_in(self._directory, self._disk):
            if name.endswith(_GONE):
                path = os.path.join(self._directory, name)
                with suppress(FileNotFoundError):  # Another process was faster.
                    if self._now() - os.stat(path).st_mtime > KEEP_GONE_S:
                        os.unlink(path)


def _decode(content: bytes) -> Submission | None:
    try:
        return msgspec.json.decode(content, type=Submission)
    except NOT_JSON:
        return None


class EventLog:
    """Numbered lines of progress, which a worker writes for the caller of its job.

    They are of no use once the job has ended, so a full disk stops only the log.
    """

    def __init__(self, path: str) -> None:
        """Append to `path` if it exists, which it does for jobs of remote callers."""
        self._fd: int | None = None
        with suppress(OSError):
            self._fd = open_private(path, os.O_WRONLY | os.O_APPEND, DISK)
        self._seq = 0
        self._bytes = 0

    def append(self, lines: Sequence[str]) -> None:
        """Add lines, up to 1 MiB in all."""
        if self._fd is None or not lines:
            return
        text = bytearray()
        for line in lines:
            self._seq += 1
            text += msgspec.json.encode([self._seq, line]) + b"\n"
        self._bytes += len(text)
        try:
            if self._bytes <= MAX_EVENTS_BYTES:
                write_all(self._fd, text, DISK)
                return
        except OSError:
            pass  # Closed below, like a log that is full.
        os.close(self._fd)
        self._fd = None


class EventReader:
    """Reads an event log from its beginning, even if its file is removed meanwhile."""

    def __init__(self, path: str, after: int) -> None:
        """Read the events after number `after`. Without a file there are none."""
        self._fd: int | None = None
        with suppress(OSError):
            self._fd = open_private(path, os.O_RDONLY, DISK)
        self._after = after
        self._rest = b""

    def read(self) -> list[tuple[int, str]]:
        """Return the events that are new since the last call."""
        if self._fd is None:
            return []
        self._rest += read_all(self._fd, 2 * MAX_EVENTS_BYTES, DISK)
        *lines, self._rest = self._rest.split(b"\n")
        events = [msgspec.json.decode(line, type=tuple[int, str]) for line in lines]
        return [event for event in events if event[0] > self._after]

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

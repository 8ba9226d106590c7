"""Settle: whoever meets a job without an owner that is not over writes how it ended.

That is the only recovery. It needs no start-up pass and no threshold: a lock that is free says
that the owner and all processes of the run are gone. Any number of processes may try; the one
that gets the lock reads the record again and writes, the others find it written.
"""

import contextlib
from collections.abc import Callable

from agent_dispatch.jobs import verdict
from agent_dispatch.jobs.disk import Disk, make_private_directory
from agent_dispatch.jobs.errors import BrokenJobError, UnknownJobError
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.live import LiveFiles, NotLocked
from agent_dispatch.jobs.record_files import Loaded, RecordFiles
from agent_dispatch.jobs.records import decode_unknown
from agent_dispatch.jobs.store import NO_DESCRIPTORS, Claim
from agent_dispatch.jobs.writer import RecordWriter
from agent_dispatch.model.job import Job


class Settler:
    """Settles jobs of one jobs directory. Safe to use from several threads."""

    def __init__(
        self,
        records: RecordFiles,
        live: LiveFiles,
        writer: RecordWriter,
        disk: Disk,
        *,
        now: Callable[[], float],
        end_processes: Callable[[str], object],
    ) -> None:
        """Read `records` and `live`.

        Args:
            records: The records.
            live: Their locks and markers.
            writer: Writes the verdicts.
            disk: The system calls.
            now: The time to be recorded.
            end_processes: Ends what is left of a job, by its id, when nobody owns it any more.
        """
        self._records = records
        self._live = live
        self._writer = writer
        self._disk = disk
        self._now = now
        self._end_processes = end_processes

    def settle(self, job_id: str) -> Job:
        """Read a job, and end it first if nobody owns it; see `JobStore.settle`.

        Raises:
            OSError: Its lock cannot be asked for.
        """
        job = self._records.load(job_id).job
        if job.status.is_terminal:
            return job
        lock = self._lock_ownerless(job_id)
        if lock is NotLocked.HELD:
            return job
        if isinstance(lock, NotLocked):
            # Nothing can be made here. Looked at again, because its owner may just have finished.
            return self._verdict(self._records.load(job_id).job)
        try:
            return self._settle_locked(job_id, lock)
        finally:
            self._disk.close(lock)

    def is_held(self, job_id: str) -> bool:
        """Whether somebody holds a job's lock; the answer is old at once if it is "no".

        Raises:
            OSError: The lock cannot be asked for.
        """
        lock = self._live.try_lock(job_id, make=False)
        if isinstance(lock, NotLocked):
            return lock is NotLocked.HELD
        self._disk.close(lock)
        return False

    def _lock_ownerless(self, job_id: str) -> int | NotLocked:
        lock = self._live.try_lock(job_id, make=True)
        if lock is not NotLocked.ABSENT:
            return lock
        # What cannot be made is not needed: the verdict is given without being written.
        with contextlib.suppress(OSError):
            make_private_directory(self._disk, self._live.directory)
        return self._live.try_lock(job_id, make=True)

    def _settle_locked(self, job_id: str, lock: int) -> Job:
        try:
            loaded = self._records.load(job_id)
        except UnknownJobError:
            self._remove_live_files(job_id, lock)
            raise
        if not loaded.job.status.is_terminal:
            # Owner and guard are gone; killed together, they leave what had detached itself.
            self._end_processes(job_id)
        job = self._verdict(loaded.job)
        if job is not loaded.job and not self._write(loaded, job):
            return job  # True all the same; the next reader tries to write it again.
        self._remove_live_files(job_id, lock)
        return job

    def _write(self, loaded: Loaded, job: Job) -> bool:
        claim = Claim(loaded.job, NO_DESCRIPTORS)
        claim.unknown = decode_unknown(loaded.content)
        claim.seen = loaded.seen
        return self._writer.write_end(claim, job).visible

    def _remove_live_files(self, job_id: str, lock: int) -> None:
        # What stays is litter, and no reason to fail a reader.
        with contextlib.suppress(OSError):
            self._live.remove(job_id, lock)

    def _verdict(self, job: Job) -> Job:
        """Say how a job without an owner ended."""
        if job.status.is_terminal:
            return job
        now = self._now()
        if (by := self._live.cancelled_by(job.id)) is not None:
            return verdict.cancelled(job, by, now)
        if job.parent is not None and self.comes_to_its_end(job.parent):
            return verdict.cancelled_with_parent(job, now)
        return verdict.lost(job, now)

    def comes_to_its_end(self, job_id: str) -> bool:
        """Whether a job's processes are being ended, or are gone: by its owner or without it.

        Raises:
            OSError: Its lock cannot be asked for.
        """
        if not is_job_id(job_id):
            return False
        if self._live.is_ending(job_id):
            return True
        try:
            if self._records.head(job_id).status.is_terminal:
                return True
        except UnknownJobError:
            return True
        except BrokenJobError:
            return False
        return not self.is_held(job_id) or self._live.owner_is_gone(job_id)

"""Reconcile: a reader that finds a job without an owner records how the job ended.

This is the only recovery. It needs no pass at start-up and no threshold, because a free lock says
that the owner and all processes of the run are gone. Any number of processes may try: the one that
gets the lock reads the record again and writes, and the others find the end written.
"""

from collections.abc import Callable
from contextlib import suppress

from agent_dispatch.core.group_job import look_at_members
from agent_dispatch.files import READ_ONLY, Disk, make_private_directory
from agent_dispatch.jobs.errors import BrokenJobError, UnknownJobError
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.locks import Locks
from agent_dispatch.jobs.record import ended
from agent_dispatch.jobs.record_files import RecordFiles
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import NextStep, StepKind


class Reconciler:
    """Settles jobs of one jobs directory. Safe to use from several threads.

    Each method raises `OSError` if the lock of a job cannot be tried.
    """

    def __init__(
        self,
        records: RecordFiles,
        locks: Locks,
        disk: Disk,
        *,
        now: Callable[[], float],
        end_processes: Callable[[str], object],
        on_end: Callable[[Job], object],
    ) -> None:
        """Settle the jobs of `records`.

        Args:
            end_processes: Ends the processes that are left of a lost job, by its id.
            on_end: Called with each job whose end is recorded here.
        """
        self._records = records
        self._locks = locks
        self._disk = disk
        self._now = now
        self._end_processes = end_processes
        self._on_end = on_end

    def settle(self, job_id: str) -> Job:
        """Read a job, and first record its end if its owner has died; see `JobStore.settle`."""
        job = self._records.load(job_id)
        if job.status.is_terminal:
            return job
        try:
            lock = self._lock_ownerless(job_id)
        except FileNotFoundError:
            # No lock file can be made here. Read again: the owner may just have finished.
            return self._verdict(self._records.load(job_id))
        if lock is None:
            return job
        try:
            settled, is_new = self._settle_locked(job_id, lock)
        finally:
            self._disk.close(lock)
        if is_new:
            self._on_end(settled)
        return settled

    def is_held(self, job_id: str) -> bool:
        """Whether a process holds a job's lock; once False, it stays False."""
        try:
            lock = self._locks.try_lock(job_id, create=False)
        except FileNotFoundError:
            return False
        if lock is None:
            return True
        self._disk.close(lock)
        return False

    def is_ending(self, job_id: str) -> bool:
        """Whether a job has ended or its processes are being ended; False for an impossible id."""
        if not is_job_id(job_id):
            return False
        if self._locks.is_ending(job_id):
            return True
        try:
            if self._records.head(job_id).status.is_terminal:
                return True
        except UnknownJobError:
            return True
        except BrokenJobError:
            return False
        return not self.is_held(job_id) or self._locks.owner_is_gone(job_id)

    def _lock_ownerless(self, job_id: str) -> int | None:
        try:
            return self._locks.try_lock(job_id, create=True)
        except FileNotFoundError:
            # If the folder cannot be made either, the verdict is returned without being written.
            with suppress(OSError):
                make_private_directory(self._locks.directory, self._disk)
            return self._locks.try_lock(job_id, create=True)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            return self._locks.try_lock(job_id, create=False)

    def _settle_locked(self, job_id: str, lock: int) -> tuple[Job, bool]:
        """Settle a job whose lock we hold; say whether its end was recorded just now."""
        try:
            claim = self._records.claim(job_id)
        except UnknownJobError:
            self._remove_live_files(job_id, lock)
            raise
        if claim.job.status.is_terminal:
            self._remove_live_files(job_id, lock)
            return claim.job, False
        # If owner and guard were killed together, detached processes may be left.
        self._end_processes(job_id)
        job = self._verdict(claim.job)
        is_written, _ = self._records.end(claim, job)
        if is_written:
            self._remove_live_files(job_id, lock)
        # If it could not be written, the next reader tries again.
        return job, is_written

    def _remove_live_files(self, job_id: str, lock: int) -> None:
        # Retention removes what is left; a reader need not fail for it.
        with suppress(OSError):
            self._locks.remove(job_id, lock)

    def _verdict(self, job: Job) -> Job:
        """The final record of a job without an owner."""
        if job.status.is_terminal:
            return job
        by = self._locks.cancelled_by(job.id)
        parent_ends = by is None and job.parent is not None and self.is_ending(job.parent)
        return verdict(job, self._now(), cancelled_by=by, parent_ends=parent_ends)


def verdict(
    job: Job, now: float, *, cancelled_by: str | None = None, parent_ends: bool = False
) -> Job:
    """The final record of a job whose owner died.

    Args:
        now: Seconds since the epoch.
        cancelled_by: Who had asked for its cancellation.
        parent_ends: The job whose agent started it has ended or is ending.
    """
    error_type = ErrorType.CANCELLED
    if cancelled_by is not None:
        why = f"Cancelled by {cancelled_by or 'a caller'}."
    elif parent_ends:
        why = f"Cancelled with the dispatch that started it (job {job.parent}), which ended."
    else:
        error_type = ErrorType.LOST
        why = "The process that ran this job died before the job ended; its agent was ended too."
    if job.answer:
        why += " Its verify command had not passed; the answer is in `result`."
    steps = [NextStep(kind=StepKind.RESUME, agent=job.agent, session_id=job.session_id)]
    if job.kind is JobKind.GROUP:
        steps = look_at_members(job.members or ())
    result = DispatchResult(
        agent=job.agent,
        success=False,
        result=job.answer,
        session_id=job.session_id,
        error=why,
        error_type=error_type,
        next_steps=steps or None,
    )
    return ended(job, result, now)

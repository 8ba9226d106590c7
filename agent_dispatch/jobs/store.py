"""The job store: one JSON file per job, and files in `live/` for the jobs that have not ended.

A record is written to a new file, synced and renamed into place. Whether a job has an owner is
asked of the kernel (see `locks`), never of a clock. So nothing has to be recovered at start-up, and
no job is given up because it is old or silent.

All of it blocks and belongs in a worker thread or on a command line; `owner` and `waiting` put it
on Trio.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from agent_dispatch.files import (
    DISK,
    PRIVATE_FILE,
    Disk,
    make_private_directory,
    open_private,
)
from agent_dispatch.jobs.errors import JobOverError, JobStoreError, store_errors
from agent_dispatch.jobs.ids import IdSource, check_job_id
from agent_dispatch.jobs.late_answers import LateAnswers
from agent_dispatch.jobs.ledger import Ledger
from agent_dispatch.jobs.listing import Lister
from agent_dispatch.jobs.locks import NO_DESCRIPTORS, NO_FD, Descriptors, Locks
from agent_dispatch.jobs.log import LOG_SUFFIX
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.reconcile import Reconciler
from agent_dispatch.jobs.record_files import Claim, RecordFiles
from agent_dispatch.jobs.remote_callers import Submissions
from agent_dispatch.jobs.requests import Requests
from agent_dispatch.jobs.retention import Retention
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind, JobSummary, may_become, new_job


def _ignore_end(_job: Job) -> None:
    """Report the end of a lost job to nobody."""


class Finished(NamedTuple):
    """How the end of a job was recorded."""

    job: Job
    """The job with its whole result, whatever became of its record."""
    persisted: bool
    """All of it is on disk and survives a power cut."""
    problem: str | None
    """Why it is not persisted; shown with the answer."""


class JobStore:
    """The jobs of one directory, which is made with the first job.

    Threads and processes may share a directory, but a claim belongs to one thread at a time. Every
    method that takes an id raises `InvalidJobIdError` for text that cannot be an id,
    `UnknownJobError` if there is no such job, and `BrokenJobError` if its record cannot be read.
    Every method raises `JobStoreError` if the directory cannot be used.

    Its public attributes are parts that callers use directly; they raise the same errors.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk = DISK,
        now: Callable[[], float] = time.time,
        ids: IdSource | None = None,
        end_processes: Callable[[str], object] | None = None,
        on_end: Callable[[Job], object] = _ignore_end,
        origin: Origin | None = None,
    ) -> None:
        """Use `directory`.

        Args:
            directory: Absolute.
            disk: The system calls.
            now: The clock for the record, in seconds since the epoch.
            ids: Makes the ids of new jobs.
            end_processes: Ends the processes that are left of a job, by its id, after its owner and
                guard have died.
            on_end: Called with each lost job whose end is recorded here; must not raise.
            origin: The client that new jobs are recorded with; None for a store that makes none.
        """
        self._directory = str(directory)
        self._logs = os.path.join(self._directory, "logs")
        self._disk = disk
        self.now = now
        self._ids = ids or IdSource()
        self.origin = origin
        live = os.path.join(self._directory, "live")
        self._locks = Locks(live, disk)
        self._records = RecordFiles(self._directory, live, disk)
        self._reconciler = Reconciler(
            self._records,
            self._locks,
            disk,
            now=now,
            end_processes=end_processes or _end_processes,
            on_end=on_end,
        )
        self.requests = Requests(self._directory, self._locks, disk, settle=self.settle, now=now)
        """Asks the owner of a job to cancel it, or sends it a message."""
        self.ledger = Ledger(self._directory, is_held=self._reconciler.is_held, disk=disk, now=now)
        """The costs of these jobs' runs."""
        self.lister = Lister(
            self._records, self._locks, disk, is_held=self.is_held, settle=self.settle
        )
        """Lists and finds jobs."""
        self.late_answers = LateAnswers(self._directory, disk)
        """Answers to questions of jobs that have ended."""
        self.submissions = Submissions(self._directory, disk=disk, now=now)
        """Jobs that callers on other machines submitted."""
        self.retention = Retention(
            self._records,
            self._locks,
            self.lister,
            disk,
            answers=self.late_answers,
            submissions=self.submissions,
            settle=self.settle,
            now=now,
        )
        """Removes old jobs."""

    # -- for the owner

    def new_job(
        self,
        request: DispatchRequest,
        *,
        kind: JobKind,
        parent: str | None = None,
        tree: str | None = None,
        ref: bool = False,
        job_id: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Job:
        """Make the first record of a job, for `create`; nothing is written yet.

        Args:
            request: The task.
            kind: Who owns the job.
            parent: The job whose agent starts this one.
            tree: The tree of runs that it belongs to; None: it is the root of a new one.
            ref: The caller gets the id instead of the answer.
            job_id: The id, if the caller made it; no job may have it yet.
            fields: Further fields of the `Job`.
        """
        job_id = self._ids.next() if job_id is None else check_job_id(job_id)
        return new_job(
            job_id,
            request,
            self.now(),
            kind=kind,
            parent=parent,
            tree=tree or job_id,
            ref=ref,
            fields={**(self.origin.fields() if self.origin else {}), **(fields or {})},
        )

    def create(self, job: Job) -> Claim:
        """Record a new job, durably, and own it.

        Raises:
            JobStoreError: The job cannot be recorded. Nothing is left of it; start nothing.
        """
        with self._errors("The job cannot be recorded, so nothing was started"):
            make_private_directory(self._locks.directory, self._disk)
            claim = Claim(job, self._locks.create(job.id))
            try:
                self._records.create(claim)
            except BaseException:
                self._locks.undo(job.id, claim.fds)
                raise
        return claim

    def adopt(self, job_id: str, fds: Iterable[int]) -> Claim:
        """Own a job whose owner handed over its `Descriptors`, which are ours to close.

        Raises:
            JobStoreError: They belong to another job, or the job has ended; they are closed.
        """
        given = list(fds)
        try:
            return self._take_over(check_job_id(job_id), given)
        except BaseException:
            self._locks.close(given)
            raise

    def _take_over(self, job_id: str, given: list[int]) -> Claim:
        with self._errors(f"Job {job_id} cannot be taken over"):
            for fd in given:
                os.set_inheritable(fd, False)
            # Where the file system has no FIFOs, there is only the lock.
            is_ours = len(given) in (1, len(NO_DESCRIPTORS)) and self._locks.owns(job_id, given[0])
        if not is_ours:
            raise JobStoreError(
                f"Job {job_id} cannot be taken over: what was handed over is not its lock."
                " Dispatch its task again."
            )
        missing = [NO_FD] * (len(NO_DESCRIPTORS) - len(given))
        claim = self._records.claim(job_id, Descriptors(*given, *missing))
        if claim.job.status.is_terminal:
            raise JobOverError(job_id, claim.job.status)
        return claim

    def update(self, claim: Claim, job: Job) -> None:
        """Replace the record of a job that goes on; `claim.job` becomes `job` even on an error.

        Raises:
            JobStoreError: The record is unchanged.
            JobOverError: The record is final, although we own the job.
            ValueError: The status may not follow the present one, or the claim was released.
        """
        _check_step(claim, job)
        if job.status.is_terminal:
            raise ValueError("finish() ends a job")
        claim.job = job
        with self._errors(f"The record of job {job.id} cannot be updated"):
            self._records.update(claim, job)

    def finish(self, claim: Claim, job: Job, *, tree_ended: bool = True) -> Finished:
        """Record how a job ended, release it, and wake everything that waits for it.

        The bell is closed at once, so no task may be waiting for it. A record that cannot be
        written raises nothing, because the answer is paid for: `Finished` says what is wrong.

        Args:
            claim: Cannot be used afterwards.
            job: With a terminal status.
            tree_ended: False if processes of the run are left, so that a guard still holds the
                job's lock.

        Raises:
            ValueError: The status may not follow the present one, or the claim was released.
        """
        _check_step(claim, job)
        if not job.status.is_terminal:
            raise ValueError("update() goes on with a job")
        claim.job = job
        # No ring is needed now, and at the limit of open files this makes room for one.
        self._locks.close([claim.fds.bell])
        claim.fds = claim.fds._replace(bell=NO_FD)
        try:
            is_visible, problem = self._records.end(claim, job)
            if is_visible and tree_ended:
                # Retention removes what is left.
                with suppress(OSError):
                    self._locks.remove(job.id, claim.fds.lock)
        finally:
            self.release(claim)
        return Finished(job, problem is None, problem)

    def release(self, claim: Claim) -> None:
        """Close our copies of the descriptors. Safe to call twice."""
        fds, claim.fds = claim.fds, NO_DESCRIPTORS
        self._locks.close(fds)

    def mark_cancelled(self, claim: Claim, by: str) -> None:
        """Mark a job that its owner is about to cancel, in case the owner dies before the end.

        Best effort, and not durable: without the mark, the job would be recorded as lost instead of
        cancelled.

        Args:
            claim: The job.
            by: Who cancels it, for the end of a sentence; an earlier name is kept.
        """
        with suppress(OSError):
            self._locks.mark_cancel(claim.job.id, by, durable=False)

    def mark_ending(self, claim: Claim) -> None:
        """Mark a job whose processes are being ended: jobs started inside them end with them.

        Best effort: without the mark, such a job would be recorded as lost instead of cancelled.
        """
        with suppress(OSError):
            self._locks.mark_ending(claim.job.id)

    def unmark_ending(self, claim: Claim) -> None:
        """Remove that mark, because the job goes on with other processes; best effort as well."""
        with suppress(OSError):
            self._locks.unmark_ending(claim.job.id)

    # -- for all other processes

    def is_ending(self, job_id: str) -> bool:
        """Whether a job has ended or its processes are being ended; False for an impossible id."""
        with self._errors("Cannot tell whether the job has ended"):
            return self._reconciler.is_ending(job_id)

    def read(self, job_id: str) -> Job:
        """Read the record as it is; the job may be `running` there although its owner has died."""
        return self.late_answers.merged(self._records.load(check_job_id(job_id)))

    def head(self, job_id: str) -> JobSummary:
        """Read a job's row in a listing, as it is; fast however large the answer."""
        return self._records.head(check_job_id(job_id))

    def settle(self, job_id: str) -> Job:
        """Read a job, and first record its end if its owner has died.

        Every reader should call this; it is the only recovery. Of several readers, one writes the
        verdict. Where nothing can be written, the verdict is still returned.
        """
        with self._errors("Cannot tell whether the job has ended"):
            return self.late_answers.merged(self._reconciler.settle(check_job_id(job_id)))

    def is_held(self, job_id: str) -> bool:
        """Whether the job's owner or the guard of its run is alive."""
        with self._errors("Cannot tell whether the job has ended"):
            return self._reconciler.is_held(check_job_id(job_id))

    def watch(self, job_id: str) -> int | None:
        """Open a descriptor that becomes readable when the last holder of the job is gone.

        The caller reads the job again after opening it, and closes it. None if there is nothing to
        wait for now; poll instead.
        """
        return self._locks.watch(check_job_id(job_id))

    def open_log(self, job_id: str) -> int:
        """Open a private file for the stderr of a job's worker; it is removed with the record."""
        path = os.path.join(self._logs, check_job_id(job_id) + LOG_SUFFIX)
        with self._errors(f"The log of job {job_id} cannot be opened"):
            make_private_directory(self._logs, self._disk)
            fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, self._disk)
            try:
                self._disk.fchmod(fd, PRIVATE_FILE)
            except BaseException:
                self._disk.close(fd)
                raise
        return fd

    def _errors(self, what: str) -> AbstractContextManager[None]:
        return store_errors(what, self._directory)


def _check_step(claim: Claim, job: Job) -> None:
    """Raise `ValueError` for a record that no owner may write, which would be a bug of ours."""
    if claim.fds.lock == NO_FD:
        raise ValueError(f"the claim on job {claim.job.id} was released")
    if job.id != claim.job.id or not may_become(claim.job.status, job.status):
        raise ValueError(f"{claim.job.status} {claim.job.id} cannot become {job.status} {job.id}")


def _end_processes(job_id: str) -> None:
    # Imported only for a lost job, not for every listing.
    from agent_dispatch.claude.process_tree import kill_marked

    kill_marked(f"{JOB_VARIABLE}={job_id}")

"""The job store: one JSON file per job, and `live/` for those that have not ended.

A record is written to a new file, synced and renamed into its place. Whether a job has an owner
is asked of the kernel (see `locks`), never of a clock: so there is no recovery at start, and no
job is ever given up because it is old or silent.

Nothing outside this package knows that there are files. All of it blocks and belongs in a worker
thread or on a command line; `owner` and `waiting` put it on Trio.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agent_dispatch.files import (
    DISK,
    PRIVATE_FILE,
    Disk,
    make_private_directory,
    open_private,
    remove_quietly,
)
from agent_dispatch.jobs.errors import JobOverError, JobStoreError, UnknownJobError, store_error
from agent_dispatch.jobs.ids import IdSource, check_job_id
from agent_dispatch.jobs.late_answers import LateAnswers
from agent_dispatch.jobs.ledger import Ledger
from agent_dispatch.jobs.listing import Lister, Listing, Warnings
from agent_dispatch.jobs.locks import (
    CANCEL,
    EVENTS,
    LEASE,
    MAIL,
    NO_DESCRIPTORS,
    NO_FD,
    Descriptors,
    Locks,
)
from agent_dispatch.jobs.log import LOG_SUFFIX
from agent_dispatch.jobs.mailbox import Delivery, Mail, append, new_mail, read_new
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.reconcile import Reconciler
from agent_dispatch.jobs.record_files import Claim, RecordFiles
from agent_dispatch.jobs.remote_callers import Lease, Submissions
from agent_dispatch.jobs.retention import Collected, Retention
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import (
    JOB_VARIABLE,
    Job,
    JobKind,
    JobStatus,
    JobSummary,
    may_become,
    new_job,
)
from agent_dispatch.model.question import PastQuestion

__all__ = ["NO_DESCRIPTORS", "NO_FD", "Claim", "Collected", "Finished", "JobStore", "Listing"]


def _ignore_end(_job: Job) -> None:
    """Tell nobody of the end of a lost job."""


class Finished(NamedTuple):
    """How the end of a job was recorded."""

    job: Job
    """The job with its whole result, whatever became of its record."""
    persisted: bool
    """All of it is on disk and survives a power cut."""
    problem: str | None
    """Why it is not persisted, to be told with the answer."""


class JobStore:
    """Keeps jobs in a directory, which is made with the first one.

    Any number of threads and processes use one at the same time, each claim from one thread at a
    time. Every call that takes an id raises `InvalidJobIdError` for what cannot be one,
    `UnknownJobError` for a job that is not there, and `BrokenJobError` for one that cannot be
    read; and every call raises `JobStoreError` if the directory cannot be used.
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
            now: The time to be recorded, in seconds since the epoch.
            ids: Where new ids come from.
            origin: What new jobs are recorded with; None for a store that makes none for a client.
            end_processes: Ends what is left of a job whose owner and guard are gone, by its id.
            on_end: Told of each lost job whose end is recorded here; must not raise.
        """
        self._directory = str(directory)
        self._logs = os.path.join(self._directory, "logs")
        self._disk = disk
        self._now = now
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
        self.ledger = Ledger(self._directory, is_held=self._reconciler.is_held, disk=disk, now=now)
        """What the runs of these jobs cost."""
        self._lister = Lister(
            self._records, self._locks, disk, is_held=self.is_held, settle=self.settle
        )
        self._answers = LateAnswers(os.path.join(self._directory, "answers"), disk)
        self._retention = Retention(
            self._records,
            self._locks,
            self._lister,
            disk,
            logs=self._logs,
            answers=self._answers,
            settle=self.settle,
            now=now,
        )

    # -- for the owner

    def create(
        self,
        request: DispatchRequest,
        *,
        kind: JobKind,
        parent: str | None = None,
        tree: str | None = None,
        ref: bool = False,
        job_id: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Claim:
        """Record a job as pending, durably, and own it.

        Args:
            request: What was asked.
            kind: Who owns it.
            parent: The job inside whose agent it is started.
            tree: The tree of runs that it belongs to; None: it begins one.
            ref: The caller is given the id in place of the answer.
            job_id: The id, where the caller made it; there is no job of this id then.
            fields: Further fields of the `Job`.

        Raises:
            JobStoreError: It cannot be recorded. Nothing is left behind; start nothing.
        """
        job_id = self._ids.next() if job_id is None else check_job_id(job_id)
        job = new_job(
            job_id,
            request,
            self._now(),
            kind=kind,
            parent=parent,
            tree=tree or job_id,
            ref=ref,
            fields={**(self.origin.fields() if self.origin else {}), **(fields or {})},
        )
        with self._told("The job cannot be recorded, so nothing was started"):
            make_private_directory(self._locks.directory, self._disk)
            claim = Claim(job, self._locks.create(job.id))
            try:
                self._records.create(claim)
            except BaseException:
                self._locks.undo(job.id, claim.fds)
                raise
        return claim

    def adopt(self, job_id: str, fds: Iterable[int]) -> Claim:
        """Own a job whose `Descriptors` were handed over by its owner; they are ours to close.

        Raises:
            JobStoreError: They are not those of this job, or the job has ended; they are closed.
        """
        given = list(fds)
        try:
            return self._take_over(check_job_id(job_id), given)
        except BaseException:
            self._locks.close(given)
            raise

    def _take_over(self, job_id: str, given: list[int]) -> Claim:
        with self._told(f"Job {job_id} cannot be taken over"):
            for fd in given:
                os.set_inheritable(fd, False)
            # The lock alone where the file system has no FIFOs.
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
        """Replace the record of a job that goes on; `claim.job` is `job` then in any case.

        Raises:
            JobStoreError: The record is as it was.
            JobOverError: The record is final, although we own the job.
            ValueError: The status may not follow the present one, or the claim was let go of.
        """
        _check_step(claim, job)
        if job.status.is_terminal:
            raise ValueError("finish() ends a job")
        claim.job = job
        with self._told(f"The record of job {job.id} cannot be updated"):
            self._records.update(claim, job)

    def finish(self, claim: Claim, job: Job, *, tree_ended: bool = True) -> Finished:
        """Record how a job ended, let go of it, and wake all that wait for it.

        Closes the bell at once: no task may be waiting for it then. Never raises for a record that
        cannot be written: the answer is paid for, and `Finished` says what became of it.

        Args:
            claim: Cannot be used afterwards.
            job: With a terminal status.
            tree_ended: False: a guard still holds the job's lock, since not all processes of
                the run are gone.

        Raises:
            ValueError: The status may not follow the present one, or the claim was let go of.
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
                # `gc` removes what is left.
                with suppress(OSError):
                    self._locks.remove(job.id, claim.fds.lock)
        finally:
            self.release(claim)
        return Finished(job, problem is None, problem)

    def release(self, claim: Claim) -> None:
        """Close our copies of the descriptors, because others have them; may be called twice."""
        fds, claim.fds = claim.fds, NO_DESCRIPTORS
        self._locks.close(fds)

    def note_cancelled(self, claim: Claim, by: str) -> None:
        """Note that the owner is about to cancel the job, should it die on the way.

        Best effort, and not against a power cut: without it the job may be called lost instead of
        cancelled.

        Args:
            claim: The job.
            by: Who asked, for the end of a sentence; the first to ask stays named.
        """
        with suppress(OSError):
            self._locks.mark_cancel(claim.job.id, by, durable=False)

    def mark_ending(self, claim: Claim) -> None:
        """Note that the job's processes are being ended: jobs started inside them end with them.

        Best effort: without it such a job may be called lost instead of cancelled.
        """
        with suppress(OSError):
            self._locks.mark_ending(claim.job.id)

    def unmark_ending(self, claim: Claim) -> None:
        """Take that back, because the job goes on with other processes; best effort as well."""
        with suppress(OSError):
            self._locks.unmark_ending(claim.job.id)

    # -- for all other processes

    def comes_to_its_end(self, job_id: str) -> bool:
        """Whether a job has ended or its processes are being ended; False for an impossible id."""
        with self._told("Cannot tell whether the job has ended"):
            return self._reconciler.is_ending(job_id)

    def read(self, job_id: str) -> Job:
        """Read the record as it is: it may say `running` of a job whose owner has died."""
        return self._answers.merged(self._records.load(check_job_id(job_id)))

    def head(self, job_id: str) -> JobSummary:
        """Read what a listing shows of a job, as it is; the size of its answer does not matter."""
        return self._records.head(check_job_id(job_id))

    def settle(self, job_id: str) -> Job:
        """Read a job, and end it first if it has no owner although its record goes on.

        The only recovery there is, and what every reader should call. With any number of readers
        one of them writes the verdict. Where nothing can be written, the verdict is returned all
        the same: it is true.
        """
        with self._told("Cannot tell whether the job has ended"):
            return self._answers.merged(self._reconciler.settle(check_job_id(job_id)))

    def is_held(self, job_id: str) -> bool:
        """Whether a process of the job may be left: its owner, or the guard of its run."""
        with self._told("Cannot tell whether the job has ended"):
            return self._reconciler.is_held(check_job_id(job_id))

    def watch(self, job_id: str) -> int | None:
        """Open a descriptor that becomes readable when the last holder of the job is gone.

        Look at the job once more after opening it, and close it. None: ask again later.
        """
        return self._locks.watch(check_job_id(job_id))

    def request_cancel(self, job_id: str, by: str) -> bool:
        """Ask the owner of a job, durably, to cancel it.

        Args:
            job_id: The job.
            by: Who asks, for the end of a sentence; the first to ask stays named.

        Returns:
            False: the job had ended already.
        """
        if self.settle(job_id).status.is_terminal:
            return False
        with self._told(f"The cancellation of job {job_id} cannot be recorded"):
            self._locks.mark_cancel(job_id, by)
            self._locks.ring(job_id)
        if self.settle(job_id).status.is_terminal:
            # If it ended between the two looks, its markers went before ours was there.
            remove_quietly(self._locks.path(job_id, CANCEL), disk=self._disk)
        return True

    def cancelled_by(self, job_id: str) -> str | None:
        """Who asked for the job to be cancelled; None: nobody."""
        with self._told(f"Cannot tell whether job {job_id} is to be cancelled"):
            return self._locks.cancelled_by(check_job_id(job_id))

    def post(self, job_id: str, kind: str, body: object) -> Mail | None:
        """Put a message into the mailbox of a job, durably, and ring its owner.

        What the owner made of it stands in the job's record; if the job ends first, nothing.

        Args:
            job_id: The job.
            kind: Which of the owner's handlers it is for.
            body: What that handler decodes, as msgspec encodes it.

        Returns:
            None: the job had ended already.

        Raises:
            InvalidRequestError: The message is too large, or holds text that is not Unicode.
        """
        if self.settle(job_id).status.is_terminal:
            return None
        mail = new_mail(kind, body, self._now())
        path = self._locks.path(job_id, MAIL)
        with self._told(f"The message to job {job_id} cannot be recorded"):
            append(path, mail, self._disk)
            self._locks.ring(job_id)
        if self.settle(job_id).status.is_terminal:
            # If it ended between the two looks, its mailbox was removed before ours was made.
            remove_quietly(path, disk=self._disk)
            return None
        return mail

    def mail(self, job_id: str, read_bytes: int) -> Delivery:
        """Read the mail of a job that came after the bytes that were read before."""
        with self._told(f"The messages to job {job_id} cannot be read"):
            return read_new(self._locks.path(check_job_id(job_id), MAIL), read_bytes, self._disk)

    def asked(self) -> list[Job]:
        """The jobs with permission questions, open or not, newest first, each settled."""
        with self._told("Jobs cannot be searched"):
            return list(self._lister.asked(Warnings()))

    def answer_late(self, job_id: str, question: PastQuestion) -> None:
        """Record the answer to a question of a job that has ended, once and durably.

        Raises:
            AnsweredError: It was answered before.
        """
        with self._told(f"The answer to the question of job {job_id} cannot be recorded"):
            self._answers.give(check_job_id(job_id), question)

    def take_back_answer(self, job_id: str, question_id: str) -> None:
        """Forget a late answer that had no effect, so that another one can be given."""
        with self._told(f"The answer to the question of job {job_id} cannot be taken back"):
            self._answers.take_back(check_job_id(job_id), question_id)

    def list_jobs(
        self,
        *,
        status: JobStatus | None = None,
        limit: int = 50,
        matches: Callable[[JobSummary], bool] | None = None,
        since: float = 0,
    ) -> Listing:
        """List the newest jobs, each settled.

        Args:
            status: Only jobs with this status.
            limit: The most jobs to list.
            matches: Only jobs whose summary it accepts; all records may have to be read.
            since: Only jobs created at or after this time, in seconds since the epoch.
        """
        with self._told("Jobs cannot be listed"):
            return self._lister.list_jobs(status, limit, matches, since)

    def ids(self) -> list[str]:
        """The ids of all jobs, the newest first; the records are not read."""
        with self._told("Jobs cannot be listed"):
            return list(self._lister.ids())

    def find(self, word: str, matches: Callable[[Job], bool]) -> Job | None:
        """The newest job with `word` in its record that `matches`; it is not settled.

        Reads all records if there is none.
        """
        with self._told("Jobs cannot be searched"):
            return next(filter(matches, self._lister.naming(word)), None)

    def forget_unbegun(self, job_id: str) -> None:
        """Remove what is left of a job that was lost before it began, so that its id can be used.

        A process that dies while it takes a job leaves a record, or only the files in `live/`.
        """
        with self._told(f"Job {job_id} cannot be removed"):
            with suppress(UnknownJobError):
                self._retention.forget(check_job_id(job_id), for_good=False)
            self._retention.remove_live_files(job_id)

    def forget(self, job_id: str) -> None:
        """Remove the record of a job that has ended.

        Raises:
            JobStoreError: It has not ended.
        """
        with self._told(f"Job {job_id} cannot be removed"):
            self._retention.forget(check_job_id(job_id))

    def prune_calls(self, retention_days: float, background_days: float = 0) -> Collected:
        """Remove old records that are not kept as references, and lock files never used.

        Args:
            retention_days: How long ago calls ended; 0: all that have ended.
            background_days: How long ago background jobs ended; 0: none of them.
        """
        with self._told("Old jobs cannot be removed"):
            return self._retention.prune(retention_days, background_days)

    def gc(self, max_age_days: float, *, dry_run: bool = False) -> Collected:
        """Remove jobs that ended longer ago than that, and the litter of dead processes.

        A pending or running job is never removed. Several at once do no harm.

        Raises:
            InvalidRequestError: `max_age_days` is not a number from 0 on.
        """
        with self._told("Old jobs cannot be removed"):
            return self._retention.collect(max_age_days, dry_run=dry_run)

    def prepare_for_remote_caller(self, job_id: str, lease_s: float) -> None:
        """Make what a job of a caller on another machine has beside its lock.

        Args:
            job_id: The job, which is ours.
            lease_s: How long it goes on without its caller; 0: to its end.

        Raises:
            JobStoreError: It cannot be made.
        """
        with self._told(f"Job {job_id} cannot be prepared"):
            flags = os.O_WRONLY | os.O_CREAT
            self._disk.close(open_private(self.events_path(job_id), flags, self._disk))
            if lease_s:
                self.lease(job_id).write(lease_s, create=True)

    @property
    def submissions(self) -> Submissions:
        """What came from other machines."""
        return Submissions(self._directory, disk=self._disk, now=self._now)

    def lease(self, job_id: str) -> Lease:
        """For how long a job goes on without its caller, if that is on another machine."""
        return Lease(self._locks.path(check_job_id(job_id), LEASE))

    def events_path(self, job_id: str) -> str:
        """Where the numbered progress of a job is, if its caller is on another machine."""
        return self._locks.path(check_job_id(job_id), EVENTS)

    def open_log(self, job_id: str) -> int:
        """Open a private file for the stderr of a job's worker; it goes with the record."""
        path = os.path.join(self._logs, check_job_id(job_id) + LOG_SUFFIX)
        with self._told(f"The log of job {job_id} cannot be opened"):
            make_private_directory(self._logs, self._disk)
            fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, self._disk)
            try:
                self._disk.fchmod(fd, PRIVATE_FILE)
            except BaseException:
                self._disk.close(fd)
                raise
        return fd

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise store_error(what, self._directory, error) from error


def _check_step(claim: Claim, job: Job) -> None:
    """Refuse what no owner may write: a bug of ours, and better found than stored."""
    if claim.fds.lock == NO_FD:
        raise ValueError(f"the claim on job {claim.job.id} was let go of")
    if job.id != claim.job.id or not may_become(claim.job.status, job.status):
        raise ValueError(f"{claim.job.status} {claim.job.id} cannot become {job.status} {job.id}")


def _end_processes(job_id: str) -> None:
    # Only a job that was lost needs it, not every listing.
    from agent_dispatch.claude.guard import kill_marked

    kill_marked(f"{JOB_VARIABLE}={job_id}")

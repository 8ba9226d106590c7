"""The job store on files: one JSON file per job, and `live/` for those that are not over.

A record is written to a new file, synced and renamed into its place. Whether a job has an owner
is asked of the kernel (see `live`), never of a clock: so there is no recovery at start, and no
job is ever given up because it is old or silent.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from agent_dispatch.jobs.disk import (
    PRIVATE_FILE,
    Disk,
    make_private_directory,
    remove_quietly,
)
from agent_dispatch.jobs.errors import JobOverError, JobStoreError, store_error
from agent_dispatch.jobs.history import History
from agent_dispatch.jobs.ids import IdSource, check_job_id
from agent_dispatch.jobs.index import Index
from agent_dispatch.jobs.live import CANCEL, LiveFiles
from agent_dispatch.jobs.reconcile import Settler
from agent_dispatch.jobs.record_files import Loaded, RecordFiles
from agent_dispatch.jobs.records import decode_unknown
from agent_dispatch.jobs.retention import LOG_SUFFIX, Cleaner
from agent_dispatch.jobs.store import (
    NO_DESCRIPTORS,
    NO_FD,
    Claim,
    Collected,
    Descriptors,
    Finished,
    Listing,
)
from agent_dispatch.jobs.writer import RecordWriter
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


class FileJobStore:
    """A `JobStore` in a directory, which is made with the first job.

    Safe to use from several threads and processes, each claim from one thread at a time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk | None = None,
        now: Callable[[], float] = time.time,
        ids: IdSource | None = None,
        end_processes: Callable[[str], object] | None = None,
        spares: int = 0,
    ) -> None:
        """Use `directory`.

        Args:
            directory: Absolute.
            disk: The system calls.
            now: The time to be recorded, in seconds since the epoch.
            ids: Where new ids come from.
            end_processes: Ends what is left of a job whose owner and guard are gone, by its id.
            spares: How many files of each kind to keep from jobs that are over for new ones;
                `close` removes them.
        """
        self._directory = str(directory)
        self._logs = os.path.join(self._directory, "logs")
        self._disk = disk or Disk()
        self._now = now
        self._ids = ids or IdSource()
        live = os.path.join(self._directory, "live")
        self._live = LiveFiles(live, self._disk, spares=spares)
        self._records = RecordFiles(self._directory, live, self._disk)
        self._writer = RecordWriter(self._records, self._disk)
        self._settler = Settler(
            self._records,
            self._live,
            self._writer,
            self._disk,
            now=now,
            end_processes=end_processes or _end_processes,
        )
        index = Index(self._directory, self._disk)
        self._history = History(
            self._records, self._live, index, is_held=self.is_held, settle=self.settle
        )
        self._cleaner = Cleaner(
            self._records,
            self._live,
            index,
            self._history,
            self._disk,
            logs=self._logs,
            settle=self.settle,
            now=now,
        )

    # -- the owner's side

    def create(
        self,
        request: DispatchRequest,
        *,
        kind: JobKind,
        parent: str | None = None,
        ref: bool = False,
    ) -> Claim:
        """Record a job as pending, durably, and own it; see `JobStore.create`."""
        job = new_job(self._ids.next(), request, self._now(), kind=kind, parent=parent, ref=ref)
        with self._told("The job cannot be recorded, so nothing was started"):
            make_private_directory(self._disk, self._live.directory)
            self._writer.keep_reserve()
            claim = Claim(job, self._live.create(job.id))
            try:
                self._writer.write_new(claim)
            except BaseException:
                self._live.undo(job.id, claim.fds)
                raise
        return claim

    def adopt(self, job_id: str, fds: Iterable[int]) -> Claim:
        """Own a job that was handed over; see `JobStore.adopt`."""
        given = list(fds)
        try:
            loaded = self._taken_over(check_job_id(job_id), given)
        except BaseException:
            self._live.close(given)
            raise
        missing = [NO_FD] * (len(NO_DESCRIPTORS) - len(given))
        claim = Claim(loaded.job, Descriptors(*given, *missing))
        claim.unknown = decode_unknown(loaded.content)
        claim.seen = loaded.seen
        return claim

    def _taken_over(self, job_id: str, given: list[int]) -> Loaded:
        with self._told(f"Job {job_id} cannot be taken over"):
            for fd in given:
                os.set_inheritable(fd, False)
            # The lock alone where the file system has no FIFOs.
            is_ours = len(given) in (1, len(NO_DESCRIPTORS)) and self._live.owns(job_id, given[0])
        if not is_ours:
            raise JobStoreError(
                f"Job {job_id} cannot be taken over: what was handed over is not its lock."
                " Dispatch its task again."
            )
        loaded = self._records.load(job_id)
        if loaded.job.status.is_terminal:
            raise JobOverError(job_id, loaded.job.status)
        return loaded

    def update(self, claim: Claim, job: Job) -> None:
        """Replace the record of a job that is not over; see `JobStore.update`."""
        _check_step(claim, job)
        if job.status.is_terminal:
            raise ValueError("finish() ends a job")
        claim.job = job
        with self._told(f"Job {job.id} cannot be recorded as it is now"):
            self._writer.write(claim, job)

    def finish(self, claim: Claim, job: Job, *, tree_ended: bool = True) -> Finished:
        """Record how a job ended and let go of it; see `JobStore.finish`."""
        _check_step(claim, job)
        if not job.status.is_terminal:
            raise ValueError("update() goes on with a job")
        claim.job = job
        # Nobody needs to ring any more, and at the limit of open files this makes room for one.
        self._live.close([claim.fds.bell])
        claim.fds = claim.fds._replace(bell=NO_FD)
        try:
            written = self._writer.write_end(claim, job)
            if written.visible and tree_ended:
                # What stays is litter, for `gc` to take away.
                with contextlib.suppress(OSError):
                    self._live.remove(job.id, claim.fds.lock)
        finally:
            self.release(claim)
        return Finished(job, written.problem is None, written.problem)

    def release(self, claim: Claim) -> None:
        """Close our copies of the descriptors; see `JobStore.release`."""
        fds, claim.fds = claim.fds, NO_DESCRIPTORS
        self._live.close(fds)

    def note_cancelled(self, claim: Claim, by: str) -> None:
        """Say that the job's owner is cancelling it; see `JobStore.note_cancelled`."""
        with contextlib.suppress(OSError):
            self._live.mark_cancel(claim.job.id, by, durable=False)

    def mark_ending(self, claim: Claim) -> None:
        """Say that the job's processes are being ended; see `JobStore.mark_ending`."""
        with contextlib.suppress(OSError):
            self._live.mark_ending(claim.job.id)

    def close(self) -> None:
        """Remove what was kept for further jobs; see `JobStore.close`."""
        self._live.close_spares()

    # -- everybody's side

    def comes_to_its_end(self, job_id: str) -> bool:
        """Whether a job is over, or being ended; see `JobStore.comes_to_its_end`."""
        with self._told("It cannot be found out whether the job is over"):
            return self._settler.comes_to_its_end(job_id)

    def read(self, job_id: str) -> Job:
        """Read the record as it is; see `JobStore.read`."""
        return self._records.load(check_job_id(job_id)).job

    def head(self, job_id: str) -> JobSummary:
        """Read what a listing shows of a job; see `JobStore.head`."""
        return self._records.head(check_job_id(job_id))

    def settle(self, job_id: str) -> Job:
        """Read a job, and end it first if nobody owns it; see `JobStore.settle`."""
        with self._told("It cannot be found out whether the job is over"):
            return self._settler.settle(check_job_id(job_id))

    def is_held(self, job_id: str) -> bool:
        """Whether a process of the job may be left; see `JobStore.is_held`."""
        with self._told("It cannot be found out whether the job is over"):
            return self._settler.is_held(check_job_id(job_id))

    def watch(self, job_id: str) -> int | None:
        """Open what becomes readable when nobody holds the job; see `JobStore.watch`."""
        return self._live.watch(check_job_id(job_id))

    def request_cancel(self, job_id: str, by: str) -> bool:
        """Ask the owner of a job to cancel it; see `JobStore.request_cancel`."""
        if self.settle(job_id).status.is_terminal:
            return False
        with self._told(f"The cancellation of job {job_id} cannot be recorded"):
            self._live.mark_cancel(job_id, by)
            self._live.ring(job_id)
        if self.settle(job_id).status.is_terminal:
            # If it ended between the two looks, its markers went before ours was there.
            remove_quietly(self._disk, self._live.path(job_id, CANCEL))
        return True

    def cancelled_by(self, job_id: str) -> str | None:
        """Who asked for the job to be cancelled; see `JobStore.cancelled_by`."""
        with self._told(f"It cannot be found out whether job {job_id} is to be cancelled"):
            return self._live.cancelled_by(check_job_id(job_id))

    def list_jobs(self, *, status: JobStatus | None = None, limit: int = 50) -> Listing:
        """List the newest jobs; see `JobStore.list_jobs`."""
        with self._told("Jobs cannot be listed"):
            if status is None:
                return self._history.newest(limit)
            if status.is_terminal:
                return self._history.over(status, limit)
            return self._history.living(status, limit)

    def find(self, word: str, matches: Callable[[Job], bool]) -> Job | None:
        """The newest job that is looked for; see `JobStore.find`."""
        with self._told("Jobs cannot be searched"):
            return next(filter(matches, self._history.naming(word)), None)

    def forget(self, job_id: str) -> None:
        """Remove the record of a job that is over; see `JobStore.forget`."""
        with self._told(f"Job {job_id} cannot be removed"):
            self._cleaner.forget(check_job_id(job_id))

    def prune_calls(self, retention_days: float) -> Collected:
        """Remove old records of calls; see `JobStore.prune_calls`."""
        with self._told("Old jobs cannot be removed"):
            return self._cleaner.prune_calls(retention_days)

    def gc(self, max_age_days: float, *, dry_run: bool = False) -> Collected:
        """Remove what is over for longer than that; see `JobStore.gc`."""
        with self._told("Old jobs cannot be removed"):
            return self._cleaner.collect(max_age_days, dry_run=dry_run)

    def open_log(self, job_id: str) -> int:
        """Open a private file for what a worker says; see `JobStore.open_log`."""
        path = os.path.join(self._logs, check_job_id(job_id) + LOG_SUFFIX)
        with self._told(f"The log of job {job_id} cannot be opened"):
            make_private_directory(self._disk, self._logs)
            fd = self._disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                self._disk.set_mode(fd, PRIVATE_FILE)
            except BaseException:
                self._disk.close(fd)
                raise
        return fd

    @contextlib.contextmanager
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

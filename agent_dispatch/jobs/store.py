"""The job store as the rest of the program sees it: one durable record per dispatch.

Nothing outside this package knows that there are files; `file_store.FileJobStore` is the one
implementation. All of it blocks and belongs in a worker thread or on a command line; none of it
knows the event loop. `owner` puts it on Trio.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import msgspec

from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import Job, JobKind, JobStatus, JobSummary

NO_FD = -1


class Descriptors(NamedTuple):
    """What keeps a job owned for as long as one process has a copy open; `NO_FD` for none."""

    lock: int
    bell: int
    """Readable when somebody wants the owner to look at `cancelled_by`."""
    alive: int

    @property
    def to_hand_over(self) -> list[int]:
        """What a new owner needs: `JobStore.adopt` takes it there, in this order."""
        return [fd for fd in self if fd != NO_FD]

    @property
    def for_guard(self) -> list[int]:
        """What a guard holds until its tree is empty; the bell is for the owner alone."""
        return [fd for fd in (self.lock, self.alive) if fd != NO_FD]


NO_DESCRIPTORS = Descriptors(NO_FD, NO_FD, NO_FD)


class Claim:
    """The right to write one job; who lets go of it leaves the job without an owner."""

    def __init__(self, job: Job, fds: Descriptors) -> None:
        """Made by the store."""
        self.job = job
        """The record as its owner knows it, whether or not the last write came through."""
        self.fds = fds
        self.unknown: dict[str, msgspec.Raw] = {}
        """Fields of the record that this version does not know."""
        self.seen: tuple[int, ...] | None = None
        """Tells whether somebody else has touched the record since; the store's own business."""


class Finished(NamedTuple):
    """How the end of a job was recorded."""

    job: Job
    """The job with its whole result, whatever became of its record."""
    persisted: bool
    """All of it is on disk and survives a power cut."""
    problem: str | None
    """Why it is not persisted, for whoever gets the answer."""


class Listing(NamedTuple):
    """Jobs, newest first, and what was passed over."""

    jobs: list[JobSummary]
    warnings: list[str]


class Collected(NamedTuple):
    """What `gc` took away, or would take away."""

    purged: list[str]
    """Ids of the records."""
    litter: int
    """Files that dead processes had left behind."""
    warnings: list[str]


class JobStore(Protocol):
    """Keeps jobs; any number of processes use one at the same time.

    Every call that takes an id raises `InvalidJobIdError` for what cannot be one,
    `UnknownJobError` for a job that is not there, and `BrokenJobError` for one that cannot be
    read; and every call raises `JobStoreError` if the store does not let itself be used.
    """

    def create(
        self,
        request: DispatchRequest,
        *,
        kind: JobKind,
        parent: str | None = None,
        ref: bool = False,
    ) -> Claim:
        """Record a job as pending, durably, and own it.

        Raises:
            JobStoreError: It cannot be recorded. Nothing is left behind; start nothing.
        """
        ...

    def adopt(self, job_id: str, fds: Iterable[int]) -> Claim:
        """Own a job whose `Descriptors` were handed over by its owner; they are ours to close.

        Raises:
            JobStoreError: They are not those of this job, or the job is over; they are closed.
        """
        ...

    def update(self, claim: Claim, job: Job) -> None:
        """Replace the record of a job that is not over; `claim.job` is `job` then in any case.

        Raises:
            JobStoreError: The record is as it was.
            JobOverError: Somebody ended the job, although we own it.
            ValueError: The status may not follow the present one, or the claim was let go of.
        """
        ...

    def finish(self, claim: Claim, job: Job, *, tree_ended: bool = True) -> Finished:
        """Record how a job ended, let go of it, and wake whoever waits.

        Closes the bell at once: nobody may be waiting for it then.

        Never raises for a record that cannot be written: the answer is paid for, and `Finished`
        says what became of it.

        Args:
            claim: Is of no more use afterwards.
            job: With a terminal status.
            tree_ended: False: a guard still holds the job's lock, since not all processes of
                the run are gone.

        Raises:
            ValueError: The status may not follow the present one, or the claim was let go of.
        """
        ...

    def release(self, claim: Claim) -> None:
        """Close our copies of the descriptors, because others have them; may be called twice."""
        ...

    def note_cancelled(self, claim: Claim, by: str) -> None:
        """Say that the job's owner is cancelling it, before it does, should it die on the way.

        Best effort, and not against a power cut: without it the job may be called lost instead of
        cancelled.

        Args:
            claim: The job.
            by: Who wants it, for the end of a sentence; the first who wanted it stays named.
        """
        ...

    def mark_ending(self, claim: Claim) -> None:
        """Say that the job's processes are being ended: jobs started inside them end with them.

        Best effort: without it such a job may be called lost instead of cancelled.
        """
        ...

    def close(self) -> None:
        """Remove what was kept for further jobs; those that are owned are not touched."""
        ...

    def comes_to_its_end(self, job_id: str) -> bool:
        """Whether a job is over, or its processes are being ended; False for what is no job."""
        ...

    def read(self, job_id: str) -> Job:
        """Read the record as it is: it may say `running` of a job whose owner has died."""
        ...

    def head(self, job_id: str) -> JobSummary:
        """Read what a listing shows of a job, as it is; the size of its answer does not matter."""
        ...

    def settle(self, job_id: str) -> Job:
        """Read a job, and end it first if nobody owns it although it is not over.

        The only recovery there is, and what every reader should call. With any number of readers
        one of them writes the verdict. Where nothing can be written, the verdict is returned all
        the same: it is true.
        """
        ...

    def is_held(self, job_id: str) -> bool:
        """Whether a process of the job may be left: its owner, or the guard of its run."""
        ...

    def watch(self, job_id: str) -> int | None:
        """Open a descriptor that becomes readable when nobody holds the job any more.

        Look at the job once more after opening it, and close it. None: ask again later.
        """
        ...

    def request_cancel(self, job_id: str, by: str) -> bool:
        """Ask the owner of a job, durably, to cancel it.

        Args:
            job_id: The job.
            by: Who asks, for the end of a sentence; the first who asked stays named.

        Returns:
            False: the job was over already.
        """
        ...

    def cancelled_by(self, job_id: str) -> str | None:
        """Who asked for the job to be cancelled; None: nobody."""
        ...

    def list_jobs(self, *, status: JobStatus | None = None, limit: int = 50) -> Listing:
        """List the newest jobs, or the newest of one status, each settled."""
        ...

    def find(self, word: str, matches: Callable[[Job], bool]) -> Job | None:
        """The newest job with `word` in its record that `matches`; it is not settled.

        Reads all records if there is none.
        """
        ...

    def forget(self, job_id: str) -> None:
        """Remove the record of a job that is over.

        Raises:
            JobStoreError: It is not over.
        """
        ...

    def prune_calls(self, retention_days: float) -> Collected:
        """Remove old records of `call` jobs that are no refs.

        And files that processes which were killed had kept for further jobs.
        """
        ...

    def gc(self, max_age_days: float, *, dry_run: bool = False) -> Collected:
        """Remove what is over for longer than that, and the litter of dead processes.

        A pending or running job is never removed. Several at once do no harm.

        Raises:
            InvalidRequestError: `max_age_days` is no number from 0 on.
        """
        ...

    def open_log(self, job_id: str) -> int:
        """Open a private file for what a job's worker says on stderr; it goes with the record."""
        ...

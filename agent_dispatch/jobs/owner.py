"""Jobs on Trio, for the process that owns one: record it, run it, hand it over, finish it.

Whoever owns a job holds its lock for as long as it works on it; the kernel takes it away when the
process ends, however it ends. `waiting` is for everybody else.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import NoReturn, TypeVar

import msgspec
import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs import verdict
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.patience import within
from agent_dispatch.jobs.store import NO_FD, Claim, Finished, JobStore
from agent_dispatch.jobs.threads import Pool, in_pool, in_record_thread
from agent_dispatch.jobs.waiting import Pause, look
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.job import PROGRESS_LINE_CHARS, PROGRESS_LINES, Job, JobKind, JobStatus

T = TypeVar("T")

PROGRESS_PACE_S = 1.0
"""The time between two writes of progress, at least."""
_FIRST_WRITE_S = 0.2
_FIRST_LOOK_S = 1.0
"""A run that is over by then is recorded when it is created and when it is over, no more."""
_MANY_RINGS = 4096
RECORD_S = 20.0
"""How long the end of a job may take to be recorded: longer than a disk is busy, and short enough
for a caller that waits for its answer. A disk that takes longer has the record when it can."""
NOTE_S = 2.0
"""How long a mark for other readers may take: what it tells is best effort."""


class Ownership:
    """A job that this process runs; made by `create_job` and `adopt_job`."""

    def __init__(
        self,
        store: JobStore,
        claim: Claim,
        *,
        now: Callable[[], float],
        alone: bool = False,
    ) -> None:
        """Own the job of `claim`.

        Args:
            store: Where it is.
            claim: The right to write it.
            now: Gives the time to be recorded.
            alone: This process has no other work: what is to be done for the job when nothing of
                its run is left need not go to a thread to keep others from waiting.
        """
        self._store = store
        self._claim = claim
        self._now = now
        self._alone = alone
        self._lines: deque[str] = deque(claim.job.progress or (), maxlen=PROGRESS_LINES)
        self._reported_at = claim.job.progress_updated_at
        self._session_id = claim.job.session_id
        self._started_at = claim.job.started_at
        self._listening = True
        self._is_left = False
        """A thread is recording the job's end, and lets go of the job behind that."""
        self._writing = trio.Lock()
        self._changed = trio.Event()
        self._urgent = trio.Event()
        self.problem: str | None = None
        """Why the record is older than it should be; None: it is not."""

    @property
    def job(self) -> Job:
        """The record as it was written last, or should have been."""
        return self._claim.job

    @property
    def owned(self) -> bool:
        """False once the job was finished or handed over."""
        return not self._is_left and self._claim.fds.lock != NO_FD

    @property
    def held_fds(self) -> list[int]:
        """For the guard of the run: it keeps the job owned until its tree is empty."""
        return self._claim.fds.for_guard

    @property
    def fds(self) -> list[int]:
        """What to send to the process that takes over, which gives it to `adopt_job`."""
        return self._claim.fds.to_hand_over

    def let_go(self) -> None:
        """Close our descriptors: after `fds` were sent to another process, which owns the job now.

        If none has them, the next reader finds the job lost. May be called twice.
        """
        if self.owned:
            self._stop_listening()
            self._store.release(self._claim)

    async def start(self) -> None:
        """Record that the job runs.

        Raises:
            JobStoreError: It cannot be recorded: do not start anything.
        """
        self.note_started()
        async with self._writing:
            await self._update()

    def note_started(self) -> None:
        """Have it recorded that the job runs; `keep_record` writes it. Returns at once."""
        if self._started_at is None:
            self._started_at = self._now()
            self._changed.set()
            self._urgent.set()

    def report(self, line: str) -> None:
        """Add a line to the progress tail; `keep_record` writes it. Returns at once."""
        # A line may be the whole of a large answer: only its beginning is looked at.
        if text := " ".join(line[: 4 * PROGRESS_LINE_CHARS].split()):
            self._lines.append(text[:PROGRESS_LINE_CHARS])
            self._reported_at = self._now()
            self._changed.set()

    def note_session(self, session_id: str) -> None:
        """Have the conversation recorded that can be resumed should we die. Returns at once."""
        if session_id != self._session_id:
            self._session_id = session_id
            self._changed.set()
            self._urgent.set()

    async def keep_record(self) -> NoReturn:
        """Write start, progress and session as they come, until cancelled.

        At most once a second, and at first after a moment that a short run does not need: it is
        recorded twice, when it is created and when it is over. A record that cannot be written
        does not stop the run: see `problem`.
        """
        await trio.sleep(_FIRST_WRITE_S)
        while True:
            await self._changed.wait()
            self._changed, self._urgent = trio.Event(), trio.Event()
            async with self._writing:
                if self.owned:
                    try:
                        await self._update()
                    except JobStoreError as error:
                        self.problem = str(error)
            with trio.move_on_after(PROGRESS_PACE_S):
                await self._urgent.wait()

    async def wait_cancelled(self) -> str:
        """Wait until somebody asks for the job to be cancelled; say who. For one task at a time.

        Never returns for a job that was finished or let go of.
        """
        pause = Pause()
        if self._claim.fds.bell != NO_FD:
            # Whoever asks rings, unless killed just before: a short run needs no look at all.
            with trio.move_on_after(_FIRST_LOOK_S), contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._claim.fds.bell)
        while True:
            try:
                by = await look(self._store.cancelled_by, self.job.id)
            except JobStoreError:  # No reason to end a run; asked again.
                await pause.take()
                continue
            if by is not None:
                return by
            if not self._listening:
                await trio.sleep_forever()
            if self._claim.fds.bell == NO_FD:
                await pause.take()
                continue
            with contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._claim.fds.bell)
            # Once we stop listening a thread may close it, and the number be another file's.
            if self._listening:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._claim.fds.bell, _MANY_RINGS)

    async def note_cancelled(self, by: str) -> None:
        """Have it noted that the job ends on purpose, before its run is ended.

        Should this process be killed on the way, the next reader finds the job cancelled instead
        of lost. Best effort: if it cannot be written, that is the only difference.
        """
        if self.owned:
            await self._note(partial(self._store.note_cancelled, self._claim, by))

    async def mark_ending(self) -> None:
        """Say that the run's processes are about to be ended, so that nested jobs end as such."""
        await self._note(partial(self._store.mark_ending, self._claim))

    async def _note(self, note: Callable[[], object]) -> None:
        # A thread of its own: it is not to stand in line with others, nor take their place.
        own = partial(
            trio.to_thread.run_sync, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
        with contextlib.suppress(trio.TooSlowError):
            await within(NOTE_S, own, note)

    async def ends_with_its_parent(self) -> bool:
        """Whether the job inside whose agent this one was started is over, or being ended.

        False also if that cannot be found out: the end of this job is recorded all the same.
        """
        if (parent := self.job.parent) is not None:
            with contextlib.suppress(DispatchError, trio.TooSlowError):
                look = partial(self._store.comes_to_its_end, parent)
                return look() if self._alone else await within(NOTE_S, _record, look)
        return False

    async def finish(self, result: DispatchResult, *, tree_ended: bool = True) -> Finished:
        """Record what came of the job, and let go of it. A cancellation does not interrupt it.

        A success is recorded also of a job whose start never was.

        Args:
            result: The status follows from it.
            tree_ended: False: the guard is still ending processes of the run.

        Returns:
            The job with its whole result, also when it could not be recorded.
        """
        # Bounded within: by one write of progress that is under way, and by `RECORD_S`.
        with trio.CancelScope(shield=True):
            async with self._writing:
                self._stop_listening()
                if result.success:
                    self.note_started()
                self._claim.job = self._up_to_date()
                job = verdict.ended(self.job, result, self._now())
                finish = partial(self._store.finish, self._claim, job, tree_ended=tree_ended)
                if self._alone:
                    return finish()
                # Left to the thread: it lets go of the job when the disk has taken its record.
                self._is_left = True
                try:
                    finished = await within(RECORD_S, _record, finish)
                except trio.TooSlowError:
                    slow = f"the disk did not take the record within {RECORD_S:g} s."
                    return Finished(job, False, slow)
                except BaseException:
                    self._is_left = False
                    raise
                self._is_left = False
                return finished
        raise AssertionError("nobody else has the scope to cancel it")

    async def _update(self) -> None:
        """Write the job with all that came meanwhile; with `_writing` held."""
        await in_record_thread(self._store.update, self._claim, self._up_to_date())
        self.problem = None

    def _up_to_date(self) -> Job:
        # What was noted is kept apart until here: a thread may be writing the job as it was.
        job = self.job
        if self._started_at is not None and job.status is JobStatus.PENDING:
            job = verdict.started(job, self._started_at)
        if self._lines and self._reported_at is not None:
            job = verdict.with_progress(job, list(self._lines), self._reported_at)
        return msgspec.structs.replace(job, session_id=self._session_id)

    def _stop_listening(self) -> None:
        self._listening = False
        if self._claim.fds.bell != NO_FD:
            trio.lowlevel.notify_closing(self._claim.fds.bell)


async def _record(call: Callable[[], None]) -> None:
    await in_pool(Pool.RECORDS, call)


@contextlib.asynccontextmanager
async def create_job(
    store: JobStore,
    request: DispatchRequest,
    *,
    kind: JobKind,
    parent: str | None = None,
    ref: bool = False,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[Ownership]:
    """Record a job as pending, and own it for as long as the block runs.

    Leave the block by `finish`, or by `let_go` after handing the job over: who leaves it otherwise
    leaves a job that the next reader finds lost.

    Args:
        parent: The job inside whose agent this process runs.
        ref: The caller will be given the id in place of the whole answer.

    Raises:
        JobStoreError: The job cannot be recorded. Nothing is left of it; start nothing.
    """
    create = partial(store.create, request, kind=kind, parent=parent, ref=ref)
    ownership = Ownership(store, await in_record_thread(create), now=now)
    try:
        yield ownership
    finally:
        ownership.let_go()


@contextlib.asynccontextmanager
async def adopt_job(  # noqa: ASYNC124  # so that it is used as `create_job` is
    store: JobStore, job_id: str, fds: Iterable[int], *, now: Callable[[], float] = time.time
) -> AsyncIterator[Ownership]:
    """Own a job that was handed over, as `create_job` does; `fds` are ours to close from here on.

    Who adopts a job has no other work meanwhile.

    Raises:
        JobStoreError: They are not those of the job, or it is over.
    """
    ownership = Ownership(store, store.adopt(job_id, list(fds)), now=now, alone=True)
    try:
        yield ownership
    finally:
        ownership.let_go()

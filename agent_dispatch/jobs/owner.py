"""Jobs on Trio, for the process that owns one: create or adopt it, keep its record, finish it.

The owner holds the job's lock while it works on the job; the kernel frees the lock when the process
ends, however it ends. `waiting` is for all other processes.
"""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NoReturn

import msgspec
import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.locks import NO_FD
from agent_dispatch.jobs.log import write_to_stderr
from agent_dispatch.jobs.mailbox import Delivery, Mail
from agent_dispatch.jobs.record import ended, started, with_progress
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.remote_callers import EventLog
from agent_dispatch.jobs.store import Finished, JobStore
from agent_dispatch.jobs.waiting import Pause
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import PROGRESS_LINE_CHARS, PROGRESS_LINES, Job, JobStatus
from agent_dispatch.threads import Pool, in_own_thread, in_pool, in_record_thread

PROGRESS_PACE_S = 1.0
"""The shortest time between two writes of progress."""
_FIRST_WRITE_S = 0.2
"""A shorter run writes no progress."""
_TOGETHER_S = 0.05
"""What is noted within this time is written at once, such as a start and the agent's session."""
_FIRST_LOOK_S = 1.0
"""A shorter run checks its marker and mailbox only when the bell rings."""
_MANY_RINGS = 4096
RECORD_S = 20.0
"""How long `finish` waits for the disk: longer than a busy disk needs, but short enough for a
caller that waits for its answer. After that, the write goes on in its thread."""
MARK_S = 2.0
"""How long writing a mark for other processes may take; it is best effort."""


OnMail = Callable[[Mail], object]


def _ignore_mail(mail: Mail) -> None:
    """Do not answer a message."""


class Ownership:
    """A job that this process runs; made by `create_job` and `adopt_job`."""

    def __init__(
        self,
        store: JobStore,
        claim: Claim,
        *,
        alone: bool = False,
        events: EventLog | None = None,
    ) -> None:
        """Own the job of `claim`.

        Args:
            store: The job's store.
            claim: The right to write its record.
            alone: This process has no other work, so the end of the job may block the event loop.
            events: Gets every line of progress, for a caller on another machine.
        """
        self._store = store
        self._claim = claim
        self._alone = alone
        self._events = events
        self._new_lines: list[str] = []
        self._lines: deque[str] = deque(claim.job.progress or (), maxlen=PROGRESS_LINES)
        self._reported_at = claim.job.progress_updated_at
        self._fields: dict[str, object] = {}
        """Other fields of the record that are not written yet."""
        self._started_at = claim.job.started_at
        self._read_mail_bytes = 0
        self._listening = True
        self._is_marked = False
        """We have marked the job as cancelled, so the mark is no request of another process."""
        self._is_finishing = False
        """A thread records the job's end and then releases the job."""
        self._writing = trio.Lock()
        self._changed = trio.Event()
        self._urgent = trio.Event()

    @property
    def job(self) -> Job:
        """The record as it was last written, or should have been."""
        return self._claim.job

    @property
    def owned(self) -> bool:
        """False once the job is finished or handed over."""
        return not self._is_finishing and self._claim.fds.lock != NO_FD

    @property
    def held_fds(self) -> list[int]:
        """Descriptors for the run's guard, which keeps the job owned until its tree is empty."""
        return self._claim.fds.for_guard

    @property
    def fds(self) -> list[int]:
        """Descriptors for the process that takes over and calls `adopt_job` with them."""
        return self._claim.fds.to_hand_over

    def release(self) -> None:
        """Release the job, after `fds` were sent to its new owner. Safe to call twice.

        If no other process has the descriptors, the next reader finds the job lost.
        """
        if self.owned:
            self._stop_listening()
            self._store.release(self._claim)

    def note_started(self) -> None:
        """Note that the run has begun; `keep_record` writes it. Returns at once."""
        if self._started_at is None:
            self._started_at = self._store.now()
            self._changed.set()
            self._urgent.set()

    @property
    def run_s(self) -> float:
        """Seconds since the run began; 0 before."""
        return 0 if self._started_at is None else max(0, self._store.now() - self._started_at)

    def report(self, line: str) -> None:
        """Add a line to the progress tail; `keep_record` writes it. Returns at once."""
        # A line may be the whole of a large answer: only its beginning is looked at.
        if text := " ".join(line[: 4 * PROGRESS_LINE_CHARS].split()):
            self._lines.append(text[:PROGRESS_LINE_CHARS])
            if self._events is not None:
                self._new_lines.append(text[:PROGRESS_LINE_CHARS])
            self._reported_at = self._store.now()
            self._changed.set()

    def note(self, **fields: object) -> None:
        """Note these fields of the `Job`; `keep_record` writes them soon. Returns at once.

        For fields that other processes wait for, or that must not be lost if this process dies.
        """
        known = {name: self._fields.get(name, getattr(self.job, name)) for name in fields}
        if fields != known:
            self._fields |= fields
            self._changed.set()
            self._urgent.set()

    async def keep_record(self) -> NoReturn:
        """Write what was noted to the record, until cancelled.

        Progress is written at most once a second, and not in the first moment, so that a short run
        writes none. A record that cannot be updated does not stop the run; each new reason is
        reported.
        """
        reported = ""
        await trio.sleep(_FIRST_WRITE_S)
        while True:
            with trio.move_on_after(PROGRESS_PACE_S):
                await self._urgent.wait()
            await self._changed.wait()
            await trio.sleep(_TOGETHER_S)
            self._changed, self._urgent = trio.Event(), trio.Event()
            async with self._writing:
                if self.owned:
                    reported = await in_record_thread(self._update, self._with_notes(), reported)

    def _update(self, job: Job, reported: str) -> str:
        self._write_events()
        try:
            self._store.update(self._claim, job)
        except JobStoreError as error:
            if (problem := f"agent-dispatch: {error} The run goes on.\n") != reported:
                write_to_stderr(problem)
            return problem
        return ""

    def _write_events(self) -> None:
        if self._events is not None:
            lines, self._new_lines = self._new_lines, []
            self._events.append(lines)

    async def wait_cancelled(self, on_mail: OnMail = _ignore_mail) -> str:
        """Wait until the job is to be cancelled; return who asked. For one task at a time.

        Never returns once the job is finished or released.

        Args:
            on_mail: Gets each message in the job's mailbox once, in order. Must not wait.
        """
        pause = Pause()
        if self._claim.fds.bell != NO_FD:
            # The look after this finds the request of a process that was killed before it rang.
            with trio.move_on_after(_FIRST_LOOK_S):
                await self._wait_for_ring()
        while True:
            try:
                by, delivery = await in_pool(Pool.LOOKS, self._read_requests, self._read_mail_bytes)
            except JobStoreError:  # No reason to end a run; try again.
                await pause.take()
                continue
            self._read_mail_bytes = delivery.read_bytes
            for mail in delivery.mails:
                on_mail(mail)
            if by is not None and not self._is_marked:
                return by
            if not self._listening:
                await trio.sleep_forever()
            if self._claim.fds.bell == NO_FD:
                await pause.take()
                continue
            await self._wait_for_ring()
            # Afterwards a thread may close the bell, and its number may mean another file.
            if self._listening:
                with suppress(BlockingIOError):
                    os.read(self._claim.fds.bell, _MANY_RINGS)

    def _read_requests(self, read_bytes: int) -> tuple[str | None, Delivery]:
        by = self._store.requests.cancelled_by(self.job.id)
        return by, self._store.requests.read_mail(self.job.id, read_bytes)

    async def _wait_for_ring(self) -> None:
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._claim.fds.bell)

    async def mark_cancelled(self, by: str) -> None:
        """Mark the job as cancelled, before its run is ended; see `JobStore.mark_cancelled`."""
        if self.owned:
            self._is_marked = True
            await _mark(partial(self._store.mark_cancelled, self._claim, by))

    async def mark_ending(self) -> None:
        """Mark that the run's processes are about to be ended, and with them the jobs inside."""
        await _mark(partial(self._store.mark_ending, self._claim))

    async def unmark_ending(self) -> None:
        """Remove that mark, because the job goes on with other processes."""
        await _mark(partial(self._store.unmark_ending, self._claim))

    async def ends_with_its_parent(self) -> bool:
        """Whether the job whose agent started this one has ended or is being ended.

        False if that cannot be read.
        """
        if (parent := self.job.parent) is not None:
            with suppress(DispatchError):
                if self._alone:
                    return self._store.is_ending(parent)
                with trio.move_on_after(MARK_S):
                    return await in_pool(Pool.RECORDS, self._store.is_ending, parent)
        return False

    async def finish(self, result: DispatchResult, *, tree_ended: bool = True) -> Finished:
        """Record the result and release the job. A cancellation does not interrupt it.

        Args:
            result: It decides the status.
            tree_ended: False if the guard is still ending processes of the run.

        Returns:
            The job with its whole result, even if that could not be recorded.
        """
        # Bounded: by one write of progress that has begun, and by `RECORD_S`.
        with trio.CancelScope(shield=True):
            async with self._writing:
                self._stop_listening()
                if result.success:
                    self.note_started()
                self._claim.job = self._with_notes()
                job = ended(self.job, result, self._store.now())
                finish = partial(self._store.finish, self._claim, job, tree_ended=tree_ended)
                if self._alone:
                    self._write_events()
                    return finish()
                # From here on the thread owns the job, and releases it when the record is written.
                self._is_finishing = True
                with trio.move_on_after(RECORD_S):
                    try:
                        return await in_pool(Pool.RECORDS, finish)
                    except Exception:
                        self._is_finishing = False
                        raise
                slow = f"the disk did not store the record within {RECORD_S:g} s."
                return Finished(job, False, slow)
        raise AssertionError("no other code has the scope to cancel it")

    def _with_notes(self) -> Job:
        # The notes are kept apart until here, because a thread may be writing the old record.
        job = self.job
        if self._started_at is not None and job.status is JobStatus.PENDING:
            job = started(job, self._started_at)
        if self._lines and self._reported_at is not None:
            job = with_progress(job, list(self._lines), self._reported_at)
        return msgspec.structs.replace(job, **self._fields)

    def _stop_listening(self) -> None:
        self._listening = False
        if self._claim.fds.bell != NO_FD:
            trio.lowlevel.notify_closing(self._claim.fds.bell)


async def _mark(write: Callable[[], object]) -> None:
    with trio.move_on_after(MARK_S):
        await in_own_thread(write, abandon_on_cancel=True)


@asynccontextmanager
async def create_job(store: JobStore, job: Job) -> AsyncIterator[Ownership]:
    """Record a new job, and own it for as long as the block runs.

    The block ends with `finish`, or with `release` after the job was handed over; otherwise the
    next reader finds the job lost.

    Args:
        store: Where to record it.
        job: From `JobStore.new_job`.

    Raises:
        JobStoreError: The job cannot be recorded. Nothing is left of it; start nothing.
    """
    ownership = Ownership(store, await in_record_thread(store.create, job))
    try:
        yield ownership
    finally:
        ownership.release()


@asynccontextmanager
async def adopt_job(  # noqa: ASYNC124  # so that it is used as `create_job` is
    store: JobStore, job_id: str, fds: Iterable[int]
) -> AsyncIterator[Ownership]:
    """Own a job that was handed over, as `create_job` does; closes `fds`.

    The process that adopts a job must have no other work.

    Raises:
        JobStoreError: The descriptors are not those of the job, or the job has ended.
    """
    claim = store.adopt(job_id, list(fds))
    events = EventLog(store.submissions.events_path(job_id))
    ownership = Ownership(store, claim, alone=True, events=events)
    try:
        yield ownership
    finally:
        ownership.release()

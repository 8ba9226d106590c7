"""Jobs on Trio, for the process that owns one: record it, run it, hand it over, finish it.

The owner holds the job's lock for as long as it works on it; the kernel takes the lock away when
the process ends, however it ends. `waiting` is for all other processes.
"""

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
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
from agent_dispatch.jobs.waiting import Pause, look
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.job import PROGRESS_LINE_CHARS, PROGRESS_LINES, Job, JobKind, JobStatus
from agent_dispatch.threads import Pool, in_own_thread, in_pool, in_record_thread

PROGRESS_PACE_S = 1.0
"""The time between two writes of progress, at least."""
_FIRST_WRITE_S = 0.2
_FIRST_LOOK_S = 1.0
"""A run that ends sooner is recorded when it is created and when it ends, no more."""
_MANY_RINGS = 4096
RECORD_S = 20.0
"""How long the end of a job may take to be recorded: longer than a disk is busy, and short enough
for a caller that waits for its answer. A slower disk gets the record when it can."""
NOTE_S = 2.0
"""How long a mark for other readers may take; it is best effort."""


OnMail = Callable[[Mail], object]


def _ignore_mail(mail: Mail) -> None:
    """Leave a message without an answer."""


class Ownership:
    """A job that this process runs; made by `create_job` and `adopt_job`."""

    def __init__(
        self,
        store: JobStore,
        claim: Claim,
        *,
        now: Callable[[], float],
        report_problem: Callable[[str], object] = write_to_stderr,
        alone: bool = False,
        events: EventLog | None = None,
    ) -> None:
        """Own the job of `claim`.

        Args:
            store: Where it is.
            claim: The right to write it.
            now: Gives the time to be recorded.
            report_problem: Gets lines on a record that cannot be updated. Called in a thread.
            alone: This process has no other work: what is to be done for the job after its run
                need not go to a thread to keep others from waiting.
            events: Gets every line of progress, for a caller on another machine.
        """
        self._store = store
        self._claim = claim
        self._now = now
        self._report_problem = report_problem
        self._alone = alone
        self._events = events
        self._new_lines: list[str] = []
        self._lines: deque[str] = deque(claim.job.progress or (), maxlen=PROGRESS_LINES)
        self._reported_at = claim.job.progress_updated_at
        self._fields: dict[str, object] = {}
        """Other fields of the record as they are to be written."""
        self._started_at = claim.job.started_at
        self._read_mail_bytes = 0
        self._listening = True
        self._is_noted = False
        """The job ends on purpose, and the mark that says so is ours."""
        self._is_left = False
        """A thread records the job's end, and then lets go of the job."""
        self._writing = trio.Lock()
        self._changed = trio.Event()
        self._urgent = trio.Event()

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

        If no other process has them, the next reader finds the job lost. May be called twice.
        """
        if self.owned:
            self._stop_listening()
            self._store.release(self._claim)

    def note_started(self) -> None:
        """Have it recorded that the job runs; `keep_record` writes it. Returns at once."""
        if self._started_at is None:
            self._started_at = self._now()
            self._changed.set()
            self._urgent.set()

    @property
    def run_s(self) -> float:
        """Seconds since the run began; 0 before."""
        return 0 if self._started_at is None else max(0, self._now() - self._started_at)

    def report(self, line: str) -> None:
        """Add a line to the progress tail; `keep_record` writes it. Returns at once."""
        # A line may be the whole of a large answer: only its beginning is looked at.
        if text := " ".join(line[: 4 * PROGRESS_LINE_CHARS].split()):
            self._lines.append(text[:PROGRESS_LINE_CHARS])
            if self._events is not None:
                self._new_lines.append(text[:PROGRESS_LINE_CHARS])
            self._reported_at = self._now()
            self._changed.set()

    def note(self, **fields: object) -> None:
        """Have these fields of the `Job` recorded as soon as the disk takes them. Returns at once.

        For what other processes wait for, and what must not be lost should we die.
        """
        known = {name: self._fields.get(name, getattr(self.job, name)) for name in fields}
        if fields != known:
            self._fields |= fields
            self._changed.set()
            self._urgent.set()

    async def keep_record(self) -> NoReturn:
        """Write start, progress and session as they come, until cancelled.

        At most once a second, and at first after a moment that a short run does not need. A record
        that cannot be updated does not stop the run: it is reported, each time for a new reason.
        """
        reported = ""
        await trio.sleep(_FIRST_WRITE_S)
        while True:
            await self._changed.wait()
            self._changed, self._urgent = trio.Event(), trio.Event()
            async with self._writing:
                if self.owned:
                    reported = await in_record_thread(self._update, self._up_to_date(), reported)
            with trio.move_on_after(PROGRESS_PACE_S):
                await self._urgent.wait()

    def _update(self, job: Job, reported: str) -> str:
        self._write_events()
        try:
            self._store.update(self._claim, job)
        except JobStoreError as error:
            if (problem := f"agent-dispatch: {error} The run goes on.\n") != reported:
                self._report_problem(problem)
            return problem
        return ""

    def _write_events(self) -> None:
        if self._events is not None:
            lines, self._new_lines = self._new_lines, []
            self._events.append(lines)

    async def wait_cancelled(self, on_mail: OnMail = _ignore_mail) -> str:
        """Wait until a cancellation of the job is asked for; say by whom. For one task at a time.

        Never returns for a job that was finished or let go of.

        Args:
            on_mail: Gets each message in the job's mailbox once, in order. Must not wait.
        """
        pause = Pause()
        if self._claim.fds.bell != NO_FD:
            # Every message rings, unless its process is killed first: a short run needs no look.
            with trio.move_on_after(_FIRST_LOOK_S):
                await self._rung()
        while True:
            try:
                by, delivery = await look(self._look_for_word, self._read_mail_bytes)
            except JobStoreError:  # No reason to end a run; asked again.
                await pause.take()
                continue
            self._read_mail_bytes = delivery.read_bytes
            for mail in delivery.mails:
                on_mail(mail)
            if by is not None and not self._is_noted:
                return by
            if not self._listening:
                await trio.sleep_forever()
            if self._claim.fds.bell == NO_FD:
                await pause.take()
                continue
            await self._rung()
            # Once we stop listening a thread may close it, and the number be another file's.
            if self._listening:
                with suppress(BlockingIOError):
                    os.read(self._claim.fds.bell, _MANY_RINGS)

    def _look_for_word(self, read_bytes: int) -> tuple[str | None, Delivery]:
        by = self._store.cancelled_by(self.job.id)
        return by, self._store.read_mail(self.job.id, read_bytes)

    async def _rung(self) -> None:
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(self._claim.fds.bell)

    async def note_cancelled(self, by: str) -> None:
        """Note that the job ends on purpose, before its run is ended.

        Should this process be killed on the way, the next reader finds the job cancelled instead
        of lost. Best effort: if it cannot be written, that is the only difference.
        """
        if self.owned:
            self._is_noted = True  # No other process asks for it.
            await _noted(partial(self._store.note_cancelled, self._claim, by))

    async def mark_ending(self) -> None:
        """Note that the run's processes are about to be ended, so that nested jobs end as such."""
        await _noted(partial(self._store.mark_ending, self._claim))

    async def unmark_ending(self) -> None:
        """Take that back, because the job goes on with other processes."""
        await _noted(partial(self._store.unmark_ending, self._claim))

    async def ends_with_its_parent(self) -> bool:
        """Whether the job inside whose agent this one was started has ended, or is being ended.

        False also if that cannot be found out: the end of this job is recorded all the same.
        """
        if (parent := self.job.parent) is not None:
            with suppress(DispatchError):
                if self._alone:
                    return self._store.is_ending(parent)
                with trio.move_on_after(NOTE_S):
                    return await in_pool(Pool.RECORDS, self._store.is_ending, parent)
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
                job = ended(self.job, result, self._now())
                finish = partial(self._store.finish, self._claim, job, tree_ended=tree_ended)
                if self._alone:
                    self._write_events()
                    return finish()
                # Left to the thread: it lets go of the job when the disk has taken its record.
                self._is_left = True
                with trio.move_on_after(RECORD_S):
                    try:
                        return await in_pool(Pool.RECORDS, finish)
                    except Exception:
                        self._is_left = False
                        raise
                slow = f"the disk did not take the record within {RECORD_S:g} s."
                return Finished(job, False, slow)
        raise AssertionError("no other code has the scope to cancel it")

    def _up_to_date(self) -> Job:
        # What was noted is kept apart until here: a thread may be writing the job as it was.
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


async def _noted(note: Callable[[], object]) -> None:
    with trio.move_on_after(NOTE_S):
        await in_own_thread(note, abandon_on_cancel=True)


@asynccontextmanager
async def create_job(
    store: JobStore,
    request: DispatchRequest,
    *,
    kind: JobKind,
    parent: str | None = None,
    tree: str | None = None,
    ref: bool = False,
    job_id: str | None = None,
    fields: Mapping[str, object] | None = None,
    now: Callable[[], float] = time.time,
) -> AsyncIterator[Ownership]:
    """Record a job as pending, and own it for as long as the block runs.

    Leave the block by `finish`, or by `let_go` after handing the job over; after any other way out
    the next reader finds the job lost.

    Args:
        store: Where to record it.
        request: What was asked.
        kind: Who owns it.
        parent: The job inside whose agent this process runs.
        tree: The tree of runs that it belongs to; None: it begins one.
        ref: The caller will be given the id in place of the whole answer.
        job_id: The id, where the caller made it.
        fields: Further fields of the `Job`.
        now: Gives the time to be recorded.

    Raises:
        JobStoreError: The job cannot be recorded. Nothing is left of it; start nothing.
    """
    create = partial(
        store.create,
        request,
        kind=kind,
        parent=parent,
        tree=tree,
        ref=ref,
        job_id=job_id,
        fields=fields,
    )
    ownership = Ownership(store, await in_record_thread(create), now=now)
    try:
        yield ownership
    finally:
        ownership.let_go()


@asynccontextmanager
async def adopt_job(  # noqa: ASYNC124  # so that it is used as `create_job` is
    store: JobStore, job_id: str, fds: Iterable[int], *, now: Callable[[], float] = time.time
) -> AsyncIterator[Ownership]:
    """Own a job that was handed over, as `create_job` does; `fds` are ours to close from here on.

    The process that adopts a job has no other work meanwhile.

    Raises:
        JobStoreError: They are not those of the job, or it has ended.
    """
    claim = store.adopt(job_id, list(fds))
    events = EventLog(store.submissions.events_path(job_id))
    ownership = Ownership(store, claim, now=now, alone=True, events=events)
    try:
        yield ownership
    finally:
        ownership.let_go()

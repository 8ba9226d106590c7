"""Jobs on Trio, for processes that do not own them: wait for one, cancel one, write to its owner.

A wait for the end does not poll: the kernel wakes all waiters when the last holder of a job is
gone, even after SIGKILL. Where the file system has no FIFOs, waiters poll, less and less often.
"""

import math
import os
import threading
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TypeVar

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.mailbox import Mail
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.message import KEEP_MAIL, Keep
from agent_dispatch.threads import Pool, in_own_thread, in_pool

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _PAUSE_GROWTH = 0.001, 1.0, 1.6


class CancelOutcome(StrEnum):
    """The result of a cancellation."""

    CANCELLED = "cancelled"
    """The job has ended and its processes are gone."""
    RUNNING = "running"
    """The cancellation was requested; the job is still ending."""
    ALREADY_TERMINAL = "already_terminal"
    """The job had ended before, or ended by itself first."""
    NOT_FOUND = "not_found"


async def post(store: JobStore, job_id: str, kind: str, body: object) -> Mail | None:
    """Send a message to the owner of a job; see `Requests.post`.

    Once the write has begun, a cancellation waits for it.
    """
    await settled(store, job_id)  # Slow for a lost job, so not in the thread below.
    return await in_own_thread(store.requests.post, job_id, kind, body)


async def wait_to_see(store: JobStore, job_id: str, seen: Callable[[Job], bool]) -> Job:
    """Wait until `seen` accepts the record of a job, or the job has ended; return the job.

    Args:
        seen: Called with the record again and again, because nothing signals a change.

    Raises:
        DispatchError: No such job, or it cannot be read.
    """
    pause = Pause()
    while not (job := await settled(store, job_id)).status.is_terminal and not seen(job):
        await pause.take()
    return job


async def wait_until_over(
    store: JobStore,
    job_id: str,
    note: Callable[[Job], object] = lambda job: None,
    every_s: float = math.inf,
) -> Job:
    """Wait until a job has ended, even if its owner dies; return the job.

    Args:
        note: Called with the job while it goes on, at once and then every `every_s`.
        every_s: Seconds between two calls of `note`.

    Raises:
        DispatchError: No such job, or it cannot be read.
    """
    pause = Pause()
    while True:
        watch = _Watch(store, job_id)
        try:
            job = await in_pool(Pool.LOOKS, watch.open_and, partial(_settle_quickly, store, job_id))
            if job is None:
                job = await in_pool(Pool.SETTLING, store.settle, job_id)
            if job.status.is_terminal:
                return job
            note(job)
            if await watch.wait(every_s):
                continue
        finally:
            watch.close()
        await pause.take()


async def settled(store: JobStore, job_id: str) -> Job:
    """Read a job, and first record its end if its owner has died; see `JobStore.settle`.

    Raises:
        DispatchError: No such job, or it cannot be read.
    """
    job = await in_pool(Pool.LOOKS, _settle_quickly, store, job_id)
    return await in_pool(Pool.SETTLING, store.settle, job_id) if job is None else job


def _settle_quickly(store: JobStore, job_id: str) -> Job | None:
    """Settle a job that has an owner or has ended; None for a lost job, which takes longer."""
    try:
        is_quick = store.head(job_id).status.is_terminal or store.is_held(job_id)
    except DispatchError:
        is_quick = True  # `settle` raises it again.
    return store.settle(job_id) if is_quick else None


async def cancel(
    store: JobStore, job_id: str, *, by: str, patience_s: float, keep: bool = False
) -> CancelOutcome:
    """Ask the owner of a job to cancel it, and wait until none of its processes is left.

    Args:
        by: Who asks, for the end of a sentence.
        patience_s: How long to wait; the cancellation goes on after that.
        keep: Let the owner interrupt a run that has begun, so that its output so far is kept.

    Raises:
        DispatchError: Not an id, the job cannot be read, or the request cannot be recorded.
    """
    try:
        job = await settled(store, job_id)  # Slow for a lost job, so not in the thread below.
        if keep and job.status is JobStatus.RUNNING:
            # If it has ended since it was seen to run, its status says whether by this request.
            await post(store, job_id, KEEP_MAIL, Keep(by))
        # Not abandoned, so that the request is recorded or not when this call ends.
        elif not await in_own_thread(store.requests.cancel, job_id, by):
            return CancelOutcome.ALREADY_TERMINAL
    except UnknownJobError:
        return CancelOutcome.NOT_FOUND
    with trio.move_on_after(patience_s):
        try:
            job = await wait_until_over(store, job_id)
        except UnknownJobError:  # It has ended, and was removed at once.
            return CancelOutcome.ALREADY_TERMINAL
        await _wait_until_free(store, job_id)
        is_cancelled = job.status is JobStatus.CANCELLED
        return CancelOutcome.CANCELLED if is_cancelled else CancelOutcome.ALREADY_TERMINAL
    return CancelOutcome.RUNNING


async def _wait_until_free(store: JobStore, job_id: str) -> None:
    pause = Pause()
    while True:
        watch = _Watch(store, job_id)
        try:
            is_held = partial(store.is_held, job_id)
            if not await in_pool(Pool.LOOKS, watch.open_and, is_held):
                return
            if await watch.wait():
                continue
        finally:
            watch.close()
        await pause.take()


class _Watch:
    """Waits until the last holder of a job is gone; opened in a thread that may be abandoned."""

    def __init__(self, store: JobStore, job_id: str) -> None:
        self._store = store
        self._job_id = job_id
        self._lock = threading.Lock()
        self._is_closed = False
        self.fd: int | None = None
        """None if there is nothing to wait for."""

    def open_and(self, see: Callable[[], T]) -> T:
        """Open it, then call `see`, in one thread; an end after that wakes `wait`."""
        fd = self._store.watch(self._job_id)
        with self._lock:
            if not self._is_closed:
                self.fd = fd
            elif fd is not None:
                os.close(fd)
        return see()

    async def wait(self, every_s: float = math.inf) -> bool:
        """Wait for that, but at most `every_s`; False if there is nothing to wait for."""
        if self.fd is None:
            return False
        with trio.move_on_after(every_s):
            await trio.lowlevel.wait_readable(self.fd)
        return True

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self.fd is not None:
                os.close(self.fd)
                self.fd = None


class Pause:
    """The pause of a poll: short at first, then longer and longer."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    async def take(self) -> None:
        """Wait."""
        await trio.sleep(self._next_s)
        self._next_s = min(self._next_s * _PAUSE_GROWTH, _LONGEST_PAUSE_S)

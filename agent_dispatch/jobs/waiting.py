"""Jobs on Trio, for everybody but their owner: wait for one, cancel one.

Nothing polls: the kernel wakes whoever waits when the last holder of a job is gone, also after
SIGKILL. On file systems without FIFOs there is nothing to wait on; then we look again and again,
at longer and longer intervals.
"""

import os
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar, TypeVarTuple

import trio

from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job, JobStatus

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _PAUSE_GROWTH = 0.001, 1.0, 1.6


class CancelOutcome(StrEnum):
    """What a cancellation came to."""

    CANCELLED = "cancelled"
    """The job is over and its processes are gone."""
    RUNNING = "running"
    """Asked for; the job is still ending."""
    ALREADY_TERMINAL = "already_terminal"
    """The job was over before, or its end came first."""
    NOT_FOUND = "not_found"


async def wait_until_over(store: JobStore, job_id: str) -> Job:
    """Wait until a job is over, whoever owns it and however that owner ends; give the job.

    Raises:
        DispatchError: There is no such job, or not any more, or it cannot be read.
    """

    def settled() -> Job | None:
        job = store.settle(job_id)
        return job if job.status.is_terminal else None

    return await _wait_for(store, job_id, settled)


async def cancel(store: JobStore, job_id: str, *, by: str, patience_s: float) -> CancelOutcome:
    """Have a job cancelled by its owner, and wait until none of its processes is left.

    Args:
        store: Where the job is.
        job_id: The job.
        by: Who asks, for the end of a sentence.
        patience_s: How long to wait; the job is being ended also after that.

    Raises:
        DispatchError: The id is no id, the job cannot be read, or the request not be recorded.
    """

    def is_let_go() -> bool | None:
        return None if store.is_held(job_id) else True

    try:
        # Not abandoned: if we are cancelled it is known whether the job is.
        if not await trio.to_thread.run_sync(store.request_cancel, job_id, by):
            return CancelOutcome.ALREADY_TERMINAL
    except UnknownJobError:
        return CancelOutcome.NOT_FOUND
    with trio.move_on_after(patience_s):
        try:
            job = await wait_until_over(store, job_id)
        except UnknownJobError:  # Over, and removed as soon as it was.
            return CancelOutcome.ALREADY_TERMINAL
        await _wait_for(store, job_id, is_let_go)
        is_cancelled = job.status is JobStatus.CANCELLED
        return CancelOutcome.CANCELLED if is_cancelled else CancelOutcome.ALREADY_TERMINAL
    return CancelOutcome.RUNNING


async def _wait_for(store: JobStore, job_id: str, see: Callable[[], T | None]) -> T:
    """Look until there is something to see, again whenever the job's holders have changed."""
    pause = Pause()
    while True:
        # Opened before looking: what happens after the look is told by it.
        watch = await trio.to_thread.run_sync(store.watch, job_id)
        try:
            if (seen := await look(see)) is not None:
                return seen
            if watch is not None:
                await trio.lowlevel.wait_readable(watch)
        finally:
            if watch is not None:
                os.close(watch)
        if watch is None:
            await pause.take()


class Pause:
    """Between two looks where nothing wakes us: short at first, then longer and longer."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    async def take(self) -> None:
        """Wait."""
        await trio.sleep(self._next_s)
        self._next_s = min(self._next_s * _PAUSE_GROWTH, _LONGEST_PAUSE_S)


async def look(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Look at the disk off the event loop; if cancelled, the look goes on unobserved."""
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)

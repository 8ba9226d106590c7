import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.jobs.errors import InvalidJobIdError, UnknownJobError
from agent_dispatch.jobs.owner import Ownership, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, wait_until_over
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from tests.jobs.support import (
    CANCELLED,
    DONE,
    REQUEST,
    RefusingDisk,
    end,
    ended,
    files_in,
    running,
)

ROOT = Path(__file__).parents[2]
NOBODY = "0190b5f0000070008000000000000001"


class HookedStore(JobStore):
    """Lets something happen before or after the n-th call of `watch` or `settle`."""

    def __init__(self, directory: Path, moment: str, happen: Callable[[], None]) -> None:
        super().__init__(directory)
        self._moment = moment
        self._happen = happen

    def watch(self, job_id: str) -> int | None:
        self._at("before watch")
        fd = super().watch(job_id)
        self._at("after watch")
        return fd

    def settle(self, job_id: str) -> Job:
        self._at("before settle")
        job = super().settle(job_id)
        self._at("after settle")
        return job

    def _at(self, moment: str) -> None:
        if moment == self._moment:
            self._moment = ""
            self._happen()


MOMENTS = ["before watch", "after watch", "before settle", "after settle"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", ["finish", "die"])
async def test_no_end_is_missed_whenever_it_comes(
    moment: str, way: str, store: JobStore, directory: Path
) -> None:
    claim = running(store)

    def over() -> None:
        if way == "finish":
            end(store, claim)
        else:
            store.release(claim)

    with trio.fail_after(5):
        job = await wait_until_over(HookedStore(directory, moment, over), claim.job.id)
    assert job.status is (JobStatus.DONE if way == "finish" else JobStatus.FAILED)


async def test_many_waiters_wake_at_once(store: JobStore, other: JobStore) -> None:
    woken: list[float] = []

    async def wait(job_id: str) -> None:
        assert (await wait_until_over(other, job_id)).status is JobStatus.DONE
        woken.append(time.perf_counter())

    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(wait, own.job.id)
                await wait_all_tasks_blocked(0.05)
                assert woken == []
                await own.finish(DONE)
                finished = time.perf_counter()
    assert len(woken) == 20
    assert min(woken) - finished < 0.5


async def test_a_waiter_wakes_when_the_owner_is_killed(store: JobStore, directory: Path) -> None:
    owner = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.jobs.owners", "own", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    with trio.fail_after(20):
        job_id = (await owner.stdout.receive_some(100)).decode().strip()
        async with trio.open_nursery() as nursery:
            killed = math.inf

            async def wait() -> None:
                job = await wait_until_over(store, job_id)
                assert time.perf_counter() - killed < 1
                assert job.error_type is ErrorType.LOST

            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.05)
            killed = time.perf_counter()
            owner.send_signal(signal.SIGKILL)
        await owner.wait()


async def test_waiting_for_an_ended_or_unknown_job_returns_at_once(
    store: JobStore, autojump_clock: MockClock
) -> None:
    job_id = ended(store)
    assert (await wait_until_over(store, job_id)).status is JobStatus.DONE
    with pytest.raises(UnknownJobError):
        await wait_until_over(store, NOBODY)
    with pytest.raises(InvalidJobIdError):
        await wait_until_over(store, "../x")


async def test_a_waiter_keeps_no_job_owned_and_leaks_no_descriptor(
    store: JobStore, other: JobStore
) -> None:
    claim = running(store)
    before = len(os.listdir("/proc/self/fd"))
    with trio.move_on_after(0.1) as patience:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(wait_until_over, other, claim.job.id)
    assert patience.cancelled_caught
    await wait_all_tasks_blocked(0.05)
    assert len(os.listdir("/proc/self/fd")) == before
    store.release(claim)
    assert other.settle(claim.job.id).error_type is ErrorType.LOST


async def test_waiting_and_cancelling_work_without_fifos(directory: Path) -> None:
    store = JobStore(
        directory, disk=RefusingDisk(lambda name, *_: errno.EPERM if name == "mkfifo" else 0)
    )
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        assert len(own.fds) == len(own.held_fds) == 1
        own.note_started()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, own)
                assert await ask(store, own.job.id) is CancelOutcome.CANCELLED
    assert files_in(directory) == {f"{own.job.id}.json"}


# -- cancelling


async def ask(store: JobStore, job_id: str, patience_s: float = 5) -> CancelOutcome:
    return await cancel(store, job_id, by="a test", patience_s=patience_s)


async def obey(own: Ownership, result: DispatchResult = CANCELLED) -> None:
    """End the job when it is cancelled, as its run loop would."""
    assert await own.wait_cancelled() == "a test"
    await own.finish(result)


@pytest.mark.parametrize("state", ["pending", "running"])
async def test_a_job_is_cancelled_and_gone(
    state: str, store: JobStore, other: JobStore, directory: Path
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        if state == "running":
            own.note_started()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, own)
                assert await ask(other, own.job.id) is CancelOutcome.CANCELLED
                assert not other.is_held(own.job.id)
    assert store.read(own.job.id).status is JobStatus.CANCELLED
    assert files_in(directory) == {f"{own.job.id}.json"}
    assert await ask(other, own.job.id) is CancelOutcome.ALREADY_TERMINAL


async def test_of_many_cancellations_at_once_one_end_is_recorded(
    store: JobStore, other: JobStore
) -> None:
    outcomes: list[CancelOutcome] = []

    async def one(asking: JobStore, job_id: str) -> None:
        outcomes.append(await ask(asking, job_id))

    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for asking in [store, other] * 5:
                    nursery.start_soon(one, asking, own.job.id)
                await obey(own)
    # The last of them may find it ended.
    assert set(outcomes) <= {CancelOutcome.CANCELLED, CancelOutcome.ALREADY_TERMINAL}
    assert CancelOutcome.CANCELLED in outcomes
    assert store.read(own.job.id).status is JobStatus.CANCELLED


async def test_an_answer_that_came_before_the_cancellation_is_kept(
    store: JobStore, other: JobStore
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(obey, own, DONE)
                assert await ask(other, own.job.id) is CancelOutcome.ALREADY_TERMINAL
    assert store.read(own.job.id).status is JobStatus.DONE


async def test_cancel_and_end_race_to_one_end(store: JobStore, other: JobStore) -> None:
    for _ in range(20):
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
            own.note_started()
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(own.finish, DONE)
                    outcome = await ask(other, own.job.id)
        assert outcome is CancelOutcome.ALREADY_TERMINAL
        assert store.settle(own.job.id).status is JobStatus.DONE


async def test_a_job_that_is_still_ending_is_reported_as_running(
    store: JobStore, other: JobStore
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        assert await ask(other, own.job.id, patience_s=0.1) is CancelOutcome.RUNNING
        assert not own.job.status.is_terminal
        # Ended, but with processes left under its guard.
        guards = [os.dup(fd) for fd in own.held_fds]
        await own.finish(CANCELLED, tree_ended=False)
    assert await ask(other, own.job.id, patience_s=0.1) is CancelOutcome.ALREADY_TERMINAL
    for fd in guards:
        os.close(fd)


async def test_a_cancellation_waits_until_the_guard_has_gone(
    store: JobStore, other: JobStore
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        guards = [os.dup(fd) for fd in own.held_fds]

        async def end_with_a_guard() -> None:
            await own.wait_cancelled()
            await own.finish(CANCELLED, tree_ended=False)

        outcomes: list[CancelOutcome] = []

        async def one() -> None:
            outcomes.append(await ask(other, own.job.id))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_with_a_guard)
                nursery.start_soon(one)
                await wait_all_tasks_blocked(0.1)
                assert outcomes == []
                for fd in guards:
                    os.close(fd)
        assert outcomes == [CancelOutcome.CANCELLED]


async def test_cancelling_a_job_whose_owner_dies_meanwhile_cancels_it(
    store: JobStore, other: JobStore
) -> None:
    claim = running(store)
    outcomes: list[CancelOutcome] = []

    async def one() -> None:
        outcomes.append(await ask(other, claim.job.id))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await wait_all_tasks_blocked(0.1)
            store.release(claim)
    assert outcomes == [CancelOutcome.CANCELLED]


async def test_an_unknown_job_cannot_be_cancelled(store: JobStore) -> None:
    assert await ask(store, NOBODY) is CancelOutcome.NOT_FOUND
    with pytest.raises(InvalidJobIdError):
        await ask(store, "../x")
    lost = running(store)
    store.release(lost)
    assert await ask(store, lost.job.id) is CancelOutcome.ALREADY_TERMINAL

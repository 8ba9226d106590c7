import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.files import DISK, Disk
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.owner import Ownership, adopt_job, create_job
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import Finished, JobStore
from agent_dispatch.jobs.waiting import wait_until_over
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from agent_dispatch.threads import THREADS
from tests.jobs.support import DONE, FAILED, REQUEST, FaultyDisk, FullDisk, files_in, read_only_disk

ROOT = Path(__file__).parents[2]


class WatchedStore(JobStore):
    """Reports each update, after the attempt."""

    def __init__(self, directory: Path, disk: Disk = DISK) -> None:
        super().__init__(directory, disk=disk)
        self.count = 0
        self._tell, self.updates = trio.open_memory_channel[Job](1000)

    def update(self, claim: Claim, job: Job) -> None:
        try:
            super().update(claim, job)
        finally:
            self.count += 1
            trio.from_thread.run_sync(self._tell.send_nowait, job)


async def test_a_job_is_recorded_run_and_finished(store: JobStore, directory: Path) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        assert store.read(own.job.id).status is JobStatus.PENDING
        own.note_started()
        own.report("Reading\n  the   logs")
        own.report("  \n")
        finished = await own.finish(DONE)
        assert not own.owned
    assert finished.persisted
    assert finished.job.progress == ["Reading the logs"]
    assert store.read(own.job.id) == finished.job
    assert files_in(directory) == {f"{own.job.id}.json"}


async def test_many_jobs_take_few_threads(directory: Path) -> None:
    lock, together = threading.Lock(), threading.Barrier(THREADS, timeout=5)
    now, peak = 0, 0

    class Crowded(JobStore):
        def finish(self, claim: Claim, job: Job, *, tree_ended: bool = True) -> Finished:
            nonlocal now, peak
            with lock:
                now += 1
                peak = max(peak, now)
            together.wait()
            finished = super().finish(claim, job, tree_ended=tree_ended)
            with lock:
                now -= 1
            return finished

    store = Crowded(directory)

    async def one() -> None:
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
            own.note_started()
            await own.finish(DONE)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10 * THREADS):
                nursery.start_soon(one)
    assert len(files_in(directory)) == 10 * THREADS
    assert peak == THREADS


async def test_a_job_that_is_left_unfinished_is_lost(store: JobStore) -> None:
    async def break_off() -> None:
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
            own.note_started()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    (row,) = store.lister.newest().jobs
    assert row.error_type is ErrorType.LOST


async def test_a_job_that_cannot_be_recorded_is_refused(directory: Path) -> None:
    store = JobStore(directory, disk=read_only_disk())
    with pytest.raises(JobStoreError, match="nothing was started"):
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)):
            pytest.fail("it was not recorded")


async def test_an_answer_is_recorded_although_the_start_never_was(store: JobStore) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        assert (await own.finish(DONE)).persisted
    job = store.read(own.job.id)
    assert job.status is JobStatus.DONE
    assert job.started_at is not None


async def test_an_owner_that_dies_while_it_cancels_its_job_leaves_it_cancelled(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        await own.mark_cancelled("the end of its server")
    job = other.settle(own.job.id)
    assert job.status is JobStatus.CANCELLED
    assert job.error is not None
    assert "the end of its server" in job.error
    await own.mark_cancelled("too late")
    assert other.settle(own.job.id) == job
    assert files_in(directory) == {f"{job.id}.json"}


async def test_finishing_is_not_interrupted(store: JobStore) -> None:
    with trio.CancelScope() as scope:
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
            own.note_started()
            scope.cancel()
            await own.finish(DONE)
    assert store.read(own.job.id).status is JobStatus.DONE


async def test_progress_is_written_at_most_once_a_second_and_ends_whole(
    directory: Path, autojump_clock: MockClock
) -> None:
    store = WatchedStore(directory)
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        own.note_started()
        nursery.start_soon(own.keep_record)
        for number in range(200):
            own.report(f"line {number}")
            if number % 5 == 4:
                await trio.sleep(0.25)
        autojump_clock.autojump_threshold = math.inf  # The disk needs real time.
        await own.finish(DONE)
        nursery.cancel_scope.cancel()
    # At most one in each of the ten seconds; the virtual clock does not wait for the disk.
    assert 1 <= store.count <= 11
    assert store.read(own.job.id).progress == [f"line {number}" for number in range(180, 200)]


class SlowStore(WatchedStore):
    """Pauses in the middle of each update until it may go on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.entered = trio.Event()
        self.may_go_on = trio.Event()

    def update(self, claim: Claim, job: Job) -> None:
        trio.from_thread.run_sync(self.entered.set)
        trio.from_thread.run(self.may_go_on.wait)
        super().update(claim, job)


async def test_a_run_may_start_while_a_line_of_progress_is_being_written(directory: Path) -> None:
    store = SlowStore(directory)
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(own.keep_record)
        own.report("Waiting for a free slot, place 1 in line")
        with trio.fail_after(5):
            await store.entered.wait()
            own.note_started()
            own.note(session_id="5e55")
            store.may_go_on.set()
            assert (await store.updates.receive()).status is JobStatus.PENDING
            job = await store.updates.receive()
        assert (job.status, job.session_id) == (JobStatus.RUNNING, "5e55")
        await own.finish(FAILED)
        nursery.cancel_scope.cancel()
    assert store.read(own.job.id).started_at == job.started_at


async def test_a_session_is_written_at_once_with_all_earlier_notes(directory: Path) -> None:
    store = WatchedStore(directory)
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(own.keep_record)
        own.note_started()
        assert (await store.updates.receive()).status is JobStatus.RUNNING
        # Well below the second that progress has to wait.
        with trio.fail_after(0.9):
            own.report("a line")
            own.note(session_id="5e55")
            job = await store.updates.receive()
        assert (job.session_id, job.progress) == ("5e55", ["a line"])
        own.note(session_id="5e55")
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert store.count == 2
    assert store.settle(own.job.id).session_id == "5e55"


async def test_a_record_that_cannot_be_updated_is_reported_once_and_does_not_stop_the_run(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = FullDisk(100_000)
    store = WatchedStore(directory, disk)
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(own.keep_record)
        room, disk.room = disk.room, 0
        with trio.fail_after(5):
            for number in range(2):
                own.report(f"into the void, {number}")
                await store.updates.receive()
        disk.room = room
        assert (await own.finish(DONE)).persisted
        nursery.cancel_scope.cancel()
    (reported,) = capsys.readouterr().err.splitlines()
    assert "No space left" in reported
    assert own.job.id in reported
    assert store.read(own.job.id).progress == ["into the void, 0", "into the void, 1"]


async def test_notes_after_the_end_are_ignored(store: JobStore, autojump_clock: MockClock) -> None:
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(own.keep_record)
        autojump_clock.autojump_threshold = math.inf  # The disk needs real time.
        await own.finish(DONE)
        autojump_clock.autojump_threshold = 0
        own.report("too late")
        own.note(session_id="5e55")
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert store.read(own.job.id).progress is None


# -- handing over


async def test_a_job_goes_to_another_process_and_outlives_the_one_that_submitted_it(
    store: JobStore, directory: Path
) -> None:
    os.mkdir(directory)
    os.mkfifo(directory / "go")
    submitter = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.jobs.workers", "submit", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert submitter.stdout is not None
    with trio.fail_after(20):
        job_id = (await submitter.stdout.receive_some(100)).decode().strip()
        os.killpg(submitter.pid, 9)
        await submitter.wait()
        assert store.settle(job_id).status in (JobStatus.PENDING, JobStatus.RUNNING)
        await trio.to_thread.run_sync((directory / "go").write_text, "go")
        job = await wait_until_over(store, job_id)
    assert job.status is JobStatus.DONE
    assert job.result is not None
    assert job.result.result == "Three pods"


async def test_nothing_is_written_after_a_job_was_released(store: JobStore) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.BACKGROUND)) as own:
        copies = [os.dup(fd) for fd in own.fds]
        own.release()
        own.release()
        with pytest.raises(ValueError, match="was released"):
            await own.finish(DONE)
        async with adopt_job(store, own.job.id, copies) as adopted:
            adopted.note_started()
            assert (await adopted.finish(DONE)).persisted
    assert store.read(own.job.id).status is JobStatus.DONE


async def test_a_guard_gets_the_lock_and_not_the_bell(store: JobStore) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        assert len(own.held_fds) == 2
        assert len(own.fds) == 3
        assert set(own.held_fds) < set(own.fds)


# -- being cancelled


async def test_the_owner_hears_of_a_cancellation(store: JobStore, other: JobStore) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        heard: list[str] = []

        async def listen() -> None:
            heard.append(await own.wait_cancelled())

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await wait_all_tasks_blocked(0.01)
                assert heard == []
                assert other.requests.cancel(own.job.id, "the CLI")
            assert heard == ["the CLI"]
            # The marker stays, so a later call returns too.
            assert await own.wait_cancelled() == "the CLI"


async def test_a_failed_check_for_requests_does_not_end_the_run(directory: Path) -> None:
    disk = FaultyDisk()
    store = JobStore(directory, disk=disk)
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        await trio.to_thread.run_sync(store.requests.cancel, own.job.id, "the CLI")
        disk.calls.clear()
        disk.fail_at = 1
        with trio.fail_after(5):
            assert await own.wait_cancelled() == "the CLI"
        assert disk.calls[0] == "open"


async def test_a_ring_without_a_marker_cancels_nothing(store: JobStore) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        with trio.move_on_after(0.2) as patience:
            os.write(own.fds[1], b"!" * 10_000)
            await own.wait_cancelled()
        assert patience.cancelled_caught


@pytest.mark.parametrize("way", ["finish", "release"])
async def test_waiting_for_a_cancellation_never_returns_after_the_end(
    way: str, store: JobStore
) -> None:
    async def leave(own: Ownership) -> None:
        if way == "finish":
            own.note_started()
            await own.finish(DONE)
        else:
            own.release()

    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        with trio.move_on_after(0.3) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(own.wait_cancelled)
                await wait_all_tasks_blocked(0.01)
                await leave(own)
        assert patience.cancelled_caught

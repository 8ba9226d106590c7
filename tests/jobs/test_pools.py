"""Slow work on other jobs never holds up the record of a paid answer."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, settled, wait_until_over
from agent_dispatch.model.job import JobKind, JobStatus
from agent_dispatch.run.open_service import open_service
from tests.jobs.support import CANCELLED, DONE, REQUEST, running

NEIGHBOURS = 50
"""More than the threads of any pool, including Trio's own."""


class Street:
    """A store whose lost jobs take for ever to settle, and many readers of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.go_on = threading.Event()
        self.store = JobStore(directory, end_processes=lambda job_id: self.go_on.wait(30))
        self.lost: list[str] = []
        for _ in range(NEIGHBOURS):
            claim = running(self.store)
            self.store.release(claim)
            self.lost.append(claim.job.id)

    @asynccontextmanager
    async def crowded(self, look: str) -> AsyncIterator[None]:
        environ = {"AGENT_DISPATCH_CONFIG": f"{self.directory}/agents.toml"}
        async with (
            open_service(environ=environ, fork_server=None, store=self.store) as service,
            trio.open_nursery() as nursery,
        ):
            try:
                for job_id in self.lost:
                    match look:
                        case "wait":
                            nursery.start_soon(wait_until_over, self.store, job_id)
                        case "status":
                            nursery.start_soon(service.jobs.get, job_id)
                        case "cancel":
                            nursery.start_soon(service.jobs.cancel, job_id)
                        case _:
                            nursery.start_soon(service.jobs.newest)
                await wait_all_tasks_blocked(0.05)
                yield
                assert not self.go_on.is_set()
            finally:
                self.go_on.set()


@pytest.mark.parametrize("look", ["wait", "status", "cancel", "list"])
async def test_slow_settling_of_lost_jobs_delays_no_other_job(directory: Path, look: str) -> None:
    street = Street(directory)
    store = street.store
    async with street.crowded(look):
        with trio.fail_after(10):
            async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
                assert (await settled(store, own.job.id)).status is JobStatus.PENDING
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait_until_over, store, own.job.id)
                    await own.finish(DONE)
            assert (await settled(store, own.job.id)).status is JobStatus.DONE
            async with (
                create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
                trio.open_nursery() as nursery,
            ):
                ask = partial(cancel, store, own.job.id, by="a test", patience_s=20)
                nursery.start_soon(ask)
                assert await own.wait_cancelled() == "a test"
                await own.mark_ending()
                await own.mark_cancelled("a test")
                await own.finish(CANCELLED)
    assert store.settle(street.lost[0]).status is JobStatus.FAILED


async def test_marks_before_the_end_do_not_queue_for_a_thread(store: JobStore) -> None:
    go_on = threading.Event()
    async with (
        create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own,
        trio.open_nursery() as nursery,
    ):
        for _ in range(NEIGHBOURS):
            nursery.start_soon(partial(trio.to_thread.run_sync, go_on.wait, 30))
        await wait_all_tasks_blocked(0.05)
        with trio.fail_after(10):
            await own.mark_ending()
            await own.mark_cancelled("a test")
            outcome = await cancel(store, own.job.id, by="another", patience_s=0)
        assert outcome is CancelOutcome.RUNNING
        assert store.requests.cancelled_by(own.job.id) == "a test"
        go_on.set()
        await own.finish(CANCELLED)

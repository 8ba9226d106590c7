"""Whenever and however often a job is cancelled, it ends once, and no process of it is left."""

import json
import os
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.job import JobStatus
from tests.faults.conftest import MakeHouse
from tests.run.stage import SESSION, Stage, task

HANG = "read_turn(); init(); fork_away('setsid', 'twice'); stay()"
LATE = range(0, 40, 4)
"""Milliseconds behind the submission: before the worker is up, while it starts, behind that."""


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def test_a_job_that_is_just_starting_is_cancelled(stage: Stage) -> None:
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        for late_ms in LATE:
            job = await service.submit(task("go"))
            await trio.sleep(late_ms / 1000)
            with trio.fail_after(10):
                assert await service.jobs.cancel(job.id) is CancelOutcome.CANCELLED
            assert tree.living() == []
            assert (await service.jobs.get(job.id)).status is JobStatus.CANCELLED
            assert await service.jobs.cancel(job.id) is CancelOutcome.ALREADY_TERMINAL
    assert not os.listdir(stage.directory / "jobs" / "live")


async def test_a_job_that_has_its_answer_and_is_leaving_is_done(stage: Stage) -> None:
    said = stage.directory / "said"
    os.mkfifo(said)
    # It would stay for ever, so it is given a while to leave by itself: cancelled in this while.
    tree = stage.tree(f"read_turn(); init(); result('paid for'); open({str(said)!r}, 'w'); stay()")
    async with stage.open(tree) as service:
        job = await service.submit(task("go"))
        with trio.fail_after(10):
            await trio.to_thread.run_sync(said.read_text, abandon_on_cancel=True)
            assert await service.jobs.cancel(job.id) is CancelOutcome.ALREADY_TERMINAL
        assert tree.living() == []
        over = await service.jobs.get(job.id)
    assert (over.status, over.session_id) == (JobStatus.DONE, SESSION)
    assert over.result is not None
    assert over.result.result == "paid for"


async def test_a_job_in_line_is_cancelled_and_the_one_before_it_is_not(stage: Stage) -> None:
    stage.configure(settings="max_concurrency = 1")
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        first = await service.submit(task("go"))
        with trio.fail_after(20):
            while not tree.living():  # noqa: ASYNC110  # not our children
                await trio.sleep(0.01)
            second = await service.submit(task("go"))
            assert await service.jobs.cancel(second.id) is CancelOutcome.CANCELLED
            over = await service.jobs.get(second.id)
            assert (over.status, over.started_at) == (JobStatus.CANCELLED, None)
            assert not (await service.jobs.get(first.id)).status.is_terminal
            assert await service.jobs.cancel(first.id) is CancelOutcome.CANCELLED
    assert tree.living() == []


@pytest.mark.parametrize("kind", ["call", "background"])
async def test_processes_that_cancel_one_job_at_once_agree_on_its_end(
    make_house: MakeHouse, kind: str
) -> None:
    house = make_house(HANG)
    request = {"agent": "infra", "task": "go"}
    outcomes: list[str] = []

    async def cancel(job_id: str) -> None:
        outcomes.append(json.loads(await house.command("cancel", job_id, "--json"))["outcome"])

    with trio.fail_after(60):
        async with house.serving() as server:
            tool = "dispatch" if kind == "call" else "dispatch_async"
            await server.post("tools/call", {"name": tool, "arguments": request})
            job_id = await house.newest_running(beside="")
            await house.with_session(job_id)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(cancel, job_id)
            assert house.agents() == []
            job = house.store.settle(job_id)
        await house.nothing_left(within_s=3)
    # Who comes last may find it over.
    assert set(outcomes) <= {"cancelled", "already_terminal"}
    assert "cancelled" in outcomes
    assert (job.status, job.session_id) == (JobStatus.CANCELLED, SESSION)
    assert house.store.settle(job_id) == job

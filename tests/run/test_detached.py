"""Calls that are background jobs from the start, with real processes."""

from pathlib import Path

import pytest
import trio
import trio.testing

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import CallOptions, DispatchResult, ErrorType, Progress
from agent_dispatch.model.job import JobKind, JobStatus
from agent_dispatch.run.service import Service
from tests.run.stage import Stage, task

ANSWER = "read_turn(); init(); result()"
SLOW = "read_turn(); init(); time.sleep(0.5); result()"
HANG = "read_turn(); init(); say('up'); stay(ignore=False)"


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def test_the_answer_is_that_of_a_background_job_and_enters_the_cache(stage: Stage) -> None:
    with trio.fail_after(60):
        async with stage.open(stage.tree(ANSWER)) as service:
            told: list[Progress] = []
            result = await service.dispatch_detached(
                task("go"), told.append, CallOptions(summary_chars=5)
            )
            assert result.success
            assert told[0].job_id == result.job_id
            assert result.job_id is not None
            job = await service.jobs.get(result.job_id)
            assert job.kind is JobKind.BACKGROUND
            assert job.summary_chars == 5
            assert job.result == result
            again = await service.dispatch_detached(task("go"))
            assert again.cached
            assert again.job_id == result.job_id
            # Without its record there is no id to tell, so it runs again.
            await service.jobs.gc(0)
            anew = await service.dispatch_detached(task("go"))
            assert not anew.cached
            assert anew.job_id != result.job_id


async def test_identical_calls_share_the_job(stage: Stage) -> None:
    results: list[DispatchResult] = []

    async def ask(service: Service, detached: bool) -> None:
        ask_one = service.dispatch_detached if detached else service.dispatch
        results.append(await ask_one(task("go")))

    with trio.fail_after(60):
        async with stage.open(stage.tree(SLOW)) as service, trio.open_nursery() as nursery:
            for detached in (True, True, False):
                nursery.start_soon(ask, service, detached)
                await trio.testing.wait_all_tasks_blocked()
    assert len({result.job_id for result in results}) == 1


async def test_the_job_goes_on_when_its_caller_leaves(stage: Stage) -> None:
    tree = stage.tree(HANG)
    with trio.fail_after(60):
        async with stage.open(tree) as service:
            ids: list[str] = []
            with trio.CancelScope() as scope:

                def leave(progress: Progress) -> None:
                    if progress.job_id is not None:
                        ids.append(progress.job_id)
                        scope.cancel()

                await service.dispatch_detached(task("go"), leave)
        async with stage.open(tree) as service:
            assert not (await service.jobs.get(ids[0])).status.is_terminal
            assert await service.jobs.cancel(ids[0]) is CancelOutcome.CANCELLED
            job = await service.jobs.get(ids[0])
            assert job.status is JobStatus.CANCELLED
            assert job.error_type is ErrorType.CANCELLED
    assert tree.living() == []

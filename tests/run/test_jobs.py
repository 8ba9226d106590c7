"""Dispatches and their records, with real processes: what survives what."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import JobNotEndedError, UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import CallOptions, DispatchResult, ErrorType, Progress
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind, JobStatus
from agent_dispatch.model.next_step import StepKind
from agent_dispatch.run.background import WorkerStartError
from agent_dispatch.run.service import Service
from tests.claude.trees import Tree
from tests.jobs.holders import holder_of
from tests.run.stage import SESSION, Stage, task

ANSWER = "read_turn(); init(); result()"
HANG = "read_turn(); init(); fork_away('setsid', 'twice'); say('up'); stay(ignore=False)"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def session_known(service: Service, job_id: str) -> Job:
    """Wait until a job runs and its conversation is recorded, as any observer would."""
    with trio.fail_after(20):
        while (job := await service.jobs.get(job_id)).session_id is None:  # noqa: ASYNC110
            await trio.sleep(0.01)
    return job


StartSubmitter = Callable[[str, Tree], Awaitable[tuple[trio.Process, str]]]


@pytest.fixture
def start_submitter(stage: Stage) -> Iterator[StartSubmitter]:
    """Starts submitters, and kills those that a failed test left."""
    submitters: list[trio.Process] = []

    async def start(kind: str, tree: Tree) -> tuple[trio.Process, str]:
        stage.configure()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.run.submitter", kind, json.dumps(tree.command.argv)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=stage.environ,
            cwd=ROOT,
            start_new_session=True,
        )
        submitters.append(process)
        assert process.stdout is not None
        with trio.fail_after(20):
            return process, (await process.stdout.receive_some(100)).decode().strip()

    yield start
    for process in submitters:
        if process.poll() is None:
            process.kill()


async def test_an_answer_can_be_fetched_again_by_its_id(stage: Stage) -> None:
    said: list[str] = []
    async with stage.open(stage.tree(ANSWER)) as service:
        outcome = await service.dispatch(task("go"), lambda progress: said.append(progress.message))
        assert outcome.job_id is not None
        assert said[0] == f"infra · started · job {outcome.job_id[-8:]}"
        job = await service.jobs.get(outcome.job_id)
        assert (job.kind, job.status, job.task) == (JobKind.CALL, JobStatus.DONE, "go")
        assert await service.jobs.result(outcome.job_id) == outcome
        assert job.progress


async def test_a_failed_run_has_its_whole_result_in_the_record(stage: Stage) -> None:
    async with stage.open(stage.tree("sys.exit(3)")) as service:
        outcome = await service.dispatch(task("go"))
        assert outcome.job_id is not None
        job = await service.jobs.get(outcome.job_id)
    assert (job.status, job.error_type, job.result) == (
        JobStatus.FAILED,
        ErrorType.CLI_ERROR,
        outcome,
    )


async def test_a_cached_answer_whose_record_was_removed_is_whole_and_names_none(
    stage: Stage,
) -> None:
    tree = stage.tree("read_turn(); init(); result('z' * 100_000)")
    with trio.fail_after(20):
        async with stage.open(tree) as service:
            first = await service.dispatch(task("go"))
            again = await service.dispatch(task("go"))
            await service.jobs.gc(0)
            last = await service.dispatch(task("go"), options=CallOptions(ref=True))
    assert (again.cached, again.job_id) == (True, first.job_id)
    assert (last.cached, last.job_id, len(last.result)) == (True, None, 100_000)


async def test_without_retention_a_call_leaves_no_record(stage: Stage) -> None:
    stage.configure(settings="call_retention_days = 0")
    async with stage.open(stage.tree(ANSWER)) as service:
        ids: list[str] = []
        outcome = await service.dispatch(task("go"), lambda p: ids.append(p.job_id or ""))
        # Not even its id goes out with the answer: a surface cuts what can be fetched by one.
        assert outcome.job_id is None
        with pytest.raises(UnknownJobError):
            await service.jobs.get(ids[0])
        kept = await service.dispatch(task("go"), options=CallOptions(ref=True))
        assert kept.job_id is not None
        assert (await service.jobs.get(kept.job_id)).status is JobStatus.DONE


async def test_without_retention_the_record_of_a_call_that_its_caller_left_is_kept(
    stage: Stage,
) -> None:
    stage.configure(settings="call_retention_days = 0")
    async with stage.open(stage.tree(ANSWER)) as service:

        def leave(progress: Progress) -> None:
            if progress.job_id is not None:
                service.keep_record(progress.job_id)

        outcome = await service.dispatch(task("go"), leave)
        assert outcome.job_id is not None
        job = await service.jobs.get(outcome.job_id)
        assert job.ref
        assert job.client_gave_up
        service.keep_record(outcome.job_id)


async def test_nothing_is_started_when_nothing_can_be_recorded(stage: Stage) -> None:
    (stage.directory / "jobs").write_text("not a directory")
    tree = stage.tree("open('started', 'w').close()")
    async with stage.open(tree) as service:
        with pytest.raises(DispatchError, match="jobs"):
            await service.dispatch(task("go"))
        with pytest.raises(DispatchError, match="jobs"):
            await service.submit(task("go"))
    assert not (stage.directory / "started").exists()


async def test_a_cancelled_call_is_recorded_with_its_session(stage: Stage) -> None:
    tree = stage.tree(HANG)
    ids: list[str] = []

    def note_id(progress: Progress) -> None:
        ids.extend(filter(None, [progress.job_id]))

    async with stage.open(tree) as service:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.dispatch, task("go"), note_id)
                while not ids:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await session_known(service, ids[0])
                nursery.cancel_scope.cancel()
        job = await service.jobs.get(ids[0])
    assert tree.living() == []
    assert (job.status, job.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert job.session_id == SESSION
    assert job.error is not None
    assert "its caller" in job.error


async def test_a_background_job_is_run_by_a_worker(stage: Stage) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        submitted = await service.submit(task("go"))
        assert (submitted.kind, submitted.status) == (JobKind.BACKGROUND, JobStatus.PENDING)
        with trio.fail_after(20):
            job = await service.jobs.wait(submitted.id, 20)
    assert (job.status, job.result and job.result.result) == (JobStatus.DONE, "fine")
    assert job.result is not None
    assert job.result.job_id == submitted.id


async def test_a_worker_can_be_started_the_slow_way(tmp_path: Path) -> None:
    stage = Stage(None, tmp_path)
    async with stage.open(stage.tree(ANSWER)) as service:
        submitted = await service.submit(task("go"))
        with trio.fail_after(30):
            assert (await service.jobs.wait(submitted.id, 30)).status is JobStatus.DONE


async def test_waiting_ends_with_patience_and_the_job_goes_on(stage: Stage) -> None:
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        submitted = await service.submit(task("go"))
        await session_known(service, submitted.id)
        job = await service.jobs.wait(submitted.id, 0.1)
        assert job.status is JobStatus.RUNNING
        with pytest.raises(JobNotEndedError, match="not there yet") as early:
            await service.jobs.result(submitted.id)
        assert [step.kind for step in early.value.next_steps] == [StepKind.WAIT]
        assert await service.jobs.cancel(submitted.id) is CancelOutcome.CANCELLED
        assert tree.living() == []
        assert await service.jobs.cancel(submitted.id) is CancelOutcome.ALREADY_TERMINAL
        assert await service.jobs.cancel("0" * 32) is CancelOutcome.NOT_FOUND
        assert (await service.jobs.get(submitted.id)).status is JobStatus.CANCELLED


async def test_a_waiter_is_told_what_the_agent_does(stage: Stage) -> None:
    tree = stage.tree(
        "read_turn(); init();"
        "emit(type='assistant', message={'content': [{'type': 'text', 'text': 'reading'}]});"
        "stay(ignore=False)"
    )
    seen = trio.Event()

    def note(progress: Progress) -> None:
        if progress.message == "infra · reading":
            seen.set()

    async with stage.open(tree) as service:
        submitted = await service.submit(task("go"))
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.jobs.wait, submitted.id, 60, note)
                await seen.wait()
                nursery.cancel_scope.cancel()
        await service.jobs.cancel(submitted.id)


@pytest.mark.parametrize("kind", ["call", "background"])
async def test_a_job_is_cancelled_from_another_process(
    stage: Stage, start_submitter: StartSubmitter, kind: str
) -> None:
    tree = stage.tree(HANG)
    process, job_id = await start_submitter(kind, tree)
    async with stage.open(tree) as service:
        await session_known(service, job_id)
        assert await service.jobs.cancel(job_id, by="a test") is CancelOutcome.CANCELLED
        assert tree.living() == []
        job = await service.jobs.get(job_id)
    assert (job.status, job.session_id) == (JobStatus.CANCELLED, SESSION)
    assert "a test" in (job.error or "")
    process.kill()
    await process.wait()


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["process", "group"])
async def test_a_background_job_outlives_its_killed_submitter(
    stage: Stage, start_submitter: StartSubmitter, kill: Callable[[int, int], None]
) -> None:
    gate = stage.directory / "gate"
    os.mkfifo(gate)
    tree = stage.tree(f"read_turn(); init(); open({str(gate)!r}).read(); result('after all')")
    process, job_id = await start_submitter("background", tree)
    kill(process.pid, signal.SIGKILL)
    await process.wait()
    async with stage.open(tree) as service:
        await session_known(service, job_id)
        await trio.to_thread.run_sync(gate.write_text, "go on")
        with trio.fail_after(20):
            job = await service.jobs.wait(job_id, 20)
    assert (job.status, job.result and job.result.result) == (JobStatus.DONE, "after all")


async def test_a_call_ends_with_its_killed_process_and_is_known_to_be_lost(
    stage: Stage, start_submitter: StartSubmitter
) -> None:
    tree = stage.tree(HANG)
    process, job_id = await start_submitter("call", tree)
    async with stage.open(tree) as service:
        await session_known(service, job_id)
        process.kill()
        with trio.fail_after(20):
            job = await service.jobs.wait(job_id, 20)
    await tree.gone(3)
    assert (job.status, job.error_type, job.session_id) == (
        JobStatus.FAILED,
        ErrorType.LOST,
        SESSION,
    )
    await process.wait()


@pytest.mark.parametrize("victim", ["worker", "guard"])
async def test_waiters_wake_when_worker_or_guard_is_killed(
    stage: Stage, victim: Literal["worker", "guard"]
) -> None:
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        submitted = await service.submit(task("go"))
        await session_known(service, submitted.id)
        with trio.fail_after(20):
            os.kill(holder_of(stage.directory / "jobs", submitted.id, victim), signal.SIGKILL)
            began = time.monotonic()
            job = await service.jobs.wait(submitted.id, 20)
    assert time.monotonic() - began < 5
    await tree.gone(3)
    assert (job.status, job.error_type, job.session_id) == (
        JobStatus.FAILED,
        ErrorType.LOST,
        SESSION,
    )


async def test_what_outlived_worker_and_guard_is_ended_by_who_settles_the_job(
    stage: Stage,
) -> None:
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        submitted = await service.submit(task("go"))
        await session_known(service, submitted.id)
        jobs = stage.directory / "jobs"
        victims = [holder_of(jobs, submitted.id, kind) for kind in ("worker", "guard")]
        # Both are stopped first, or the second could act on the end of the first.
        for signum in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                os.kill(pid, signum)
        with trio.fail_after(20):
            job = await service.jobs.wait(submitted.id, 20)
    assert (job.status, job.error_type) == (JobStatus.FAILED, ErrorType.LOST)
    assert tree.living() == []


async def test_the_limit_counts_all_processes_together(stage: Stage) -> None:
    stage.configure(settings="max_concurrency = 1")
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        first = await service.submit(task("go"))
        await session_known(service, first.id)
        second = await service.submit(task("go"))
        job = await service.jobs.wait(second.id, 1)
        assert job.status is JobStatus.PENDING
        await service.jobs.cancel(first.id)
        await session_known(service, second.id)
        await service.jobs.cancel(second.id)


async def test_a_pending_job_can_be_cancelled(stage: Stage) -> None:
    stage.configure(settings="max_concurrency = 1")
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        first = await service.submit(task("go"))
        await session_known(service, first.id)
        second = await service.submit(task("go"))
        assert await service.jobs.cancel(second.id) is CancelOutcome.CANCELLED
        await service.jobs.cancel(first.id)


async def test_no_call_waits_for_the_conversation_in_which_it_is_made(stage: Stage) -> None:
    tree = stage.tree(HANG)
    store = JobStore(stage.directory / "jobs")
    async with stage.open(tree) as service:
        outer = await service.submit(task("go"))
        await session_known(service, outer.id)
        inner = store.create(store.new_job(task("go"), kind=JobKind.CALL, parent=outer.id))
        for parent in (outer, inner.job):
            stage.environ[JOB_VARIABLE] = parent.id
            async with stage.open(tree) as within:
                request = msgspec.structs.replace(task("go"), session_id=SESSION.upper())
                with trio.fail_after(20), pytest.raises(InvalidRequestError, match=outer.id):
                    await within.dispatch(request)
        store.release(inner)
        await service.jobs.cancel(outer.id)


async def test_a_worker_that_cannot_start_is_an_error_and_a_failed_job(
    tmp_path: Path,
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stage = Stage(ForkServer(ours), tmp_path)

    async def die_with_the_request() -> None:
        await trio.lowlevel.wait_readable(theirs)
        theirs.close()

    async with stage.open(stage.tree(ANSWER)) as service:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(die_with_the_request)
            with trio.fail_after(20), pytest.raises(WorkerStartError, match="ulimit"):
                await service.submit(task("go"))
        (summary,) = (await service.jobs.newest()).jobs
    ours.close()
    assert summary.status is JobStatus.FAILED


async def test_a_job_started_inside_an_agent_ends_with_it(stage: Stage) -> None:
    inner = stage.tree(HANG)
    inside = (
        "import subprocess, sys; read_turn(); init();"
        f"p = subprocess.Popen([{sys.executable!r}, '-m', 'tests.run.submitter',"
        f" 'background', {json.dumps(inner.command.argv)!r}], cwd={str(ROOT)!r},"
        " stdout=subprocess.PIPE, text=True);"
        "result(p.stdout.readline().strip())"
    )
    async with stage.open(stage.tree(inside)) as service:
        with trio.fail_after(30):
            outcome: DispatchResult = await service.dispatch(task("go"))
            job = await service.jobs.wait(outcome.result, 10)
    await inner.gone(3)
    assert (job.status, job.parent) == (JobStatus.CANCELLED, outcome.job_id), job
    assert outcome.left_running


async def test_a_background_job_of_a_group_goes_with_its_shared_context(stage: Stage) -> None:
    stage.configure(
        settings='[groups.shop]\nshared_context = "Facts"\nmembers = [{ agent = "infra" }]'
    )
    tree = stage.tree("text = read_turn(); init(); result(text)")
    with trio.fail_after(60):
        async with stage.open(tree) as service:
            job = await service.submit(msgspec.structs.replace(task("go"), group="shop"))
            ended = await service.jobs.wait(job.id, 50)
    assert ended.group == "shop"
    assert ended.result is not None
    assert ended.result.result == "## Shared context\n\nFacts\n\n## Task\n\ngo"


async def test_only_the_answer_of_a_run_that_only_read_is_given_again(stage: Stage) -> None:
    call = 'emit(type="assistant", message={"content": [{"type": "tool_use", "name": TOOL}]})'
    for tool, is_kept in (("Read", True), ("Bash", False), ("mcp__db__query", False)):
        tree = stage.tree(f"read_turn(); init(); TOOL = {tool!r}; {call}; result()")
        with trio.fail_after(20):
            async with stage.open(tree) as service:
                first = await service.dispatch(task("go"))
                again = await service.dispatch(task("go"))
                fresh = await service.dispatch(task("go"), options=CallOptions(fresh=True))
        assert (again.cached or False, again.job_id == first.job_id) == (is_kept, is_kept)
        assert (again.cost_usd, again.cached_at is not None) == (0 if is_kept else None, is_kept)
        assert fresh.job_id != first.job_id

"""Workers: one process for one job."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import wait_until_over
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from agent_dispatch.run.background import WORKER_PROGRAM
from agent_dispatch.run.service import Service
from tests.jobs.holders import holder_of
from tests.jobs.support import pending
from tests.run.stage import Stage, task

ANSWER = "read_turn(); init(); result()"
HANG = "read_turn(); init(); stay(ignore=False)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def worker_of_new_job(stage: Stage, service: Service) -> tuple[int, str]:
    job_id = (await service.submit(task("go"))).id
    return holder_of(stage.directory / "jobs", job_id, "worker"), job_id


async def gone(pid: int) -> None:
    with trio.fail_after(20):
        while _is_there(pid):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_worker_that_is_told_to_end_cancels_its_job_and_leaves(stage: Stage) -> None:
    async with stage.open(stage.tree(HANG)) as service:
        worker, job_id = await worker_of_new_job(stage, service)
        with trio.fail_after(20):
            while (await service.jobs.get(job_id)).status is not JobStatus.RUNNING:  # noqa: ASYNC110
                await trio.sleep(0.01)
        os.kill(worker, signal.SIGTERM)
        with trio.fail_after(20):
            job = await service.jobs.wait(job_id, 20)
    assert (job.status, "a signal to its worker" in (job.error or "")) == (
        JobStatus.CANCELLED,
        True,
    )
    await gone(worker)


async def test_a_worker_whose_guard_is_lost_ends_its_job_and_leaves(stage: Stage) -> None:
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        worker, job_id = await worker_of_new_job(stage, service)
        with trio.fail_after(20):
            while (await service.jobs.get(job_id)).session_id is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            os.kill(holder_of(stage.directory / "jobs", job_id, "guard"), signal.SIGKILL)
            assert (await service.jobs.wait(job_id, 20)).status is JobStatus.FAILED
    await gone(worker)
    assert tree.living() == []


async def test_what_a_worker_says_goes_to_the_log_of_its_job(stage: Stage) -> None:
    jobs = stage.directory / "jobs"
    async with stage.open(stage.tree(ANSWER)) as service:
        job_id = (await service.submit(task("go"))).id
        with trio.fail_after(20):
            assert (await service.jobs.wait(job_id, 20)).status is JobStatus.DONE
        assert _logs(jobs) == {}
        shutil.rmtree(jobs / "slots")
        (jobs / "slots").write_text("in the way")
        job_id = (await service.submit(task("go"))).id
        with trio.fail_after(20):
            job = await service.jobs.wait(job_id, 20)
        assert job.status is JobStatus.FAILED
        with trio.fail_after(20):
            # Said behind the end.
            while not _logs(jobs):  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert _logs(jobs) == {job_id: f"job {job_id}: {job.error}\n"}


def _logs(jobs: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (jobs / "logs").glob("*.log")}


def test_a_worker_that_nobody_waits_for_any_more_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(f'[agents.infra]\ndirectory = "{tmp_path}"\n')
    store = JobStore(tmp_path / "jobs")
    claim = pending(store)
    heard, up = os.pipe()
    os.close(heard)
    fds = [up, *claim.fds.to_hand_over]
    request = {
        "job_id": claim.job.id,
        "env": {"AGENT_DISPATCH_CONFIG": str(config)},
        "claude": ["/bin/sh", "-c", f"touch {tmp_path / 'started'}"],
    }
    subprocess.run(
        [*WORKER_PROGRAM, *map(str, fds)],
        input=json.dumps(request).encode(),
        pass_fds=fds,
        check=True,
    )
    os.close(up)
    store.release(claim)
    assert trio.run(wait_until_over, store, claim.job.id).error_type is ErrorType.LOST
    [log] = (tmp_path / "jobs" / "logs").iterdir()
    assert log.read_text() == f"job {claim.job.id}: its submitter is gone; not run\n"
    assert not (tmp_path / "started").exists()


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()

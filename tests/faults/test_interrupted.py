"""Workers that are stopped for a while, and nested dispatches whose outer one ends."""

import os
import signal
import sys

import pytest
import trio

from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from tests.faults.conftest import MakeHouse
from tests.jobs.holders import holder_of

NESTING = """
turn = json.dumps(read_turn())
init()
if "outer" in turn:
    import subprocess
    inner = [sys.executable, "-P", "-m", "agent_dispatch", "run", "infra", "inner"]
    subprocess.run([*inner, "--timeout-seconds", "600"], stdin=subprocess.DEVNULL)
fork_away("setsid", "twice")
stay()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_worker_that_is_stopped_keeps_its_job_and_goes_on_with_it(
    make_house: MakeHouse,
) -> None:
    house = make_house("read_turn(); init(); gate(); result('after all')")
    with trio.fail_after(60):
        async with house.serving() as server:
            job_id = (await server.call("dispatch_async", agent="infra", task="go"))["job_id"]
            await house.with_session(job_id)
            worker = holder_of(house.jobs, job_id, "worker")
            os.kill(worker, signal.SIGSTOP)
            # Its agent ends meanwhile; everybody who looks leaves the job alone.
            await house.open_gate()
            await house.only_agents_left([])
            assert house.store.settle(job_id).status is JobStatus.RUNNING
            assert house.store.retention.collect(0).purged == []
            status = await server.call("dispatch_status", job_id=job_id)
            assert status["status"] == "running"
            os.kill(worker, signal.SIGCONT)
            job = await house.over(job_id)
        await house.nothing_left(within_s=3)
    assert (job.status, job.result and job.result.result) == (JobStatus.DONE, "after all")


async def test_a_nested_dispatch_ends_with_its_agent_at_the_deadline(
    make_house: MakeHouse,
) -> None:
    house = make_house(NESTING, settings="default_timeout = 1")
    with trio.fail_after(60):
        async with house.serving() as server:
            outer = await server.call("dispatch", agent="infra", task="outer")
            [inner_id] = {row.id for row in house.store.lister.newest().jobs} - {outer["job_id"]}
            inner = await house.over(inner_id)
            assert house.agents() == []
        await house.nothing_left(within_s=3)
    assert outer["error_type"] == "timeout"
    assert (inner.status, inner.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert inner.parent == outer["job_id"]

"""However a server ends, its background jobs go on, its calls end, and no process is orphaned."""

import os
import signal

import pytest
import trio

from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from tests.e2e.mcp_client import McpClient
from tests.faults.conftest import MakeHouse
from tests.run.stage import SESSION

SCRIPT = """
turn = json.dumps(read_turn())
init()
if "of a call" in turn:
    fork_away("setsid", "twice")
    stay()
gate()
result("after all")
"""
WAYS = {
    "end of its stdin": JobStatus.CANCELLED,
    "SIGINT": JobStatus.CANCELLED,
    "SIGTERM": JobStatus.CANCELLED,
    "SIGHUP": JobStatus.CANCELLED,
    "SIGKILL": JobStatus.FAILED,
    "SIGKILL of its group": JobStatus.FAILED,
}


async def end(server: McpClient, way: str) -> None:
    process = server.process
    if way == "end of its stdin":
        assert process.stdin is not None
        await process.stdin.aclose()
    elif way == "SIGKILL of its group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(signal.Signals[way])
    with trio.fail_after(3):
        await process.wait()


@pytest.mark.parametrize("way", WAYS)
async def test_background_jobs_go_on_and_calls_end_with_the_server(
    make_house: MakeHouse, way: str
) -> None:
    house = make_house(SCRIPT)
    call = {"agent": "infra", "task": "of a call"}
    with trio.fail_after(60):
        async with house.serving() as server:
            submitted = await server.call("dispatch_async", agent="infra", task="of a job")
            job_id = submitted["job_id"]
            await house.with_session(job_id)
            agent = house.agents()
            await server.post("tools/call", {"name": "dispatch", "arguments": call})
            call_id = await house.newest_running(beside=job_id)
            await house.with_session(call_id)
            await end(server, way)
        ended = await house.over(call_id, within_s=5)
        await house.only_agents_left(agent)
        assert house.store.settle(job_id).status is JobStatus.RUNNING
        await house.open_gate()
        job = await house.over(job_id)
        await house.nothing_left(within_s=3)
    assert (ended.status, ended.session_id) == (WAYS[way], SESSION)
    lost = WAYS[way] is JobStatus.FAILED
    assert ended.error_type is (ErrorType.LOST if lost else ErrorType.CANCELLED)
    assert ended.result is not None
    assert [step.session_id for step in ended.result.next_steps or ()] == [SESSION]
    assert (job.status, job.result and job.result.result) == (JobStatus.DONE, "after all")
    assert not os.listdir(house.jobs / "live")

"""Limits of the environment that are too low or too high: open files, processes, umask."""

import json
import os
import stat

import pytest
import trio

from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from tests.e2e.mcp_client import McpClient
from tests.faults.conftest import MakeHouse
from tests.faults.house import House

MANY = 50


def under(setting: str) -> tuple[str, ...]:
    """The prefix of a command that runs with a setting of the shell."""
    return ("sh", "-c", f'{setting} && exec "$@"', "sh")


def loose_files(house: House) -> dict[str, str]:
    """What others than the owner may look into, below the configuration's directory."""
    modes = {path: path.lstat().st_mode for path in house.config.parent.rglob("*")}
    return {str(path): oct(mode) for path, mode in modes.items() if stat.S_IMODE(mode) & 0o077}


async def test_all_files_are_private_with_an_umask_of_zero(
    make_house: MakeHouse,
) -> None:
    house = make_house("read_turn(); init(); gate(); result()")
    with trio.fail_after(60):
        async with house.serving(*under("umask 000")) as server:
            job_id = (await server.call("dispatch_async", agent="infra", task="go"))["job_id"]
            await house.with_session(job_id)
            running = loose_files(house)
            await house.open_gate()
            await house.over(job_id)
            await server.call("update_agent", name="infra", description="private")
            over = loose_files(house)
    assert (running, over) == ({}, {})


async def refusals(server: McpClient, tool: str) -> list[str]:
    """Call a tool many times at once; the errors of those that came to nothing."""
    # Each task differs, or they would share one run.
    calls = [{"agent": "infra", "task": f"go {number}"} for number in range(MANY)]
    sent = [await server.post("tools/call", {"name": tool, "arguments": call}) for call in calls]
    answers = [json.loads(result["content"][0]["text"]) for result in await server.answers(sent)]
    return [answer["error"] for answer in answers if "error" in answer]


# A submission holds its descriptors for milliseconds only.
@pytest.mark.parametrize(("tool", "limit"), [("dispatch", 64), ("dispatch_async", 40)])
async def test_at_the_limit_of_open_files_calls_are_answered_or_refused_and_none_leaks(
    make_house: MakeHouse, tool: str, limit: int
) -> None:
    house = make_house("read_turn(); init(); result()", settings="max_concurrency = 100")
    with trio.fail_after(120):
        async with house.serving(*under(f"ulimit -n {limit}")) as server:
            for _ in range(3):
                refused = await refusals(server, tool)
                assert refused
                for error in refused:
                    assert "open files" in error
                    assert "ulimit -n" in error
            for row in house.store.lister.newest(limit=1000).jobs:
                job = await house.over(row.id)
                assert job.error_type in (None, ErrorType.CLI_ERROR), job
            # As good as new, once its helpers have put down what they had for those jobs.
            while not (answer := await server.call("dispatch", agent="infra", task="go"))[
                "success"
            ]:
                assert "ulimit -n" in answer["error"], answer
            submitted = await server.call("dispatch_async", agent="infra", task="go")
            job = await house.over(submitted["job_id"])
            assert job.status is JobStatus.DONE, job
        await house.nothing_left(within_s=10)
    # What it keeps for further jobs is no litter, and goes with it.
    assert house.store.retention.collect(7).litter == 0
    assert not os.listdir(house.jobs / "live")

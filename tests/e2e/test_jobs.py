"""Background jobs of the real CLI: what they outlive, and how they end."""

import json
import os
import signal

import pytest
import trio

from tests.e2e.messages_api import Held, MessagesApi, answer, bash, call, script
from tests.e2e.world import Witness, World
from tests.jobs.holders import holder_of

pytestmark = pytest.mark.e2e

_SERVER = "mcp__agent-dispatch"


async def test_a_job_is_done_although_its_server_was_killed_right_behind_the_reply(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    server_gone = trio.Event()
    api.decide = script(("count the pods", Held(server_gone, answer("four pods"))))
    with trio.fail_after(60):
        async with world.serving() as client:
            submitted = await client.call("dispatch_async", agent="infra", task="count the pods")
            client.process.kill()
            await client.process.wait()
            server_gone.set()
        job_id = submitted["job_id"]
        async with world.serving() as client:
            job = await client.call("dispatch_wait", job_id=job_id, timeout_seconds=40)
            result = await client.call("fetch_result", ref=job_id)
        shown = (await world.product("job", job_id, "--json")).json()
    assert (job["kind"], job["status"], job["result"]["result"]) == (
        "background",
        "done",
        "four pods",
    )
    assert result == job["result"]
    assert (shown["status"], shown["result"]) == ("done", result)
    await world.nothing_left(within_s=3)


async def test_a_job_goes_on_when_the_session_that_submitted_it_is_over(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    await world.product("init")
    session_over = trio.Event()
    submission = call(f"{_SERVER}__dispatch_async", agent="infra", task="count the pods, agent")
    api.decide = script(
        ("count the pods, agent", Held(session_over, answer("four pods"))),
        ('"job_id"', answer("it is on its way")),
        ("have the pods counted", submission),
    )
    flags = ("-p", "--output-format=json", f"--allowedTools={_SERVER}")
    with trio.fail_after(60):
        session = await world.claude(*flags, stdin="have the pods counted")
        assert json.loads(session.stdout)["result"] == "it is on its way"
        told = next(r.tool_results[0] for r in api.requests if '"job_id"' in r.newest)
        job_id = json.loads(told)["job_id"]
        before = (await world.product("job", job_id, "--json")).json()
        session_over.set()
        job = (await world.product("wait", job_id, "--json")).json()
    assert before["status"] in ("pending", "running")
    assert (job["status"], job["result"]["result"]) == ("done", "four pods")
    await world.nothing_left(within_s=3)


@pytest.mark.parametrize("way", ["cancelled", "lost"])
async def test_a_job_that_is_ended_leaves_nothing_but_a_session_to_resume(
    world: World, api: MessagesApi, witness: Witness, way: str
) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(
        ("carry on", answer("carried on")), ("take your time", bash(witness.command))
    )
    jobs = world.home / ".config" / "agent-dispatch" / "jobs"
    with trio.fail_after(60):
        async with world.serving() as client:
            submitted = await client.call("dispatch_async", agent="infra", task="take your time")
            job_id = submitted["job_id"]
            await witness.begun()
            if way == "cancelled":
                cancelled = await world.product("cancel", job_id, "--json")
                assert cancelled.json() == {"job_id": job_id, "outcome": "cancelled"}
            else:
                os.kill(holder_of(jobs, job_id, "worker"), signal.SIGKILL)
            job = await client.call("dispatch_wait", job_id=job_id)
            # Told only when it is so.
            with trio.fail_after(0.1):
                await witness.ended()
        await world.nothing_left(within_s=3)
        resumed = {"agent": "infra", "task": "carry on", "session_id": job["session_id"]}
        (result,) = await world.dispatch_each(resumed)
    assert job["status"] == ("cancelled" if way == "cancelled" else "failed")
    assert job["error_type"] == way
    assert (result["result"], result["session_id"]) == ("carried on", job["session_id"])

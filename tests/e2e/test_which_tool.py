"""Each row of "Which tool to use" in docs/tools.md, with agents that are the real CLI."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.mcp_client import McpClient
from tests.e2e.messages_api import Held, MessagesApi, answer, bash, call, script
from tests.e2e.world import Witness, World

pytestmark = pytest.mark.e2e

PODS_AND_ROWS = [{"agent": "infra", "task": "count pods"}, {"agent": "db", "task": "count rows"}]


async def test_a_quick_question_is_answered_and_asked_again_costs_nothing(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    api.decide = script(("count pods", answer("four pods")))
    with trio.fail_after(60):
        async with world.serving() as client:
            first = await client.call("dispatch", agent="infra", task="count pods")
            asked = len(api.requests)
            second = await client.call("dispatch", agent="infra", task="count pods")
            stats = await client.call("cache_stats")
    assert (first["result"], second["result"]) == ("four pods", "four pods")
    assert ("cached" in first, second["cached"]) == (False, True)
    assert second["job_id"] == first["job_id"]
    assert (first["cost_usd"] > 0, second["cost_usd"]) == (True, 0)
    assert len(api.requests) == asked
    assert (stats["hits"], stats["misses"], stats["size"]) == (1, 1, 1)


async def test_a_conversation_of_several_steps_is_remembered(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    api.decide = script(
        ("restart the second", answer("restarted nginx")), ("list the pods", answer("db, nginx"))
    )
    with trio.fail_after(60):
        async with world.serving() as client:
            first = await client.call("dispatch_session", agent="infra", task="list the pods")
            second = await client.call(
                "dispatch_session",
                agent="infra",
                task="restart the second",
                session_id=first["session_id"],
            )
    assert second["result"] == "restarted nginx"
    assert second["session_id"] == first["session_id"]
    assert "db, nginx" in str(api.requests[-1].body["messages"])


async def test_several_agents_answer_at_once(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    await world.add_agent("db")
    both_asked = trio.Event()

    def decide(request: Any) -> Any:
        if "count rows" in request.newest:
            both_asked.set()
            return answer("nine rows")
        return Held(both_asked, answer("four pods"))

    api.decide = decide
    with trio.fail_after(60):
        async with world.serving() as client:
            results = await client.call("dispatch_parallel", dispatches=json.dumps(PODS_AND_ROWS))
    assert [result["result"] for result in results] == ["four pods", "nine rows"]
    # Which of their messages come through is a matter of a tenth of a second.
    assert any(message.startswith(("[1/2] infra · ", "[2/2] db · ")) for message in client.progress)


async def test_one_agent_sums_up_what_several_found(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    await world.add_agent("db")
    api.decide = script(
        ("worked on a task each", answer("four pods for nine rows")),
        ("count pods", answer("four pods")),
        ("count rows", answer("nine rows")),
    )
    with trio.fail_after(60):
        async with world.serving() as client:
            outcome = await client.call(
                "dispatch_parallel", dispatches=PODS_AND_ROWS, aggregate="db"
            )
    assert [r["result"] for r in outcome["individual_results"]] == ["four pods", "nine rows"]
    assert outcome["aggregated"]["result"] == "four pods for nine rows"
    prompt = api.requests[-1].newest
    assert "four pods" in prompt
    assert "nine rows" in prompt


async def test_a_long_task_shows_what_it_does(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(("look around", bash("echo looking; sleep 1")), otherwise=answer("seen"))
    with trio.fail_after(60):
        async with world.serving() as client:
            for _ in range(2):
                client.progress.clear()
                result = await client.call("dispatch_stream", agent="infra", task="look around")
                assert result["result"] == "seen"
                assert "cached" not in result
                assert any("Bash" in message for message in client.progress), client.progress


async def test_a_task_in_the_background_is_looked_at_and_waited_for(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    looked = trio.Event()
    api.decide = script(("count pods", Held(looked, answer("four pods"))))
    with trio.fail_after(60):
        async with world.serving() as client:
            submitted = await client.call("dispatch_async", agent="infra", task="count pods")
            job_id = submitted["job_id"]
            await api.wait_for(lambda request: "count pods" in request.newest)
            now = await client.call("dispatch_status", job_id=job_id)
            looked.set()
            job = await client.call("dispatch_wait", job_id=job_id)
    assert (now["status"], job["status"]) == ("running", "done")
    assert job["result"]["result"] == "four pods"


async def test_one_call_may_have_more_time(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra", "--timeout", "1")
    api.decide = script(("count pods", answer("four pods", after_s=2)))
    with trio.fail_after(60):
        async with world.serving() as client:
            late = await client.call("dispatch", agent="infra", task="count pods")
            result = await client.call(
                "dispatch", agent="infra", task="count pods", timeout_seconds=50
            )
    assert late["error_type"] == "timeout"
    assert result["result"] == "four pods"


async def test_a_dispatch_that_timed_out_goes_on_in_its_session(
    world: World, api: MessagesApi, witness: Witness
) -> None:
    await world.add_agent("infra", "--timeout", "8", "--permission-mode", "bypassPermissions")
    api.decide = script(
        ("Continue where you left off", answer("all counted")),
        ("count pods", bash(witness.command)),
    )
    with trio.fail_after(60):
        async with world.serving() as client:
            request_id = await begin(client, "dispatch", agent="infra", task="count pods")
            await witness.begun()
            [reply] = await client.answers([request_id])
            late = reply["structuredContent"]
            await witness.ended()
            result = await client.call(
                "dispatch_session",
                agent="infra",
                task="Continue where you left off",
                session_id=late["session_id"],
            )
    assert late["error_type"] == "timeout"
    assert late["session_id"] in late["error"]
    assert (result["result"], result["session_id"]) == ("all counted", late["session_id"])


async def test_an_answer_fits_the_schema_it_was_asked_for(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    schema = {
        "type": "object",
        "properties": {"pods": {"type": "integer"}},
        "required": ["pods"],
    }
    api.decide = script(
        ("count pods", call("StructuredOutput", pods=4)),
        ("refuse", answer("no")),
        otherwise=answer("done"),
    )
    with trio.fail_after(60):
        async with world.serving() as client:
            kept = await client.call(
                "dispatch", agent="infra", task="count pods", json_schema=schema
            )
            broken = await client.call(
                "dispatch", agent="infra", task="refuse", json_schema=json.dumps(schema)
            )
    assert (kept["success"], kept["parsed_result"]) == (True, {"pods": 4})
    assert (broken["success"], broken["error_type"]) == (False, "schema")
    assert "parsed_result" not in broken


async def slot_is_free(world: World) -> None:
    slots = world.home / ".config" / "agent-dispatch" / "jobs" / "slots"
    (slot,) = slots.glob("*/0")
    while not can_lock(slot):  # noqa: ASYNC110  # flock(2) tells nobody
        await trio.sleep(0.01)


def can_lock(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def begin(client: McpClient, tool: str, **arguments: Any) -> int:
    parameters = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
    return await client.post("tools/call", parameters)


HANGS = {"agent": "infra", "task": "take your time"}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("dispatch", HANGS),
        ("dispatch_session", HANGS),
        ("dispatch_stream", HANGS),
        ("dispatch_parallel", {"dispatches": [HANGS, {"agent": "infra", "task": "another"}]}),
        ("dispatch_dialogue", {"requester": "db", "responder": "infra", "topic": "take your time"}),
    ],
)
async def test_a_cancel_leaves_no_process_and_a_free_slot(
    world: World, api: MessagesApi, witness: Witness, tool: str, arguments: dict[str, Any]
) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    await world.add_agent("db")
    config = world.home / ".config" / "agent-dispatch" / "agents.toml"
    config.write_text(config.read_text() + "\n[settings]\nmax_concurrency = 1\n")
    api.decide = script(("take your time", bash(witness.command)))
    with trio.fail_after(60):
        async with world.serving() as client:
            request_id = await begin(client, tool, **arguments)
            await witness.begun()
            await client.notify("notifications/cancelled", {"requestId": request_id})
            # It takes 0.3 s where nothing else runs (`bench.speed --only endings`).
            with trio.fail_after(5):
                await witness.ended()
                await slot_is_free(world)
            result = await client.call("dispatch", agent="infra", task="count pods")
            assert result["success"], result

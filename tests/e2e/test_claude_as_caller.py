"""A session of the real CLI lists our agents and dispatches to one that is the real CLI again."""

import json
import signal

import pytest
import trio

from tests.e2e.messages_api import (
    MessagesApi,
    ToolCall,
    ToolCalls,
    answer,
    bash,
    dispatch,
    script,
)
from tests.e2e.world import Witness, World

pytestmark = pytest.mark.e2e

_SERVER = "mcp__agent-dispatch"
_FLAGS = ("-p", "--output-format=json", f"--allowedTools={_SERVER}")


@pytest.fixture
async def registered(world: World) -> World:
    """A world in which `init` has registered our server, as a person would."""
    done = await world.product("init")
    assert done.exit_code == 0, done
    return world


async def test_a_session_lists_agents_and_gets_an_answer_from_one(
    registered: World, api: MessagesApi
) -> None:
    await registered.add_agent("infra")
    look_around = (
        ToolCall(f"{_SERVER}__list_agents", {}),
        ToolCall(f"{_SERVER}__inspect_agent", {"name": "infra"}),
    )
    api.decide = script(
        ("count the pods, agent", answer("four pods")),
        ('"name":"infra"', dispatch("infra", "count the pods, agent", caller="backend")),
        ("four pods", answer("the agent says four")),
        ("who can count pods?", ToolCalls(calls=look_around)),
    )
    with trio.fail_after(60):
        outer = await registered.claude(*_FLAGS, stdin="who can count pods?")
    result = json.loads(outer.stdout)
    assert result["result"] == "the agent says four"
    assert result["permission_denials"] == []

    # Loaded at once, not by name only: the first request already carries the tools.
    first = next(request for request in api.requests if request.tools)
    assert {f"{_SERVER}__list_agents", f"{_SERVER}__dispatch"} <= set(first.tools)

    # Tools that only read run at once: their results come in the order they end in.
    told = next(r.tool_results for r in api.requests if len(r.tool_results) == 2)
    summaries, details = sorted(map(json.loads, told), key=lambda result: isinstance(result, dict))
    assert [agent["name"] for agent in summaries] == ["infra"]
    assert details["claude_md_preview"] == "The project infra."

    inner = next(r for r in api.requests if "count the pods, agent" in r.newest)
    assert "## Dispatched by\n\nbackend\n" in inner.newest
    last = json.loads(api.requests[-1].tool_results[0])
    assert (last["agent"], last["success"], last["result"]) == ("infra", True, "four pods")
    await registered.nothing_left(within_s=10)


async def test_tools_that_only_read_say_so(world: World) -> None:
    with trio.fail_after(30):
        async with world.serving() as client:
            tools = (await client.request("tools/list", {}))["tools"]
    assert {tool["name"] for tool in tools if tool["annotations"].get("readOnlyHint")} == {
        "list_agents",
        "cache_stats",
        "inspect_agent",
        "dispatch_status",
        "dispatch_wait",
        "dispatch_jobs",
        "fetch_result",
    }


async def test_an_interrupted_session_leaves_nothing_of_its_dispatch(
    registered: World, api: MessagesApi, witness: Witness
) -> None:
    await registered.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(
        ("take your time, agent", bash(witness.command)),
        ("ask the agent", dispatch("infra", "take your time, agent")),
    )
    with trio.fail_after(60):
        async with registered.started("claude", *_FLAGS, "ask the agent") as outer:
            assert outer.stdin is not None
            await outer.stdin.aclose()
            await witness.begun()
            outer.send_signal(signal.SIGINT)
            with trio.fail_after(3):
                await witness.ended()
            await registered.nothing_left(within_s=10)

"""What the real CLI leaves undone, or lets a hook cut short, is told and not kept."""

import json
from pathlib import Path

import pytest
import trio

from tests.e2e.messages_api import (
    ApiError,
    ApiRequest,
    MessagesApi,
    Reply,
    ToolCalls,
    answer,
    bash,
    call,
    script,
)
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

BYPASS = ("--permission-mode", "bypassPermissions")


async def test_background_work_cut_off_at_the_deadline_is_told_and_not_cached(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = script(
        ("run the tests", bash("echo testing; sleep 60", background=True)),
        otherwise=answer("The tests are running; I will report"),
    )
    task = {"agent": "infra", "task": "run the tests", "timeout_seconds": 10}
    with trio.fail_after(90):
        async with world.serving() as client:
            result = await client.call("dispatch", **task)
            again = await client.call("dispatch", **task)
    assert result["success"]
    assert result["result"] == "The tests are running; I will report"
    assert "1 background task(s) after it did not finish: the time was up" in result["hint"]
    assert f'session_id="{result["session_id"]}"' in result["hint"]
    assert not again.get("cached")
    assert again["job_id"] != result["job_id"]
    await world.nothing_left(within_s=3)


async def test_a_turn_of_a_dialogue_whose_background_work_was_cut_off_says_so(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("db", "--timeout", "10", *BYPASS)
    await world.add_agent("backend")

    def decide(request: ApiRequest) -> Reply:
        if 'You are agent "db"' in request.newest and not request.tool_results:
            return bash("echo testing; sleep 60", background=True)
        return answer("The tests are running. [RESOLVED]")

    api.decide = decide
    with trio.fail_after(60):
        async with world.serving() as client:
            outcome = await client.call(
                "dispatch_dialogue", requester="backend", responder="db", topic="Green?"
            )
    assert "db: The answer was complete, but 1 background task(s)" in outcome["hint"]


async def test_a_background_task_that_the_agent_stops_is_no_loss(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)

    def decide(request: ApiRequest) -> Reply:
        results = request.tool_results
        if not results:
            return bash("echo testing; sleep 60", background=True)
        _, is_begun, rest = results[0].partition("running in background with ID: ")
        return call("TaskStop", task_id=rest.split(".")[0]) if is_begun else answer("not needed")

    api.decide = decide
    with trio.fail_after(40):
        done = await world.product("run", "infra", "start and stop", "--json")
    assert done.json()["result"] == "not needed"
    assert "hint" not in done.json()


def hook(directory: Path, event: str, command: str) -> None:
    """Have the project run `command` at each `event`."""
    settings = directory / ".claude" / "settings.json"
    settings.parent.mkdir(exist_ok=True)
    entry = {"hooks": [{"type": "command", "command": command}]}
    settings.write_text(json.dumps({"hooks": {event: [entry]}}))


SAYS_STOP = """echo '{"continue": false, "stopReason": "enough"}'"""


@pytest.mark.parametrize(
    ("event", "command", "told"),
    [
        ("Stop", "echo not yet >&2; exit 2", "Stop hook kept the agent from finishing"),
        ("Stop", SAYS_STOP, "Stop hook stopped the run"),
        ("PostToolUse", SAYS_STOP, "A hook stopped the run"),
    ],
)
async def test_a_run_that_a_hook_cut_short_has_the_words_and_names_the_hook(
    world: World, api: MessagesApi, event: str, command: str, told: str
) -> None:
    directory = await world.add_agent("infra", *BYPASS)
    hook(directory, event, command)
    tools = event == "PostToolUse"
    api.decide = script(otherwise=bash("echo hi") if tools else answer("hi"))
    with trio.fail_after(40):
        result = (await world.product("run", "infra", "look", "--json")).json()
    assert result["success"]
    assert told in result["hint"]
    assert result["result"] == ("" if tools else "hi")


async def test_a_prompt_that_a_hook_refuses_is_not_a_broken_installation(
    world: World, api: MessagesApi
) -> None:
    hook(await world.add_agent("infra"), "UserPromptSubmit", "echo not today >&2; exit 2")
    with trio.fail_after(40):
        result = (await world.product("run", "infra", "look", "--json")).json()
    assert not result["success"]
    assert "UserPromptSubmit hook" in result["error"]
    assert "not today" in result["error"]
    assert "doctor" not in result["error"]


async def test_a_session_start_hook_that_hangs_is_named(world: World, api: MessagesApi) -> None:
    hook(await world.add_agent("infra"), "SessionStart", "sleep 60")
    with trio.fail_after(40):
        done = await world.product("run", "infra", "look", "--timeout-seconds", "10", "--json")
    assert done.json()["error_type"] == "timeout"
    assert "SessionStart" in done.json()["error"]
    assert "MCP" not in done.json()["error"]


async def test_a_rate_limit_until_the_deadline_is_told_as_one(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    api.decide = script(otherwise=ApiError(status=429))
    with trio.fail_after(40):
        done = await world.product("run", "infra", "look", "--timeout-seconds", "10", "--json")
    assert done.json()["error_type"] == "usage_limit"
    assert "API error 429" in done.json()["error"]


async def test_no_tool_is_offered_that_promises_to_go_on_after_the_answer(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    promises = ("ScheduleWakeup", "CronCreate")

    def decide(request: ApiRequest) -> Reply:
        if request.tool_results:
            return answer("done")
        calls = [
            call("ToolSearch", query=f"select:{name}", max_results=5).calls[0] for name in promises
        ]
        wake_up = call("ScheduleWakeup", delaySeconds=60, reason="look", prompt="look").calls[0]
        cron = call("CronCreate", cron="* * * * *", prompt="look", recurring=False).calls[0]
        return ToolCalls(calls=(*calls, wake_up, cron))

    api.decide = decide
    with trio.fail_after(40):
        result = (await world.product("run", "infra", "look again", "--json")).json()
    assert result["result"] == "done"
    asked, told = api.requests[0], api.requests[-1]
    assert not set(promises) & set(asked.tools)
    assert not any("scheduled" in text.lower() for text in told.tool_results)
    assert all("no such tool" in text.lower() for text in told.tool_results[2:])

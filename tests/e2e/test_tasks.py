"""A session of a person with the real CLI: a dispatch becomes a task that outlives the session."""

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.e2e.messages_api import (
    ApiRequest,
    Held,
    MessagesApi,
    Reply,
    answer,
    bash,
    dispatch,
)
from tests.e2e.session import session, settle_in
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


def is_server(pid: int, command: str) -> bool:
    """Whether this is a server, and none of the processes that are forked for it."""
    try:
        is_forked = Path(f"/proc/{pid}/comm").read_text().startswith("dispatch-")
    except (FileNotFoundError, ProcessLookupError):
        return False  # It has ended since it was listed.
    return command.rstrip().endswith(" serve") and not is_forked


async def test_a_session_that_is_resumed_is_woken_with_the_answer(
    world: World, api: MessagesApi
) -> None:
    assert (await world.product("init")).exit_code == 0
    await world.add_agent("infra")
    project = world.project("backend")
    settle_in(world, project)
    may_answer = trio.Event()

    def decide(request: ApiRequest) -> Reply:
        newest = request.newest
        if "task-notification" in newest:
            return answer("so it is")
        if request.tool_results:
            return answer("I am told later")
        if "take your time, agent" in newest:
            return Held(may_answer, answer("forty-two"))
        if "ask the agent" in newest and request.tools:
            return dispatch("infra", "take your time, agent")
        return answer("as you wish")

    api.decide = decide
    with trio.fail_after(120):
        async with session(world, project, "ask the agent") as first:
            told = await api.wait_for(lambda request: bool(request.tool_results))
            assert "task" in told.tool_results[0]
            servers = [pid for pid, said in world.alive().items() if is_server(pid, said)]
            assert servers
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
            first.process.kill()
        [session_id] = [
            path.stem for path in (world.home / ".claude" / "projects").glob("*backend/*.jsonl")
        ]
        may_answer.set()
        async with session(world, project, "--resume", session_id):
            woken = await api.wait_for(lambda request: "task-notification" in request.newest)
    assert "forty-two" in woken.newest
    await world.nothing_left(within_s=10)


async def test_a_call_without_a_permission_is_allowed_in_the_form_and_runs(
    world: World, api: MessagesApi
) -> None:
    assert (await world.product("init")).exit_code == 0
    infra = await world.add_agent("infra", "--permission-mode", "manual")
    done = await world.product("update", "infra", "--permission-prompts", "ask")
    assert done.exit_code == 0, done
    project = world.project("backend")
    settle_in(world, project)

    def decide(request: ApiRequest) -> Reply:
        newest = request.newest
        if "task-notification" in newest:
            return answer("so it is")
        if "inner-output" in newest:
            return answer("the agent has touched it")
        if request.tool_results:
            return answer("I am told later")
        if "touch it, agent" in newest:
            return bash("touch proof && echo inner-output")
        if "ask the agent" in newest and request.tools:
            return dispatch("infra", "touch it, agent")
        return answer("as you wish")

    api.decide = decide
    with trio.fail_after(120):
        async with session(world, project, "ask the agent") as shown:
            await shown.wait_for("touch proof", "Accept")
            await shown.press_until_gone("\r", "Accept")
            woken = await api.wait_for(lambda request: "task-notification" in request.newest)
    assert "the agent has touched it" in woken.newest
    assert (infra / "proof").exists()
    await world.nothing_left(within_s=10)

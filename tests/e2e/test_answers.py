"""An agent that is the real CLI gets its task whole, and its answer comes back."""

import uuid

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, bash, call, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


async def test_an_agent_answers_from_its_own_project(world: World, api: MessagesApi) -> None:
    directory = await world.add_agent("infra")
    (directory / "CLAUDE.md").write_text("The pods are named after whales.\n")
    api.decide = script(("list the pods", answer("four pods")))
    with trio.fail_after(30):
        done = await world.product("run", "infra", "list the pods", "--json")
    result = done.json()
    assert done.exit_code == 0
    assert (result["agent"], result["success"], result["result"]) == ("infra", True, "four pods")
    assert str(uuid.UUID(result["session_id"])) == result["session_id"]
    assert result["cost_usd"] > 0
    assert result["num_turns"] == 1
    assert "named after whales" in str(api.requests[0].body)
    await world.nothing_left(within_s=3)


async def test_any_text_arrives_whole(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    with trio.fail_after(60):
        async with world.serving() as client:
            for task in ("- a\n- b", "--version", "/help me", "--", 'naïve 🐳 \\n "quoted"'):
                api.requests.clear()
                result = await client.call("dispatch", agent="infra", task=task)
                assert result["success"], result
                assert task in api.requests[0].newest


async def test_a_context_of_200_kb_arrives_whole(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra")
    context = "".join(f"line {number} of the log\n" for number in range(10_000))
    assert len(context) > 200_000
    with trio.fail_after(30):
        async with world.serving() as client:
            result = await client.call("dispatch", agent="infra", task="read", context=context)
    assert result["success"], result
    # White space at the ends of a section is not the caller's text.
    assert context.strip() in api.requests[0].newest


async def test_a_denied_tool_is_named_with_the_way_to_grant_it(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    api.decide = script(
        ("make a file", bash("touch made")), otherwise=answer("I need your permission")
    )
    with trio.fail_after(30):
        done = await world.product("run", "infra", "make a file", "--json")
    result = done.json()
    assert result["success"]
    assert result["denied_tools"] == ["Bash"]
    assert "Bash" in result["hint"]
    assert not (directory / "made").exists()


async def test_the_update_that_the_hint_names_lets_the_command_run_and_no_other(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    api.decide = script(
        ("make a file", bash("touch made.txt")),
        ("make another", bash("touch another.txt")),
        otherwise=answer("done"),
    )
    with trio.fail_after(60):
        hint = (await world.product("run", "infra", "make a file", "--json")).json()["hint"]
        rule = "Bash(touch made.txt)"
        assert f'agent-dispatch update infra --allow "{rule}"' in hint
        await world.product("update", "infra", "--allow", rule)
        granted = (await world.product("run", "infra", "make a file", "--json")).json()
        other = (await world.product("run", "infra", "make another", "--json")).json()
    assert "denied_tools" not in granted
    assert (directory / "made.txt").exists()
    assert other["denied_tools"] == ["Bash"]
    assert not (directory / "another.txt").exists()


async def test_a_granted_tool_runs(world: World, api: MessagesApi) -> None:
    directory = await world.add_agent("infra", "--allowed-tools", "Bash(touch:*),Write")
    api.decide = script(
        ("make a file", bash("touch made")),
        ("write a file", call("Write", file_path=str(directory / "written"), content="hello")),
    )
    with trio.fail_after(30):
        for task in ("make a file", "write a file"):
            done = await world.product("run", "infra", task, "--json")
            assert "denied_tools" not in done.json()
    assert (directory / "made").exists()
    assert (directory / "written").read_text() == "hello"


async def test_the_caller_sees_what_the_agent_is_doing(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(("look around", bash("echo looking; sleep 1")), otherwise=answer("seen"))
    with trio.fail_after(30):
        async with world.serving() as client:
            result = await client.call("dispatch", agent="infra", task="look around")
    assert result["result"] == "seen"
    assert any("Bash" in message for message in client.progress), client.progress


async def test_the_answer_after_a_background_task_wins_and_the_earlier_one_is_kept(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(
        ("task-notification", answer("the build is green")),
        ("build it", bash("echo building; sleep 2; echo green", background=True)),
        otherwise=answer("the build has started"),
    )
    with trio.fail_after(40):
        done = await world.product("run", "infra", "build it", "--json")
    result = done.json()
    assert result["success"]
    assert result["result"] == "the build is green"
    assert result["earlier_results"] == ["the build has started"]
    await world.nothing_left(within_s=3)

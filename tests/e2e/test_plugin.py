"""The plugin: accepted by the real CLI, installed from the repository, and used end to end."""

import json
import sys
from pathlib import Path

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, Script, answer, call, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

_ROOT = Path(__file__).parents[2]
_TOOLS = "mcp__plugin_agent-dispatch_agent-dispatch"
_FLAGS = ("-p", "--output-format=json", f"--allowedTools={_TOOLS}")


def put_on_path(world: World) -> None:
    """Install the product's command, as the plugin assumes."""
    command = world.root / "bin" / "agent-dispatch"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent_dispatch "$@"\n')
    command.chmod(0o755)


@pytest.fixture
async def with_plugin(world: World) -> World:
    """A world in which the plugin was installed from the repository, as a person would."""
    put_on_path(world)
    with trio.fail_after(60):
        for command in (
            ("marketplace", "add", str(_ROOT)),
            ("install", "agent-dispatch@agent-dispatch"),
        ):
            done = await world.claude("plugin", *command)
            assert done.exit_code == 0, done
    return world


@pytest.mark.parametrize("place", [".", "plugin"])
async def test_the_real_cli_accepts_the_plugin_and_its_marketplace(
    world: World, place: str
) -> None:
    with trio.fail_after(60):
        done = await world.claude("plugin", "validate", str(_ROOT / place))
    assert done.exit_code == 0, done
    assert "Validation passed" in done.stdout


async def test_the_command_of_the_plugin_dispatches_and_a_leaf_has_no_server_of_it(
    with_plugin: World, api: MessagesApi
) -> None:
    await with_plugin.add_agent("infra")
    config = with_plugin.home / ".config" / "agent-dispatch" / "agents.toml"
    config.write_text(config.read_text() + "\n[settings]\nmax_dispatch_depth = 1\n")
    task = {"agent": "infra", "task": "count the pods, agent", "caller": "backend"}
    api.decide = script(
        ("count the pods, agent", answer("four pods")),
        ("four pods", answer("the agent says four")),
        ("how many pods are there?", call(f"{_TOOLS}__dispatch", **task)),
    )
    with trio.fail_after(90):
        outer = await with_plugin.claude(
            *_FLAGS, "/agent-dispatch:dispatch how many pods are there?"
        )
    result = json.loads(outer.stdout)
    assert (result["result"], result["permission_denials"]) == ("the agent says four", [])

    first = next(request for request in api.requests if request.tools)
    assert f"{_TOOLS}__dispatch" in first.tools
    inner = next(r for r in api.requests if "count the pods, agent" in r.newest)
    assert not [tool for tool in inner.tools if "agent-dispatch" in tool]
    await with_plugin.nothing_left(within_s=10)


async def test_the_commands_may_look_without_a_further_permission(
    with_plugin: World, api: MessagesApi
) -> None:
    await with_plugin.add_agent("infra")

    def looking(tool: str) -> Script:
        return lambda request: answer("seen") if request.tool_results else call(tool)

    for command, tool in (
        ("/agent-dispatch:jobs", "dispatch_jobs"),
        ("/agent-dispatch:ask infra what is this?", "list_agents"),
    ):
        api.requests.clear()
        api.decide = looking(f"{_TOOLS}__{tool}")
        with trio.fail_after(60):
            outer = await with_plugin.claude("-p", "--output-format=json", command)
        result = json.loads(outer.stdout)
        assert (result["result"], result["permission_denials"]) == ("seen", [])
        [told] = next(r.tool_results for r in api.requests if r.tool_results)
        assert isinstance(json.loads(told), list)


async def test_doctor_takes_the_plugin_for_a_registration_and_names_one_beside_it(
    with_plugin: World, api: MessagesApi
) -> None:
    with trio.fail_after(90):
        alone = await with_plugin.product("doctor", "--json")
        assert (await with_plugin.product("init")).exit_code == 0
        api.decide = script(("hello", answer("hi")))
        await with_plugin.claude("-p", stdin="hello")
        beside = await with_plugin.product("doctor", "--json")
    [check] = [check for check in alone.json()["checks"] if check["name"] == "registration"]
    assert check["status"] == "ok", check
    assert "plugin" in check["message"]
    offered = next(request.tools for request in api.requests if request.tools)
    ours = [tool for tool in offered if tool.endswith("__list_agents")]
    assert ours == ["mcp__agent-dispatch__list_agents", f"{_TOOLS}__list_agents"]
    messages = [c["message"] for c in beside.json()["checks"] if c["name"] == "registration"]
    assert any("so every tool appears twice" in message for message in messages)

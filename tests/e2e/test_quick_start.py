"""The manual's quick start, step by step, each with its check."""

import json

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


async def test_each_step_of_the_quick_start_does_what_the_manual_says(
    world: World, api: MessagesApi
) -> None:
    api.decide = script(("What project is this?", answer("the one that watches pods")))
    with trio.fail_after(90):
        for _ in range(2):  # `init` may be repeated.
            init = await world.product("init")
            assert init.exit_code == 0, init

        registered = await world.claude("mcp", "list")
        [line] = [x for x in registered.stdout.splitlines() if x.startswith("agent-dispatch:")]
        assert line.endswith("Connected")

        await world.add_agent("infra")
        listed = (await world.product("list", "--json")).json()
        assert [(agent["name"], agent["healthy"]) for agent in listed] == [("infra", True)]

        tried = await world.product("test", "infra")
        assert (tried.exit_code, tried.stdout) == (0, "the one that watches pods\n"), tried

        doctor = await world.product("doctor")
        assert doctor.exit_code == 0, doctor
        assert "All checks passed." in doctor.stdout
    settings = json.loads((world.home / ".claude.json").read_text())
    assert settings["mcpServers"]["agent-dispatch"]["alwaysLoad"] is True
    await world.nothing_left(within_s=3)

"""A hint after a denial names what denied, and a grant only where that helps."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, bash, call, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e


def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


async def test_what_denies_a_call_is_named_and_no_grant_that_cannot_help(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--allowed-tools", "Bash(touch zz)")
    api.decide = script(("make a file", bash("touch zz")), otherwise=answer("done"))
    user = world.home / ".claude" / "settings.json"
    hook = {"matcher": "Bash", "hooks": [{"type": "command", "command": "echo no >&2; exit 2"}]}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"permissions": {"deny": ["Bash(touch:*)"]}}, "Bash(touch:*) in permissions.deny of"),
        ({"permissions": {"ask": ["Bash(touch:*)"]}}, "Bash(touch:*) in permissions.ask of"),
        ({"hooks": {"PreToolUse": [hook]}}, "PreToolUse hook (echo no >&2; exit 2 in"),
    ]
    with trio.fail_after(60):
        for settings, says in cases:
            path = write(user, settings)
            result = (await world.product("run", "infra", "make a file", "--json")).json()
            assert f"{says} {path}" in result["hint"]
            assert "--allow" not in result["hint"]
            assert result["denied_calls"] == [
                {
                    "tool": "Bash",
                    "input": '{"command":"touch zz","description":"as the script says"}',
                }
            ]


async def test_an_inherited_plan_mode_is_named_with_the_way_to_leave_it(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    path = write(directory / ".claude" / "settings.json", {"permissions": {"defaultMode": "plan"}})
    api.decide = script(("make a file", bash("touch zz")), otherwise=answer("done"))
    with trio.fail_after(60):
        result = (await world.product("run", "infra", "make a file", "--json")).json()
        shown = await world.product("describe", "infra")
    assert f"plan (permissions.defaultMode of {path})" in result["hint"]
    assert "agent-dispatch update infra --permission-mode manual" in result["hint"]
    assert "--allow" not in result["hint"]
    assert f"inherit: plan (permissions.defaultMode of {path})" in shown.stdout


async def test_an_untrusted_directory_and_a_dead_mcp_server_are_named(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    write(directory / ".claude" / "settings.json", {"permissions": {"allow": ["Bash(touch:*)"]}})
    write(directory / ".mcp.json", {"mcpServers": {"pg": {"command": "/no/such/program"}}})
    api.decide = script(("make a file", bash("touch zz")), otherwise=answer("done"))
    with trio.fail_after(60):
        result = (await world.product("run", "infra", "make a file", "--json")).json()
    assert f"{directory} is not trusted" in result["hint"]
    assert "pg (failed)" in result["hint"]


async def test_the_command_in_the_hint_lifts_the_denial(world: World, api: MessagesApi) -> None:
    directory = await world.add_agent("infra")
    odd = directory / "a (1),b.txt"
    api.decide = script(
        ("write a file", call("Write", file_path=str(odd), content="hello")),
        ("make files", bash("touch 'x y' && touch z")),
        otherwise=answer("done"),
    )
    with trio.fail_after(60):
        for task in ("write a file", "make files"):
            hint = (await world.product("run", "infra", task, "--json")).json()["hint"]
            named = re.search(r"agent-dispatch (update infra --allow .*)$", hint, re.MULTILINE)
            assert named is not None, hint
            await world.product(*shlex.split(named[1]))
            granted = (await world.product("run", "infra", task, "--json")).json()
            assert "denied_tools" not in granted
    assert odd.read_text() == "hello"
    assert (directory / "x y").exists()

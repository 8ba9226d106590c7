"""Three newcomers with a clean home: from nothing to the first real answer."""

import json
import tomllib
from pathlib import Path

import pytest
import trio

from tests.e2e.mcp_client import McpClient
from tests.e2e.messages_api import MessagesApi, answer, script
from tests.e2e.test_plugin import put_on_path
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

_QUESTION = "What project is this?"
_BOUND_S = 120
"""A newcomer gets 60 seconds; a machine that runs other tests gets more."""


@pytest.fixture
def newcomer(world: World, api: MessagesApi) -> World:
    put_on_path(world)
    api.decide = script((_QUESTION, answer("the one that watches pods")))
    return world


async def does(newcomer: World, *command: str, cwd: Path | None = None) -> str:
    """Run a command as the newcomer types it; return what it printed, on both streams."""
    done = await newcomer.run("agent-dispatch", *command, cwd=cwd)
    assert done.exit_code == 0, done
    return done.stdout + done.stderr


async def test_projects_that_claude_code_knows_answer_after_two_commands(
    newcomer: World,
) -> None:
    infra, old = newcomer.project("infra"), newcomer.project("old")
    projects = {
        str(old): {"lastStartTime": 1_700_000_000_000},
        str(infra): {"lastStartTime": 1_800_000_000_000, "hasTrustDialogAccepted": True},
        str(newcomer.root / "gone"): {"lastStartTime": 1_900_000_000_000},
    }
    (newcomer.home / ".claude.json").write_text(json.dumps({"projects": projects}))
    with trio.fail_after(_BOUND_S):
        said = await does(newcomer, "init", "--all")
        assert f"Added infra: {infra}" in said
        assert "Next: agent-dispatch test infra" in said
        assert "the one that watches pods" in await does(newcomer, "test", "infra")
    settings = json.loads((newcomer.home / ".claude.json").read_text())
    assert settings["projects"].keys() >= projects.keys()
    assert settings["mcpServers"]["agent-dispatch"]["command"].endswith("agent-dispatch")
    with trio.fail_after(_BOUND_S):
        assert f"Removed from {newcomer.home / '.claude.json'}" in await does(newcomer, "uninstall")
    settings = json.loads((newcomer.home / ".claude.json").read_text())
    assert settings["mcpServers"] == {}
    assert settings["projects"].keys() >= projects.keys()


async def test_the_server_that_is_written_for_codex_answers(newcomer: World) -> None:
    config = newcomer.home / ".codex" / "config.toml"
    config.parent.mkdir()
    config.write_text('model = "gpt-5.5-codex"  # mine\n')
    project = newcomer.project("infra")
    with trio.fail_after(_BOUND_S):
        await does(newcomer, "init", "--client", "codex")
        await does(newcomer, "add", "self", ".", cwd=project)
        assert config.read_text().startswith('model = "gpt-5.5-codex"  # mine\n')
        server = tomllib.loads(config.read_text())["mcp_servers"]["agent-dispatch"]
        assert server["tool_timeout_sec"] == 7260
        assert "ANTHROPIC_API_KEY" in server["env_vars"]
        # As Codex starts it.
        async with newcomer.started(server["command"], *server["args"]) as process:
            client = McpClient(process)
            await client.initialize()
            answered = await client.call("dispatch", agent="self", task=_QUESTION)
    assert answered["result"] == "the one that watches pods"


async def test_agents_of_the_predecessor_answer_after_three_commands(newcomer: World) -> None:
    infra = newcomer.project("infra")
    place = newcomer.home / ".config" / "agent-dispatch"
    (place / "jobs").mkdir(parents=True)
    old = place / "agents.yaml"
    old.write_text(
        f"agents:\n  infra:\n    directory: {infra}\n    description: ''\n    timeout: 300\n"
        "    risky_capabilities:\n    - restart\ngroups:\n  shop:\n    description: ''\n"
        "    shared_context: Stack shop-prod\n    members:\n    - agent: infra\n"
        "      use_for: ''\nsettings:\n  default_timeout: 300\n  dispatch_protocol: true\n"
    )
    before = old.read_bytes()
    job_id = "03d1154377204f8b90f09cf2e0bdd02a"
    record = {"id": job_id, "agent": "infra", "task": "look", "status": "done", "created_at": 1.5}
    record["result"] = {"agent": "infra", "success": True, "result": "3 errors", "outcome": "done"}
    (place / "jobs" / f"{job_id}.json").write_text(json.dumps(record))
    with trio.fail_after(_BOUND_S):
        assert f"tip: agent-dispatch import {old}" in await does(newcomer, "init")
        said = await does(newcomer, "import", str(old))
        assert "left out agents.infra.risky_capabilities" in said
        assert "left out settings.dispatch_protocol" in said
        assert "the one that watches pods" in await does(newcomer, "test", "infra")
        assert "3 errors" in await does(newcomer, "job", job_id)
        in_group = await does(newcomer, "run", "infra", _QUESTION, "--group", "shop")
        assert "the one that watches pods" in in_group
        assert str(old) not in await does(newcomer, "list")
    assert old.read_bytes() == before

import json
import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent_dispatch.cli.setup.claude_cli import Answer
from agent_dispatch.cli.setup.new_config import create_config
from agent_dispatch.cli.setup.register import replace
from agent_dispatch.config.registry import Registry
from tests.cli.support import World

OLD = {"type": "stdio", "command": "/old/agent-dispatch", "args": ["serve"], "env": {"A": "b"}}
FOREIGN = {"type": "stdio", "command": "/opt/something-else", "args": ["--mcp"]}


@pytest.fixture
def claude(world: World) -> World:
    world.install_claude()
    return world


def wanted(world: World) -> dict[str, object]:
    return {"type": "stdio", "command": world.program, "args": ["serve"], "alwaysLoad": True}


def manual_command(world: World) -> str:
    document = json.dumps(wanted(world), separators=(",", ":"))
    return f"claude mcp add-json agent-dispatch {shlex.quote(document)} --scope user"


def test_a_fresh_machine_gets_config_and_registration(claude: World) -> None:
    assert claude.run("init") == 0
    assert f"Config: {claude.config} (created)" in claude.out
    assert f"Registered MCP server: {claude.program} serve" in claude.out
    assert claude.registered() == wanted(claude)


def test_a_second_init_says_so_and_changes_nothing(claude: World) -> None:
    claude.run("init")
    before = claude.config.read_bytes(), claude.claude_config.read_bytes()
    calls = len(claude.claude_calls())
    assert claude.run("init") == 0
    assert "already there, unchanged" in claude.out
    assert "MCP server is already registered" in claude.out
    assert (claude.config.read_bytes(), claude.claude_config.read_bytes()) == before
    assert len(claude.claude_calls()) == calls


def test_init_with_json_tells_what_was_done(claude: World) -> None:
    assert claude.run("init", "--json") == 0
    assert claude.answer() == {
        "config": str(claude.config),
        "config_created": True,
        "registration": "added",
        "command": [claude.program, "serve"],
    }
    claude.run("init", "--json")
    assert claude.answer()["registration"] == "unchanged"


def test_the_config_is_for_its_owner_only_whatever_the_umask(world: World) -> None:
    path = world.home / "new" / "deep" / "agents.toml"
    before = os.umask(0o277)
    try:
        assert create_config(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_the_template_is_a_valid_empty_config_that_takes_agents(claude: World) -> None:
    claude.run("init")
    assert Registry(claude.config).load().agents == {}
    claude.run("add", "infra", str(claude.project("infra")))
    assert "# [settings]" in claude.config.read_text()
    assert claude.run("list") == 0
    assert claude.out.startswith("infra  ok")


def test_every_line_of_the_template_is_valid_once_uncommented(claude: World) -> None:
    claude.run("init")
    head, _, body = claude.config.read_text().partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    lines = [line.removeprefix("# ") for line in body.splitlines() if not line.startswith("#  ")]
    claude.config.write_text("\n".join(lines))
    config = Registry(claude.config).load()
    assert (config.broken, config.broken_settings, config.unknown_keys) == ({}, {}, ())
    assert list(config.agents) == ["infra"]
    assert config.warnings == ()


@pytest.mark.parametrize("text", ["[agents.infra\n", "# mine\n", ""])
def test_an_existing_config_is_never_touched(claude: World, text: str) -> None:
    claude.write_config(text)
    claude.run("init")
    assert claude.config.read_text() == text


def test_a_broken_config_is_told_and_the_server_registered_all_the_same(claude: World) -> None:
    claude.write_config("[agents.infra\n")
    assert claude.run("init") == 1
    assert "line 1" in claude.err
    assert claude.registered() == wanted(claude)


def test_a_config_directory_that_cannot_be_made_is_an_error(claude: World) -> None:
    (claude.home / "config").write_text("a file")
    assert claude.run("init") == 1
    assert claude.err.splitlines()[-1].startswith("error: ")
    assert str(claude.config) in claude.err
    assert claude.claude_calls() == []


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        (OLD, "it starts /old/agent-dispatch serve"),
        ({"command": "/old/python", "args": ["-m", "agent_dispatch", "serve"]}, "/old/python"),
        ({"command": "uvx", "args": ["agent-dispatch@0.16", "serve"]}, "uvx"),
    ],
)
def test_an_outdated_registration_of_ours_is_replaced(
    claude: World, present: dict[str, object], reason: str
) -> None:
    claude.register(present)
    assert claude.run("init") == 0
    assert reason in claude.err
    kept = {"env": present["env"]} if "env" in present else {}
    assert claude.registered() == wanted(claude) | kept
    assert json.loads(claude.claude_config.read_text())["kept"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"alwaysLoad": False}, "alwaysLoad"), ({"timeout": 60_000}, "after 60 s")],
)
def test_a_registration_that_is_not_as_it_should_be_is_replaced(
    claude: World, changes: dict[str, object], reason: str
) -> None:
    claude.register(wanted(claude) | changes)
    assert claude.run("init") == 0
    assert reason in claude.err
    assert claude.registered() == wanted(claude)


def test_a_timeout_as_large_as_the_clients_own_is_left(claude: World) -> None:
    claude.register(wanted(claude) | {"timeout": 100_000_000})
    assert claude.run("init") == 0
    assert "already" in claude.out


def test_a_foreign_registration_is_left_and_the_commands_are_told(claude: World) -> None:
    claude.register(FOREIGN)
    assert claude.run("init") == 1
    assert claude.registered() == FOREIGN
    assert "/opt/something-else --mcp" in claude.err
    error, *tips = claude.err.splitlines()[-3:]
    assert error.startswith("error: ")
    assert tips == [
        "tip: claude mcp remove agent-dispatch --scope user",
        f"tip: {manual_command(claude)}",
    ]


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), ("Yes\n", 0), ("n\n", 1), ("\n", 1), ("", 1)]
)
def test_a_foreign_registration_is_replaced_if_the_user_says_so(
    claude: World, answer: str, status: int
) -> None:
    claude.register(FOREIGN)
    claude.terminal = True
    claude.stdin = answer
    assert claude.run("init") == status
    assert "[y/N]" in claude.err
    assert claude.registered() == (FOREIGN if status else wanted(claude))


def test_yes_replaces_a_foreign_registration_without_asking(claude: World) -> None:
    claude.register({"type": "http", "url": "http://localhost:1/mcp"})
    assert claude.run("init", "--yes") == 0
    assert claude.registered() == wanted(claude)


def test_without_claude_the_config_is_made_and_the_manual_command_told(world: World) -> None:
    world.environ["PATH"] = str(world.home / "empty")
    assert world.run("init") == 1
    assert world.config.exists()
    assert "not on PATH" in world.err
    assert "npm install -g @anthropic-ai/claude-code" in world.err
    assert "claude mcp add-json agent-dispatch '{" in world.err


def test_a_failing_claude_leaves_the_config_and_the_manual_command(world: World) -> None:
    world.install_claude("add")
    assert world.run("init") == 1
    assert world.config.exists()
    assert "Configuration error: cannot write" in world.err
    assert world.err.endswith(f"tip: {manual_command(world)}\n")


def test_the_manual_command_can_be_pasted_into_a_shell(world: World) -> None:
    world.install_claude("add")
    world.program = str(world.home / "it's here" / "agent-dispatch")
    Path(world.program).parent.mkdir()
    Path(world.program).write_text("#!/bin/sh\n")
    Path(world.program).chmod(0o755)
    world.run("init", "--json")
    assert world.answer().keys() == {"error", "tips"}
    assert world.err == ""
    words = shlex.split(world.answer()["tips"][-1])
    assert json.loads(words[4]) == wanted(world)


def test_a_server_that_claude_knows_and_we_do_not_see_is_told_to_be_removed(world: World) -> None:
    world.install_claude("exists")
    assert world.run("init") == 1
    assert "claude mcp remove agent-dispatch --scope user" in world.err


def test_a_registration_that_cannot_be_removed_stays(world: World) -> None:
    world.install_claude("remove")
    world.register(OLD)
    assert world.run("init") == 1
    assert world.registered() == OLD
    assert "locked" in world.err


def test_when_only_the_removal_worked_the_old_registration_is_put_back(world: World) -> None:
    world.install_claude("add")
    world.register(OLD)
    assert world.run("init") == 1
    assert world.registered() == OLD
    assert "was restored" in world.err


def test_when_even_that_fails_the_exact_command_is_told(world: World) -> None:
    world.install_claude("add", "restore")
    world.register(OLD)
    assert world.run("init") == 1
    assert world.registered() is None
    old = shlex.quote(json.dumps(OLD, separators=(",", ":")))
    assert f"claude mcp add-json agent-dispatch {old} --scope user" in world.err


@pytest.mark.parametrize("text", ["{broken", "[]", '"text"', "\udcff"])
def test_a_broken_configuration_of_claude_is_not_written_to(claude: World, text: str) -> None:
    claude.claude_config.write_text(text, errors="surrogateescape")
    assert claude.run("init") == 1
    assert str(claude.claude_config) in claude.err
    assert claude.claude_calls() == []


def test_a_config_directory_of_claude_elsewhere_is_honoured(claude: World) -> None:
    elsewhere = claude.home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".claude.json").write_text(
        json.dumps({"mcpServers": {"agent-dispatch": wanted(claude)}})
    )
    claude.environ["CLAUDE_CONFIG_DIR"] = str(elsewhere)
    assert claude.run("init") == 0
    assert "already" in claude.out
    assert claude.claude_calls() == []


def test_a_config_named_by_the_environment_is_remarked_on(claude: World) -> None:
    claude.environ["AGENT_DISPATCH_CONFIG"] = str(claude.config)
    claude.run("init")
    assert f"with AGENT_DISPATCH_CONFIG={claude.config}" in claude.err


def test_a_relative_config_is_remarked_on_by_its_whole_path(
    claude: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(claude.home)
    claude.environ["AGENT_DISPATCH_CONFIG"] = "a place/agents.toml"
    claude.run("init")
    assert f"with AGENT_DISPATCH_CONFIG='{claude.home}/a place/agents.toml'" in claude.err


def test_without_a_script_the_module_is_registered(claude: World) -> None:
    claude.program = str(claude.home / "agent_dispatch" / "__main__.py")
    assert claude.run("init") == 0
    registered = claude.registered()
    assert isinstance(registered, dict)
    assert registered["args"][-1] == "serve"
    assert os.path.isabs(registered["command"])


def test_ctrl_c_between_removal_and_addition_puts_the_old_registration_back() -> None:
    servers: dict[str, str] = {"agent-dispatch": json.dumps(OLD)}
    presses = [True]

    def ask(arguments: Sequence[str]) -> Answer:
        match arguments:
            case ["mcp", "remove", name, *_]:
                del servers[name]
            case ["mcp", "add-json", name, document, *_]:
                if presses and presses.pop():
                    raise KeyboardInterrupt
                servers[name] = document
            case _:
                raise AssertionError(arguments)
        return Answer(exit_status=0)

    with pytest.raises(KeyboardInterrupt):
        replace(ask, OLD, {"command": "new"})
    assert json.loads(servers["agent-dispatch"]) == OLD


def test_the_manual_commands_name_a_claude_that_path_lacks(claude: World) -> None:
    place = claude.home / ".local" / "bin"
    place.parent.mkdir()
    (claude.home / "bin").rename(place)
    claude.environ |= {"PATH": "/usr/bin:/bin", "FAKE_CLAUDE": "add"}
    assert claude.run("init") == 1
    assert f"tip: {shlex.quote(str(place / 'claude'))} mcp add-json" in claude.err


def test_a_registration_that_names_the_predecessors_file_is_renewed_without_it(
    claude: World,
) -> None:
    yaml = f"{claude.home}/my agents.yaml"
    environment = {"AGENT_DISPATCH_CONFIG": yaml, "A": "b"}
    claude.register({**wanted(claude), "env": environment})
    claude.run("doctor", "--json")
    messages = [check["message"] for check in claude.answer()["checks"]]
    assert any("a file of the predecessor" in message for message in messages)
    assert claude.run("init") == 0
    assert claude.registered() == {**wanted(claude), "env": {"A": "b"}}
    assert f"tip: agent-dispatch import '{yaml}'" in claude.err
    assert claude.run("init") == 0
    assert "MCP server is already registered" in claude.out

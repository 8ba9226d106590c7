"""`init --client`: our entry in the files of other clients, and nothing else changed."""

import os
import shlex
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from agent_dispatch.config.clients.table import CLIENTS
from agent_dispatch.config.edit.jsonc import parse_jsonc
from tests.cli.client_samples import SAMPLES
from tests.cli.support import World

NAMES = sorted(CLIENTS)
LIMITS = {"codex": 7260, "gemini": 7_260_000, "opencode": 7_260_000, "zed": 7260}


@pytest.fixture(autouse=True)
def installed(world: World) -> None:
    world.install_claude()


def path_of(world: World, client: str) -> Path:
    return world.home / SAMPLES[client][0]


def with_sample(world: World, client: str) -> Path:
    path = path_of(world, client)
    path.parent.mkdir(parents=True)
    path.write_text(SAMPLES[client][1])
    return path


def parsed(client: str, text: str) -> dict[str, Any]:
    return tomllib.loads(text) if client == "codex" else parse_jsonc(text)


def entry_in(client: str, text: str) -> dict[str, Any]:
    entry: dict[str, Any] = parsed(client, text)[CLIENTS[client].table]["agent-dispatch"]
    return entry


def test_every_client_has_a_sample_and_names_its_source() -> None:
    assert sorted(SAMPLES) == NAMES
    assert all(client.source for client in CLIENTS.values())


@pytest.mark.parametrize("client", NAMES)
def test_the_entry_is_added_and_everything_else_stays(world: World, client: str) -> None:
    path = with_sample(world, client)
    before = path.read_text()
    assert world.run("init", "--client", client) == 0
    after = path.read_text()
    entry = entry_in(client, after)
    command = [world.program, "serve"]
    if client == "opencode":
        assert (entry["type"], entry["command"]) == ("local", command)
    else:
        assert [entry["command"], *entry["args"]] == command
    limits = [entry[key] for key in ("timeout", "tool_timeout_sec") if key in entry]
    assert limits == [LIMITS[client]] if client in LIMITS else limits == []
    assert entry.get("type") == {"vscode": "stdio", "opencode": "local"}.get(client)
    # Without our entry, the data is what it was, and every line of the file is still there.
    data = parsed(client, after)
    del data[CLIENTS[client].table]["agent-dispatch"]
    assert data == parsed(client, before)
    lines = iter(line.rstrip(",") for line in after.splitlines())
    assert all(line.rstrip(",") in lines for line in before.splitlines())
    assert path.with_name(f"{path.name}.bak").read_text() == before
    assert f"Registered with {CLIENTS[client].title}: {path}" in world.out
    assert world.config.exists()
    assert world.claude_calls() == []


@pytest.mark.parametrize("client", NAMES)
def test_a_second_time_nothing_changes(world: World, client: str) -> None:
    path = with_sample(world, client)
    backup = path.with_name(f"{path.name}.bak")
    world.run("init", "--client", client)
    backup.write_text("the first copy\n")
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert world.run("init", "--client", client) == 0
    assert "Already registered with" in world.out
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert backup.read_text() == "the first copy\n"


@pytest.mark.parametrize("client", NAMES)
def test_uninstall_brings_the_file_back_to_the_byte(world: World, client: str) -> None:
    path = with_sample(world, client)
    before = path.read_text()
    world.run("init", "--client", client)
    assert world.run("uninstall") == 0
    assert path.read_text() == before
    assert f"Removed from {path}" in world.out
    assert f"Kept {path}.bak" in world.out


@pytest.mark.parametrize("client", NAMES)
def test_a_missing_file_is_created_where_its_directory_is(world: World, client: str) -> None:
    path = path_of(world, client)
    path.parent.mkdir(parents=True)
    assert world.run("init", "--client", client) == 0
    assert entry_in(client, path.read_text())
    assert not path.with_name(f"{path.name}.bak").exists()
    # Safe to run again, and taken back whole.
    assert world.run("init", "--client", client) == 0
    assert world.run("uninstall") == 0
    assert not path.exists()


@pytest.mark.parametrize("client", NAMES)
def test_a_table_that_was_made_goes_with_the_entry(world: World, client: str) -> None:
    path = with_sample(world, client)
    before = "# mine\n" if client == "codex" else '{\n  "mine": 1\n}\n'
    path.write_text(before)
    assert world.run("init", "--client", client) == 0
    assert world.run("uninstall") == 0
    assert path.read_text() == before


def test_a_file_that_was_made_stays_if_something_else_is_in_it(world: World) -> None:
    path = path_of(world, "cursor")
    path.parent.mkdir()
    world.run("init", "--client", "cursor")
    path.write_text(path.read_text().replace("{", '{\n  "mine": 1,', 1))
    assert world.run("uninstall") == 0
    assert parse_jsonc(path.read_text()) == {"mine": 1}


@pytest.mark.parametrize("client", NAMES)
def test_without_the_clients_directory_nothing_is_made(world: World, client: str) -> None:
    assert world.run("init", "--client", client) == 1
    assert not path_of(world, client).parent.exists()
    assert world.err.splitlines()[-1] == f"tip: agent-dispatch init --client {client} --print"
    assert f"Is {CLIENTS[client].title} installed" in world.err


@pytest.mark.parametrize("client", NAMES)
@pytest.mark.parametrize("content", ["{ [", '"a', "\xff\xfe", "a = {", "[1]"])
def test_a_file_that_does_not_parse_is_refused_and_stays(
    world: World, client: str, content: str
) -> None:
    path = with_sample(world, client)
    path.write_bytes(content.encode("latin-1"))
    if client == "codex" and content == "[1]":
        path.write_text("[1")
    before = path.read_bytes()
    assert world.run("init", "--client", client) == 1
    assert "is not valid" in world.err
    assert path.read_bytes() == before
    assert not path.with_name(f"{path.name}.bak").exists()
    assert f"tip: agent-dispatch init --client {client} --print" in world.err


@pytest.mark.parametrize("client", NAMES)
def test_a_linked_file_stays_a_link(world: World, client: str) -> None:
    path = with_sample(world, client)
    real = world.home / "dotfiles" / "settings"
    real.parent.mkdir()
    path.rename(real)
    path.symlink_to(real)
    real.chmod(0o640)
    assert world.run("init", "--client", client) == 0
    assert path.is_symlink()
    assert entry_in(client, real.read_text())
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert path.with_name(f"{path.name}.bak").exists()


@pytest.mark.parametrize("client", NAMES)
@pytest.mark.parametrize("state", ["absent", "sample", "broken"])
def test_print_shows_the_entry_and_touches_nothing(world: World, client: str, state: str) -> None:
    if state != "absent":
        with_sample(world, client).write_text("{ [" if state == "broken" else SAMPLES[client][1])
    before = sorted(path for path in world.home.rglob("*") if path.is_file())
    assert world.run("init", "--client", client, "--print") == 0
    assert parsed(client, world.out)[CLIENTS[client].table].keys() == {"agent-dispatch"}
    assert world.err == ""
    assert sorted(path for path in world.home.rglob("*") if path.is_file()) == before


def test_print_alone_and_unknown_clients_are_misuse(world: World) -> None:
    assert world.run("init", "--print") == 2
    assert "--print needs --client" in world.err
    assert world.run("init", "--client", "curser") == 2
    assert "Did you mean cursor?" in world.err
    assert all(name in world.err for name in NAMES)
    assert not world.config.exists()


def test_variables_are_named_and_never_written(world: World) -> None:
    world.environ |= {
        "AGENT_DISPATCH_CONFIG": str(world.config),
        "ANTHROPIC_API_KEY": "sk-secret",
        "CLAUDE_CODE_OAUTH_TOKEN": "tok-secret",
        "CLAUDE_CONFIG_DIR": str(world.home / "claude-secret"),
        "AGENT_DISPATCH_JOB": "a-run-of-ours",
        "ANTHROPIC_EMPTY": "",
        "GITHUB_TOKEN": "other-secret",
    }
    names = [
        "AGENT_DISPATCH_CONFIG",
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CONFIG_DIR",
        "XDG_CONFIG_HOME",
    ]
    for client in NAMES:
        path = with_sample(world, client)
        assert world.run("init", "--client", client) == 0
        entry = entry_in(client, path.read_text())
        assert "secret" not in path.read_text()
        assert entry.get("env_vars") == (names if client == "codex" else None)
        references = {name: f"${name}" for name in names} if client == "gemini" else None
        assert entry.get("env") == references


def test_a_client_that_passes_no_variable_must_have_ours(world: World) -> None:
    with_sample(world, "desktop")
    world.environ["AGENT_DISPATCH_CONFIG"] = str(world.config)
    assert world.run("init", "--client", "desktop") == 0
    setting = f"AGENT_DISPATCH_CONFIG={shlex.quote(str(world.config))}"
    assert f"note: Claude Desktop must be started with {setting}" in world.err


def test_what_a_user_added_to_our_entry_stays(world: World) -> None:
    path = with_sample(world, "gemini")
    world.run("init", "--client", "gemini")
    text = path.read_text()
    mine = text.replace('"timeout": 7260000', '"timeout": 600, /* mine */ "trust": true')
    path.write_text(mine.replace('"env": {', '"env": { "MINE": "1",'))
    assert world.run("init", "--client", "gemini") == 0
    entry = entry_in("gemini", path.read_text())
    assert (entry["timeout"], entry["trust"], entry["env"]["MINE"]) == (7_260_000, True, "1")
    assert "/* mine */" in path.read_text()


@pytest.mark.parametrize("client", NAMES)
def test_a_foreign_entry_of_our_name_is_kept_unless_its_user_agrees(
    world: World, client: str
) -> None:
    path = with_sample(world, client)
    world.run("init", "--client", client)
    foreign = path.read_text().replace(f'"{world.program}"', '"/opt/other"')
    path.write_text(foreign)
    assert world.run("init", "--client", client) == 1
    assert "that runs /opt/other serve" in world.err
    assert path.read_text() == foreign
    assert world.run("uninstall") == 0
    assert f"Left in {path}: the entry runs /opt/other serve" in world.out
    assert path.read_text() == foreign
    assert world.run("init", "--client", client, "--yes") == 0
    assert world.program in path.read_text()


def test_a_foreign_entry_is_replaced_whole(world: World) -> None:
    path = with_sample(world, "cursor")
    path.write_text('{"mcpServers": {"agent-dispatch": {"url": "https://example.com/mcp"}}}')
    assert world.run("init", "--client", "cursor") == 1
    assert world.run("init", "--client", "cursor", "--yes") == 0
    assert entry_in("cursor", path.read_text()) == {"command": world.program, "args": ["serve"]}


def test_an_outdated_entry_of_ours_is_replaced(world: World) -> None:
    path = with_sample(world, "cursor")
    path.write_text('{"mcpServers": {"agent-dispatch": {"command": "/old/agent-dispatch"}}}')
    assert world.run("init", "--client", "cursor") == 0
    assert entry_in("cursor", path.read_text()) == {"command": world.program, "args": ["serve"]}


def test_the_home_of_codex_counts(world: World) -> None:
    place = world.home / "elsewhere"
    place.mkdir()
    world.environ["CODEX_HOME"] = str(place)
    assert world.run("init", "--client", "codex") == 0
    assert entry_in("codex", (place / "config.toml").read_text())


def test_opencode_may_have_a_file_with_comments(world: World) -> None:
    path = world.home / ".config" / "opencode" / "opencode.jsonc"
    path.parent.mkdir(parents=True)
    path.write_text(SAMPLES["opencode"][1])
    assert world.run("init", "--client", "opencode") == 0
    assert entry_in("opencode", path.read_text())
    assert not path.with_suffix(".json").exists()


def test_the_configuration_folder_of_the_desktop_counts_where_the_client_uses_it(
    world: World,
) -> None:
    world.environ["XDG_CONFIG_HOME"] = str(world.home / "xdg")
    path = with_sample(world, "zed")
    assert world.run("init", "--client", "zed") == 0
    assert entry_in("zed", path.read_text())
    (world.home / "xdg" / "zed").mkdir(parents=True)
    assert world.run("init", "--client", "zed") == 0
    assert entry_in("zed", (world.home / "xdg" / "zed" / "settings.json").read_text())


def test_a_table_of_another_kind_is_refused(world: World) -> None:
    path = with_sample(world, "cursor")
    path.write_text('{"mcpServers": []}')
    assert world.run("init", "--client", "cursor") == 1
    assert "mcpServers is not an object" in world.err
    assert path.read_text() == '{"mcpServers": []}'


def test_a_byte_order_mark_stays(world: World) -> None:
    path = with_sample(world, "cursor")
    path.write_text("\ufeff" + SAMPLES["cursor"][1])
    assert world.run("init", "--client", "cursor") == 0
    assert path.read_text().startswith("\ufeff{")


def test_a_file_that_cannot_be_written_is_told(world: World) -> None:
    path = with_sample(world, "cursor")
    path.unlink()
    os.mkfifo(path)
    assert world.run("init", "--client", "cursor") == 1
    assert "it is not a regular file" in world.err


def test_with_json_everything_is_told(world: World) -> None:
    path = with_sample(world, "zed")
    assert world.run("init", "--client", "zed", "--json") == 0
    report = world.answer()
    assert (report["client"], report["file"], report["changed"]) == ("zed", str(path), True)
    assert report["command"] == [world.program, "serve"]
    world.run("init", "--client", "zed", "--json")
    assert world.answer()["changed"] is False

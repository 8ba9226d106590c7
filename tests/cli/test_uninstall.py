"""`uninstall` takes out what `init` wrote, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.cli.client_samples import SAMPLES
from tests.cli.support import World


@pytest.fixture
def installed(world: World) -> World:
    """Registered with Claude Code, Codex and Zed; one agent, and one job."""
    world.install_claude()
    world.run("init")
    for client in ("codex", "zed"):
        path = world.home / SAMPLES[client][0]
        path.parent.mkdir(parents=True)
        path.write_text(SAMPLES[client][1])
        assert world.run("init", "--client", client) == 0
    world.run("add", "infra", str(world.project("infra")))
    (world.config.parent / "jobs").mkdir()
    return world


def files(world: World) -> dict[str, Path]:
    return {client: world.home / SAMPLES[client][0] for client in ("codex", "zed")}


def test_everything_that_init_wrote_goes_and_agents_and_jobs_stay(installed: World) -> None:
    config = installed.config.read_bytes()
    assert installed.run("uninstall") == 0
    assert installed.registered() is None
    for client, path in files(installed).items():
        assert path.read_text() == SAMPLES[client][1]
        assert f"Removed from {path}" in installed.out
        assert f"Kept {path}.bak" in installed.out
    assert f"Removed from {installed.claude_config}" in installed.out
    assert f"Kept {installed.config}" in installed.out
    assert f"Kept {installed.config.parent / 'jobs'}" in installed.out
    assert installed.config.read_bytes() == config
    assert not (installed.config.parent / "installed.json").exists()
    assert installed.run("uninstall") == 0
    assert "No entry of agent-dispatch was found" in installed.out


def test_what_the_user_changed_since_then_stays(installed: World) -> None:
    path = files(installed)["zed"]
    path.write_text(path.read_text().replace('"buffer_font_size": 15', '"buffer_font_size": 20'))
    installed.run("uninstall")
    assert path.read_text() == SAMPLES["zed"][1].replace("15", "20")


@pytest.mark.parametrize(
    ("client", "note"), [("codex", "# mine\n"), ("zed", "// mine\n"), ("zed", "")]
)
def test_a_file_that_init_made_goes_unless_its_user_wrote_into_it(
    installed: World, client: str, note: str
) -> None:
    path = files(installed)[client]
    path.unlink()
    installed.run("uninstall")
    installed.run("init", "--client", client)
    path.write_text(note + path.read_text())
    assert installed.run("uninstall") == 0
    assert path.exists() == bool(note)
    if note:
        assert path.read_text().startswith(note)
        assert "agent-dispatch" not in path.read_text()


@pytest.mark.parametrize("note", ["", " // mine"])
def test_a_table_that_init_made_goes_unless_its_user_wrote_into_it(
    installed: World, note: str
) -> None:
    path = files(installed)["zed"]
    installed.run("uninstall")
    before = '{\n  "theme": "One"\n}\n'
    path.write_text(before)
    installed.run("init", "--client", "zed")
    table = '"context_servers": {'
    path.write_text(path.read_text().replace(table, table + note))
    assert installed.run("uninstall") == 0
    assert note in path.read_text()
    assert (path.read_text() == before) == (not note)


def test_without_the_record_the_default_places_are_looked_at(installed: World) -> None:
    (installed.config.parent / "installed.json").unlink()
    assert installed.run("uninstall", "--json") == 0
    expected = [installed.claude_config, *files(installed).values()]
    assert sorted(installed.answer()["removed"]) == sorted(map(str, expected))


def test_with_the_record_no_other_place_is_touched(installed: World) -> None:
    path = installed.home / SAMPLES["cursor"][0]
    path.parent.mkdir()
    by_hand = json.dumps({"mcpServers": {"agent-dispatch": {"command": installed.program}}})
    path.write_text(by_hand)
    assert installed.run("uninstall") == 0
    assert path.read_text() == by_hand


def test_a_file_that_broke_since_then_is_told_and_tried_again(installed: World) -> None:
    path = files(installed)["codex"]
    text = path.read_text()
    path.write_text("[broken")
    assert installed.run("uninstall") == 1
    assert f"{path} is not valid TOML" in installed.err
    assert path.read_text() == "[broken"
    assert f"Removed from {files(installed)['zed']}" in installed.out
    path.write_text(text)
    assert installed.run("uninstall") == 0
    assert path.read_text() == SAMPLES["codex"][1]


def test_a_foreign_registration_stays_and_is_named(installed: World) -> None:
    installed.register({"type": "stdio", "command": "/opt/other", "args": []})
    assert installed.run("uninstall") == 0
    assert f"Left in {installed.claude_config}: the entry runs /opt/other" in installed.out
    assert installed.registered() is not None


def test_a_claude_that_fails_is_told_with_the_command(installed: World) -> None:
    installed.environ["FAKE_CLAUDE"] = "remove"
    assert installed.run("uninstall") == 1
    error, tip = installed.err.splitlines()[-2:]
    assert error.startswith("error: Claude Code did not remove the registration: ")
    assert "Configuration error: locked" in error
    assert tip == "tip: claude mcp remove agent-dispatch --scope user"
    assert installed.run("uninstall", "--json") == 1
    assert installed.answer()["tips"] == ["claude mcp remove agent-dispatch --scope user"]
    assert (installed.answer().keys(), installed.err) == ({"error", "tips"}, "")
    installed.environ["FAKE_CLAUDE"] = ""
    assert installed.run("uninstall") == 0
    assert installed.registered() is None


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_person_is_asked_once(installed: World, answer: str, goes: bool) -> None:
    installed.terminal, installed.stdin = True, answer
    assert installed.run("uninstall") == (0 if goes else 1)
    assert (installed.registered() is None) is goes


def test_yes_asks_nothing(installed: World) -> None:
    installed.terminal = True
    assert installed.run("uninstall", "--yes") == 0
    assert "[y/N]" not in installed.err
    assert installed.registered() is None


def test_where_nothing_was_installed_nothing_is_made(world: World) -> None:
    assert world.run("uninstall") == 0
    assert not world.config.parent.exists()


@pytest.mark.parametrize("content", [b"{", b'{"written":[{"client":"\xff"}]}'])
def test_a_broken_record_is_told_before_anything_is_written(
    installed: World, content: bytes
) -> None:
    record = installed.config.parent / "installed.json"
    record.write_bytes(content)
    before = installed.claude_config.read_bytes()
    path = installed.home / SAMPLES["cursor"][0]
    path.parent.mkdir()
    for argv in (("uninstall",), ("init",), ("init", "--client", "cursor")):
        assert installed.run(*argv) == 1
        assert f"{record} cannot be read" in installed.err
    assert installed.claude_config.read_bytes() == before
    assert not path.exists()
    record.unlink()
    assert installed.run("uninstall") == 0


def test_the_plugin_that_stays_is_named(installed: World) -> None:
    settings = installed.home / ".claude" / "settings.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('{"enabledPlugins": {"agent-dispatch@market": true}}')
    assert installed.run("uninstall") == 0
    assert "claude plugin uninstall agent-dispatch@market" in installed.err

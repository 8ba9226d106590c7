"""Project files that Claude Code ignores are told by `add`, `describe` and `doctor`."""

from tests.cli.support import World

BROKEN = '{\n  "mcpServers": {"a": {"command": "cat"},}\n}'


def test_a_broken_mcp_config_is_told_with_its_place_and_cost(world: World) -> None:
    world.install_claude()
    world.run("init")
    directory = world.project("infra", {"AGENTS.md": "Runs the containers.\n", ".mcp.json": BROKEN})
    told = ".mcp.json line 2, column 41: a comma before the closing bracket. Claude Code starts"
    assert world.run("add", "infra", str(directory)) == 0
    assert told in world.err
    world.run("describe", "infra")
    assert told in world.out
    assert "project files     AGENTS.md, .mcp.json" in world.out
    assert world.run("doctor") == 0
    assert f"warn  agent infra: {told}" in world.out
    assert f"fix: correct it in {directory}/.mcp.json" in world.out
    assert world.run("doctor", "--strict") == 1


def test_broken_settings_are_told_once_for_each_file(world: World) -> None:
    world.install_claude()
    world.run("init")
    files = {".claude/settings.json": "{,}", ".claude/settings.local.json": "[]"}
    directory = world.project("infra", {"CLAUDE.md": "Runs the containers.\n"})
    (directory / ".claude").mkdir()
    for name, content in files.items():
        (directory / name).write_text(content)
    world.run("add", "infra", str(directory))
    world.run("doctor", "--json")
    messages = [c["message"] for c in world.answer()["checks"] if c["status"] == "warn"]
    assert [message.split()[0] for message in messages] == list(files)
    assert all("ignores the whole file" in message for message in messages)

"""What the real CLI reads of a project is what we say it reads."""

from pathlib import Path

import pytest
import trio

from agent_dispatch.config.project.claude_files import file_problems, instruction_files
from tests.e2e.messages_api import MessagesApi
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

DOCUMENTS = ("CLAUDE.md", ".claude/CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", ".claude/AGENTS.md")
RULES = '{"permissions": {"deny": ["WebFetch"]}}'


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "present",
    [(3,), (4,), (0, 3), (1, 3), (2, 3), (0, 1, 2, 3, 4)],
    ids=lambda present: "+".join(DOCUMENTS[i] for i in present),
)
async def test_the_instructions_it_sends_are_those_we_name(
    world: World, api: MessagesApi, present: tuple[int, ...]
) -> None:
    directory = world.root / "project"
    for index in present:
        _write(directory / DOCUMENTS[index], f"MARK{index}".encode())
    with trio.fail_after(60):
        done = await world.claude("-p", "hi", cwd=directory)
    assert done.exit_code == 0, done
    bodies = str([request.body for request in api.requests])
    sent = tuple(name for i, name in enumerate(DOCUMENTS) if f"MARK{i}" in bodies)
    assert sent == instruction_files(str(directory))


@pytest.mark.parametrize(
    "settings",
    [
        RULES.encode(),
        RULES.encode("utf-16"),
        RULES.replace("}}", "},}").encode(),
        f"// x\n{RULES}".encode(),
        RULES.replace('["WebFetch"]', '"WebFetch"').encode(),
        RULES.replace("}}", ', "defaultMode": "yolo"}}').encode(),
        RULES.replace("}}", '}, "hooks": 5}').encode(),
    ],
)
async def test_the_settings_it_ignores_are_those_we_warn_of(world: World, settings: bytes) -> None:
    directory = world.root / "project"
    _write(directory / ".claude" / "settings.json", settings)
    with trio.fail_after(60):
        done = await world.claude(
            "-p", "hi", "--output-format", "stream-json", "--verbose", cwd=directory
        )
    assert done.exit_code == 0, done
    takes_the_rule = '"WebFetch"' not in done.stdout
    assert takes_the_rule is not bool(file_problems(str(directory)))


@pytest.mark.parametrize(
    "servers",
    [
        '{"mcpServers": {"aa": {"command": "true"}}}',
        '{"mcpServers": {"aa": {"command": "true"},}}',
        '{/* x */"mcpServers": {"aa": {"command": "true"}}}',
        '{"servers": {"aa": {"command": "true"}}}',
        '{"mcpServers": {"aa": {"url": "http://127.0.0.1:1/"}}}',
        '{"mcpServers": {"aa": {"command": "true", "args": "x"}}}',
    ],
)
async def test_the_servers_it_leaves_out_are_those_we_warn_of(world: World, servers: str) -> None:
    directory = world.root / "project"
    _write(directory / ".mcp.json", servers.encode())
    with trio.fail_after(60):
        done = await world.claude(
            "-p", "hi", "--output-format", "stream-json", "--verbose", cwd=directory
        )
    assert done.exit_code == 0, done
    is_tried = '"name":"aa"' in done.stdout
    assert is_tried is not bool(file_problems(str(directory)))

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


# Files of different kinds do not touch each other, so that one start of the CLI reads one of each.
PRESENT = [(3,), (4,), (0, 3), (1, 3), (2, 3), (0, 1, 2, 3, 4), ()]
SETTINGS = [
    RULES.encode(),
    RULES.encode("utf-16"),
    RULES.replace("}}", "},}").encode(),
    f"// x\n{RULES}".encode(),
    RULES.replace('["WebFetch"]', '"WebFetch"').encode(),
    RULES.replace("}}", ', "defaultMode": "yolo"}}').encode(),
    RULES.replace("}}", '}, "hooks": 5}').encode(),
]
SERVERS = [
    '{"mcpServers": {"aa": {"command": "true"}}}',
    '{"mcpServers": {"aa": {"command": "true"},}}',
    '{/* x */"mcpServers": {"aa": {"command": "true"}}}',
    '{"servers": {"aa": {"command": "true"}}}',
    '{"mcpServers": {"aa": {"url": "http://127.0.0.1:1/"}}}',
    '{"mcpServers": {"aa": {"command": "true", "args": "x"}}}',
    "{}",
]


@pytest.mark.parametrize(
    ("present", "settings", "servers"), list(zip(PRESENT, SETTINGS, SERVERS, strict=True))
)
async def test_it_reads_the_files_that_we_name_and_ignores_those_that_we_warn_of(
    world: World, api: MessagesApi, present: tuple[int, ...], settings: bytes, servers: str
) -> None:
    directory = world.root / "project"
    _write(directory / ".claude" / "settings.json", settings)
    _write(directory / ".mcp.json", servers.encode())
    for index in present:
        _write(directory / DOCUMENTS[index], f"MARK{index}".encode())
    with trio.fail_after(60):
        done = await world.claude(
            "-p", "hi", "--output-format", "stream-json", "--verbose", cwd=directory
        )
    assert done.exit_code == 0, done

    bodies = str([request.body for request in api.requests])
    sent = tuple(name for i, name in enumerate(DOCUMENTS) if f"MARK{i}" in bodies)
    assert sent == instruction_files(str(directory))

    warned_of = {problem.path for problem in file_problems(str(directory))}
    takes_the_rule = '"WebFetch"' not in done.stdout
    assert takes_the_rule is not (".claude/settings.json" in warned_of)
    is_tried = '"name":"aa"' in done.stdout
    assert is_tried is not (".mcp.json" in warned_of or servers == "{}")

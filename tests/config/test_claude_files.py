"""What Claude Code reads of a project, and what is said where it cannot."""

from pathlib import Path

import pytest

from agent_dispatch.config.project.claude_files import file_problems, instruction_files
from agent_dispatch.config.project.documents import preview, read_documents
from agent_dispatch.config.project.facts import read_facts
from agent_dispatch.core.agents.describe import describe
from agent_dispatch.model.agent import ProjectFacts

SERVERS = '{"mcpServers": {"a": {"command": "cat"}}}'
RULES = '{"permissions": {"deny": ["WebFetch"]}}'


def _write(directory: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("files", "sent"),
    [
        ({"AGENTS.md": "x"}, ("AGENTS.md",)),
        ({".claude/AGENTS.md": "x"}, (".claude/AGENTS.md",)),
        ({"AGENTS.md": "x", "CLAUDE.md": "y"}, ("CLAUDE.md",)),
        ({"AGENTS.md": "x", "CLAUDE.md": ""}, ("AGENTS.md",)),
        ({"AGENTS.md": "x", ".claude/CLAUDE.md": "y"}, (".claude/CLAUDE.md",)),
        ({"AGENTS.md": "x", "CLAUDE.local.md": "y"}, ("CLAUDE.local.md",)),
        ({"CLAUDE.md": "x", "CLAUDE.local.md": "y"}, ("CLAUDE.md", "CLAUDE.local.md")),
        ({"README.md": "x"}, ()),
    ],
)
def test_agents_md_is_sent_where_no_claude_md_has_content(
    tmp_path: Path, files: dict[str, str | bytes], sent: tuple[str, ...]
) -> None:
    _write(tmp_path, files)
    assert instruction_files(str(tmp_path)) == sent
    assert read_facts(str(tmp_path)).has_claude_md is bool(sent)


@pytest.mark.parametrize(
    "files",
    [
        {"AGENTS.md": "Keeps the books."},
        {"AGENTS.md": "Keeps the books.", "CLAUDE.md": "@AGENTS.md\n"},
        {"AGENTS.md": "Keeps the books.", "CLAUDE.md": "<!-- one\nfile -->\n@./AGENTS.md"},
        {"AGENTS.md": "Keeps the books.", ".claude/CLAUDE.md": "@../AGENTS.md"},
        {"docs/a.md": "Keeps the books.", "CLAUDE.md": "@AGENTS.md", "AGENTS.md": "@docs/a.md"},
    ],
)
def test_what_is_imported_is_previewed_and_described(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    _write(tmp_path, files)
    assert preview(tmp_path, "CLAUDE.md", 40) == "Keeps the books."
    described = describe(read_documents(tmp_path), ProjectFacts(healthy=True))
    assert described == "Keeps the books."


@pytest.mark.parametrize("target", ["@CLAUDE.md", "@/etc/hostname", "@../other.md", "@~/x.md", "@"])
def test_an_import_from_elsewhere_or_of_itself_is_not_followed(tmp_path: Path, target: str) -> None:
    _write(tmp_path / "project", {"CLAUDE.md": target})
    _write(tmp_path, {"other.md": "Not of this project."})
    assert preview(tmp_path / "project", "CLAUDE.md", 40) == target


@pytest.mark.parametrize(
    "name",
    ["README.rst", "README.org", "README.adoc", "README.markdown", "README", ".github/README.md"],
)
def test_a_readme_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    _write(tmp_path, {name: "Keeps the books.", "README.txt": " \n"})
    described = describe(read_documents(tmp_path), ProjectFacts(healthy=True))
    assert described == "Keeps the books."


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]
)
def test_a_readme_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    _write(tmp_path, {"README.md": "Führt die Bücher des Ladens.".encode(encoding)})
    described = describe(read_documents(tmp_path), ProjectFacts(healthy=True))
    assert described == "Führt die Bücher des Ladens."


BROKEN_SERVERS: list[tuple[str | bytes, str]] = [
    ('{\n"mcpServers": {\n"a": {"command": "cat"},\n}}', "line 3, column 24: a comma before"),
    ('{"mcpServers": {"a": {"command": "cat", "args": ["x",]}}}', "column 53: a comma before"),
    ('{\n  // mine\n"mcpServers": {}}', "line 2, column 3: a comment"),
    ('{"mcpServers": {} /* x */}', "column 19: a comment"),
    ('{"mcpServers": {}, # x\n"a": 1}', "column 20: a comment"),
    (SERVERS.encode("utf-16"), "line 1, column 1: it is in UTF-16"),
    (SERVERS.encode("utf-16-le"), "line 1, column 1: it is in UTF-16"),
    (SERVERS.replace('"', "'"), "column 2: single quotes"),
    (SERVERS[:-1], "ends too early"),
    ('{"servers": {"a": {"command": "cat"}}}', "column 2: its servers are under `servers`"),
    ('{"a": {"command": "cat"}}', "it has no `mcpServers`"),
    ('{"mcpServers": []}', "column 2: `mcpServers` is not an object"),
    ("[]", "line 1, column 1: it holds no JSON object"),
    ("<<<<<<< HEAD\n{}", "line 1, column 1: a merge conflict"),
]


@pytest.mark.parametrize(("content", "said"), BROKEN_SERVERS)
def test_an_mcp_config_that_claude_code_cannot_read_is_reported_with_its_place(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    _write(tmp_path, {".mcp.json": content})
    [problem] = map(str, file_problems(str(tmp_path)))
    assert problem.startswith(".mcp.json")
    assert said in problem
    assert problem.endswith("Claude Code starts none of its MCP servers.")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('{"url": "http://x/"}', '`b`: it has a `url` and no type; add `"type": "http"`'),
        ("5", "`b`: it is not an object"),
        ('{"args": []}', "`b`: it has no `command`"),
        ('{"command": "x", "args": "y"}', "`b`: `args` is not a list"),
    ],
)
def test_a_server_that_is_ignored_is_reported_by_name(
    tmp_path: Path, entry: str, said: str
) -> None:
    servers = f'{{"mcpServers": {{"a": {{"command": "cat"}},\n "b": {entry}}}}}'
    _write(tmp_path, {".mcp.json": servers})
    [problem] = map(str, file_problems(str(tmp_path)))
    assert problem == f".mcp.json line 2, column 2: {said}. Claude Code does not start this server."


BROKEN_SETTINGS: list[tuple[str | bytes, str]] = [
    (RULES[:-1] + ",}", "column 39: a comma before"),
    (f"// mine\n{RULES}", "line 1, column 1: a comment"),
    ("[]", "it holds no JSON object"),
    (RULES.replace('["WebFetch"]', '"WebFetch"'), "`permissions.deny` is not a list"),
    ('{"permissions": []}', "`permissions` is not an object"),
    ('{"permissions": {"defaultMode": "yolo"}}', "`permissions.defaultMode` is none of"),
    ('{"model": 5}', "column 2: `model` is not a string"),
]


@pytest.mark.parametrize("name", [".claude/settings.json", ".claude/settings.local.json"])
@pytest.mark.parametrize(("content", "said"), BROKEN_SETTINGS)
def test_settings_that_claude_code_ignores_are_reported_with_their_place(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    _write(tmp_path, {name: content})
    [problem] = map(str, file_problems(str(tmp_path)))
    assert problem.startswith(name)
    assert said in problem
    assert problem.endswith("ignores the whole file: permission rules (deny too), hooks and env.")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".mcp.json", SERVERS),
        (".mcp.json", "\ufeff" + SERVERS),
        (".mcp.json", "{}"),
        (".mcp.json", ""),
        (".mcp.json", SERVERS.replace("cat", "caf\xe9").encode("latin-1")),
        (".mcp.json", '{"mcpServers": {"a": {"type": "http", "url": "http://x/"}}}'),
        (".mcp.json", '{"mcpServers": {"a": ' + "[" * 9000 + "]" * 9000 + "}}"),
        (".claude/settings.json", RULES),
        (".claude/settings.json", RULES.encode("utf-16")),
        (".claude/settings.json", '{"hooks": 5, "zzz": 1}'),
        (".claude/settings.json", " \n"),
    ],
)
def test_files_that_claude_code_reads_are_not_reported(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    _write(tmp_path, {name: content})
    assert [p for p in file_problems(str(tmp_path)) if "not an object" not in p.what] == []

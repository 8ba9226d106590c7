import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_dispatch.config.project.documents import preview, read_documents
from agent_dispatch.config.project.facts import read_facts
from agent_dispatch.core.agents.describe import describe
from agent_dispatch.model.agent import ProjectFacts


def _touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")


def test_a_project_is_known_by_its_files(tmp_path: Path) -> None:
    _touch(tmp_path, "CLAUDE.md", "Dockerfile", "pyproject.toml", "alembic.ini", "prisma/")
    (tmp_path / ".mcp.json").write_text('{"mcpServers": {"portainer": {}, "postgres": {"a": 1}}}')
    assert read_facts(str(tmp_path)) == ProjectFacts(
        healthy=True,
        has_claude_md=True,
        has_mcp_config=True,
        mcp_servers=("portainer", "postgres"),
        stacks=("Python", "Docker"),
        dbs=("Prisma", "Alembic"),
    )


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("requirements.txt", "Python"),
        ("package.json", "Node.js"),
        ("Cargo.toml", "Rust"),
        ("go.mod", "Go"),
        ("pom.xml", "Java"),
        ("Gemfile", "Ruby"),
        ("composer.json", "PHP"),
        ("compose.yaml", "Docker"),
        ("main.tf", "Terraform"),
    ],
)
def test_each_stack_has_its_files(tmp_path: Path, name: str, stack: str) -> None:
    _touch(tmp_path, name)
    assert read_facts(str(tmp_path)).stacks == (stack,)


@pytest.mark.parametrize(
    ("name", "db"),
    [
        ("prisma/schema.prisma", "Prisma"),
        ("alembic/", "Alembic"),
        ("migrations/", "migrations"),
        ("drizzle.config.ts", "Drizzle"),
    ],
)
def test_each_database_has_its_files(tmp_path: Path, name: str, db: str) -> None:
    _touch(tmp_path, name)
    assert read_facts(str(tmp_path)).dbs == (db,)


def test_an_empty_directory_is_a_healthy_project(tmp_path: Path) -> None:
    assert read_facts(str(tmp_path)) == ProjectFacts(healthy=True)


def test_claude_md_may_lie_in_the_claude_directory(tmp_path: Path) -> None:
    _touch(tmp_path, ".claude/CLAUDE.md")
    assert read_facts(str(tmp_path)).has_claude_md


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"mcpServers": 5}',
        b'{"mcpServers": {"a\xff": {}}}',
        b"[" * 200_000,
        b'{"mcpServers": {"a": ' + b"[" * 5000,
        b'{"mcpServers": {"a": {}}' + b" " * (1024 * 1024) + b"}",
        b'{"mcpServers": {"": {}, "\\u0007": {}}}',
    ],
)
def test_a_broken_mcp_config_is_there_and_names_no_servers(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".mcp.json").write_bytes(content)
    facts = read_facts(str(tmp_path))
    assert facts.has_mcp_config
    assert facts.mcp_servers == ()


def test_names_of_servers_are_bounded_and_printable(tmp_path: Path) -> None:
    servers: dict[str, object] = {f"{number:03}\n{'x' * 500}": {} for number in range(500)}
    (tmp_path / ".mcp.json").write_text("\ufeff" + json.dumps({"mcpServers": servers}))
    found = read_facts(str(tmp_path)).mcp_servers
    assert len(found) == 100
    assert all(name.isprintable() and len(name) == 100 for name in found)


def _missing(path: Path) -> None:
    pass


def _file(path: Path) -> None:
    path.write_text("")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_missing, "the directory does not exist: "),
        (_dangling, "the directory does not exist: "),
        (_file, "not a directory: "),
        (os.mkfifo, "not a directory: "),
        (_loop, "the directory cannot be used: "),
    ],
)
def test_a_directory_that_cannot_be_used_says_why(
    tmp_path: Path, make: Callable[[Path], None], problem: str
) -> None:
    make(tmp_path / "project")
    facts = read_facts(str(tmp_path / "project"))
    assert not facts.healthy
    assert facts.problem is not None
    assert facts.problem.startswith(f"{problem}{tmp_path / 'project'}")


@pytest.mark.parametrize("path", ["/nul\0byte", "/" + "x" * 5000])
def test_a_path_that_no_file_can_have_is_a_problem_too(path: str) -> None:
    assert not read_facts(path).healthy


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, _device, Path.mkdir, _loop, _dangling])
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    for name in ("CLAUDE.md", "README.md", "pyproject.toml", "package.json", ".mcp.json"):
        make(tmp_path / name)
    facts = read_facts(str(tmp_path))
    assert (facts.healthy, facts.has_claude_md, facts.has_mcp_config) == (True, False, False)
    assert preview(tmp_path, "CLAUDE.md", 40) is None
    assert describe(read_documents(tmp_path), ProjectFacts(healthy=True)) == tmp_path.name


def test_a_huge_document_is_read_to_a_bound(tmp_path: Path) -> None:
    with open(tmp_path / "README.md", "wb") as readme:
        readme.write(b"Keeps the books.\n\n")
        readme.truncate(1 << 30)
    documents = read_documents(tmp_path)
    assert documents.readme is not None
    assert len(documents.readme) == 64 * 1024
    shown = preview(tmp_path, "README.md", 40)
    assert shown == "Keeps the books.\n…"


def test_documents_are_found_under_their_other_usual_names(tmp_path: Path) -> None:
    (tmp_path / "README.rst").write_text("In reST.")
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "CLAUDE.md").write_text("Hidden.")
    documents = read_documents(tmp_path)
    assert (documents.readme, documents.claude_md) == ("In reST.", "Hidden.")
    assert documents.pyproject is None


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", 0, None),
        (b"a\nb\nc\n", 2, "a\nb\n…"),
        (b"a\nb\nc\n", 3, "a\nb\nc"),
        (b"", 40, None),
        (b"\n \n", 40, None),
        (b"\xef\xbb\xbfa\r\n\tb \r\n", 40, "a\n\tb"),
        (b"a\x1b[31m\x00b\xff\n", 40, "a[31mb\ufffd"),
        ("é".encode() * 20000, 40, "é" * 8192 + "\n…"),
        (b"a" + "é".encode() * 20000, 40, "a" + "é" * 8191 + "\n…"),
    ],
)
def test_a_preview_has_so_many_lines_and_no_control_characters(
    tmp_path: Path, content: bytes, lines: int, expected: str | None
) -> None:
    (tmp_path / "CLAUDE.md").write_bytes(content)
    assert preview(tmp_path, "CLAUDE.md", lines) == expected


def test_a_directory_with_very_many_entries_is_asked_for_the_known_names(tmp_path: Path) -> None:
    for number in range(2100):
        (tmp_path / f"file-{number}").touch()
    _touch(tmp_path, "Cargo.toml", "migrations/")
    facts = read_facts(str(tmp_path))
    assert (facts.stacks, facts.dbs) == (("Rust",), ("migrations",))


def test_a_directory_that_may_be_entered_but_not_listed_is_asked_for_the_known_names(
    tmp_path: Path, as_nobody: Callable[[Callable[[], str]], str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    _touch(project, "Cargo.toml")
    project.chmod(stat.S_IXUSR | stat.S_IXOTH)
    assert as_nobody(lambda: repr(read_facts(str(project)).stacks)) == "('Rust',)"


def test_a_directory_that_may_not_be_entered_says_so(
    tmp_path: Path, as_nobody: Callable[[Callable[[], str]], str]
) -> None:
    project = tmp_path / "project"
    project.mkdir(mode=0o000)
    assert as_nobody(lambda: str(read_facts(str(project)).problem)).startswith(
        "no permission to enter the"
    )

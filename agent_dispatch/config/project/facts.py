"""The facts about a project directory: whether an agent can work there, and what it contains.

Known files show which languages and databases a project uses; only `.mcp.json` is read.
"""

import os
import stat
from codecs import BOM_UTF8
from collections.abc import Mapping
from itertools import islice

import msgspec

from agent_dispatch.config.project.claude_files import AGENTS_MD, CLAUDE_MD, MCP_CONFIG
from agent_dispatch.files import read_regular
from agent_dispatch.model.agent import ProjectFacts

_MAX_MCP_CONFIG_BYTES = 1024 * 1024
_MAX_MCP_SERVERS = 100
_MAX_ENTRIES = 2000

_STACKS: Mapping[str, tuple[str, ...]] = {
    "Python": ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile"),
    "Node.js": ("package.json",),
    "Deno": ("deno.json", "deno.jsonc"),
    "Rust": ("Cargo.toml",),
    "Go": ("go.mod",),
    "Java": ("pom.xml", "build.gradle", "build.gradle.kts"),
    ".NET": ("global.json", "Directory.Build.props"),
    "Ruby": ("Gemfile",),
    "PHP": ("composer.json",),
    "Elixir": ("mix.exs",),
    "Swift": ("Package.swift",),
    "C/C++": ("CMakeLists.txt", "meson.build"),
    "Terraform": ("main.tf", "terraform.tf", ".terraform.lock.hcl"),
    "Docker": (
        "Dockerfile",
        "Containerfile",
        "docker-compose.yml",
        "docker-compose.yaml",
        "compose.yml",
        "compose.yaml",
    ),
}
_DBS: Mapping[str, tuple[str, ...]] = {
    "Prisma": ("prisma", "schema.prisma"),
    "Alembic": ("alembic.ini", "alembic"),
    "Drizzle": ("drizzle.config.ts", "drizzle.config.js", "drizzle"),
    "Knex": ("knexfile.js", "knexfile.ts"),
    "Diesel": ("diesel.toml",),
    "Flyway": ("flyway.conf", "flyway.toml"),
    "Supabase": ("supabase",),
    "migrations": ("migrations",),
}
_KNOWN_NAMES = frozenset(
    name for group in (_STACKS, _DBS) for names in group.values() for name in names
)


class _McpConfig(msgspec.Struct):
    servers: dict[str, msgspec.Raw] = msgspec.field(name="mcpServers", default_factory=dict)


def read_facts(directory: str) -> ProjectFacts:
    """Look at a project's directory; a problem with it is one of the facts, not an exception."""
    if problem := directory_problem(directory):
        return ProjectFacts(healthy=False, problem=problem)
    names = _entry_names(directory)
    has_mcp_config = _is_file(os.path.join(directory, MCP_CONFIG))
    return ProjectFacts(
        healthy=True,
        has_claude_md=any(_is_file(os.path.join(directory, n)) for n in CLAUDE_MD + AGENTS_MD),
        has_mcp_config=has_mcp_config,
        mcp_servers=_mcp_servers(directory) if has_mcp_config else (),
        stacks=_matching(_STACKS, names),
        dbs=_matching(_DBS, names),
    )


def directory_problem(directory: str) -> str | None:
    """Return why no agent could work in a directory; None if one could."""
    try:
        # stat() of an entry needs permission to enter the directory.
        os.stat(os.path.join(directory, "."))
    except FileNotFoundError:
        return f"the directory does not exist: {directory}"
    except NotADirectoryError:
        return f"not a directory: {directory}"
    except PermissionError:
        return f"no permission to enter the directory: {directory}"
    except (OSError, ValueError) as error:
        # A loop of links, or a path that is too long or holds a NUL character.
        reason = error.strerror if isinstance(error, OSError) else error
        return f"the directory cannot be used: {directory} ({reason})"
    return None


def _entry_names(directory: str) -> set[str]:
    """List the entries; in a huge or unlistable directory, only the known names."""
    try:
        with os.scandir(directory) as entries:
            names = {entry.name for entry in islice(entries, _MAX_ENTRIES + 1)}
    except OSError:
        names = set()
    if 0 < len(names) <= _MAX_ENTRIES:
        return names
    return {name for name in _KNOWN_NAMES if os.path.lexists(os.path.join(directory, name))}


def _matching(groups: Mapping[str, tuple[str, ...]], names: set[str]) -> tuple[str, ...]:
    return tuple(label for label, files in groups.items() if not names.isdisjoint(files))


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _mcp_servers(directory: str) -> tuple[str, ...]:
    try:
        content, _ = read_regular(os.path.join(directory, MCP_CONFIG), _MAX_MCP_CONFIG_BYTES)
        servers = msgspec.json.decode(content.removeprefix(BOM_UTF8), type=_McpConfig).servers
    except (OSError, ValueError, RecursionError):
        # `file_problems` says what is wrong with the file.
        return ()
    names = ("".join(c for c in name if c.isprintable())[:100].strip() for name in servers)
    return tuple(islice((name for name in names if name), _MAX_MCP_SERVERS))

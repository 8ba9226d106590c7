"""What a project directory says of itself: presence of known files, and a few of them read.

Nothing is started, no file is read beyond a bound, and only regular files are opened at all. A
file that is missing, unreadable or something else than a file counts as not there.
"""

import os
import stat
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import msgspec

from agent_dispatch.core.describe import ProjectDocuments
from agent_dispatch.model.agent import ProjectFacts
from agent_dispatch.project.files import identity, read_regular

_MAX_DOCUMENT_BYTES = 64 * 1024
_MAX_PREVIEW_BYTES = 16 * 1024
_MAX_MCP_CONFIG_BYTES = 1024 * 1024
_MAX_MCP_SERVERS = 100
_MAX_ENTRIES = 2000
_MAX_CACHED = 256
_YOUNG_NS = 100_000_000

_MCP_CONFIG = ".mcp.json"
_VARIANTS: Mapping[str, tuple[str, ...]] = {
    "CLAUDE.md": ("CLAUDE.md", ".claude/CLAUDE.md"),
    "README.md": ("README.md", "readme.md", "Readme.md", "README.rst", "README.txt", "README"),
}

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

_Identity = tuple[int, ...] | None


class _McpConfig(msgspec.Struct):
    servers: dict[str, msgspec.Raw] = msgspec.field(name="mcpServers", default_factory=dict)


class Scanner:
    """Scans directories, and again only those that changed.

    Args:
        now_ns: The clock of the file system, in nanoseconds since the epoch.
    """

    def __init__(self, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._seen: dict[str, tuple[tuple[_Identity, ...], ProjectFacts]] = {}

    def scan(self, directory: str) -> ProjectFacts:
        """Say what `scan` says, from memory if nothing that it depends on has changed."""
        stamp = _stamp(directory)
        seen = self._seen.get(directory)
        if seen is not None and seen[0] == stamp:
            return seen[1]
        facts = scan(Path(directory))
        newest = max((max(part[3:5]) for part in stamp if part is not None), default=0)
        # What changed within the last tick of the clock can change again and look the same.
        if facts.healthy and self._now_ns() - newest > _YOUNG_NS:
            while len(self._seen) >= _MAX_CACHED:
                del self._seen[next(iter(self._seen))]
            self._seen[directory] = (stamp, facts)
        return facts


def scan(directory: Path) -> ProjectFacts:
    """Look at a project's directory; whatever is wrong with it is told, not raised."""
    if problem := directory_problem(str(directory)):
        return ProjectFacts(healthy=False, problem=problem)
    names = _names(str(directory))
    has_mcp_config = _is_file(os.path.join(directory, _MCP_CONFIG))
    return ProjectFacts(
        healthy=True,
        has_claude_md=any(_is_file(os.path.join(directory, n)) for n in _VARIANTS["CLAUDE.md"]),
        has_mcp_config=has_mcp_config,
        mcp_servers=_mcp_servers(directory) if has_mcp_config else (),
        stacks=_found(_STACKS, names),
        dbs=_found(_DBS, names),
    )


def read_documents(directory: Path) -> ProjectDocuments:
    """Read what `core.describe` needs, each document to a bound."""
    return ProjectDocuments(
        name=directory.name,
        claude_md=_read_text(directory, "CLAUDE.md"),
        readme=_read_text(directory, "README.md"),
        pyproject=_read_text(directory, "pyproject.toml"),
        package_json=_read_text(directory, "package.json"),
    )


def preview(directory: Path, filename: str, lines: int) -> str | None:
    """Give the first lines of a document, at most 16 KiB of it.

    Args:
        directory: The project's.
        filename: `CLAUDE.md` and `README.md` are also found under their other usual names.
        lines: How many; none for 0.

    Returns:
        Text without control characters, a last line `…` where more follows; None where there is
        no such file, or nothing in it.
    """
    content = _read(directory, filename, _MAX_PREVIEW_BYTES + 1) if lines > 0 else None
    if content is None:
        return None
    # The cut may go through a character.
    shown = _decode(content[:_MAX_PREVIEW_BYTES]).rstrip("\ufffd").splitlines()
    clean = "\n".join(
        "".join(c for c in line if c.isprintable() or c == "\t").rstrip() for line in shown[:lines]
    ).strip("\n")
    if not clean:
        return None
    is_cut = len(shown) > lines or len(content) > _MAX_PREVIEW_BYTES
    return f"{clean}\n…" if is_cut else clean


def _stamp(directory: str) -> tuple[_Identity, ...]:
    return (
        _identity(directory),
        _identity(f"{directory}/{_MCP_CONFIG}"),
        _identity(f"{directory}/.claude/CLAUDE.md"),
    )


def _identity(path: str) -> _Identity:
    try:
        return identity(os.stat(path))
    except (OSError, ValueError):
        # Missing, not to be seen, or a name that no path can have.
        return None


def directory_problem(directory: str) -> str | None:
    """Say why no agent could work in a directory; None where one could."""
    try:
        # Asking for an entry of it needs the right to enter it.
        os.stat(os.path.join(directory, "."))
    except FileNotFoundError:
        return f"the directory does not exist: {directory}"
    except NotADirectoryError:
        return f"not a directory: {directory}"
    except PermissionError:
        return f"no permission to enter the directory: {directory}"
    except (OSError, ValueError) as error:
        # A loop of links, a name that is too long, or one that no path can have.
        reason = error.strerror if isinstance(error, OSError) else error
        return f"the directory cannot be used: {directory} ({reason})"
    return None


def _names(directory: str) -> set[str]:
    """List the entries; in a huge or unlistable directory, ask for the known names alone."""
    try:
        with os.scandir(directory) as entries:
            names = {entry.name for entry in islice(entries, _MAX_ENTRIES + 1)}
    except OSError:
        names = set()
    if 0 < len(names) <= _MAX_ENTRIES:
        return names
    return {name for name in _KNOWN_NAMES if os.path.lexists(os.path.join(directory, name))}


def _found(groups: Mapping[str, tuple[str, ...]], names: set[str]) -> tuple[str, ...]:
    return tuple(label for label, files in groups.items() if not names.isdisjoint(files))


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _mcp_servers(directory: Path) -> tuple[str, ...]:
    content = _read(directory, _MCP_CONFIG, _MAX_MCP_CONFIG_BYTES) or b"{}"
    try:
        servers = msgspec.json.decode(content.removeprefix(BOM_UTF8), type=_McpConfig).servers
    except (ValueError, RecursionError):
        # The CLI tells its user of a broken file; here it names no servers.
        return ()
    names = ("".join(c for c in name if c.isprintable())[:100].strip() for name in servers)
    return tuple(islice((name for name in names if name), _MAX_MCP_SERVERS))


def _read_text(directory: Path, filename: str) -> str | None:
    content = _read(directory, filename, _MAX_DOCUMENT_BYTES)
    return None if content is None else _decode(content)


def _read(directory: Path, filename: str, limit: int) -> bytes | None:
    for candidate in _VARIANTS.get(filename, (filename,)):
        try:
            return read_regular(os.path.join(directory, candidate), limit)[0]
        except OSError:
            continue
    return None


def _decode(content: bytes) -> str:
    return content.decode(errors="replace").removeprefix("\ufeff")

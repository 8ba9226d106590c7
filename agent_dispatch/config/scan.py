"""What a project directory says of itself: presence of known files, and a few of them read.

Nothing is started, no file is read beyond a bound, and only regular files are opened at all. A
file that is missing, unreadable or something else than a file counts as not there.
"""

import os
import re
import stat
import time
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import msgspec

from agent_dispatch.config.claude_files import (
    AGENTS_MD,
    CLAUDE_MD,
    MCP_CONFIG,
)
from agent_dispatch.core.agents.describe import ProjectDocuments
from agent_dispatch.files import identity, read_regular
from agent_dispatch.model.agent import ProjectFacts

_MAX_DOCUMENT_BYTES = 64 * 1024
_MAX_PREVIEW_BYTES = 16 * 1024
_MAX_MCP_CONFIG_BYTES = 1024 * 1024
_MAX_MCP_SERVERS = 100
_MAX_ENTRIES = 2000
_MAX_CACHED = 256
_YOUNG_NS = 100_000_000

_README = tuple(
    f"{stem}{ending}"
    for ending in (".md", ".markdown", ".rst", ".org", ".adoc", ".asciidoc", ".txt", "")
    for stem in ("README", "readme", "Readme", ".github/README", "docs/README")
    if ending or "/" not in stem
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MAX_IMPORTS = 5

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
    has_mcp_config = _is_file(os.path.join(directory, MCP_CONFIG))
    return ProjectFacts(
        healthy=True,
        has_claude_md=any(_is_file(os.path.join(directory, n)) for n in CLAUDE_MD + AGENTS_MD),
        has_mcp_config=has_mcp_config,
        mcp_servers=_mcp_servers(directory) if has_mcp_config else (),
        stacks=_found(_STACKS, names),
        dbs=_found(_DBS, names),
    )


def read_documents(directory: Path) -> ProjectDocuments:
    """Read what `core.agents.describe` needs, each document to a bound."""
    readme_name, readme = _first(directory, _README)
    return ProjectDocuments(
        name=directory.name,
        claude_md=_instructions(directory, CLAUDE_MD),
        agents_md=_instructions(directory, AGENTS_MD),
        readme=readme,
        readme_name=readme_name,
        pyproject=_first(directory, ("pyproject.toml",))[1],
        package_json=_first(directory, ("package.json",))[1],
        cargo=_first(directory, ("Cargo.toml",))[1],
        composer=_first(directory, ("composer.json",))[1],
        setup_cfg=_first(directory, ("setup.cfg",))[1],
        go_doc=_first(directory, ("doc.go", "main.go", f"{directory.name}.go"))[1],
    )


def preview(directory: Path, filename: str, lines: int) -> str | None:
    """Give the first lines of a document, at most 16 KiB of it.

    Args:
        directory: The project's.
        filename: `README.md` is also found under its other usual names. `CLAUDE.md` stands for
            what Claude Code is told, which may come from AGENTS.md.
        lines: How many; none for 0.

    Returns:
        Text without control characters, a last line `…` where more follows; None where there is
        no such file, or nothing in it.
    """
    if lines <= 0:
        return None
    # A whole character more than is shown, so that the cut is known.
    bound = _MAX_PREVIEW_BYTES + 4
    if filename == "CLAUDE.md":
        text = _instructions(directory, CLAUDE_MD + AGENTS_MD, bound)
    else:
        names = _README if filename == "README.md" else (filename,)
        text = _first(directory, names, bound)[1]
    if text is None:
        return None
    shown = _cut_bytes(text, _MAX_PREVIEW_BYTES)
    shown_lines = shown.splitlines()
    clean = "\n".join(
        "".join(c for c in line if c.isprintable() or c == "\t").rstrip()
        for line in shown_lines[:lines]
    ).strip("\n")
    if not clean:
        return None
    is_cut = len(shown_lines) > lines or len(shown) < len(text)
    return f"{clean}\n…" if is_cut else clean


def _cut_bytes(text: str, limit: int) -> str:
    """Cut a text to so many bytes of UTF-8, between characters."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _stamp(directory: str) -> tuple[_Identity, ...]:
    return (
        _identity(directory),
        _identity(f"{directory}/{MCP_CONFIG}"),
        # What appears or goes away in there.
        _identity(f"{directory}/.claude"),
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
    content = _read(directory, MCP_CONFIG, _MAX_MCP_CONFIG_BYTES)[0] or b"{}"
    try:
        servers = msgspec.json.decode(content.removeprefix(BOM_UTF8), type=_McpConfig).servers
    except (ValueError, RecursionError):
        # `file_problems` tells what is wrong; here it names no servers.
        return ()
    names = ("".join(c for c in name if c.isprintable())[:100].strip() for name in servers)
    return tuple(islice((name for name in names if name), _MAX_MCP_SERVERS))


def _instructions(
    directory: Path, names: tuple[str, ...], limit: int = _MAX_DOCUMENT_BYTES
) -> str | None:
    """The first of these files that has content; where it only imports others, what they say."""
    name, text = _first(directory, names, limit)
    for _ in range(_MAX_IMPORTS):
        if text is None:
            break
        content = _COMMENT.sub("", text).split()
        if not content or not all(word.startswith("@") for word in content):
            break
        folder = os.path.dirname(name)
        paths = (os.path.normpath(os.path.join(folder, word[1:])) for word in content)
        # Files elsewhere are not the project's to show.
        inside = [path for path in paths if not path.startswith(("/", "..", "~"))]
        name, imported = _first(directory, tuple(inside[:_MAX_IMPORTS]), limit)
        if imported is None:
            break
        text = imported
    return text


def _first(
    directory: Path, names: tuple[str, ...], limit: int = _MAX_DOCUMENT_BYTES
) -> tuple[str, str | None]:
    """The name and text of the first of these files that can be read and is not blank."""
    for name in names:
        content, is_cut = _read(directory, name, limit)
        if content is not None:
            text = _decode(content, is_cut=is_cut)
            if text.strip():
                return name, text
    return "", None


def _read(directory: Path, filename: str, limit: int) -> tuple[bytes | None, bool]:
    try:
        content, _ = read_regular(os.path.join(directory, filename), limit)
    except (OSError, ValueError):
        # ValueError: an import may name what no path can have.
        return None, False
    return content, len(content) == limit


def _decode(content: bytes, *, is_cut: bool) -> str:
    """Decode UTF-8, UTF-16 with or without its mark, or else Latin-1 as Windows extends it."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return content.decode("utf-16", "ignore")
    for start, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        half = content[start:200:2]
        if (
            len(half) > 3
            and half.count(0) > len(half) * 0.8
            and 0 not in content[1 - start : 200 : 2]
        ):
            return content.decode(encoding, "ignore")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # The cut may go through a character.
        if is_cut and error.start > len(content) - 4:
            return content[: error.start].decode().removeprefix("\ufeff")
    if b"\0" in content:
        return content.decode(errors="replace")
    return content.decode("cp1252", "replace")

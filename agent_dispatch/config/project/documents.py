"""The documents of a project: CLAUDE.md and AGENTS.md, the README, and its manifests.

No file is read beyond a bound, and only regular files are opened. A file that is missing or cannot
be read counts as missing.
"""

import os
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from agent_dispatch.config.project.claude_files import AGENTS_MD, CLAUDE_MD
from agent_dispatch.config.project.facts import read_facts
from agent_dispatch.core.agents.describe import ProjectDocuments, describe
from agent_dispatch.files import read_regular

_MAX_DOCUMENT_BYTES = 64 * 1024
_MAX_PREVIEW_BYTES = 16 * 1024
_README = tuple(
    f"{stem}{ending}"
    for ending in (".md", ".markdown", ".rst", ".org", ".adoc", ".asciidoc", ".txt", "")
    for stem in ("README", "readme", "Readme", ".github/README", "docs/README")
    if ending or "/" not in stem
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MAX_IMPORTS = 5


def description_of(directory: str) -> str:
    """Make a description of a project from its files; without any, from its name."""
    return describe(read_documents(Path(directory)), read_facts(directory))


def read_documents(directory: Path) -> ProjectDocuments:
    """Read what `core.agents.describe` needs, up to 64 KiB of each document."""
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
    """Return the first lines of a document, at most 16 KiB of it.

    Args:
        directory: The project's.
        filename: `README.md` is also found under its other usual names. `CLAUDE.md` means the
            instructions that Claude Code reads, which may be in AGENTS.md.
        lines: At most so many lines; 0 for none.

    Returns:
        Text without control characters, with a last line `…` if more follows. None if the file
        is missing or empty.
    """
    if lines <= 0:
        return None
    # One more character than is shown tells whether the text was cut.
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
    """Cut a text to at most `limit` bytes of UTF-8, between characters."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _instructions(
    directory: Path, names: tuple[str, ...], limit: int = _MAX_DOCUMENT_BYTES
) -> str | None:
    """Return the first of these files that has content; if it only imports others, the import."""
    name, text = _first(directory, names, limit)
    for _ in range(_MAX_IMPORTS):
        if text is None:
            break
        content = _COMMENT.sub("", text).split()
        if not content or not all(word.startswith("@") for word in content):
            break
        folder = os.path.dirname(name)
        paths = (os.path.normpath(os.path.join(folder, word[1:])) for word in content)
        # Files outside the project are not shown.
        inside = [path for path in paths if not path.startswith(("/", "..", "~"))]
        name, imported = _first(directory, tuple(inside[:_MAX_IMPORTS]), limit)
        if imported is None:
            break
        text = imported
    return text


def _first(
    directory: Path, names: tuple[str, ...], limit: int = _MAX_DOCUMENT_BYTES
) -> tuple[str, str | None]:
    """Return name and text of the first of these files that can be read and is not blank."""
    for name in names:
        try:
            content, _ = read_regular(os.path.join(directory, name), limit)
        except (OSError, ValueError):
            # ValueError: an import may hold a NUL character.
            continue
        text = _decode(content, is_cut=len(content) == limit)
        if text.strip():
            return name, text
    return "", None


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
        # The limit may cut through a character.
        if is_cut and error.start > len(content) - 4:
            return content[: error.start].decode().removeprefix("\ufeff")
    if b"\0" in content:
        return content.decode(errors="replace")
    return content.decode("cp1252", "replace")

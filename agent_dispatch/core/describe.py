"""One line on what a project is, made from its own documents."""

import re
import tomllib
from collections.abc import Iterator

import msgspec

from agent_dispatch.model.agent import ProjectFacts

_MAX_HEAD_CHARS = 300
_MAX_CHARS = 600
_MAX_NAMES = 12
_MAX_LINES = 2000
_MAX_PARAGRAPH_CHARS = 2000
_MIN_ASCII_CHARS = 10
_MIN_OTHER_CHARS = 4

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE_OR_UNDERLINE = re.compile(r"[-=*_~^#\s]{3,}|=+|-+")
_OTHER_BLOCK = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s|[|@]|\.\. |> ?\[!|\[[^\[\]]{1,100}\]:")
_IMAGE = re.compile(r"!\[[^\[\]]{0,300}\](?:\([^()]{0,500}\)|\[[^\[\]]{0,100}\])?")
_LINK = re.compile(r"\[([^\[\]]{0,500})\](?:\([^()]{0,500}\)|\[[^\[\]]{0,100}\])")
_HTML_HEADING = re.compile(r"<h[1-6]\b[^<>]{0,500}>.{0,500}?</h[1-6]>", re.IGNORECASE)
_TAG = re.compile(r"<[/a-zA-Z!][^<>]{0,500}>")
_EMPHASIS = re.compile(r"\*{1,3}|`+|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)")
_BOILERPLATE = (
    "this file provides guidance to",
    "guidance for claude code",
    "instructions for claude code",
)


class ProjectDocuments(msgspec.Struct, frozen=True, kw_only=True):
    """What a project's own documents say, each cut to a bound; None where one is missing."""

    name: str
    """Of the project's directory."""
    claude_md: str | None = None
    readme: str | None = None
    pyproject: str | None = None
    package_json: str | None = None


class _Package(msgspec.Struct):
    description: str = ""


def describe(documents: ProjectDocuments, facts: ProjectFacts) -> str:
    """Say in one line what an agent of this project knows and has.

    The first meaningful paragraph of CLAUDE.md; without one, the first of the README; without one,
    the description in `pyproject.toml` or `package.json`; without any, the directory's name. Then
    the MCP servers, stacks and databases that were found.

    Returns:
        At most 600 characters to print, never empty.
    """
    head = (
        _first_paragraph(documents.claude_md)
        or _first_paragraph(documents.readme)
        or _pyproject_description(documents.pyproject)
        or _package_description(documents.package_json)
        or _printable(documents.name)
        or "project"
    )
    text = _cut(head, _MAX_HEAD_CHARS)
    found = (("MCP", facts.mcp_servers), ("Stack", facts.stacks), ("DB", facts.dbs))
    for label, names in found:
        if any(map(_printable, names)):
            stop = "" if text.endswith((".", "!", "?", "…", "。")) else "."
            text = f"{text}{stop} {label}: {_enumerate(names)}"
    return _cut(text, _MAX_CHARS)


def _enumerate(names: tuple[str, ...]) -> str:
    printable = [text for name in names if (text := _printable(name))]
    shown = [_cut(text, 40) for text in printable[:_MAX_NAMES]]
    if len(printable) > _MAX_NAMES:
        shown.append(f"and {len(printable) - _MAX_NAMES} more")
    return ", ".join(shown)


def _first_paragraph(text: str | None) -> str:
    for paragraph in _paragraphs(text or ""):
        prose = _TAG.sub(" ", _HTML_HEADING.sub("", paragraph[:_MAX_PARAGRAPH_CHARS]))
        # Badges are images inside links: without the image, a link around nothing.
        prose = _IMAGE.sub("", prose)
        is_menu = not any(map(str.isalpha, _LINK.sub("", prose)))
        plain = _printable(_EMPHASIS.sub("", _LINK.sub(r"\1", prose))).strip("|·• ")
        if not is_menu and _is_meaningful(plain):
            return plain
    return ""


def _paragraphs(text: str) -> Iterator[str]:
    """Give the paragraphs of prose in a Markdown text: no list, code, table or heading."""
    lines: list[str] = []
    skips_block = False
    for line in _prose_lines(text):
        bare = line.strip()
        if not bare:
            if lines:
                yield " ".join(lines)
            lines, skips_block = [], False
        elif _RULE_OR_UNDERLINE.fullmatch(bare):
            # An underline makes a heading of the lines above it.
            lines = []
        elif bare.startswith("#"):
            if lines:
                yield " ".join(lines)
            lines, skips_block = [], False
        elif skips_block or _OTHER_BLOCK.match(bare) or (not lines and line[0] in " \t"):
            if lines:
                yield " ".join(lines)
            lines, skips_block = [], True
        else:
            lines.append(bare[:_MAX_PARAGRAPH_CHARS].lstrip("> "))
    if lines:
        yield " ".join(lines)


def _prose_lines(text: str) -> Iterator[str]:
    """Leave out front matter, comments and fenced code; what they were counts as a blank line."""
    fence = ""
    in_comment = False
    lines = text.removeprefix("\ufeff").splitlines()[:_MAX_LINES]
    start = 0
    if lines and lines[0].rstrip() in ("---", "+++") and lines[0].rstrip() in lines[1:]:
        start = lines.index(lines[0].rstrip(), 1) + 1
    for line in lines[start:]:
        if in_comment:
            in_comment = "-->" not in line
        elif fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif opening := _FENCE.match(line):
            fence = opening[1]
        elif "<!--" in line:
            before, _, rest = line.partition("<!--")
            in_comment = "-->" not in rest
            yield before + rest.partition("-->")[2]
            continue
        else:
            yield line
            continue
        yield ""


def _is_meaningful(text: str) -> bool:
    if text.casefold().startswith(_BOILERPLATE) or text.endswith(":"):
        return False
    minimum = _MIN_ASCII_CHARS if text.isascii() else _MIN_OTHER_CHARS
    return len(text) >= minimum and any(map(str.isalpha, text))


def _pyproject_description(text: str | None) -> str:
    try:
        data = tomllib.loads(text or "")
    except (ValueError, RecursionError):
        # Cut at the bound, or broken: it says nothing then.
        return ""
    tool = data.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    for table in (data.get("project"), poetry):
        description = table.get("description") if isinstance(table, dict) else None
        if isinstance(description, str) and _printable(description):
            return _printable(description)
    return ""


def _package_description(text: str | None) -> str:
    try:
        package = msgspec.json.decode(text or "{}", type=_Package)
    except (ValueError, RecursionError):
        return ""
    return _printable(package.description)


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    start = text[: limit - 1]
    words = start.rpartition(" ")[0]
    return f"{(words if len(words) > limit // 2 else start).rstrip(' ,;:.')}…"

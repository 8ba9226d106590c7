"""Describes a project in one line, from its own documents."""

import configparser
import html
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from agent_dispatch.core.agents.phrases import (
    FILE_MENTION,
    MENU_BORDER,
    MOVED,
    NOT_ABOUT,
    NOTE,
    RULE,
    SENTENCE_END,
)
from agent_dispatch.core.agents.prose import MAX_PARAGRAPH_CHARS, as_markdown, paragraphs
from agent_dispatch.model.agent import ProjectFacts

_MAX_HEAD_CHARS = 300
_MAX_CHARS = 600
_MAX_NAMES = 12
_MIN_ASCII_CHARS = 10
_MIN_OTHER_CHARS = 4

_IMAGE = re.compile(r"!\[[^\[\]]{0,300}\](?:\([^()]{0,500}\)|\[[^\[\]]{0,100}\])?")
_LINK = re.compile(r"\[([^\[\]]{0,500})\](?:\([^()]{0,500}\)|\[[^\[\]]{0,100}\])")
_HTML_HEADING = re.compile(r"<h[1-6]\b[^<>]{0,500}>.{0,500}?</h[1-6]>", re.IGNORECASE)
_TAG = re.compile(r"<[/a-zA-Z!][^<>]{0,500}>")
_EMPHASIS = re.compile(r"\*{1,3}|`+|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)")


class ProjectDocuments(msgspec.Struct, frozen=True, kw_only=True):
    """The documents of a project, each cut to a bound; None if one is missing."""

    name: str
    """Of the project's directory."""
    claude_md: str | None = None
    """The instructions for Claude Code: CLAUDE.md, or its imports if it has nothing else."""
    agents_md: str | None = None
    readme: str | None = None
    readme_name: str = "README.md"
    """Its suffix gives the markup language."""
    pyproject: str | None = None
    package_json: str | None = None
    cargo: str | None = None
    composer: str | None = None
    setup_cfg: str | None = None
    go_doc: str | None = None
    """The Go file with the comment for the package or command."""


def describe(documents: ProjectDocuments, facts: ProjectFacts) -> str:
    """Describe a project in one line.

    The line begins with the first sentences about the project, in the order of `_candidates`, or
    with the directory's name. The MCP servers, stacks and databases follow.

    Returns:
        At most 600 printable characters, never empty.
    """
    head = next(filter(None, _candidates(documents)), "") or _printable(documents.name) or "project"
    text = _cut(head, _MAX_HEAD_CHARS)
    found = (("MCP", facts.mcp_servers), ("Stack", facts.stacks), ("DB", facts.dbs))
    for label, names in found:
        if any(map(_printable, names)):
            stop = "" if text.endswith((".", "!", "…", "。")) else "."
            text = f"{text}{stop} {label}: {_enumerate(names)}"
    return _cut(text, _MAX_CHARS)


def _enumerate(names: tuple[str, ...]) -> str:
    printable = [text for name in names if (text := _printable(name))]
    shown = [_cut(text, 40) for text in printable[:_MAX_NAMES]]
    if len(printable) > _MAX_NAMES:
        shown.append(f"and {len(printable) - _MAX_NAMES} more")
    return ", ".join(shown)


def _candidates(documents: ProjectDocuments) -> Iterator[str]:
    """Yield possible descriptions, the best first; empty if a document has none."""
    claude_md = documents.claude_md or ""
    agents_md = documents.agents_md or ""
    readme = as_markdown(documents.readme or "", documents.readme_name)
    yield _from_prose(claude_md, is_instructions=True)
    yield _from_prose(agents_md, is_instructions=True)
    yield _from_prose(readme)
    manifests: tuple[tuple[Callable[[str], Iterator[object]], str | None], ...] = (
        (_pyproject_descriptions, documents.pyproject),
        (_json_descriptions, documents.package_json),
        (_cargo_descriptions, documents.cargo),
        (_json_descriptions, documents.composer),
        (_setup_cfg_descriptions, documents.setup_cfg),
        (_go_descriptions, documents.go_doc),
    )
    for descriptions, text in manifests:
        for description in descriptions(text or ""):
            if isinstance(description, str):
                yield _about_project(description[:MAX_PARAGRAPH_CHARS], needs_words=False)
    yield _from_prose(readme, is_deep=True)
    yield _from_prose(claude_md, is_instructions=True, is_deep=True)
    yield _from_prose(agents_md, is_instructions=True, is_deep=True)


def _from_prose(text: str, *, is_instructions: bool = False, is_deep: bool = False) -> str:
    for paragraph, deep in paragraphs(text):
        if deep is is_deep:
            about = _about_project(paragraph, is_instructions=is_instructions)
            if about:
                return about
    return ""


def _about_project(
    paragraph: str, *, is_instructions: bool = False, needs_words: bool = True
) -> str:
    """Return the sentences of a paragraph that are about the project; empty if none is."""
    prose = _TAG.sub(" ", _HTML_HEADING.sub("", paragraph[:MAX_PARAGRAPH_CHARS]))
    # A badge is an image inside a link; without the image, the link is empty.
    prose = html.unescape(_IMAGE.sub("", prose))
    unlinked = _LINK.sub("", prose)
    if not any(map(str.isalpha, unlinked)) or NOTE.match(prose):
        return ""
    plain = _printable(_EMPHASIS.sub("", _LINK.sub(r"\1", prose))).strip("|·•→ ")
    if _is_menu(plain):
        return ""
    minimum = _MIN_ASCII_CHARS if plain.isascii() else _MIN_OTHER_CHARS
    if needs_words and plain.isascii() and plain.count(" ") < 2 and plain[-1:] not in ".!?":
        # One or two words alone are a heading.
        return ""
    kept: list[str] = []
    for sentence in SENTENCE_END.split(plain):
        is_about = not (
            NOT_ABOUT.match(sentence.lstrip("→➡👉-*# "))
            or FILE_MENTION.search(sentence)
            or MOVED.search(sentence)
            or (is_instructions and RULE.match(sentence))
            # It introduces a list, or asks the reader a question.
            or sentence.endswith((":", "\N{FULLWIDTH COLON}", "?", "\N{FULLWIDTH QUESTION MARK}"))
            or not any(map(str.isalpha, sentence))
        )
        if is_about:
            kept.append(sentence)
        elif kept:
            break
    text = _joined(kept)
    return text if len(text) >= minimum else ""


def _joined(sentences: list[str]) -> str:
    """Join sentences; in CJK there is no space between them."""
    text = ""
    for sentence in sentences:
        text += sentence if not text or not text[-1].isascii() else f" {sentence}"
    return text


def _is_menu(text: str) -> bool:
    parts = [part for part in MENU_BORDER.split(text) if part]
    return len(parts) > 1 and all(len(part) <= 30 and part.count(" ") < 3 for part in parts)


def _toml(text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        # It is broken, perhaps because it was cut at the bound.
        return {}


def _in(data: object, *keys: str) -> object:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _pyproject_descriptions(text: str) -> Iterator[object]:
    data = _toml(text)
    yield _in(data, "project", "description")
    yield _in(data, "tool", "poetry", "description")


def _cargo_descriptions(text: str) -> Iterator[object]:
    data = _toml(text)
    yield _in(data, "package", "description")
    yield _in(data, "workspace", "package", "description")


def _json_descriptions(text: str) -> Iterator[object]:
    try:
        data = msgspec.json.decode(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return
    yield _in(data, "description")


def _setup_cfg_descriptions(text: str) -> Iterator[object]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    for key in ("description", "summary"):
        yield parser.get("metadata", key, fallback=None)


def _go_descriptions(text: str) -> Iterator[object]:
    """Yield the comment above the `package` clause; it usually begins with the package's name."""
    above = re.split(r"(?m)^package\s", text, maxsplit=1)[0]
    for paragraph in re.split(r"\n\s*(?://)?\s*\n", above):
        words = " ".join(re.sub(r"(?m)^\s*(?://|/\*|\*/|\*)\s?", "", paragraph).split())
        if match := re.match(r"(?:Package|Command|The) (?P<text>\S+ .*)", words):
            yield match["text"].removesuffix("*/").strip()


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    start = text[: limit - 1]
    words = start.rpartition(" ")[0]
    return f"{(words if len(words) > limit // 2 else start).rstrip(' ,;:.')}…"

"""Which of a project's files Claude Code reads, and which it silently ignores.

Measured with Claude Code 2.1.330. AGENTS.md is sent if no CLAUDE.md and no CLAUDE.local.md has
content. `.mcp.json` must be JSON in UTF-8: no comments, no trailing comma. A settings file may also
be UTF-16 with a byte order mark. One wrong value of those checked below makes the CLI ignore the
whole settings file.
"""

import json
import os
import re
import stat
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from typing import NoReturn

import msgspec

from agent_dispatch.files import read_regular
from agent_dispatch.model.config import PERMISSION_MODES

MCP_CONFIG = ".mcp.json"
CLAUDE_MD = ("CLAUDE.md", ".claude/CLAUDE.md", "CLAUDE.local.md")
AGENTS_MD = ("AGENTS.md", ".claude/AGENTS.md")
SETTINGS = (".claude/settings.json", ".claude/settings.local.json")

_MAX_BYTES = 1024 * 1024
_MAX_NAMED = 5
_NO_SERVERS = "Claude Code starts none of its MCP servers"
_NO_SETTINGS = "Claude Code ignores the whole file: permission rules (deny too), hooks and env"


class FileProblem(msgspec.Struct, frozen=True):
    """What is wrong with one file, where, and with what effect."""

    path: str
    """Below the project's directory."""
    what: str
    effect: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = "" if self.line is None else f" line {self.line}, column {self.column}"
        return f"{self.path}{place}: {self.what}. {self.effect}."


class _UnreadableError(Exception):
    """Claude Code cannot use the text."""

    def __init__(self, what: str, text: str = "", offset: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.line, self.column = _place(text, offset)


def _place(text: str, offset: int | None) -> tuple[int | None, int | None]:
    """Return line and column of an offset."""
    if offset is None:
        return None, None
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def instruction_files(directory: str) -> tuple[str, ...]:
    """List the files with instructions that Claude Code sends; empty files do not count."""
    for names in (CLAUDE_MD, AGENTS_MD):
        if found := tuple(name for name in names if _size(os.path.join(directory, name)) > 0):
            return found
    return ()


def file_problems(directory: str) -> tuple[FileProblem, ...]:
    """List the configuration files of a project that Claude Code cannot use, and why."""
    return (
        *_problems(directory, MCP_CONFIG, _NO_SERVERS),
        *(problem for name in SETTINGS for problem in _problems(directory, name, _NO_SETTINGS)),
    )


def _problems(directory: str, name: str, effect: str) -> Iterator[FileProblem]:
    try:
        content, _ = read_regular(os.path.join(directory, name), _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield FileProblem(name, f"it cannot be read ({error.strerror})", effect)
        return
    is_mcp = name == MCP_CONFIG
    if not content.strip() or len(content) >= _MAX_BYTES:
        # It is empty, or too large to check here.
        return
    try:
        text = _decoded(content, takes_utf16=not is_mcp)
        data = _parsed(text)
        if not isinstance(data, dict):
            raise _UnreadableError("it holds no JSON object", text, len(text) - len(text.lstrip()))
        if is_mcp:
            _check_servers(data, text)
        else:
            _check_settings(data, text)
    except _UnreadableError as error:
        yield FileProblem(name, error.what, effect, error.line, error.column)
    except RecursionError:
        # Claude Code can parse deeper nesting than Python.
        return
    else:
        if is_mcp:
            yield from _left_out_servers(data, text)


def _decoded(content: bytes, *, takes_utf16: bool) -> str:
    if content.startswith(BOM_UTF16_LE) and takes_utf16:
        return content.decode("utf-16", "replace")
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in content[:4]:
        raise _UnreadableError("it is in UTF-16; save it as UTF-8", "", 0)
    # Claude Code also replaces invalid bytes inside strings.
    return content.removeprefix(BOM_UTF8).decode(errors="replace")


def _parsed(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _syntax_error(text, error) from None


def _refuse_constant(name: str) -> NoReturn:
    raise _UnreadableError(f"{name} is not JSON")


def _syntax_error(text: str, error: json.JSONDecodeError) -> _UnreadableError:
    # Versions of Python report a trailing comma at the comma, after it, or at the bracket.
    offset = error.pos
    comma = re.compile(r",\s*[}\]]").match(text, text.rfind(",", 0, offset + 1))
    if comma is not None and comma.end() > offset:
        return _UnreadableError("a comma before the closing bracket", text, comma.start())
    rest = text[offset : offset + 200].lstrip(", \t\r\n")
    start = text.find(rest, offset) if rest else offset
    if rest.startswith(("//", "/*", "#")):
        return _UnreadableError("a comment; JSON has none", text, start)
    if not rest:
        return _UnreadableError("it ends too early: a bracket or quote is not closed", text, offset)
    if rest.startswith("'"):
        return _UnreadableError("single quotes; JSON needs double ones", text, start)
    if text.startswith(("<<<<<<<", "=======", ">>>>>>>"), start):
        return _UnreadableError("a merge conflict is not resolved", text, start)
    return _UnreadableError(f"not JSON: {error.msg}", text, offset)


def _check_servers(data: Mapping[str, object], text: str) -> None:
    servers = data.get("mcpServers")
    if isinstance(servers, dict) or not data:
        return
    if "mcpServers" in data:
        raise _UnreadableError("`mcpServers` is not an object", text, _key(text, "mcpServers"))
    if "servers" in data:
        what = "its servers are under `servers`, the key of VS Code; rename it to `mcpServers`"
        raise _UnreadableError(what, text, _key(text, "servers"))
    raise _UnreadableError("it has no `mcpServers`; put the servers into that key")


def _left_out_servers(data: Mapping[str, object], text: str) -> Iterator[FileProblem]:
    servers = data.get("mcpServers")
    if not isinstance(servers, dict):
        return
    bad = [(name, what) for name, entry in servers.items() if (what := _entry_problem(entry))]
    vs_code = data.get("servers")
    if isinstance(vs_code, dict):
        bad += [(name, "it is under `servers`") for name in vs_code if name not in servers]
    for name, what in bad[:_MAX_NAMED]:
        shown = "".join(c for c in name if c.isprintable())[:100]
        effect = "Claude Code does not start this server"
        yield FileProblem(MCP_CONFIG, f"`{shown}`: {what}", effect, *_place(text, _key(text, name)))


def _entry_problem(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return "it is not an object"
    if not entry or entry.get("type", "stdio") != "stdio":
        # An empty entry is a placeholder.
        return None
    if not isinstance(entry.get("command"), str):
        if isinstance(entry.get("url"), str):
            return 'it has a `url` and no type; add `"type": "http"`'
        return "it has no `command`"
    if not isinstance(entry.get("args", []), list):
        return "`args` is not a list"
    return None


def _check_settings(data: Mapping[str, object], text: str) -> None:
    if not isinstance(data.get("model", ""), str):
        raise _UnreadableError("`model` is not a string", text, _key(text, "model"))
    permissions = data.get("permissions", {})
    if not isinstance(permissions, dict):
        raise _UnreadableError("`permissions` is not an object", text, _key(text, "permissions"))
    for key in ("allow", "deny", "ask"):
        if not isinstance(permissions.get(key, []), list):
            raise _UnreadableError(f"`permissions.{key}` is not a list", text, _key(text, key))
    mode = permissions.get("defaultMode", "default")
    if mode not in PERMISSION_MODES:
        what = f"`permissions.defaultMode` is none of {', '.join(PERMISSION_MODES)}"
        raise _UnreadableError(what, text, _key(text, "defaultMode"))


def _key(text: str, name: str) -> int | None:
    found = re.search(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:", text)
    return None if found is None else found.start()


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0

"""What else Claude Code has under our name, and what it forbids: values and files in, findings out.

Measured with Claude Code 2.1.330: a server of local scope (`projects` of `.claude.json`) outranks
one of project scope (`.mcp.json`), which outranks one of user scope.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from agent_dispatch.cli.registration import SERVER_NAME, command_line, starts_us

_MAX_BYTES = 4 * 1024 * 1024
_DENIES_ALL = re.compile(rf"mcp__(?:\*|{SERVER_NAME}(?:__\*)?|{SERVER_NAME}\*)?(?:\(.*\))?|\*")
_DENIES_SOME = re.compile(rf"mcp__{SERVER_NAME}__.+")


class Shadow(msgspec.Struct, frozen=True):
    """A registration that outranks the one of user scope in a directory."""

    directory: str
    scope: str
    """`local` or `project`, as `claude mcp` takes it."""
    command: str
    ours: bool
    """It starts agent-dispatch too, though another one."""


class Denial(msgspec.Struct, frozen=True):
    """A rule of `permissions.deny` about our tools."""

    file: str
    rule: str
    whole: bool
    """It denies all of them."""


def shadows(
    claude_config: Mapping[str, object], directories: Iterable[str], present: object
) -> Iterator[Shadow]:
    """The registrations that outrank `present`, other than those that equal it.

    Args:
        claude_config: Claude Code's own configuration.
        directories: Where sessions are run; projects that Claude Code knows are looked at too.
        present: The registration of user scope.
    """
    projects = _mapping(claude_config.get("projects"))
    for directory, project in projects.items():
        yield from _shadow(directory, "local", _mapping(project), present)
    seen: set[Path] = set()
    for start in (*directories, *projects):
        # Claude Code reads those of the folders above, too.
        for folder in (Path(start), *Path(start).parents):
            if folder in seen:
                break
            seen.add(folder)
            document = _read(folder / ".mcp.json")
            yield from _shadow(str(folder), "project", document, present)


def _shadow(
    directory: str, scope: str, document: Mapping[str, object], present: object
) -> Iterator[Shadow]:
    found = _mapping(document.get("mcpServers")).get(SERVER_NAME)
    if found is not None and found != present:
        ours = isinstance(found, Mapping) and starts_us(found)
        yield Shadow(directory, scope, command_line(found), ours)


def other_names(claude_config: Mapping[str, object]) -> list[str]:
    """The names besides our own under which agent-dispatch is registered at user scope."""
    servers = _mapping(claude_config.get("mcpServers"))
    return [
        name
        for name, server in servers.items()
        if name != SERVER_NAME and isinstance(server, Mapping) and starts_us(server)
    ]


def settings_of_user(claude_directory: Path) -> list[Path]:
    """The settings that hold in every session: the user's and the machine's."""
    managed = "/etc/claude-code"
    if sys.platform == "darwin":
        managed = "/Library/Application Support/ClaudeCode"
    return [claude_directory / "settings.json", Path(managed) / "managed-settings.json"]


def settings_of_project(directory: str) -> list[Path]:
    """The settings that hold for sessions in a directory."""
    folder = Path(directory) / ".claude"
    return [folder / "settings.json", folder / "settings.local.json"]


def denials(files: Iterable[Path]) -> Iterator[Denial]:
    """The rules in these settings that deny our tools."""
    for file in files:
        settings = _read(file)
        rules = _mapping(settings.get("permissions")).get("deny")
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, str) and (whole := _denies(rule)) is not None:
                yield Denial(str(file), rule, whole)
        servers = settings.get("deniedMcpServers")
        for server in servers if isinstance(servers, list) else ():
            if _mapping(server).get("serverName") == SERVER_NAME:
                yield Denial(str(file), f"deniedMcpServers: {SERVER_NAME}", whole=True)


def _denies(rule: str) -> bool | None:
    """Whether a rule denies all of our tools; None: none of them."""
    if _DENIES_ALL.fullmatch(rule):
        return True
    return False if _DENIES_SOME.fullmatch(rule) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _read(file: Path) -> Mapping[str, object]:
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(_MAX_BYTES), type=dict[str, object])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        # Most are not there; one that cannot be read holds nothing for Claude Code either.
        return {}

"""MCP clients other than Claude Code: where each keeps its servers, and what an entry looks like.

The table comes from the documentation and sources that each row names (November 2026); none of
these clients was run. If a client limits tool calls, our entry sets a limit longer than any call of
ours. If a client hides variables from its servers, our entry names those to pass on, without their
values.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

ENTRY_NAME = "agent-dispatch"
LIMIT_S = 7260
"""The longest call of ours takes 7200 s; the rest is for starting and ending it."""

_PASSED_ON = ("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "XDG_CONFIG_HOME")
_PASSED_ON_PREFIXES = ("ANTHROPIC_", "AGENT_DISPATCH_")
_OF_ONE_RUN = ("_DEPTH", "_RUN", "_JOB", "_EXCLUSIVE", "_HOSTS", "_TREE")
"""Endings of the variables that belong to one run."""


class Passing(Enum):
    """How an entry tells a client to pass a variable on."""

    NOT = "not"
    """The client passes its own environment, or has no way to name a variable."""
    NAMES = "names"
    """A list of names, `env_vars`."""
    REFERENCES = "references"
    """A table `env` of `"X": "$X"`."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """How one client is configured for a server."""

    title: str
    files: Sequence[str]
    """Where the file may be; the first that exists, or else the first. `$X` is a folder that a
    variable names; `~` is the home directory."""
    table: str
    """The key that holds the servers."""
    limit_key: str = ""
    """The key of the limit on one tool call; empty: there is none."""
    limit_unit_s: float = 1
    """How long one unit of the limit is."""
    fixed: Mapping[str, Any] = {}
    """Keys that every entry has."""
    one_command: bool = False
    """Whether program and arguments are one array."""
    passing: Passing = Passing.NOT
    source: str

    @property
    def is_toml(self) -> bool:
        """Whether its file is TOML; else it is JSON with comments."""
        return self.files[0].endswith(".toml")


def _application_file(path: str) -> str:
    folder = "~/Library/Application Support" if sys.platform == "darwin" else "$XDG_CONFIG_HOME"
    return f"{folder}/{path}"


CLIENTS: Mapping[str, Client] = {
    "cursor": Client(
        title="Cursor",
        files=("~/.cursor/mcp.json",),
        table="mcpServers",
        source="https://cursor.com/docs/mcp",
    ),
    "vscode": Client(
        title="VS Code",
        files=(_application_file("Code/User/mcp.json"),),
        table="servers",
        fixed={"type": "stdio"},
        source="https://code.visualstudio.com/docs/copilot/reference/mcp-configuration",
    ),
    "codex": Client(
        title="Codex",
        files=("$CODEX_HOME/config.toml",),
        table="mcp_servers",
        limit_key="tool_timeout_sec",
        passing=Passing.NAMES,
        source="openai/codex, codex-rs: McpServerConfig; docs/config.md",
    ),
    "gemini": Client(
        title="Gemini CLI",
        files=("~/.gemini/settings.json",),
        table="mcpServers",
        limit_key="timeout",
        limit_unit_s=0.001,
        passing=Passing.REFERENCES,
        source="google-gemini/gemini-cli, docs/tools/mcp-server.md",
    ),
    "opencode": Client(
        title="opencode",
        files=(
            "$XDG_CONFIG_HOME/opencode/opencode.json",
            "$XDG_CONFIG_HOME/opencode/opencode.jsonc",
        ),
        table="mcp",
        limit_key="timeout",
        limit_unit_s=0.001,
        fixed={"type": "local"},
        one_command=True,
        source="https://opencode.ai/config.json, McpLocalConfig",
    ),
    "zed": Client(
        title="Zed",
        files=("$XDG_CONFIG_HOME/zed/settings.json",),
        table="context_servers",
        limit_key="timeout",
        source="zed-industries/zed, crates/context_server/src/client.rs (seconds)",
    ),
    "desktop": Client(
        title="Claude Desktop",
        files=(_application_file("Claude/claude_desktop_config.json"),),
        table="mcpServers",
        source="https://modelcontextprotocol.io/docs/develop/connect-local-servers",
    ),
}
"""By the name that `init --client` takes."""

_DEFAULT_FOLDERS = {"$XDG_CONFIG_HOME": ".config", "$CODEX_HOME": ".codex"}


def client_file(client: Client, environ: Mapping[str, str], home: str) -> str:
    """Return where the file of a client is, or would be."""
    paths = possible_files(client, environ, home)
    return next(filter(os.path.lexists, paths), paths[0])


def possible_files(client: Client, environ: Mapping[str, str], home: str) -> list[str]:
    """List where the file of a client may be."""
    return [_expanded(path, environ, home) for path in client.files]


def _expanded(path: str, environ: Mapping[str, str], home: str) -> str:
    folder, _, rest = path.partition("/")
    if folder == "~":
        return os.path.join(home, rest)
    usual = os.path.join(home, _DEFAULT_FOLDERS[folder], rest)
    named = environ.get(folder[1:], "")
    if not os.path.isabs(named):
        return usual
    path = os.path.join(named, rest)
    # Some versions of some clients ignore $XDG_CONFIG_HOME. The folder that a client has made shows
    # what it uses.
    follows = folder != "$XDG_CONFIG_HOME" or os.path.isdir(os.path.dirname(path))
    return path if follows else usual


def make_entry(
    client: Client, command: Sequence[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the entry that starts `command`; it names the variables that `environ` sets."""
    entry: dict[str, Any] = dict(client.fixed)
    if client.one_command:
        entry["command"] = list(command)
    else:
        entry["command"], entry["args"] = command[0], list(command[1:])
    names = variables_to_pass(environ)
    if names and client.passing is Passing.NAMES:
        entry["env_vars"] = names
    if names and client.passing is Passing.REFERENCES:
        entry["env"] = {name: f"${name}" for name in names}
    if client.limit_key:
        entry[client.limit_key] = round(LIMIT_S / client.limit_unit_s)
    return entry


def variables_to_pass(environ: Mapping[str, str]) -> list[str]:
    """List the set variables that our server or its agents need."""
    return sorted(
        name
        for name, value in environ.items()
        if value
        and (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES))
        and not (name.startswith("AGENT_DISPATCH_") and name.endswith(_OF_ONE_RUN))
    )


def command_of(entry: object) -> list[str]:
    """Return the command of an entry, in the form of any client; empty if there is none."""
    if not isinstance(entry, Mapping):
        return []
    command, arguments = entry.get("command"), entry.get("args")
    if isinstance(command, Mapping):
        # Older versions of Zed.
        return command_of({**command, "command": command.get("path")})
    words = command if isinstance(command, list) else [command]
    more = arguments if isinstance(arguments, list) else []
    return [word for word in (*words, *more) if isinstance(word, str)]


def changes_to(present: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a present entry that must change; what its user added stays."""
    wanted = dict(entry)
    if isinstance(old := present.get("env"), Mapping) and "env" in wanted:
        wanted["env"] = {**old, **wanted["env"]}
    if isinstance(old := present.get("env_vars"), list) and "env_vars" in wanted:
        wanted["env_vars"] = [*old, *(name for name in wanted["env_vars"] if name not in old)]
    return {key: value for key, value in wanted.items() if present.get(key) != value}

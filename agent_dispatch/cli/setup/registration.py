"""The registration of our MCP server with Claude Code: what is wanted, and what is there."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path

import msgspec

SERVER_NAME = "agent-dispatch"

UNLIMITED_MS = 100_000_000
"""The client's own limit on a tool call; a smaller one cuts long dispatches off."""


CONFIG_VARIABLE = "AGENT_DISPATCH_CONFIG"
_MODULE = "agent_dispatch"
_RUNNERS = ("uvx", "uv", "pipx")

REMOVE = ("mcp", "remove", SERVER_NAME, "--scope", "user")
"""The arguments of `claude` that remove the user-scope registration."""


class State(Enum):
    """How a registration compares with the one that this installation wants."""

    ABSENT = "absent"
    CURRENT = "current"
    OUTDATED = "outdated"
    """Starts agent-dispatch, but another installation, or with the wrong options."""
    FOREIGN = "foreign"
    """Another server has our name."""


class Verdict(msgspec.Struct, frozen=True):
    """A comparison and its reasons, written for people."""

    state: State
    reasons: tuple[str, ...] = ()


def wanted_registration(program: str, executable: str) -> dict[str, object]:
    """The registration that starts this installation.

    Args:
        program: `sys.argv[0]` of this process.
        executable: The Python that runs it.
    """
    script = _script(Path(program), Path(executable))
    command = [str(script)] if script is not None else [executable, "-P", "-m", _MODULE]
    return {
        "type": "stdio",
        "command": command[0],
        "args": [*command[1:], "serve"],
        # Otherwise the client hides the tools behind a search.
        "alwaysLoad": True,
    }


def _script(program: Path, executable: Path) -> Path | None:
    """The installed script: the one that was called, or the one next to Python."""
    for candidate in (program, executable.parent / SERVER_NAME):
        if candidate.name == SERVER_NAME and candidate.is_file() and os.access(candidate, os.X_OK):
            return Path(os.path.abspath(candidate))
    return None


def registered_server(claude_config: Mapping[str, object]) -> object:
    """The user-scope registration under our name; None if there is none."""
    servers = claude_config.get("mcpServers")
    return servers.get(SERVER_NAME) if isinstance(servers, Mapping) else None


def compare(present: object, wanted: Mapping[str, object]) -> Verdict:
    """Compare the present registration, or None, with the wanted one."""
    if present is None:
        return Verdict(State.ABSENT)
    if not isinstance(present, Mapping) or not starts_us(present):
        return Verdict(State.FOREIGN, (f"it runs {command_line(present)}",))
    reasons = []
    if command_words(present) != command_words(wanted):
        reasons.append(f"it starts {command_line(present)}, not {command_line(wanted)}")
    reasons += shortcomings(present)
    return Verdict(State.OUTDATED if reasons else State.CURRENT, tuple(reasons))


def shortcomings(present: Mapping[str, object]) -> list[str]:
    """What is wrong with the options of a registration of ours."""
    found = []
    if present.get("alwaysLoad") is not True:
        found.append("it lacks alwaysLoad, so Claude Code hides the tools behind a search")
    limit_ms = present.get("timeout")
    if isinstance(limit_ms, int | float) and limit_ms < UNLIMITED_MS:
        found.append(f"its timeout cuts every call off after {limit_ms / 1000:g} s")
    if (yaml := yaml_config(present)) is not None:
        found.append(f"its {CONFIG_VARIABLE} names {yaml}, a file of the predecessor")
    return found


def yaml_config(present: object) -> str | None:
    """The `agents.yaml` of the predecessor that a registration names; with it, no tool works."""
    environment = present.get("env") if isinstance(present, Mapping) else None
    named = environment.get(CONFIG_VARIABLE) if isinstance(environment, Mapping) else None
    is_yaml = isinstance(named, str) and named.lower().endswith((".yaml", ".yml"))
    return named if is_yaml else None


def add_arguments(registration: object) -> list[str]:
    """The arguments of `claude` that register at user scope."""
    document = msgspec.json.encode(registration).decode()
    return ["mcp", "add-json", SERVER_NAME, document, "--scope", "user"]


def as_shell_command(arguments: Sequence[str], claude: str = "claude") -> str:
    """A call of `claude` as one line for a shell."""
    return shlex.join([claude, *arguments])


def command_line(registration: object) -> str:
    """What a registration starts, for people."""
    if isinstance(registration, Mapping):
        if isinstance(registration.get("url"), str):
            return f"the server at {registration['url']}"
        command = command_words(registration)
        if command:
            return shlex.join(command)
    return "no program"


def command_words(registration: Mapping[str, object]) -> list[str]:
    """Program and arguments that a registration starts."""
    arguments = registration.get("args")
    words = [registration.get("command"), *(arguments if isinstance(arguments, list) else ())]
    return [word for word in words if isinstance(word, str)]


def starts_us(registration: Mapping[str, object]) -> bool:
    """Whether it starts agent-dispatch: as a script, as a module or through a runner like uvx."""
    if registration.get("type", "stdio") != "stdio":
        return False
    program, *arguments = [*command_words(registration), ""]
    if Path(program).name == SERVER_NAME or ("-m", _MODULE) in pairwise(arguments):
        return True
    # The name may carry a version or an extra: agent-dispatch@0.1.
    return Path(program).name in _RUNNERS and any(
        re.fullmatch(rf"{SERVER_NAME}(?:[@=<>~!\[].*)?", argument) for argument in arguments
    )

"""What a registration of our MCP server is and should be: values in, values out."""

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
"""The client's own limit on a tool call; anything below cuts long dispatches off."""

_MODULE = "agent_dispatch"
_RUNNERS = ("uvx", "uv", "pipx")


class State(Enum):
    """How a registration compares with the one that this installation wants."""

    ABSENT = "absent"
    CURRENT = "current"
    OUTDATED = "outdated"
    """Starts agent-dispatch, but another one, or not as it should."""
    FOREIGN = "foreign"
    """Something else has our name."""


class Verdict(msgspec.Struct, frozen=True):
    """A comparison and its reasons, written for people."""

    state: State
    reasons: tuple[str, ...] = ()


def wanted_registration(program: str, executable: str) -> dict[str, object]:
    """The registration that starts this very installation.

    Args:
        program: What this process was started as, `sys.argv[0]`.
        executable: The Python that runs it.
    """
    script = _script(Path(program), Path(executable))
    command = [str(script)] if script is not None else [executable, "-P", "-m", _MODULE]
    return {
        "type": "stdio",
        "command": command[0],
        "args": [*command[1:], "serve"],
        # Without it the client hides the tools behind a search.
        "alwaysLoad": True,
    }


def _script(program: Path, executable: Path) -> Path | None:
    """The installed script: the one that was called, or the one beside Python."""
    for candidate in (program, executable.parent / SERVER_NAME):
        if candidate.name == SERVER_NAME and candidate.is_file() and os.access(candidate, os.X_OK):
            return Path(os.path.abspath(candidate))
    return None


def registered_server(claude_config: Mapping[str, object]) -> object:
    """What Claude Code's configuration has at user scope under our name; None: nothing."""
    servers = claude_config.get("mcpServers")
    return servers.get(SERVER_NAME) if isinstance(servers, Mapping) else None


def compare(present: object, wanted: Mapping[str, object]) -> Verdict:
    """Compare what is registered, if anything is, with what should be."""
    if present is None:
        return Verdict(State.ABSENT)
    if not isinstance(present, Mapping) or not starts_us(present):
        return Verdict(State.FOREIGN, (f"it runs {command_line(present)}",))
    reasons = []
    if command_words(present) != command_words(wanted):
        reasons.append(f"it starts {command_line(present)}, this is {command_line(wanted)}")
    reasons += shortcomings(present)
    return Verdict(State.OUTDATED if reasons else State.CURRENT, tuple(reasons))


def shortcomings(present: Mapping[str, object]) -> list[str]:
    """What a registration of ours lacks, whichever installation it starts."""
    found = []
    if present.get("alwaysLoad") is not True:
        found.append("it lacks alwaysLoad, so Claude Code hides the tools behind a search")
    limit_ms = present.get("timeout")
    if isinstance(limit_ms, int | float) and limit_ms < UNLIMITED_MS:
        found.append(f"its timeout cuts every call off after {limit_ms / 1000:g} s")
    return found


def renewed(present: object, wanted: Mapping[str, object]) -> dict[str, object]:
    """What to register in place of an own registration: its environment variables are kept."""
    environment = present.get("env") if isinstance(present, Mapping) else None
    return {**wanted, "env": environment} if environment else dict(wanted)


def add_arguments(registration: object) -> list[str]:
    """The arguments of `claude` that register it at user scope."""
    document = msgspec.json.encode(registration).decode()
    return ["mcp", "add-json", SERVER_NAME, document, "--scope", "user"]


def remove_arguments() -> list[str]:
    """The arguments of `claude` that take the user-scope registration away."""
    return ["mcp", "remove", SERVER_NAME, "--scope", "user"]


def as_shell_command(arguments: Sequence[str], claude: str = "claude") -> str:
    """The call of `claude` as one line to paste into a shell."""
    return shlex.join([claude, *arguments])


def command_line(registration: object) -> str:
    """What a registration starts, for people."""
    if isinstance(registration, Mapping):
        if isinstance(registration.get("url"), str):
            return f"the server at {registration['url']}"
        command = command_words(registration)
        if command:
            return shlex.join(command)
    return "something that is no program"


def command_words(registration: Mapping[str, object]) -> list[str]:
    """Program and arguments that a registration starts."""
    arguments = registration.get("args")
    words = [registration.get("command"), *(arguments if isinstance(arguments, list) else ())]
    return [word for word in words if isinstance(word, str)]


def starts_us(registration: Mapping[str, object]) -> bool:
    """By the script's name, the module's, or what a runner like uvx is told to run."""
    if registration.get("type", "stdio") != "stdio":
        return False
    program, *arguments = [*command_words(registration), ""]
    if Path(program).name == SERVER_NAME or ("-m", _MODULE) in pairwise(arguments):
        return True
    # A runner takes a version or an extra behind the name: agent-dispatch@0.1.
    return Path(program).name in _RUNNERS and any(
        re.fullmatch(rf"{SERVER_NAME}(?:[@=<>~!\[].*)?", argument) for argument in arguments
    )

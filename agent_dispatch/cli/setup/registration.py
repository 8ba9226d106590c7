"""The registration of our MCP server with Claude Code.

Compares the present registration with the wanted one, and replaces it so that a failure leaves
the old one in place.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from itertools import pairwise
from pathlib import Path

import msgspec

from agent_dispatch.claude.find_claude import find_program, is_on_path, with_program_on_path
from agent_dispatch.cli.output import remark
from agent_dispatch.cli.setup.claude_cli import (
    Answer,
    ClaudeConfigError,
    add_to_path,
    ask_claude,
    claude_word,
    fix_command,
    read_claude_config,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.outcome.report import StartFailure

SERVER_NAME = "agent-dispatch"

UNLIMITED_MS = 100_000_000
"""The client's own limit on a tool call; a smaller one cuts long dispatches off."""

AskClaude = Callable[[Sequence[str]], Answer]
"""Runs `claude` with these arguments."""

_CONFIG_VARIABLE = "AGENT_DISPATCH_CONFIG"
_MODULE = "agent_dispatch"
_RUNNERS = ("uvx", "uv", "pipx")
_CLAUDE_TIMEOUT_S = 30.0

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


class Registered(StrEnum):
    """What happened to the registration."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    LEFT = "left"
    """A foreign registration was not touched."""
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    """What happened to the registration, and what is left to do."""

    registered: Registered
    problems: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    """Shell commands for the user."""


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
    if (yaml := _yaml_config(present)) is not None:
        found.append(f"its {_CONFIG_VARIABLE} names {yaml}, a file of the predecessor")
    return found


def _yaml_config(present: object) -> str | None:
    """The `agents.yaml` of the predecessor that a registration names; with it, no tool works."""
    environment = present.get("env") if isinstance(present, Mapping) else None
    named = environment.get(_CONFIG_VARIABLE) if isinstance(environment, Mapping) else None
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


def register(
    shell: Shell, wanted: Mapping[str, object], consents: Callable[[Verdict], bool]
) -> Outcome:
    """Make the user-scope registration equal to `wanted`; its environment variables are kept.

    Args:
        shell: The outside world.
        wanted: The registration.
        consents: Asked before a foreign registration is replaced.
    """
    program = find_program(None, shell.environ)
    if isinstance(program, StartFailure):
        problem = f"{program.text}. Run: {fix_command(program)}"
        return Outcome(Registered.FAILED, (problem,), (as_shell_command(add_arguments(wanted)),))
    if not is_on_path(program[0], shell.environ):
        remark(
            shell,
            f"note: claude was found at {program[0]}, which is not on PATH. Add it:"
            f" {add_to_path(program[0])}",
        )
    claude = claude_word(program[0], shell.environ)
    remove = as_shell_command(REMOVE, claude)
    environ = with_program_on_path(shell.environ, program[0])
    add = as_shell_command(add_arguments(wanted), claude)
    try:
        present = registered_server(read_claude_config(shell.environ))
    except ClaudeConfigError as error:
        return Outcome(Registered.FAILED, (str(error),), (add,))
    verdict = compare(present, wanted)
    if verdict.state is State.CURRENT:
        return Outcome(Registered.UNCHANGED)

    def ask(arguments: Sequence[str]) -> Answer:
        return ask_claude(program[0], arguments, environ, timeout_s=_CLAUDE_TIMEOUT_S)

    if verdict.state is State.ABSENT:
        return _add(ask, wanted, claude)
    if verdict.state is State.FOREIGN:
        if not consents(verdict):
            reasons = "; ".join(verdict.reasons)
            problem = f"Another server has the name {SERVER_NAME}: {reasons}. It was not changed"
            return Outcome(Registered.LEFT, (problem,), (remove, add))
        return replace(ask, present, wanted, claude)
    remark(shell, f"The registration is outdated: {'; '.join(verdict.reasons)}. Replacing it.")
    environment = present.get("env") if isinstance(present, Mapping) else None
    if environment and (yaml := _yaml_config(present)) is not None:
        environment = {k: v for k, v in environment.items() if k != _CONFIG_VARIABLE}
        remark(shell, f"note: {_CONFIG_VARIABLE}={yaml} was left out of it.")
        remark(shell, f"tip: agent-dispatch import {shlex.quote(yaml)}")
    renewed = {**wanted, "env": environment} if environment else wanted
    return replace(ask, present, renewed, claude)


def _add(ask: AskClaude, registration: object, claude: str) -> Outcome:
    answer = ask(add_arguments(registration))
    if answer.exit_status == 0:
        return Outcome(Registered.ADDED)
    problem = f"Claude Code did not register the server: {answer.complaint()}"
    by_hand = [as_shell_command(add_arguments(registration), claude)]
    if "already exists" in answer.complaint():
        # Claude Code reads another file than we do, and its own is the one that counts.
        by_hand.insert(0, as_shell_command(REMOVE, claude))
    return Outcome(Registered.FAILED, (problem,), tuple(by_hand))


def replace(ask: AskClaude, present: object, wanted: object, claude: str = "claude") -> Outcome:
    """Remove the old registration and add the new one.

    If adding fails, or on Ctrl-C, the old one is restored.

    Args:
        ask: Runs `claude`.
        present: The old registration.
        wanted: The new one.
        claude: The word for `claude` in shell commands.
    """
    try:
        return _remove_and_add(ask, present, wanted, claude)
    except KeyboardInterrupt:
        # Harmless if the old one is still there: `claude` refuses.
        ask(add_arguments(present))
        raise


def _remove_and_add(ask: AskClaude, present: object, wanted: object, claude: str) -> Outcome:
    remove = as_shell_command(REMOVE, claude)
    add = as_shell_command(add_arguments(wanted), claude)
    removed = ask(REMOVE)
    if removed.exit_status != 0:
        problem = f"Claude Code did not remove the old registration: {removed.complaint()}"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    added = ask(add_arguments(wanted))
    if added.exit_status == 0:
        return Outcome(Registered.REPLACED)
    problem = f"Claude Code did not register the server: {added.complaint()}"
    restored = ask(add_arguments(present))
    if restored.exit_status == 0:
        problem += ". The old registration was restored"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    problem += f". The old one could not be restored either: {restored.complaint()}"
    old = as_shell_command(add_arguments(present), claude)
    return Outcome(Registered.FAILED, (problem, f"The old registration was: {old}"), (add,))

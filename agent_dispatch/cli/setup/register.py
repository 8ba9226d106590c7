"""Register our MCP server with Claude Code; a failure leaves the old registration in place."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from agent_dispatch.claude.find_claude import find_program, is_on_path, with_program_on_path
from agent_dispatch.cli.output import note, remark
from agent_dispatch.cli.setup.claude_cli import (
    Answer,
    ClaudeConfigError,
    add_to_path,
    ask_claude,
    claude_word,
    fix_command,
    read_claude_config,
)
from agent_dispatch.cli.setup.registration import (
    CONFIG_VARIABLE,
    REMOVE,
    SERVER_NAME,
    State,
    add_arguments,
    as_shell_command,
    compare,
    registered_server,
    yaml_config,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.outcome.report import StartFailure

AskClaude = Callable[[Sequence[str]], Answer]
"""Runs `claude` with these arguments."""

_CLAUDE_TIMEOUT_S = 30.0


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


def register(
    shell: Shell, wanted: Mapping[str, object], consents: Callable[[Sequence[str]], bool]
) -> Outcome:
    """Make the user-scope registration equal to `wanted`; its environment variables are kept.

    Args:
        wanted: The registration.
        consents: Asked, with the reasons, before a foreign registration is replaced.
    """
    program = find_program(None, shell.environ)
    if isinstance(program, StartFailure):
        problem = f"{program.text}. Run: {fix_command(program)}"
        return Outcome(Registered.FAILED, (problem,), (as_shell_command(add_arguments(wanted)),))
    if not is_on_path(program[0], shell.environ):
        note(
            shell,
            f"claude was found at {program[0]}, which is not on PATH. Add it:"
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
        if not consents(verdict.reasons):
            reasons = "; ".join(verdict.reasons)
            problem = f"Another server has the name {SERVER_NAME}: {reasons}. It was not changed"
            return Outcome(Registered.LEFT, (problem,), (remove, add))
        return replace(ask, present, wanted, claude)
    remark(shell, f"The registration is outdated: {'; '.join(verdict.reasons)}. Replacing it.")
    environment = present.get("env") if isinstance(present, Mapping) else None
    if environment and (yaml := yaml_config(present)) is not None:
        environment = {k: v for k, v in environment.items() if k != CONFIG_VARIABLE}
        note(shell, f"{CONFIG_VARIABLE}={yaml} was left out of it.")
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

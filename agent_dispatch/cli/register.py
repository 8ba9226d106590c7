"""Registers the MCP server with Claude Code, and leaves no machine without what it had."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from agent_dispatch.cli.claude_cli import (
    Answer,
    ClaudeConfigError,
    add_to_path,
    ask_claude,
    claude_word,
    how_to_mend,
    read_claude_config,
)
from agent_dispatch.cli.output import remark
from agent_dispatch.cli.registration import (
    SERVER_NAME,
    State,
    Verdict,
    add_arguments,
    as_shell_command,
    compare,
    registered_server,
    remove_arguments,
    renewed,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.outcome import StartFailure
from agent_dispatch.run.program import find_program, is_on_path, with_program_on_path

AskClaude = Callable[[Sequence[str]], Answer]
"""Runs `claude` with these arguments."""

_CLAUDE_TIMEOUT_S = 30.0


class Registered(StrEnum):
    """What became of the registration."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    LEFT = "left"
    """A foreign registration was not touched."""
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    """What became of the registration, and what is left to do."""

    registered: Registered
    problems: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


def register(
    shell: Shell, wanted: Mapping[str, object], consents: Callable[[Verdict], bool]
) -> Outcome:
    """Bring the user-scope registration into the form that is wanted.

    Args:
        shell: The outside world.
        wanted: The registration.
        consents: Asked before something foreign is replaced.
    """
    program = find_program(None, shell.environ)
    if isinstance(program, StartFailure):
        problem = f"{program.text}. {how_to_mend(program)}"
        return Outcome(Registered.FAILED, (problem,), (as_shell_command(add_arguments(wanted)),))
    if not is_on_path(program[0], shell.environ):
        remark(
            shell,
            f"note: claude was found at {program[0]}, which is not on PATH. Add it:"
            f" {add_to_path(program[0])}",
        )
    claude = claude_word(program[0], shell.environ)
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
            remove = as_shell_command(remove_arguments(), claude)
            reasons = "; ".join(verdict.reasons)
            problem = f"Another server has the name {SERVER_NAME}: {reasons}. It was left as it is"
            return Outcome(Registered.LEFT, (problem,), (remove, add))
        return replace(ask, present, wanted, claude)
    remark(shell, f"The registration is outdated: {'; '.join(verdict.reasons)}. Replacing it.")
    return replace(ask, present, renewed(present, wanted), claude)


def _add(ask: AskClaude, registration: object, claude: str) -> Outcome:
    answer = ask(add_arguments(registration))
    if answer.exit_status == 0:
        return Outcome(Registered.ADDED)
    by_hand = [as_shell_command(add_arguments(registration), claude)]
    if "already exists" in answer.complaint():
        # Claude Code reads another file than we do; it knows best.
        by_hand.insert(0, as_shell_command(remove_arguments(), claude))
    return Outcome(
        Registered.FAILED,
        (f"Claude Code did not register the server: {answer.complaint()}",),
        tuple(by_hand),
    )


def replace(ask: AskClaude, present: object, wanted: object, claude: str = "claude") -> Outcome:
    """Remove and add. When only the first works, or Ctrl-C comes, the old one is put back.

    Args:
        ask: Runs `claude`.
        present: The old registration.
        wanted: The new one.
        claude: What a user's shell finds the program by.
    """
    try:
        return _remove_and_add(ask, present, wanted, claude)
    except KeyboardInterrupt:
        # Refused by `claude`, and harmless, if the old one is still there.
        ask(add_arguments(present))
        raise


def _remove_and_add(ask: AskClaude, present: object, wanted: object, claude: str) -> Outcome:
    remove = as_shell_command(remove_arguments(), claude)
    add = as_shell_command(add_arguments(wanted), claude)
    removed = ask(remove_arguments())
    if removed.exit_status != 0:
        problem = f"Claude Code did not remove the old registration: {removed.complaint()}"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    added = ask(add_arguments(wanted))
    if added.exit_status == 0:
        return Outcome(Registered.REPLACED)
    problem = f"Claude Code did not register the server: {added.complaint()}"
    restored = ask(add_arguments(present))
    if restored.exit_status == 0:
        problem += ". The old registration was put back"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    problem += f". The old one could not be put back either: {restored.complaint()}"
    old = as_shell_command(add_arguments(present), claude)
    return Outcome(Registered.FAILED, (problem, f"The old registration was: {old}"), (add,))

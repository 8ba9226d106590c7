"""`init`: the config, and the registration of the MCP server with Claude Code."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from agent_dispatch.cli.agents import open_registry
from agent_dispatch.cli.claude_cli import (
    INSTALL_COMMAND,
    Answer,
    ClaudeConfigError,
    ask_claude,
    read_claude_config,
)
from agent_dispatch.cli.output import Colour, one_line, remark, write_json, write_lines
from agent_dispatch.cli.registration import (
    SERVER_NAME,
    State,
    Verdict,
    add_arguments,
    as_shell_command,
    command_words,
    compare,
    registered_server,
    remove_arguments,
    renewed,
    wanted_registration,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.outcome import StartFailure
from agent_dispatch.dispatch.program import find_program
from agent_dispatch.errors import ConfigError
from agent_dispatch.project.config_file import config_path
from agent_dispatch.project.files import (
    LockHeldError,
    locked,
    make_private_directory,
    write_whole,
)

_CLAUDE_TIMEOUT_S = 30.0
_LOCK_TIMEOUT_S = 10.0

TEMPLATE = """\
# agent-dispatch: the agents, and what they may do. Read on every call; no restart is needed.
# `agent-dispatch add NAME DIRECTORY` adds an agent, `agent-dispatch doctor` checks this file.

# [agents.infra]
# directory = "~/projects/infra"
# description = "Infrastructure agent. MCP: portainer."
# timeout = 300                                # seconds a run may take
# model = "sonnet"
# max_budget_usd = 1.0                         # US dollars a run may cost; 0 lifts the default
# permission_mode = "acceptEdits"              # acceptEdits, auto, bypassPermissions, default,
#                                              # dontAsk, manual or plan
# allowed_tools = ["Read", "Bash(git log:*)"]  # [] grants nothing beyond the project's settings
# disallowed_tools = ["Write"]

# [settings]                                   # what every agent inherits
# default_timeout = 300
# default_model = "sonnet"
# default_permission_mode = "default"
# default_allowed_tools = ["Read"]
# default_max_budget_usd = 5.0
# max_dispatch_depth = 3                       # how deep agents may dispatch to agents
# max_concurrency = 5                          # runs at once, on this machine, per depth

# [settings.cache]
# enabled = true
# ttl = 300                                    # seconds an answer stays valid
# max_size = 1000
"""


class Registered(StrEnum):
    """What became of the registration."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    LEFT = "left"
    """A foreign registration was not touched."""
    FAILED = "failed"


class InitReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `init` did."""

    config: str
    config_created: bool
    registration: Registered
    command: list[str]
    """What Claude Code starts, where the registration is ours."""
    problems: list[str] = []
    by_hand: list[str] = []
    """The shell commands that do what `init` could not."""


class _RunClaude(Protocol):
    def __call__(self, arguments: Sequence[str]) -> Answer: ...


class Outcome(msgspec.Struct, frozen=True):
    """What became of the registration, and what is left to do."""

    registered: Registered
    problems: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


def init(*, yes: bool = False, json: bool = False, shell: Shell) -> int:
    """Create the config if there is none, and register the MCP server with Claude Code.

    May be called again and again: what is in place stays.

    Args:
        yes: Replace a foreign registration of the name without asking.
        json: Print what was done as JSON.
        shell: The outside world.
    """
    path = config_path(shell.environ)
    created = create_config(path)
    problems = [] if created else _config_problems(shell)
    wanted = wanted_registration(shell.program, sys.executable)
    outcome = _register(shell, wanted, _consent(shell, yes=yes))
    report = InitReport(
        config=str(path),
        config_created=created,
        registration=outcome.registered,
        command=command_words(wanted),
        problems=[*problems, *outcome.problems],
        by_hand=list(outcome.by_hand),
    )
    if json:
        write_json(shell, report)
    else:
        _show(shell, report)
    return 1 if report.problems else 0


def create_config(path: Path) -> bool:
    """Write the commented template for the owner only, unless there is a file already.

    Returns:
        Whether the file is new. One that is there is not touched, broken or not.

    Raises:
        ConfigError: It could not be written.
    """
    if os.path.exists(path):
        return False
    target = os.path.realpath(path)
    try:
        make_private_directory(os.path.dirname(target))
        with locked(f"{target}.lock", _LOCK_TIMEOUT_S):
            if os.path.exists(path):
                return False
            write_whole(target, TEMPLATE.encode())
    except LockHeldError as error:
        raise ConfigError(
            f"{path} is being written by another process, which holds {target}.lock; end it if it"
            " is stuck, then try again"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be created: {error.strerror} ({error.filename or target}). Make its"
            " directory writable for you, or let AGENT_DISPATCH_CONFIG name another file."
        ) from error
    return True


def _config_problems(shell: Shell) -> list[str]:
    try:
        open_registry(shell).load()
    except ConfigError as error:
        return [str(error)]
    return []


def _register(
    shell: Shell, wanted: Mapping[str, object], consents: Callable[[Verdict], bool]
) -> Outcome:
    program = find_program(None, shell.environ)
    add = as_shell_command(add_arguments(wanted))
    if isinstance(program, StartFailure):
        problem = f"{program.text}. Install Claude Code with: {INSTALL_COMMAND}"
        return Outcome(Registered.FAILED, (problem,), (add,))
    try:
        present = registered_server(read_claude_config(shell.environ))
    except ClaudeConfigError as error:
        return Outcome(Registered.FAILED, (str(error),), (add,))
    verdict = compare(present, wanted)
    if verdict.state is State.CURRENT:
        return Outcome(Registered.UNCHANGED)
    run = partial(ask_claude, program[0], environ=shell.environ, timeout_s=_CLAUDE_TIMEOUT_S)
    if verdict.state is State.ABSENT:
        return _add(run, wanted)
    if verdict.state is State.FOREIGN:
        if not consents(verdict):
            remove = as_shell_command(remove_arguments())
            reasons = "; ".join(verdict.reasons)
            problem = f"Another server has the name {SERVER_NAME}: {reasons}. It was left as it is"
            return Outcome(Registered.LEFT, (problem,), (remove, add))
        return _replace(run, present, wanted)
    remark(shell, f"The registration is outdated: {'; '.join(verdict.reasons)}. Replacing it.")
    return _replace(run, present, renewed(present, wanted))


def _add(run: _RunClaude, registration: object) -> Outcome:
    answer = run(add_arguments(registration))
    if answer.exit_status == 0:
        return Outcome(Registered.ADDED)
    by_hand = [as_shell_command(add_arguments(registration))]
    if "already exists" in answer.complaint():
        # Claude Code reads another file than we do; it knows best.
        by_hand.insert(0, as_shell_command(remove_arguments()))
    return Outcome(
        Registered.FAILED,
        (f"Claude Code did not register the server: {answer.complaint()}",),
        tuple(by_hand),
    )


def _replace(run: _RunClaude, present: object, wanted: object) -> Outcome:
    """Remove and add; when only the first works, the old registration is put back."""
    remove, add = as_shell_command(remove_arguments()), as_shell_command(add_arguments(wanted))
    removed = run(remove_arguments())
    if removed.exit_status != 0:
        problem = f"Claude Code did not remove the old registration: {removed.complaint()}"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    added = run(add_arguments(wanted))
    if added.exit_status == 0:
        return Outcome(Registered.REPLACED)
    problem = f"Claude Code did not register the server: {added.complaint()}"
    restored = run(add_arguments(present))
    if restored.exit_status == 0:
        problem += ". The old registration was put back"
        return Outcome(Registered.FAILED, (problem,), (remove, add))
    problem += f". The old one could not be put back either: {restored.complaint()}"
    old = as_shell_command(add_arguments(present))
    return Outcome(Registered.FAILED, (problem, f"The old registration was: {old}"), (add,))


def _consent(shell: Shell, *, yes: bool) -> Callable[[Verdict], bool]:
    def consents(verdict: Verdict) -> bool:
        if yes:
            return True
        if not (shell.stdin.isatty() and shell.stderr.isatty()):
            return False
        reasons = one_line("; ".join(verdict.reasons))
        shell.stderr.write(
            f"Another server is registered as {SERVER_NAME}: {reasons}. Replace it? [y/N] "
        )
        shell.stderr.flush()
        return shell.stdin.readline().strip().lower() in ("y", "yes")

    return consents


def _show(shell: Shell, report: InitReport) -> None:
    created = "created" if report.config_created else "already there, not touched"
    done = {
        Registered.ADDED: "Registered MCP server",
        Registered.REPLACED: "Registered MCP server anew",
        Registered.UNCHANGED: "Registered MCP server already",
    }.get(report.registration)
    lines = [f"Config: {one_line(report.config)} ({created})"]
    if done is not None:
        lines.append(f"{done}: {one_line(shlex.join(report.command))} (user scope)")
    if not report.problems:
        lines.append("Next: agent-dispatch add NAME DIRECTORY")
    write_lines(shell, lines)
    for problem in report.problems:
        remark(shell, f"error: {problem}", Colour.BAD)
    if report.by_hand:
        remark(shell, "By hand:")
        for command in report.by_hand:
            remark(shell, f"  {command}")
    if done is not None and "AGENT_DISPATCH_CONFIG" in shell.environ:
        remark(shell, "note: Claude Code must be started with the same AGENT_DISPATCH_CONFIG.")

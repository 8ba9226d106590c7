"""What `doctor` finds: values in, findings out; each failure with the command that mends it."""

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from agent_dispatch.cli.claude_cli import INSTALL_COMMAND, Answer, add_to_path, mending_command
from agent_dispatch.cli.output import counted, printable
from agent_dispatch.cli.registration import (
    SERVER_NAME,
    State,
    as_shell_command,
    command_line,
    command_words,
    compare,
    remove_arguments,
    shortcomings,
)
from agent_dispatch.cli.scopes import Denial, Shadow
from agent_dispatch.cli.temporary import Lasting, missing_source, why_temporary
from agent_dispatch.config.claude_files import FileProblem
from agent_dispatch.config.trust import Workspace
from agent_dispatch.core.outcome import StartFailure
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.model.config import Config
from agent_dispatch.run.program import is_on_path

TESTED_VERSION = (2, 1, 330)
OLDEST_VERSION = (2, 1, 121)
"""The first that knows `alwaysLoad` in a registration, by the release notes of Claude Code."""

_VERSION = r"v?(\d+)\.(\d+)\.(\d+)(?!\w|\.\d)"
_VERSIONS = (
    re.compile(rf"(?<![\w.]){_VERSION}(?=\S* *\(Claude Code\))"),
    re.compile(rf"(?<=Claude Code ){_VERSION}"),
    re.compile(rf"^[ \t]*{_VERSION}", re.MULTILINE),
    re.compile(rf"(?<![\w.]){_VERSION}"),
)
"""How a version is found, the surest way first: a banner may name other versions."""

_INIT = "agent-dispatch init"


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, nothing to mend."""
    WARN = "warn"
    """Works, but probably not as meant."""
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `doctor`."""

    name: str
    status: Status
    message: str
    fix: str | None = None
    """A shell command, or what to do in an editor."""


def check_program(program: tuple[str, ...] | StartFailure, environ: Mapping[str, str]) -> Check:
    """Is there a `claude` to run?"""
    if isinstance(program, StartFailure):
        fix = mending_command(program)
        return Check(name="claude", status=Status.FAIL, message=program.text, fix=fix)
    if is_on_path(program[0], environ):
        return Check(name="claude", status=Status.OK, message=program[0])
    return Check(
        name="claude",
        status=Status.WARN,
        message=(
            f"found at {program[0]}, which is not on PATH; agents run it all the same. Add its"
            " folder to PATH in your shell's profile"
        ),
        fix=add_to_path(program[0]),
    )


def _find_version(text: str) -> re.Match[str] | None:
    """The version in what `claude --version` prints, whatever banner comes with it."""
    shown = printable(text)
    for pattern in _VERSIONS:
        if (found := pattern.search(shown)) is not None:
            return found
    return None


def check_version(answer: Answer, claude: str = "claude") -> Check:
    """Is it new enough, and the one we were tested with?"""
    found = _find_version(answer.stdout)
    if answer.exit_status != 0 or found is None:
        return Check(
            name="version",
            status=Status.FAIL,
            message=f"`claude --version` does not print a version: {answer.complaint()}",
            fix=INSTALL_COMMAND,
        )
    version = tuple(map(int, found.groups()))
    if version < OLDEST_VERSION:
        message = (
            f"{_dotted(version)} is older than {_dotted(OLDEST_VERSION)}, the oldest that works"
        )
        return Check(
            name="version", status=Status.FAIL, message=message, fix=f"{shlex.quote(claude)} update"
        )
    if version != TESTED_VERSION:
        message = f"{_dotted(version)}; agent-dispatch was tested with {_dotted(TESTED_VERSION)}"
        return Check(name="version", status=Status.NOTE, message=message)
    return Check(name="version", status=Status.OK, message=_dotted(version))


def check_login(answer: Answer, claude: str = "claude") -> Check:
    """Is somebody logged in? By `claude auth status`, which asks no model and costs nothing."""
    try:
        status = msgspec.json.decode(answer.stdout, type=dict[str, object])
    except msgspec.DecodeError:
        status = {}
    if status.get("loggedIn") is True:
        method = f"{status.get('authMethod', 'logged in')}, {status.get('apiProvider', 'unknown')}"
        return Check(name="login", status=Status.OK, message=method)
    if status.get("loggedIn") is False:
        return Check(
            name="login",
            status=Status.FAIL,
            message="Claude Code is not logged in",
            fix=f"{shlex.quote(claude)} auth login",
        )
    return Check(
        name="login",
        status=Status.WARN,
        message=f"`claude auth status` does not say whether you are: {answer.complaint()}",
        fix=f"{shlex.quote(claude)} auth status",
    )


def check_registration(
    present: object, lasting: Lasting, environ: Mapping[str, str]
) -> Iterator[Check]:
    """Will Claude Code start us, and as it should?

    Args:
        present: What is registered.
        lasting: What `init` would register.
        environ: Of this process.
    """
    wanted = lasting.registration
    verdict = compare(present, wanted)
    if verdict.state is State.ABSENT:
        yield _registration(Status.FAIL, "not registered with Claude Code at user scope", _INIT)
        return
    if verdict.state is State.FOREIGN or not isinstance(present, Mapping):
        message = f"another server has the name {SERVER_NAME}: {'; '.join(verdict.reasons)}"
        yield _registration(Status.FAIL, message, f"{_INIT} --yes")
        return
    program = command_words(present)[0]
    if shutil.which(program, path=environ.get("PATH", os.defpath)) is None:
        message = f"it starts {command_line(present)}, and {program} is not there or not executable"
        yield _registration(Status.FAIL, message, _INIT)
        return
    if (source := missing_source(present)) is not None:
        message = f"it starts {command_line(present)}, and {source} is not there"
        yield _registration(Status.FAIL, message, _INIT)
        return
    yield _registration(Status.OK, command_line(present))
    if (reason := why_temporary(program)) is not None:
        message = f"it starts {program}; {reason}"
        yield _registration(Status.WARN, message, lasting.advice or _INIT)
    for shortcoming in shortcomings(present):
        yield _registration(Status.WARN, shortcoming, _INIT)
    if command_words(present) != command_words(wanted):
        message = f"it starts another installation than this one, {command_line(wanted)}"
        yield _registration(Status.NOTE, message)


def check_scopes(
    *,
    shadows: Iterable[Shadow],
    names: Iterable[str],
    denials: Iterable[Denial],
    denials_elsewhere: Iterable[Denial],
    registered: bool,
) -> Iterator[Check]:
    """Does anything keep the registration of user scope from taking effect?

    Args:
        shadows: What outranks it.
        names: Under which it is registered besides.
        denials: In settings that hold here.
        denials_elsewhere: In settings of agents, which may be meant for them.
        registered: There is one under our own name.
    """
    for shadow in shadows:
        message = (
            f"in {shadow.directory} a server of {shadow.scope} scope is used instead: it runs"
            f" {shadow.command}"
        )
        fix = (
            f"cd {shlex.quote(shadow.directory)} && claude mcp remove {SERVER_NAME} --scope"
            f" {shadow.scope}"
        )
        yield _registration(Status.WARN if shadow.ours else Status.FAIL, message, fix)
    for name in names:
        again = "" if registered else f" && {_INIT}"
        doubled = "so every tool is there twice" if registered else f"not as {SERVER_NAME}"
        message = f"agent-dispatch is registered as {name}, {doubled}"
        fix = f"claude mcp remove --scope user -- {shlex.quote(name)}{again}"
        yield _registration(Status.WARN, message, fix)
    for found, status in (
        *((denial, Status.FAIL) for denial in denials),
        *((denial, Status.WARN) for denial in denials_elsewhere),
    ):
        message = f"{found.file} denies {'all tools' if found.whole else 'a tool'}: {found.rule}"
        fix = f"take {found.rule} out of {found.file}"
        yield _registration(status if found.whole else Status.WARN, message, fix)


def _registration(status: Status, message: str, fix: str | None = None) -> Check:
    return Check(name="registration", status=status, message=message, fix=fix)


def registration_unreadable(problem: str) -> Check:
    """Claude Code's configuration says nothing, because it is broken."""
    remove = as_shell_command(remove_arguments())
    return _registration(Status.FAIL, problem, f"mend that file, then {remove}; {_INIT}")


def check_config(config: Config, path: str) -> Iterator[Check]:
    """What of the settings is broken, unknown, or probably not meant?"""
    yield Check(name="config", status=Status.OK, message=path)
    edit = f"correct it in {path}"
    for key, problem in config.broken_settings.items():
        message = f"{key}: {problem}; no run starts until it is corrected"
        yield Check(name="config", status=Status.FAIL, message=message, fix=edit)
    for unknown in config.unknown_keys:
        message = f"[{unknown.where}] has the unknown key {unknown.key!r}"
        if unknown.nearest is not None:
            message += f"; did you mean {unknown.nearest!r}?"
        yield Check(name="config", status=Status.WARN, message=message, fix=edit)
    for warning in config.warnings:
        yield Check(name="config", status=Status.WARN, message=str(warning), fix=edit)


def unhealthy_agent(agent: AgentSummary, config: Path | None) -> Check:
    """Tell why an agent cannot run.

    Args:
        agent: With its problem.
        config: The file that has to be corrected; None if its directory is what is wrong.
    """
    fix = f"agent-dispatch remove {shlex.quote(agent.name)}"
    return Check(
        name=f"agent {agent.name}",
        status=Status.FAIL,
        message=agent.problem or f"{agent.directory} cannot be used",
        fix=fix if config is None else f"correct it in {config}",
    )


def check_agent(
    agent: AgentSummary,
    workspace: Workspace | None,
    environ: Mapping[str, str],
    euid: int,
    inherited_mode: tuple[str, str] | None = None,
) -> Iterator[Check]:
    """Does this healthy agent have the permissions that its configuration seems to give?

    Args:
        agent: As it takes effect.
        workspace: What Claude Code thinks of its directory; None: not known.
        environ: Of the runs.
        euid: The user they run as.
        inherited_mode: The mode that Claude Code's settings give it, and the file that says so.
    """
    name = f"agent {agent.name}"
    yield Check(name=name, status=Status.OK, message=agent.directory)
    if not agent.permission_mode and inherited_mode is not None:
        mode, file = inherited_mode
        message = f"inherits permission mode {mode} from permissions.defaultMode of {file}"
        if mode == "plan":
            yield Check(
                name=name,
                status=Status.WARN,
                message=f"{message}; it denies what changes anything, whatever is granted",
                fix=f"agent-dispatch update {agent.name} --permission-mode manual",
            )
        else:
            yield Check(name=name, status=Status.NOTE, message=message)
    if agent.permission_mode == "bypassPermissions" and euid == 0 and not environ.get("IS_SANDBOX"):
        yield Check(
            name=name,
            status=Status.WARN,
            message="Claude Code refuses bypassPermissions to root unless IS_SANDBOX=1 is set",
            fix=f"agent-dispatch update {shlex.quote(agent.name)} --permission-mode acceptEdits",
        )
    if workspace is not None and workspace.allow_rules and not workspace.trusted:
        yield Check(
            name=name,
            status=Status.WARN,
            message=(
                f"{workspace.root} is not trusted, so Claude Code ignores permissions.allow"
                f" ({counted(workspace.allow_rules, 'rule')}) of its .claude/settings.json. Accept"
                " the trust dialog there, or grant the rules to the agent with --allowed-tools of"
                " `agent-dispatch update`"
            ),
            fix=f"cd {shlex.quote(workspace.root)} && claude",
        )


def check_project_file(agent: AgentSummary, problem: FileProblem) -> Check:
    """Tell what Claude Code ignores without a word."""
    return Check(
        name=f"agent {agent.name}",
        status=Status.WARN,
        message=str(problem),
        fix=f"correct it in {os.path.join(agent.directory, problem.path)}",
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

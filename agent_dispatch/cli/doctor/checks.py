"""`doctor`'s checks of `claude`, of our configuration, of each agent and of the jobs."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from agent_dispatch.claude.find_claude import find_program, is_on_path, with_program_on_path
from agent_dispatch.cli.errors import all_tips
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.output import counted, fit, printable
from agent_dispatch.cli.setup.claude_cli import (
    INSTALL_COMMAND,
    Answer,
    ClaudeConfigError,
    add_to_path,
    ask_claude,
    claude_word,
    fix_command,
    read_claude_config,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.groups import missing_members
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.config.project.claude_files import file_problems
from agent_dispatch.config.project.claude_settings import read_claude_settings
from agent_dispatch.config.project.trust import Workspace, look_at
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.yaml_import import find_unimported
from agent_dispatch.core.outcome.report import StartFailure
from agent_dispatch.core.questions import question_rows, shown_input
from agent_dispatch.errors import ConfigError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.oddities import odd_entries
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.model.config import Config

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
"""Patterns of a version, the most certain first: a banner may name other versions."""

_SHOWN_INPUT = 120
_ANSWER_WITHIN_S = 20.0


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; needs no fix."""
    WARN = "warn"
    """Works, but probably not as intended."""
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `doctor`."""

    name: str
    status: Status
    message: str
    fix: str | None = None
    """A shell command, or what to change in an editor."""


def check_claude(shell: Shell) -> Iterator[Check]:
    """Check that `claude` exists, is new enough and logged in."""
    program = find_program(None, shell.environ)
    if isinstance(program, StartFailure):
        yield Check("claude", Status.FAIL, program.text, fix_command(program))
        return
    path = program[0]
    if is_on_path(path, shell.environ):
        yield Check("claude", Status.OK, path)
    else:
        message = (
            f"found at {path}, which is not on PATH; agents run it anyway. Add its folder to PATH"
            " in your shell's profile"
        )
        yield Check("claude", Status.WARN, message, add_to_path(path))
    environ = with_program_on_path(shell.environ, path)
    claude = shlex.quote(claude_word(path, shell.environ))
    version = ask_claude(path, ["--version"], environ, timeout_s=_ANSWER_WITHIN_S)
    yield _check_version(version, claude)
    login = ask_claude(path, ["auth", "status", "--json"], environ, timeout_s=_ANSWER_WITHIN_S)
    yield _check_login(login, claude)


def _check_version(answer: Answer, claude: str) -> Check:
    shown = printable(answer.stdout)
    found = next(filter(None, (pattern.search(shown) for pattern in _VERSIONS)), None)
    if answer.exit_status != 0 or found is None:
        message = f"`claude --version` does not print a version: {answer.complaint()}"
        return Check("version", Status.FAIL, message, INSTALL_COMMAND)
    version = tuple(map(int, found.groups()))
    if version < OLDEST_VERSION:
        message = (
            f"{_dotted(version)} is older than {_dotted(OLDEST_VERSION)}, the oldest that works"
        )
        return Check("version", Status.FAIL, message, f"{claude} update")
    if version != TESTED_VERSION:
        message = f"{_dotted(version)}; agent-dispatch was tested with {_dotted(TESTED_VERSION)}"
        return Check("version", Status.NOTE, message)
    return Check("version", Status.OK, _dotted(version))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _check_login(answer: Answer, claude: str) -> Check:
    try:
        status = msgspec.json.decode(answer.stdout, type=dict[str, object])
    except msgspec.DecodeError:
        status = {}
    logged_in = status.get("loggedIn")
    if logged_in is True:
        method = f"{status.get('authMethod', 'logged in')}, {status.get('apiProvider', 'unknown')}"
        return Check("login", Status.OK, method)
    if logged_in is False:
        return Check("login", Status.FAIL, "Claude Code is not logged in", f"{claude} auth login")
    message = f"`claude auth status` does not say whether you are logged in: {answer.complaint()}"
    return Check("login", Status.WARN, message, f"{claude} auth status")


def check_config(shell: Shell) -> Iterator[Check]:
    """Check our configuration and every agent in it."""
    try:
        registry = open_registry(shell)
        config = registry.load()
        agents = registry.list_agents()
    except ConfigError as error:
        by_hand = "correct that file, or move it away and run: agent-dispatch init"
        fix = next(iter(all_tips(error.next_steps)), by_hand)
        yield Check("config", Status.FAIL, str(error), fix)
        return
    if registry.path.exists():
        yield from _check_settings(config, registry.path)
    else:
        message = f"{registry.path} does not exist"
        yield Check("config", Status.FAIL, message, "agent-dispatch init")
    yield from _check_groups(config, registry.path)
    yield from _check_unimported(registry)
    if not agents:
        fix = "agent-dispatch add NAME DIRECTORY"
        yield Check("agents", Status.WARN, "no agent is registered", fix)
    try:
        claude_config = read_claude_config(shell.environ)
    except ClaudeConfigError:
        claude_config = None  # `check_registration` reports it.
    for agent in agents:
        if not agent.healthy:
            in_file = agent.name in config.broken or bool(config.broken_settings)
            yield _unhealthy(agent, registry.path if in_file else None)
            continue
        if agent.host is not None:
            look = f"look at it there with: agent-dispatch doctor --host {agent.host}"
            yield Check(f"agent {agent.name}", Status.NOTE, f"on host {agent.host}; {look}")
            continue
        workspace = None if claude_config is None else look_at(agent.directory, claude_config)
        mode = read_claude_settings(agent.directory, shell.environ).default_mode()
        yield from check_agent(agent, workspace, shell.environ, os.geteuid(), mode)
        for problem in file_problems(agent.directory):
            fix = f"correct it in {os.path.join(agent.directory, problem.path)}"
            yield Check(f"agent {agent.name}", Status.WARN, str(problem), fix)


def _check_settings(config: Config, path: Path) -> Iterator[Check]:
    yield Check("config", Status.OK, str(path))
    fix = f"correct it in {path}"
    for key, problem in config.broken_settings.items():
        message = f"{key}: {problem}; no run starts until it is corrected"
        yield Check("config", Status.FAIL, message, fix)
    for name, problem in config.broken_hosts.items():
        yield Check("config", Status.FAIL, f"hosts.{name}: {problem}", fix)
    for unknown in config.unknown_keys:
        message = f"[{unknown.where}] has the unknown key {unknown.key!r}"
        if unknown.nearest is not None:
            message += f"; did you mean {unknown.nearest!r}?"
        yield Check("config", Status.WARN, message, fix)
    for warning in config.warnings:
        # With another mode Claude Code ends at once, so no run would work.
        is_mode = warning.key.endswith("permission_mode")
        yield Check("config", Status.FAIL if is_mode else Status.WARN, str(warning), fix)


def _check_groups(config: Config, path: Path) -> Iterator[Check]:
    for name, problem in config.broken_groups.items():
        yield Check(f"group {name}", Status.FAIL, problem, f"correct it in {path}")
    for name, group in config.groups.items():
        update = f"agent-dispatch group update {shlex.quote(name)} --remove-member"
        for agent in missing_members(config, group):
            message = f"its member {agent} is not configured"
            yield Check(f"group {name}", Status.WARN, message, f"{update} {shlex.quote(agent)}")


def _check_unimported(registry: Registry) -> Iterator[Check]:
    found = find_unimported(registry)
    if found is None:
        return
    name = found.path.name
    if found.problem is not None:
        yield Check(name, Status.WARN, found.problem, f"ls -l {shlex.quote(str(found.path))}")
        return
    message = f"{found.path} has agents that are not imported: {', '.join(found.agents)}"
    yield Check(name, Status.NOTE, message, f"agent-dispatch import {shlex.quote(str(found.path))}")


def _unhealthy(agent: AgentSummary, config: Path | None) -> Check:
    """An agent that cannot run, because of `config` or, if that is None, of its directory."""
    fix = f"agent-dispatch remove {shlex.quote(agent.name)}"
    return Check(
        f"agent {agent.name}",
        Status.FAIL,
        agent.problem or f"{agent.directory} cannot be used",
        fix if config is None else f"correct it in {config}",
    )


def check_agent(
    agent: AgentSummary,
    workspace: Workspace | None,
    environ: Mapping[str, str],
    euid: int,
    inherited_mode: tuple[str, str] | None = None,
) -> Iterator[Check]:
    """Check that a healthy agent gets the permissions that its configuration gives.

    Args:
        agent: With the settings it inherits.
        workspace: What Claude Code knows of its directory; None if that is unknown.
        environ: The environment of the runs.
        euid: The user of the runs.
        inherited_mode: The mode from Claude Code's settings, and the file that sets it.
    """
    name = f"agent {agent.name}"
    update = f"agent-dispatch update {shlex.quote(agent.name)} --permission-mode"
    yield Check(name, Status.OK, agent.directory)
    if not agent.permission_mode and inherited_mode is not None:
        mode, file = inherited_mode
        message = f"inherits permission mode {mode} from permissions.defaultMode of {file}"
        if mode == "plan":
            message += "; it denies every change, whatever tools are granted"
            yield Check(name, Status.WARN, message, f"{update} manual")
        else:
            yield Check(name, Status.NOTE, message)
    if agent.permission_mode == "bypassPermissions" and euid == 0 and not environ.get("IS_SANDBOX"):
        message = "Claude Code refuses bypassPermissions to root unless IS_SANDBOX=1 is set"
        yield Check(name, Status.WARN, message, f"{update} acceptEdits")
    if workspace is not None and workspace.allow_rules and not workspace.trusted:
        message = (
            f"{workspace.root} is not trusted, so Claude Code ignores permissions.allow"
            f" ({counted(workspace.allow_rules, 'rule')}) of its .claude/settings.json. Accept"
            " the trust dialog there, or grant the rules to the agent with --allowed-tools of"
            " `agent-dispatch update`"
        )
        yield Check(name, Status.WARN, message, f"cd {shlex.quote(workspace.root)} && claude")


def check_jobs(shell: Shell) -> Iterator[Check]:
    """Check the jobs directory for entries that `gc` cannot remove."""
    try:
        directory = str(jobs_path(shell.environ, config_path(shell.environ)))
    except ConfigError:
        return  # `check_config` reports it.
    try:
        for odd in odd_entries(str(directory)):
            fix = f"ls -ld {shlex.quote(odd.path)}  (then move it away if you do not need it)"
            yield Check("jobs", Status.WARN, odd.warning, fix)
    except OSError as error:
        message = f"{directory} cannot be read: {error.strerror}"
        yield Check("jobs", Status.WARN, message, f"ls -ld {shlex.quote(directory)}")
        return
    yield from _check_questions(directory)


def _check_questions(directory: str) -> Iterator[Check]:
    """Name the permission questions that wait for an answer."""
    try:
        asked = JobStore(Path(directory)).lister.with_questions()
    except JobStoreError as error:
        yield Check("questions", Status.WARN, str(error))
        return
    found = [row for job in asked for row in question_rows(job) if row.state == "open"]
    for row in sorted(found, key=lambda row: row.asked_at):
        short = short_id(row.job_id)
        message = f"{row.agent} asks for {row.tool}: {fit(shown_input(row.input), _SHOWN_INPUT)}"
        fix = f"agent-dispatch answer {short} allow --question {row.id}  (or deny)"
        yield Check(f"question of job {short}", Status.NOTE, message, fix)

"""`doctor`: checks the whole installation; spends nothing, changes nothing."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from agent_dispatch.cli.agents import open_registry
from agent_dispatch.cli.checks import (
    Check,
    Status,
    check_agent,
    check_config,
    check_login,
    check_program,
    check_project_file,
    check_registration,
    check_scopes,
    check_version,
    registration_unreadable,
    unhealthy_agent,
)
from agent_dispatch.cli.claude_cli import (
    Answer,
    ClaudeConfigError,
    ask_claude,
    claude_word,
    read_claude_config,
)
from agent_dispatch.cli.output import (
    Colour,
    counted,
    one_line,
    paint,
    write_json,
    write_lines,
)
from agent_dispatch.cli.registration import registered_server, wanted_registration
from agent_dispatch.cli.scopes import (
    denials,
    other_names,
    settings_of_project,
    settings_of_user,
    shadows,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.cli.temporary import lasting_registration, source_of_this
from agent_dispatch.config.claude_files import file_problems
from agent_dispatch.config.claude_settings import claude_folder, read_claude_settings
from agent_dispatch.config.file import config_path, jobs_path
from agent_dispatch.config.trust import look_at
from agent_dispatch.core.outcome import StartFailure
from agent_dispatch.errors import ConfigError
from agent_dispatch.jobs.retention import odd_entries
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.model.config import Config
from agent_dispatch.run.program import find_program, with_program_on_path

_ANSWER_WITHIN_S = 20.0

_COLOURS = {
    Status.OK: Colour.GOOD,
    Status.NOTE: Colour.FAINT,
    Status.WARN: Colour.DOUBTFUL,
    Status.FAIL: Colour.BAD,
}


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All of `doctor --json`."""

    ok: bool
    checks: list[Check]


def doctor(*, strict: bool = False, json: bool = False, shell: Shell) -> int:
    """Check the whole installation; say what mends each failure. Costs nothing.

    Args:
        strict: Fail on warnings too.
        json: Print the checks as JSON.
        shell: The outside world.
    """
    bad = {Status.FAIL, Status.WARN} if strict else {Status.FAIL}
    checks = _examine(shell)
    if json:
        found = list(checks)
        ok = not any(check.status in bad for check in found)
        write_json(shell, Diagnosis(ok=ok, checks=found))
        return 0 if ok else 1
    counts = dict.fromkeys(Status, 0)
    for check in checks:
        counts[check.status] += 1
        write_lines(shell, _lines(check, shell), at_once=True)
    if counts[Status.WARN]:
        write_lines(shell, [f"{counted(counts[Status.WARN], 'warning')}."])
    failed = sum(counts[status] for status in bad)
    closing = f"{counted(failed, 'check')} failed." if failed else "All checks passed."
    write_lines(shell, [closing])
    return 1 if failed else 0


def _examine(shell: Shell) -> Iterator[Check]:
    yield from _examine_claude(shell)
    claude_config: dict[str, object] | None = None
    try:
        claude_config = read_claude_config(shell.environ)
        present = registered_server(claude_config)
        lasting = lasting_registration(
            wanted_registration(shell.program, sys.executable), shell.environ, source_of_this()
        )
        yield from check_registration(present, lasting, shell.environ)
        yield from _examine_scopes(claude_config, present, shell)
    except ClaudeConfigError as error:
        yield registration_unreadable(str(error))
    yield from _examine_config(shell, claude_config)
    yield from _examine_jobs(shell)


def _examine_jobs(shell: Shell) -> Iterator[Check]:
    """Is there anything in the jobs directory that cleaning has to pass over?"""
    try:
        directory = jobs_path(shell.environ, config_path(shell.environ))
    except ConfigError:
        return  # The check of the configuration has said so.
    try:
        for odd in odd_entries(str(directory)):
            fix = f"ls -ld {shlex.quote(odd.path)}  (then move it away if it is of no use)"
            yield Check(name="jobs", status=Status.WARN, message=odd.told, fix=fix)
    except OSError as error:
        message = f"{directory} cannot be looked at: {error.strerror}"
        fix = f"ls -ld {shlex.quote(str(directory))}"
        yield Check(name="jobs", status=Status.WARN, message=message, fix=fix)


def _examine_scopes(
    claude_config: dict[str, object], present: object, shell: Shell
) -> Iterator[Check]:
    here = os.getcwd()
    try:
        directories = [agent.directory for agent in open_registry(shell).list_agents()]
    except ConfigError:
        # A check of its own tells that.
        directories = []
    claude_directory = claude_folder(shell.environ)
    everywhere = [*settings_of_user(claude_directory), *settings_of_project(here)]
    elsewhere = [
        file
        for directory in directories
        for file in settings_of_project(directory)
        if file not in everywhere
    ]
    yield from check_scopes(
        shadows=shadows(claude_config, [here, *directories], present),
        names=other_names(claude_config),
        denials=denials(everywhere),
        denials_elsewhere=denials(elsewhere),
        registered=present is not None,
    )


def _examine_claude(shell: Shell) -> Iterator[Check]:
    program = find_program(None, shell.environ)
    yield check_program(program, shell.environ)
    if isinstance(program, StartFailure):
        return
    claude = claude_word(program[0], shell.environ)
    yield check_version(_ask(program, ["--version"], shell), claude)
    yield check_login(_ask(program, ["auth", "status", "--json"], shell), claude)


def _ask(program: tuple[str, ...], arguments: list[str], shell: Shell) -> Answer:
    environ = with_program_on_path(shell.environ, program[0])
    return ask_claude(program[0], arguments, environ, timeout_s=_ANSWER_WITHIN_S)


def _examine_config(shell: Shell, claude_config: dict[str, object] | None) -> Iterator[Check]:
    try:
        registry = open_registry(shell)
        config = registry.load()
        agents = registry.list_agents()
    except ConfigError as error:
        yield Check(
            name="config",
            status=Status.FAIL,
            message=str(error),
            fix="correct that file, or move it away and run: agent-dispatch init",
        )
        return
    if not registry.path.exists():
        yield Check(
            name="config",
            status=Status.FAIL,
            message=f"{registry.path} does not exist",
            fix="agent-dispatch init",
        )
    else:
        yield from check_config(config, str(registry.path))
    if not agents:
        yield Check(
            name="agents",
            status=Status.WARN,
            message="none is registered",
            fix="agent-dispatch add NAME DIRECTORY",
        )
    for agent in agents:
        yield from _examine_agent(agent, config, registry.path, claude_config, shell)


def _examine_agent(
    agent: AgentSummary,
    config: Config,
    path: Path,
    claude_config: dict[str, object] | None,
    shell: Shell,
) -> Iterator[Check]:
    if not agent.healthy:
        broken = agent.name in config.broken or bool(config.broken_settings)
        yield unhealthy_agent(agent, path if broken else None)
        return
    workspace = None if claude_config is None else look_at(agent.directory, claude_config)
    mode = read_claude_settings(agent.directory, shell.environ).default_mode()
    yield from check_agent(agent, workspace, shell.environ, os.geteuid(), mode)
    for problem in file_problems(agent.directory):
        yield check_project_file(agent, problem)


def _lines(check: Check, shell: Shell) -> Iterable[str]:
    word = paint(f"{check.status:<4}", _COLOURS[check.status], shell.stdout, shell.environ)
    yield f"{word}  {one_line(check.name)}: {one_line(check.message)}"
    if check.fix is not None:
        yield f"      fix: {one_line(check.fix)}"

"""`doctor`'s checks of the registration: does Claude Code start us correctly?

Measured with Claude Code 2.1.330: a server of local scope (`projects` of `.claude.json`) outranks
one of project scope (`.mcp.json`), which outranks one of user scope.
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.doctor.clients import clients_registered
from agent_dispatch.cli.doctor.handshake import shake_hands
from agent_dispatch.cli.setup.claude_cli import (
    ClaudeConfigError,
    enabled_plugin,
    read_claude_config,
)
from agent_dispatch.cli.setup.registration import (
    REMOVE,
    SERVER_NAME,
    State,
    as_shell_command,
    command_line,
    command_words,
    compare,
    registered_server,
    shortcomings,
    starts_us,
)
from agent_dispatch.cli.setup.temporary_environments import (
    LastingRegistration,
    missing_source,
    registration_of_this,
    why_temporary,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.project.claude_settings import read_object, user_settings_files
from agent_dispatch.errors import ConfigError

_INIT = "agent-dispatch init"
_DENIES_ALL = re.compile(rf"mcp__(?:\*|{SERVER_NAME}(?:__\*)?|{SERVER_NAME}\*)?(?:\(.*\))?|\*")
_DENIES_SOME = re.compile(rf"mcp__{SERVER_NAME}__.+")


def check_registration(shell: Shell, directories: Sequence[str]) -> Iterator[Check]:
    """Check the registration of user scope, and everything that overrides it.

    Args:
        directories: The directories of the agents.
    """
    try:
        claude_config = read_claude_config(shell.environ)
    except ClaudeConfigError as error:
        fix = f"repair that file, then {as_shell_command(REMOVE)}; {_INIT}"
        yield _finding(Status.FAIL, str(error), fix)
        return
    present = registered_server(claude_config)
    plugin = enabled_plugin(shell.environ)
    if present is None and plugin is not None:
        yield _check_plugin(plugin, shell.environ)
    elif present is None and _has_other_client(shell):
        message = "not registered with Claude Code, but with another client"
        yield _finding(Status.NOTE, message, _INIT)
    else:
        yield from _check_present(present, registration_of_this(shell), shell.environ)
    if present is not None and plugin is not None:
        message = f"the plugin {plugin} starts the server too, so every tool appears twice"
        yield _finding(Status.WARN, message, as_shell_command(REMOVE))
    here = os.getcwd()
    yield from _check_shadows(claude_config, [here, *directories], present)
    yield from _check_names(claude_config, registered=present is not None)
    everywhere = [*user_settings_files(shell.environ), *_project_settings(here)]
    yield from _check_denials(everywhere, Status.FAIL)
    elsewhere = [file for folder in directories for file in _project_settings(folder)]
    # A rule in an agent's own project may be intended.
    yield from _check_denials([f for f in elsewhere if f not in everywhere], Status.WARN)


def _finding(status: Status, message: str, fix: str | None = None) -> Check:
    return Check("registration", status, message, fix)


def _has_other_client(shell: Shell) -> bool:
    try:
        return bool(clients_registered(shell))
    except ConfigError:
        return False  # `check_clients` reports it.


def _check_plugin(plugin: str, environ: Mapping[str, str]) -> Check:
    if shutil.which(SERVER_NAME, path=environ.get("PATH", os.defpath)) is None:
        message = f"the plugin {plugin} starts {SERVER_NAME}, which is not on PATH"
        return _finding(Status.FAIL, message, _INIT)
    return _finding(Status.OK, f"the plugin {plugin} starts {SERVER_NAME} serve")


def _check_handshake(present: Mapping[str, object], environ: Mapping[str, str]) -> Check:
    """Start the registered command, as Claude Code does, and count its tools."""
    own = {
        name: value
        for name, value in _mapping(present.get("env")).items()
        if isinstance(value, str)
    }
    command = command_words(present)
    found = shutil.which(command[0], path=environ.get("PATH", os.defpath)) or command[0]
    done = shake_hands([found, *command[1:]], {**environ, **own})
    if done.tools is None:
        message = f"{command_line(present)} does not complete a handshake: {done.complaint}"
        return Check("server", Status.FAIL, message, _INIT)
    return Check("server", Status.OK, f"{done.tools} tools in {done.took_s:.2f} s")


def _check_present(
    present: object, lasting: LastingRegistration, environ: Mapping[str, str]
) -> Iterator[Check]:
    """Compare the registration of user scope with the one that `init` would make."""
    wanted = lasting.registration
    verdict = compare(present, wanted)
    if verdict.state is State.ABSENT:
        yield _finding(Status.FAIL, "not registered with Claude Code at user scope", _INIT)
        return
    if verdict.state is State.FOREIGN or not isinstance(present, Mapping):
        message = f"another server has the name {SERVER_NAME}: {'; '.join(verdict.reasons)}"
        yield _finding(Status.FAIL, message, f"{_INIT} --yes")
        return
    program = command_words(present)[0]
    missing = None
    if shutil.which(program, path=environ.get("PATH", os.defpath)) is None:
        missing = f"{program} does not exist or is not executable"
    elif (source := missing_source(present)) is not None:
        missing = f"{source} does not exist"
    if missing is not None:
        yield _finding(Status.FAIL, f"it starts {command_line(present)}, but {missing}", _INIT)
        return
    yield _finding(Status.OK, command_line(present))
    yield _check_handshake(present, environ)
    if (why := why_temporary(program)) is not None:
        message = f"it starts {program}; {why.reason}"
        yield _finding(Status.WARN, message, lasting.advice or _INIT)
    for shortcoming in shortcomings(present):
        yield _finding(Status.WARN, shortcoming, _INIT)
    if command_words(present) != command_words(wanted):
        message = f"it starts another installation than this one, {command_line(wanted)}"
        yield _finding(Status.NOTE, message)


def _check_shadows(
    claude_config: Mapping[str, object], directories: Iterable[str], present: object
) -> Iterator[Check]:
    """Report registrations that outrank `present`, unless they equal it.

    Looks in `directories` and in the projects that Claude Code knows.
    """
    projects = _mapping(claude_config.get("projects"))
    for directory, project in projects.items():
        yield from _check_shadow(directory, "local", _mapping(project), present)
    seen: set[Path] = set()
    for start in (*directories, *projects):
        # Claude Code also reads the `.mcp.json` of the folders above.
        for folder in (Path(start), *Path(start).parents):
            if folder in seen:
                break
            seen.add(folder)
            document = read_object(folder / ".mcp.json")
            yield from _check_shadow(str(folder), "project", document, present)


def _check_shadow(
    directory: str, scope: str, document: Mapping[str, object], present: object
) -> Iterator[Check]:
    found = _mapping(document.get("mcpServers")).get(SERVER_NAME)
    if found is None or found == present:
        return
    ours = isinstance(found, Mapping) and starts_us(found)
    message = (
        f"in {directory} a server of {scope} scope is used instead: it runs {command_line(found)}"
    )
    fix = f"cd {shlex.quote(directory)} && claude mcp remove {SERVER_NAME} --scope {scope}"
    yield _finding(Status.WARN if ours else Status.FAIL, message, fix)


def _check_names(claude_config: Mapping[str, object], *, registered: bool) -> Iterator[Check]:
    """Report registrations of agent-dispatch under other names."""
    for name, server in _mapping(claude_config.get("mcpServers")).items():
        if name == SERVER_NAME or not isinstance(server, Mapping) or not starts_us(server):
            continue
        effect = "so every tool appears twice" if registered else f"not as {SERVER_NAME}"
        fix = f"claude mcp remove --scope user -- {shlex.quote(name)}"
        yield _finding(
            Status.WARN,
            f"agent-dispatch is registered as {name}, {effect}",
            fix if registered else f"{fix} && {_INIT}",
        )


def _check_denials(files: Iterable[Path], status_of_all: Status) -> Iterator[Check]:
    """Report rules that deny our tools.

    Args:
        files: Settings of Claude Code.
        status_of_all: The status of a rule that denies all tools.
    """
    for file in files:
        settings = read_object(file)
        for rule in _list(_mapping(settings.get("permissions")).get("deny")):
            if isinstance(rule, str) and _DENIES_ALL.fullmatch(rule):
                yield _denial(file, rule, "all tools", status_of_all)
            elif isinstance(rule, str) and _DENIES_SOME.fullmatch(rule):
                yield _denial(file, rule, "a tool", Status.WARN)
        for server in _list(settings.get("deniedMcpServers")):
            if _mapping(server).get("serverName") == SERVER_NAME:
                yield _denial(file, f"deniedMcpServers: {SERVER_NAME}", "all tools", status_of_all)


def _denial(file: Path, rule: str, tools: str, status: Status) -> Check:
    return _finding(status, f"{file} denies {tools}: {rule}", f"remove {rule} from {file}")


def _project_settings(directory: str) -> list[Path]:
    folder = Path(directory) / ".claude"
    return [folder / "settings.json", folder / "settings.local.json"]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()

"""`doctor`'s checks of `claude`: does it exist, is it new enough, is it logged in?"""

import re
import shlex
from collections.abc import Iterator

import msgspec

from agent_dispatch.claude.find_claude import find_program, is_on_path, with_program_on_path
from agent_dispatch.cli.doctor.check import Check, Status
from agent_dispatch.cli.output import printable
from agent_dispatch.cli.setup.claude_cli import (
    INSTALL_COMMAND,
    Answer,
    add_to_path,
    ask_claude,
    claude_word,
    fix_command,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.outcome.report import StartFailure
from agent_dispatch.errors import NOT_JSON

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

_ANSWER_WITHIN_S = 20.0


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
    except NOT_JSON:
        status = {}
    logged_in = status.get("loggedIn")
    if logged_in is True:
        method = f"{status.get('authMethod', 'logged in')}, {status.get('apiProvider', 'unknown')}"
        return Check("login", Status.OK, method)
    if logged_in is False:
        return Check("login", Status.FAIL, "Claude Code is not logged in", f"{claude} auth login")
    message = f"`claude auth status` does not say whether you are logged in: {answer.complaint()}"
    return Check("login", Status.WARN, message, f"{claude} auth status")

"""The command line and environment of one `claude` process.

The prompt is never part of it: it goes to stdin, so any text of any size is safe. All values are
joined to their flag by `=`, so none can become a flag of its own; one that looks like a flag is
refused nevertheless, because it can only be a mistake or an attack.
"""

import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

import msgspec

from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.next_step import DOCTOR, NextStep, StepKind, run

DEPTH_VARIABLE = "AGENT_DISPATCH_DEPTH"
"""How many dispatches enclose this process; set for each child, one more than our own."""

MARKER_VARIABLE = "AGENT_DISPATCH_RUN"
"""Names the run in the environment of every process under it, to find those that escaped."""

UNREADABLE_DEPTH = sys.maxsize
"""What `current_depth` makes of a value that is no depth: deeper than any limit."""

_SESSION_VARIABLES = frozenset(
    {
        "CLAUDECODE",
        "CLAUDE_CODE_CHILD_SESSION",
        "CLAUDE_CODE_ENTRYPOINT",
        "CLAUDE_CODE_LAUNCHED_BY_SESSION_IDS",
        "CLAUDE_CODE_MESSAGING_SOCKET",
        "CLAUDE_CODE_MESSAGING_TOKEN",
        "CLAUDE_CODE_SESSION_ATTENDED",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_SSE_PORT",
        "CLAUDE_PID",
        "CLAUDE_PROJECT_DIR",
    }
)
"""They say which session a process belongs to; a dispatched one belongs to none of ours."""

_INSIDE_SESSION = ("CLAUDECODE", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_SESSION_ID")
"""Claude Code sets these for what a session starts (read in 2.1.330)."""
_RETRY_VARIABLE = re.compile(r"CLAUDE_CODE_\w*RETR(?:Y|IES)")

_GIT_VARIABLES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""What `git rev-parse --local-env-vars` lists: Git sets them for its hooks, and they bind a process
to the caller's repository. GIT_CONFIG_COUNT is listed too and stays: a user sets it, for example to
declare safe directories. GIT_QUARANTINE_PATH is not listed and goes: a pre-receive hook has it, and
with it Git refuses to update references anywhere. GIT_CONFIG_PARAMETERS goes: it holds the `git -c`
of one command of the caller's, and can itself name a repository (`-c core.worktree=…`)."""

_WAIT_CEILING_VARIABLE = "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS"
_ALWAYS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    # They promise to go on later, but a dispatch ends with its answer (measured with 2.1.330: the
    # model said "I will look again in a minute", and that was all). What is to be waited for can
    # be a background command: that is waited for.
    "--disallowedTools=ScheduleWakeup",
    "--disallowedTools=CronCreate",
)
# A child that may not dispatch must not pay for starting our server either: `-p` waits for it.
_WITHOUT_OUR_SERVER = '--settings={"deniedMcpServers":[{"serverName":"agent-dispatch"}]}'


class Command(msgspec.Struct, frozen=True):
    """What to execute, where, and with which environment."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    session_id: str | None = None
    """The session that it begins or goes on with; None: one that the CLI names."""


class RefusedValueError(DispatchError):
    """A configured value cannot be handed to the CLI; nothing was started."""


def build_command(
    claude: Sequence[str],
    agent: EffectiveAgent,
    *,
    new_session: str | None,
    resume: str | None,
    environ: Mapping[str, str],
    depth: int,
    max_depth: int,
    marker: str,
    timeout_s: float,
    json_schema: str = "",
) -> Command:
    """Return the command that runs `agent`, reading user lines on stdin.

    Args:
        claude: The resolved program and its first arguments.
        agent: Its tools: None and `()` both pass no flag, so the project's own settings decide.
        new_session: The id to give a new session.
        resume: The session to continue; not together with `new_session`.
        environ: The environment to derive the child's from.
        depth: Our own depth, as `current_depth` gives it.
        max_depth: The setting; a child at the last allowed depth gets no server of ours.
        marker: The value of `MARKER_VARIABLE`.
        timeout_s: How long the run may take; the CLI waits as long for background tasks.
        json_schema: What the answer has to fit, as JSON; empty for none.

    Raises:
        RefusedValueError: A value looks like a flag, holds a NUL, or is not a usable number.
    """
    if not claude or (new_session is not None and resume is not None):
        raise ValueError("needs a program, and one way to choose the session")
    argv = [*claude, *_ALWAYS]
    if new_session is not None:
        argv.append(_flag(agent, "--session-id", new_session))
    if resume is not None:
        argv.append(_flag(agent, "--resume", resume))
    if agent.model:
        argv.append(_flag(agent, "--model", agent.model))
    if agent.effort:
        argv.append(_flag(agent, "--effort", agent.effort))
    if agent.permission_mode:
        argv.append(_flag(agent, "--permission-mode", agent.permission_mode))
    if agent.max_budget_usd:
        argv.append(f"--max-budget-usd={_budget(agent, agent.max_budget_usd)}")
    # One flag per rule: in a list joined by commas a rule without its closing parenthesis would
    # swallow the rest, and the CLI ignores what it cannot read (measured with Claude Code 2.1.330).
    argv += [_flag(agent, "--allowedTools", rule) for rule in agent.allowed_tools or () if rule]
    argv += [
        _flag(agent, "--disallowedTools", rule) for rule in agent.disallowed_tools or () if rule
    ]
    if json_schema:
        argv.append(f"--json-schema={json_schema}")
    if depth + 1 >= max_depth:
        argv.append(_WITHOUT_OUR_SERVER)
    env = _inherited(environ, depth)
    env |= {
        "PWD": _usable(agent, "directory", agent.directory),
        DEPTH_VARIABLE: str(depth + 1),
        MARKER_VARIABLE: marker,
        # At least 1: for the CLI, 0 means to wait for ever.
        _WAIT_CEILING_VARIABLE: str(max(1, math.ceil(timeout_s * 1000))),
    }
    return Command(tuple(argv), agent.directory, env, session_id=new_session or resume)


def _inherited(environ: Mapping[str, str], depth: int) -> dict[str, str]:
    """Leave out what binds a process to the caller's session or repository."""
    env = {
        name: value
        for name, value in environ.items()
        if name not in _SESSION_VARIABLES and name not in _GIT_VARIABLES
    }
    if depth > 0 or any(name in environ for name in _INSIDE_SESSION):
        # A session hands on the settings of its own project. From a plain shell they are the
        # user's, and meant for the agents.
        env = {name: value for name, value in env.items() if not _RETRY_VARIABLE.match(name)}
    return env


def current_depth(environ: Mapping[str, str]) -> int:
    """Return how many dispatches enclose this process.

    A value that is no such number counts as `UNREADABLE_DEPTH`: an agent that can spoil the
    variable must not be able to switch the recursion guard off with it.
    """
    value = environ.get(DEPTH_VARIABLE, "").strip()
    if not value:
        return 0
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else UNREADABLE_DEPTH


def _flag(agent: EffectiveAgent, flag: str, value: str) -> str:
    if value.lstrip().startswith("-"):
        raise RefusedValueError(
            f"Agent {agent.name!r}: the value {value!r} for {flag} starts with '-', so the Claude"
            " Code CLI could take it for a flag; nothing was started.",
            *_remedy(agent),
        )
    return f"{flag}={_usable(agent, flag, value)}"


def _usable(agent: EffectiveAgent, what: str, value: str) -> str:
    try:
        encoded = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise RefusedValueError(
            f"Agent {agent.name!r}: the value {value!r} for {what} holds a character that no"
            " command line can carry; nothing was started.",
            *_remedy(agent),
        )
    return value


def _budget(agent: EffectiveAgent, budget_usd: float) -> str:
    if not 0 < budget_usd < math.inf:
        raise RefusedValueError(
            f"Agent {agent.name!r}: max_budget_usd is {budget_usd}, which caps nothing; nothing was"
            " started. Set an amount above 0, or 0 for no cap.",
            run(f"agent-dispatch update {shlex.quote(agent.name)} --max-budget-usd 1"),
        )
    return repr(float(budget_usd))


def _remedy(agent: EffectiveAgent) -> tuple[NextStep, ...]:
    describe = run(f"agent-dispatch describe {shlex.quote(agent.name)}")
    return (describe, NextStep(kind=StepKind.UPDATE_AGENT, agent=agent.name), DOCTOR)

"""The command line and environment of one `claude` process.

The prompt goes to stdin and not on the command line, so any text of any size is safe. Each value is
joined to its flag by `=`, so it cannot become a flag itself. A value that looks like a flag is
refused all the same: it can only be a mistake or an attack.
"""

import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from agent_dispatch.core.environment import inherited
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.next_step import DOCTOR, NextStep, StepKind, run

DEPTH_VARIABLE = "AGENT_DISPATCH_DEPTH"
"""How many dispatches enclose this process; a child gets one more."""

MARKER_VARIABLE = "AGENT_DISPATCH_RUN"
"""Marks the environment of every process of a run, to find those that escaped."""

EXCLUSIVE_VARIABLE = "AGENT_DISPATCH_EXCLUSIVE"
"""The exclusive agents whose runs enclose this process, separated by commas."""

UNREADABLE_DEPTH = sys.maxsize
"""The depth for a value that is not a number: deeper than any limit."""

_WAIT_CEILING_VARIABLE = "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS"
_ALWAYS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    # These tools promise to go on later, but a dispatch ends with its answer (measured with
    # 2.1.330: the model said "I will look again in a minute", and the run was over). To wait, an
    # agent can use a background command, which the run waits for.
    "--disallowedTools=ScheduleWakeup",
    "--disallowedTools=CronCreate",
)
_OUR_SERVER_NAMES = ("agent-dispatch", "plugin:agent-dispatch:agent-dispatch")
"""The names under which `init` and the plugin register our server (measured with 2.1.332)."""


class Command(msgspec.Struct, frozen=True):
    """What to execute, where, and with which environment."""

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    session_id: str | None = None
    """The session that it begins or resumes; None: the CLI chooses a new one."""


class RefusedValueError(DispatchError):
    """A configured value cannot be passed to the CLI; nothing was started."""


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
    exclusive: Iterable[str] = (),
    asks: bool = False,
) -> Command:
    """Return the command that runs `agent`, reading user lines on stdin.

    Args:
        claude: The resolved program and its first arguments.
        agent: Without allowed tools, None or `()`, the project's own settings decide.
        new_session: The id to give a new session.
        resume: The session to continue; not together with `new_session`.
        environ: The environment to derive the child's from.
        depth: Our own depth, from `current_depth`.
        max_depth: The setting; a child at the last allowed depth does not start our server.
        marker: The value of `MARKER_VARIABLE`.
        timeout_s: How long the run may take; the CLI waits as long for background tasks.
        json_schema: The JSON Schema of the answer; empty for none.
        exclusive: Exclusive agents that the run holds; they cannot be started below it.
        asks: The CLI asks us, on stdout, for permissions that the agent lacks.

    Raises:
        RefusedValueError: A value looks like a flag, contains a NUL, or is not a usable number.
    """
    if not claude or (new_session is not None and resume is not None):
        raise ValueError("needs a program, and one way to choose the session")
    argv = [*claude, *_ALWAYS]
    if asks:
        argv.append("--permission-prompt-tool=stdio")
    values = {
        "--session-id": new_session,
        "--resume": resume,
        "--model": agent.model,
        "--fallback-model": agent.fallback_model,
        "--effort": agent.effort,
        "--permission-mode": agent.permission_mode,
    }
    argv += [_flag(agent, flag, value) for flag, value in values.items() if value]
    if agent.max_budget_usd:
        argv.append(f"--max-budget-usd={_budget(agent, agent.max_budget_usd)}")
    # One flag per rule: in a list joined by commas a rule without its closing parenthesis would
    # swallow the rest, and the CLI ignores what it cannot read (measured with Claude Code 2.1.330).
    argv += [_flag(agent, "--allowedTools", rule) for rule in agent.allowed_tools or () if rule]
    argv += [
        _flag(agent, "--disallowedTools", rule) for rule in agent.disallowed_tools or () if rule
    ]
    if agent.tools is not None:
        # An empty list leaves no built-in tool.
        argv.append(_flag(agent, "--tools", ",".join(filter(None, agent.tools))))
    if agent.instructions:
        # The text may begin with a dash; after `=` the CLI takes it as a value.
        text = _usable(agent, "--append-system-prompt", agent.instructions)
        argv.append(f"--append-system-prompt={text}")
        # Otherwise a resumed session keeps the text that it began with (measured with 2.1.330).
        argv.append("--system-prompt-snapshot=off")
    if json_schema:
        argv.append(f"--json-schema={json_schema}")
    if depth + 1 >= max_depth or not agent.nested:
        # A child that may not dispatch should not wait for our server to start, as `-p` does.
        denied = [{"serverName": name} for name in _OUR_SERVER_NAMES]
        settings = msgspec.json.encode({"deniedMcpServers": denied}).decode()
        argv.append(f"--settings={settings}")
    env = inherited(environ, nested=depth > 0, allow=agent.env_allow, deny=agent.env_deny)
    env |= {
        "PWD": _usable(agent, "directory", agent.directory),
        DEPTH_VARIABLE: str(depth + 1),
        MARKER_VARIABLE: marker,
        # At least 1: for the CLI, 0 means to wait forever.
        _WAIT_CEILING_VARIABLE: str(max(1, math.ceil(timeout_s * 1000))),
    }
    if held := [*exclusive_above(environ), *exclusive]:
        env[EXCLUSIVE_VARIABLE] = ",".join(held)
    return Command(tuple(argv), agent.directory, env, session_id=new_session or resume)


def exclusive_above(environ: Mapping[str, str]) -> list[str]:
    """Return the exclusive agents whose runs enclose this process."""
    return list(filter(None, environ.get(EXCLUSIVE_VARIABLE, "").split(",")))


def current_depth(environ: Mapping[str, str]) -> int:
    """Return how many dispatches enclose this process.

    A value that is not a number counts as `UNREADABLE_DEPTH`, so an agent cannot switch the
    recursion limit off by spoiling the variable.
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
            f"Agent {agent.name!r}: the value {value!r} for {what} contains a character that a"
            " command line cannot carry; nothing was started.",
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

"""`demo`: show one dispatch between two small projects in a temporary directory."""

import shlex
import shutil
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec

from agent_dispatch.cli.demo import stand_in
from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.cli.output import dollars, one_line, printable, title, write_json, write_lines
from agent_dispatch.cli.run.ended import dispatch_result
from agent_dispatch.cli.run.results import exit_status, failures_of, show_result
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.agents import add_agent
from agent_dispatch.config.registry import Registry
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.request.prompt import build_prompt
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult

_PROJECTS = {
    "tides": {
        "CLAUDE.md": "# Tides\n\nTimes of high water at the quay, in tides.csv.\n",
        stand_in.TABLE: (
            "day,first,second\nMonday,04:12,16:38\nTuesday,05:01,17:24\nWednesday,05:47,18:09\n"
        ),
    },
    "ferry": {
        "README.md": "# Ferry\n\nThe timetable of a ferry that can only leave at high water.\n",
        "pyproject.toml": '[project]\nname = "ferry"\nversion = "1.0"\n',
    },
}

_TIMEOUT_S = 120.0

REQUEST = DispatchRequest(
    agent="tides",
    task="When is high water on Tuesday? Answer in one sentence and name the file.",
    context="The ferry needs high water to leave.",
    caller="ferry",
    goal="set the departures of the coming week",
)


def demo(*, real: bool = False, watch: bool = False, json: bool = False, shell: Shell) -> int:
    """See a dispatch at work, between two small projects in a temporary place.

    Nothing of yours is touched, and nothing is left behind.

    Args:
        real: Use the installed Claude Code instead of the stand-in; that costs money.
        watch: Show several dispatches at once and a dialogue in the view of `watch`.
        json: Print the result as JSON and nothing else.
    """
    claude = None if real else [sys.executable, "-I", "-S", stand_in.__file__]
    with closing(shell.start_fork_server()) as fork_server:
        from agent_dispatch.cli.run.foreground import run_in_foreground
        from agent_dispatch.cli.run.progress import Style

        with tempfile.TemporaryDirectory(prefix="agent-dispatch-demo-") as place:
            environ = {
                **shell.environ,
                # These keep the demo away from the user's own agents and jobs.
                "AGENT_DISPATCH_CONFIG": f"{place}/config/agents.toml",
                "AGENT_DISPATCH_JOBS_DIR": f"{place}/jobs",
            }
            shell = msgspec.structs.replace(shell, environ=environ)
            agents = _set_up(Path(place), open_registry(shell))
            if watch:
                from agent_dispatch.cli.demo.watch import watch_demo

                return watch_demo(shell, fork_server, claude)
            if not json:
                write_lines(shell, _introduction(agents, shell, real=real), at_once=True)
            ended = run_in_foreground(
                shell,
                fork_server,
                lambda service, on_progress: service.dispatch(REQUEST, on_progress),
                Style.STREAM,
                claude=claude,
            )
    result = dispatch_result(ended, REQUEST.agent)
    if not result.success:
        result = without_what_is_gone(result)
    if json:
        write_json(shell, worded(result, in_shell))
    else:
        _show(result, shell, real=real)
    return exit_status(failures_of(result), ended.signum)


def without_what_is_gone(result: DispatchResult) -> DispatchResult:
    """Remove the session, the job and their next steps: the demo has deleted them."""
    steps = [step for step in result.next_steps or () if not step.agent and not step.job_id]
    return msgspec.structs.replace(result, next_steps=steps, session_id=None, job_id=None)


def _set_up(place: Path, registry: Registry) -> list[AgentSummary]:
    for name, files in _PROJECTS.items():
        directory = place / name
        directory.mkdir()
        for filename, text in files.items():
            (directory / filename).write_text(text, encoding="utf-8")
        add_agent(registry, name, str(directory), timeout=_TIMEOUT_S)
    return registry.list_agents()


def _introduction(agents: list[AgentSummary], shell: Shell, *, real: bool) -> list[str]:
    player = (
        "The installed Claude Code answers: this costs what a small session costs."
        if real
        else "A scripted stand-in plays Claude Code: no model is asked, this costs nothing."
    )
    prompt = printable(build_prompt(REQUEST)).splitlines()
    return [
        player,
        "",
        title("Two projects in a temporary place, registered as agents", shell),
        *(f"  {agent.name}: {one_line(agent.description)}" for agent in agents),
        "",
        title(f"{REQUEST.caller} asks {REQUEST.agent}; the agent gets this prompt", shell),
        *(f"  {line}".rstrip() for line in prompt),
        "",
        title("What the agent does", shell),
    ]


def _show(result: DispatchResult, shell: Shell, *, real: bool) -> None:
    if result.success:
        answer = printable(result.result).splitlines()
        cost = "not told" if result.cost_usd is None else dollars(result.cost_usd)
        lines = [
            "",
            title("Its answer", shell),
            *(f"  {line}" for line in answer),
            "",
            f"Cost: {cost}{'' if real else ' (a stand-in)'}",
            f"Time: {(result.duration_ms or 0) / 1000:.1f} s",
            "",
            "The temporary place is gone. Set agent-dispatch up for your own projects:",
            f"  {_command_here(shell)} init",
        ]
        write_lines(shell, lines)
    else:
        show_result(shell, result)


def _command_here(shell: Shell) -> str:
    """Return how this program is started from here."""
    if shell.environ.get("UV_RUN_RECURSION_DEPTH"):
        # `uv run` installs the program only for the time of the run.
        return "uv run agent-dispatch"
    found = shutil.which("agent-dispatch", path=shell.environ.get("PATH"))
    return "agent-dispatch" if found else shlex.quote(shell.program)

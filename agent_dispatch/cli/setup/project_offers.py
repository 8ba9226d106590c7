"""Offer the projects that Claude Code knows as agents."""

import re
import shlex
import time
from collections.abc import Sequence

import msgspec

from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.cli.jobs.display import age
from agent_dispatch.cli.output import cell_width, one_line, pad, remark, say, warn, write_lines
from agent_dispatch.cli.setup.claude_cli import ClaudeConfigError, read_claude_config
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.agents import add_agent
from agent_dispatch.config.project.known_projects import KnownProject, known_projects
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import quoted
from agent_dispatch.model.next_step import run

_SEPARATORS = re.compile(r"[\s,]+")


class Offered(msgspec.Struct, frozen=True):
    """The result of an offer."""

    left: list[KnownProject] = []
    """Projects that were not added."""
    added: list[str] = []
    """New agents."""


def offer_projects(
    registry: Registry, shell: Shell, *, add_all: bool, as_json: bool, reports: bool = True
) -> Offered:
    """Show the projects that Claude Code knows, and add all, or those that a person chooses.

    Args:
        registry: Gets the new agents.
        add_all: Add all without asking.
        as_json: Show nothing and ask nothing.
        reports: Warn if Claude Code's configuration cannot be read.

    Raises:
        MisuseError: The person's answer names no project.
        ConfigError: Our configuration cannot be read or written.
    """
    try:
        projects = _offered_projects(registry, shell)
    except ClaudeConfigError as error:
        if reports:
            warn(shell, str(error))
        return Offered()
    picked = projects if add_all else []
    if projects and not as_json:
        write_lines(shell, ["Projects that Claude Code knows:"])
        write_lines(shell, _project_lines(projects, numbered=True))
        if not add_all and shell.is_interactive:
            say(shell, "Add which as agents? Numbers, all, or Enter for none: ")
            picked = chosen(shell.stdin.readline(), projects)
    added = [add_agent(registry, project.name, project.directory) for project in picked]
    if not as_json:
        write_lines(
            shell, [f"Added {change.agent}: {one_line(change.directory or '')}" for change in added]
        )
    return Offered(
        left=[project for project in projects if project not in picked],
        added=[change.agent for change in added],
    )


def next_line(registry: Registry, offered: Offered) -> str:
    """Say what to do after `init`."""
    config = registry.load()
    if config.agents:
        return f"Next: agent-dispatch test {next(iter(config.agents))}"
    if offered.left:
        return "Next: agent-dispatch init --all, or agent-dispatch add NAME DIRECTORY"
    return "Next: agent-dispatch add NAME DIRECTORY"


def _offered_projects(registry: Registry, shell: Shell) -> list[KnownProject]:
    """List the projects that could become agents, the last used first."""
    claude_config = read_claude_config(shell.environ)
    agents = registry.list_agents(look=False)
    return known_projects(
        claude_config,
        taken=[agent.name for agent in agents],
        registered=[agent.directory for agent in agents if agent.host is None],
        home=shell.environ.get("HOME", ""),
    )


def _project_lines(projects: Sequence[KnownProject], *, numbered: bool = False) -> list[str]:
    """A line for each project: name, directory, trust, and when it was last used."""
    now = time.time()
    names = max((cell_width(one_line(project.name)) for project in projects), default=0)
    lines = []
    for number, project in enumerate(projects, start=1):
        facts = ["trusted" if project.trusted else "not trusted"]
        if project.last_start is not None:
            facts.append(f"used {age(max(now - project.last_start, 0))} ago")
        place = f"{number:>{len(str(len(projects)))}}  " if numbered else ""
        name = pad(one_line(project.name), names)
        lines.append(f"  {place}{name}  {one_line(project.directory)}  ({', '.join(facts)})")
    return lines


def no_directory(registry: Registry, shell: Shell) -> MisuseError:
    """Show the projects that could be added, and return the error of a call that names none."""
    try:
        projects = _offered_projects(registry, shell)
    except ClaudeConfigError as error:
        warn(shell, str(error))
        projects = []
    tips = [run("agent-dispatch add --help")]
    if projects:
        remark(shell, "Projects that Claude Code knows:")
        for line in _project_lines(projects):
            remark(shell, line)
        newest = ["agent-dispatch", "add", projects[0].name, projects[0].directory]
        tips.insert(0, run(shlex.join(newest)))
    return MisuseError("`add` needs a name and a directory.", *tips)


def chosen(answer: str, projects: Sequence[KnownProject]) -> list[KnownProject]:
    """Return the projects that an answer names, each once, in the order of the list.

    Raises:
        MisuseError: The answer is neither numbers of the list nor `all`.
    """
    words = [word for word in _SEPARATORS.split(answer.strip()) if word]
    if [word.lower() for word in words] == ["all"]:
        return list(projects)
    numbers = {str(number): project for number, project in enumerate(projects, start=1)}
    for word in words:
        if word not in numbers:
            raise MisuseError(
                f"{quoted(word)} is not a number from 1 to {len(projects)}, nor `all`. No agent was"
                " added."
            )
    return [project for number, project in numbers.items() if number in words]

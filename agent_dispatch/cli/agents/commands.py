"""Commands about `agents.toml`: register, change, show. None of them starts anything."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent_dispatch.cli.agents.display import agent_table, detail_lines, summary_lines
from agent_dispatch.cli.errors import raise_together
from agent_dispatch.cli.output import (
    Colour,
    cell_width,
    counted,
    listing,
    note,
    one_line,
    remark,
    warn,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.cli.validation import check_agent, check_choice
from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.hosts import remote_directory
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields
from agent_dispatch.model.config import AgentConfig
from agent_dispatch.model.next_step import run

if TYPE_CHECKING:
    # Imported by the one command that reads YAML.
    from agent_dispatch.config.yaml_import import ImportReport


_SHOWN_NAMES = 8
_PREVIEW_LINES = 40
"""Of the documents of an agent, as the tool `inspect_agent` shows by default."""


def add(
    name: str = "",
    directory: str = "",
    /,
    *,
    description: str = "",
    timeout: float = 0,
    max_budget_usd: float = 0,
    model: str = "",
    permission_mode: str = "",
    allowed_tools: str = "",
    disallowed_tools: str = "",
    json: bool = False,
    shell: Shell,
) -> int:
    """Register a project directory as an agent.

    Without a directory, the projects that Claude Code knows are listed.

    Args:
        name: Letters, digits, hyphens and underscores.
        directory: An existing directory; `~` is expanded, relative paths are resolved. HOST:PATH
            is one on another machine (write ./a:b for a path here).
        description: What the agent can do; by default made from the project's files.
        timeout: Seconds a run may take; 0 takes the default of the settings.
        max_budget_usd: US dollars a run may cost; 0 inherits the limit of the settings.
        model: The model, as `claude --model` takes it.
        permission_mode: acceptEdits, auto, bypassPermissions, default, dontAsk, manual or plan.
        allowed_tools: Tools granted, separated by commas, like "Bash(git log:*),Read".
        disallowed_tools: Tools forbidden, separated by commas.
        json: Print the change as JSON.
    """
    if not directory:
        from agent_dispatch.cli.setup.project_offers import no_directory

        raise no_directory(open_registry(shell), shell)
    check_agent(timeout, max_budget_usd, permission_mode, is_new=True)
    fields = AgentFields(
        description=description,
        timeout=timeout,
        max_budget_usd=max_budget_usd,
        model=model,
        permission_mode=permission_mode,
        allowed_tools=allowed_tools,
        disallowed_tools=disallowed_tools,
    )
    if (place := remote_directory(directory)) is not None:
        from agent_dispatch.cli.agents.remote import add_remote

        change = add_remote(shell, name, *place, fields)
    else:
        change = add_agent(open_registry(shell), name, directory, **fields)
    return _show_change(change, shell, as_json=json)


def update(
    name: str,
    /,
    *,
    description: str = "",
    timeout: float = 0,
    max_budget_usd: float = 0,
    model: str = "",
    permission_mode: str = "",
    allowed_tools: str = "",
    disallowed_tools: str = "",
    effort: str = "",
    permission_prompts: str = "",
    allow: str = "",
    verify: str = "",
    json: bool = False,
    shell: Shell,
) -> int:
    """Change an agent. Options left out change nothing; "none" clears a field.

    Args:
        name: The agent.
        description: A new description.
        timeout: Seconds a run may take; 0 changes nothing.
        max_budget_usd: US dollars a run may cost; 0 changes nothing, a negative number clears it.
        model: The model; "none" clears it.
        permission_mode: acceptEdits, auto, bypassPermissions, default, dontAsk, manual or plan;
            "none" clears it.
        allowed_tools: Tools granted, separated by commas; "none" clears them.
        disallowed_tools: Tools forbidden, separated by commas; "none" clears them.
        effort: low, medium, high, xhigh or max; "none" clears it.
        permission_prompts: "ask" lets a person answer when it lacks a permission; "deny" does not.
        allow: A rule to add to the allowed tools, like "Bash(git log:*)".
        verify: The command that checks its work when a call asks for that, like "make test"; no
            shell runs it. "none" clears it.
        json: Print the change as JSON.
    """
    check_agent(timeout, max_budget_usd, permission_mode, is_new=False)
    if permission_prompts.strip():
        check_choice("--permission-prompts", permission_prompts.strip(), ("ask", "deny", "none"))
    change = update_agent(
        open_registry(shell),
        name,
        description=description,
        timeout=timeout,
        max_budget_usd=max_budget_usd,
        model=model,
        permission_mode=permission_mode,
        allowed_tools=allowed_tools,
        disallowed_tools=disallowed_tools,
        effort=effort,
        permission_prompts=permission_prompts,
        allow=allow,
        verify=verify,
    )
    return _show_change(change, shell, as_json=json)


def remove(name: str, /, *, json: bool = False, shell: Shell) -> int:
    """Remove an agent from the config. Its directory is not changed.

    Args:
        name: The agent.
        json: Print the change as JSON.
    """
    return _show_change(remove_agent(open_registry(shell), name), shell, as_json=json)


def list_agents(*, long: bool = False, json: bool = False, shell: Shell) -> int:
    """List all agents, one row each: health, directory, description.

    Args:
        long: Show the whole description, MCP servers, groups and permissions too.
        json: Print what the MCP tool `list_agents` answers.
    """
    registry = open_registry(shell)
    agents = registry.list_agents()
    if json:
        write_json(shell, agents)
    elif agents and not long:
        write_lines(shell, agent_table(agents, shell))
    elif agents:
        agents.sort(key=lambda agent: agent.name)
        width = max(cell_width(one_line(agent.name)) for agent in agents)
        for agent in agents:
            write_lines(shell, summary_lines(agent, width, shell))
    else:
        write_lines(shell, ["No agents yet. Register one with: agent-dispatch add NAME DIRECTORY"])
    mention_unimported(registry, shell)
    return 0


def mention_unimported(registry: Registry, shell: Shell) -> None:
    """Mention an `agents.yaml` of the predecessor with agents that are not imported."""
    if not registry.path.with_name("agents.yaml").exists():
        return  # Reading YAML takes time to import.
    from agent_dispatch.config.yaml_import import find_unimported

    found = find_unimported(registry)
    if found is None:
        return
    if found.problem is not None:
        note(shell, found.problem)
        return
    note(
        shell,
        f"{found.path} has {counted(len(found.agents), 'agent')} that"
        f" {'is' if len(found.agents) == 1 else 'are'} not imported: {_some(found.agents)}",
    )
    remark(shell, f"tip: agent-dispatch import {shlex.quote(str(found.path))}")


def _some(names: Sequence[str]) -> str:
    shown = listing(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"


def describe(name: str, /, *, json: bool = False, shell: Shell) -> int:
    """Show the full configuration of one agent, and its project files.

    Args:
        name: The agent.
        json: Print what the MCP tool `inspect_agent` answers.
    """
    registry = open_registry(shell)
    config = registry.load()
    configured = config.agents.get(name)

    def inspect(preview_lines: int) -> AgentDetails:
        if configured is None or configured.host is None:
            return registry.inspect_agent(name, preview_lines)
        from agent_dispatch.cli.agents.remote import describe_remote

        return describe_remote(shell, name, preview_lines)

    if json:
        write_json(shell, inspect(_PREVIEW_LINES))
        return 0
    details = inspect(0)
    own = configured or AgentConfig(directory=details.directory)
    if own.host is not None:
        # Nothing is inherited from our settings: its host reports the effective values.
        fields = set(AgentConfig.__struct_fields__) & set(AgentDetails.__struct_fields__)
        own = AgentConfig(**{field: getattr(details, field) for field in fields})
    write_lines(shell, detail_lines(details, own, config.settings, shell))
    return 0


def import_agents(
    file: str, /, *, overwrite: bool = False, json: bool = False, shell: Shell
) -> int:
    """Import agents, groups and settings from an agents.yaml. The file is not changed.

    Keys that agent-dispatch does not have are left out and named.

    Args:
        file: The YAML file.
        overwrite: Replace agents and groups that the config already has.
        json: Print the report as JSON.
    """
    from agent_dispatch.config.yaml_import import import_yaml

    report = import_yaml(Path(file), open_registry(shell), overwrite=overwrite)
    if not json:
        _show_import(report, shell)
    again = run(f"agent-dispatch import {shlex.quote(file)}")
    failed = (f"{one_line(name)}: {one_line(reason)}" for name, reason in report.failed.items())
    raise_together(*map(DispatchError, failed), steps=[again])
    if json:
        write_json(shell, report)
    return 0


def _show_change(change: AgentChange, shell: Shell, *, as_json: bool) -> int:
    if as_json:
        write_json(shell, change)
        return 0
    about = listing(change.changed) or one_line(change.directory or "")
    lines = [f"{change.action.capitalize()} {one_line(change.agent)}: {about}"]
    if change.action == "added":
        lines.append(f"  {one_line(change.description or '')}")
    write_lines(shell, lines)
    warn(shell, *(change.warnings or ()))
    return 0


def _show_import(report: "ImportReport", shell: Shell) -> None:
    rows = (
        ("Added", report.added),
        ("Replaced", report.replaced),
        ("Groups", report.groups),
        ("Settings", report.settings),
    )
    lines = [f"{label}: {listing(names)}" for label, names in rows if names]
    write_lines(shell, lines or ["Nothing was imported."])
    for name, reason in report.skipped.items():
        remark(shell, f"skipped {one_line(name)}: {one_line(reason)}")
    for name, reason in report.left_out.items():
        remark(shell, f"left out {one_line(name)}: {one_line(reason)}", Colour.DOUBTFUL)
    warn(shell, *(report.warnings or ()))

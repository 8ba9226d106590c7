"""Commands about `agents.toml`: register, change, show. None of them starts anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent_dispatch.cli.output import (
    Colour,
    cell_width,
    listing,
    one_line,
    pad,
    paint,
    remark,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary
from agent_dispatch.model.config import AgentConfig, Settings
from agent_dispatch.project.config_file import config_path
from agent_dispatch.project.registry import Registry

if TYPE_CHECKING:
    # Imported by the one command that reads YAML.
    from agent_dispatch.project.yaml_import import ImportReport


def open_registry(shell: Shell) -> Registry:
    """The registry of the config that this environment points at."""
    return Registry(config_path(shell.environ))


def add(
    name: str,
    directory: str,
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

    Args:
        name: Letters, digits, hyphens and underscores.
        directory: An existing directory; `~` is expanded, relative paths are resolved.
        description: What the agent can do; made from the project's files if left out.
        timeout: Seconds a run may take; 0 takes the default of the settings.
        max_budget_usd: US dollars a run may cost; 0 sets no limit of its own.
        model: The model, as `claude --model` takes it.
        permission_mode: acceptEdits, auto, bypassPermissions, default, dontAsk, manual or plan.
        allowed_tools: Tools granted, separated by commas, like "Bash(git log:*),Read".
        disallowed_tools: Tools forbidden, separated by commas.
        json: Print the change as JSON.
        shell: The outside world.
    """
    change = open_registry(shell).add_agent(
        name,
        directory,
        description=description,
        timeout=timeout,
        max_budget_usd=max_budget_usd,
        model=model,
        permission_mode=permission_mode,
        allowed_tools=allowed_tools,
        disallowed_tools=disallowed_tools,
    )
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
    json: bool = False,
    shell: Shell,
) -> int:
    """Change an agent; what is left out stays, "none" clears a field.

    Args:
        name: The agent.
        description: A new description.
        timeout: Seconds a run may take; 0 changes nothing.
        max_budget_usd: US dollars a run may cost; 0 changes nothing, a negative number clears it.
        model: The model; "none" clears it.
        permission_mode: The permission mode; "none" clears it.
        allowed_tools: Tools granted, separated by commas; "none" clears them.
        disallowed_tools: Tools forbidden, separated by commas; "none" clears them.
        json: Print the change as JSON.
        shell: The outside world.
    """
    change = open_registry(shell).update_agent(
        name,
        description=description,
        timeout=timeout,
        max_budget_usd=max_budget_usd,
        model=model,
        permission_mode=permission_mode,
        allowed_tools=allowed_tools,
        disallowed_tools=disallowed_tools,
    )
    return _show_change(change, shell, as_json=json)


def remove(name: str, /, *, json: bool = False, shell: Shell) -> int:
    """Take an agent out of the config; its directory is not touched.

    Args:
        name: The agent.
        json: Print the change as JSON.
        shell: The outside world.
    """
    return _show_change(open_registry(shell).remove_agent(name), shell, as_json=json)


def list_agents(*, json: bool = False, shell: Shell) -> int:
    """Show all agents: health, directory, description, permissions.

    Args:
        json: Print what the MCP tool `list_agents` answers.
        shell: The outside world.
    """
    agents = open_registry(shell).list_agents()
    if json:
        write_json(shell, agents)
    elif agents:
        width = max(cell_width(one_line(agent.name)) for agent in agents)
        for agent in agents:
            write_lines(shell, _summary_lines(agent, width, shell))
    else:
        write_lines(shell, ["No agents yet. Register one with: agent-dispatch add NAME DIRECTORY"])
    return 0


def describe(name: str, /, *, json: bool = False, shell: Shell) -> int:
    """Show the full configuration of one agent, and what its project says of itself.

    Args:
        name: The agent.
        json: Print what the MCP tool `inspect_agent` answers.
        shell: The outside world.
    """
    registry = open_registry(shell)
    if json:
        write_json(shell, registry.inspect_agent(name))
        return 0
    details = registry.inspect_agent(name, preview_lines=0)
    config = registry.load()
    own = config.agents.get(name) or AgentConfig(directory=details.directory)
    write_lines(shell, _detail_lines(details, own, config.settings, shell))
    return 0


def import_agents(
    file: str, /, *, overwrite: bool = False, json: bool = False, shell: Shell
) -> int:
    """Take over agents and settings of an agents.yaml; the file itself is not touched.

    Args:
        file: The YAML file.
        overwrite: Replace agents that are in the config already.
        json: Print the report as JSON.
        shell: The outside world.
    """
    from agent_dispatch.project.yaml_import import import_yaml

    report = import_yaml(Path(file), open_registry(shell), overwrite=overwrite)
    if json:
        write_json(shell, report)
    else:
        _show_import(report, shell)
    return 1 if report.failed else 0


def _show_change(change: AgentChange, shell: Shell, *, as_json: bool) -> int:
    if as_json:
        write_json(shell, change)
        return 0
    about = listing(change.changed) or one_line(change.directory or "")
    lines = [f"{change.action.capitalize()} {one_line(change.agent)}: {about}"]
    if change.action == "added":
        lines.append(f"  {one_line(change.description or '')}")
    write_lines(shell, lines)
    for warning in change.warnings or ():
        remark(shell, f"warning: {one_line(warning)}", Colour.DOUBTFUL)
    return 0


def _show_import(report: "ImportReport", shell: Shell) -> None:
    rows = (
        ("Added", report.added),
        ("Replaced", report.replaced),
        ("Settings", report.settings),
    )
    lines = [f"{label}: {listing(names)}" for label, names in rows if names]
    write_lines(shell, lines or ["Nothing was taken over."])
    for name, reason in report.skipped.items():
        remark(shell, f"skipped {one_line(name)}: {one_line(reason)}")
    for warning in report.warnings or ():
        remark(shell, f"warning: {one_line(warning)}", Colour.DOUBTFUL)
    for name, reason in report.failed.items():
        remark(shell, f"error: {one_line(name)}: {one_line(reason)}", Colour.BAD)


def _summary_lines(agent: AgentSummary, width: int, shell: Shell) -> list[str]:
    indent = " " * (width + 2)
    name = paint(pad(one_line(agent.name), width), Colour.NAME, shell.stdout, shell.environ)
    lines = [f"{name}  {_health(agent.healthy, shell)}  {one_line(agent.directory)}"]
    if agent.problem:
        lines.append(f"{indent}problem: {one_line(agent.problem)}")
    if agent.description:
        lines.append(indent + one_line(agent.description))
    facts = _named(
        ("mcp", agent.mcp_servers or None),
        ("stacks", agent.stacks or None),
        ("dbs", agent.dbs or None),
    )
    permissions = _named(
        ("mode", [agent.permission_mode] if agent.permission_mode else None),
        ("allowed", agent.allowed_tools),
        ("disallowed", agent.disallowed_tools),
    )
    lines += [indent + line for line in (facts, permissions) if line]
    return lines


def _named(*items: tuple[str, Sequence[str] | None]) -> str:
    return "; ".join(
        f"{name}: {listing(values) or 'none'}" for name, values in items if values is not None
    )


def _health(healthy: bool, shell: Shell) -> str:
    word, colour = ("ok    ", Colour.GOOD) if healthy else ("broken", Colour.BAD)
    return paint(word, colour, shell.stdout, shell.environ)


def _detail_lines(
    details: AgentDetails, own: AgentConfig, settings: Settings, shell: Shell
) -> list[str]:
    files = [
        name
        for name, there in (
            ("CLAUDE.md", details.has_claude_md),
            (".mcp.json", details.has_mcp_config),
        )
        if there
    ]
    rows = [
        ("health", _health(details.healthy, shell).rstrip()),
        ("problem", one_line(details.problem or "")),
        ("directory", one_line(details.directory)),
        ("description", one_line(details.description)),
        ("timeout", _inherited(f"{details.timeout:g} s", own.timeout is None)),
        ("model", _or_inherit(details.model, own.model is None)),
        ("max budget", _budget(details, own)),
        (
            "permission mode",
            _or_inherit(details.permission_mode, own.permission_mode is None),
        ),
        ("allowed tools", _tools(own.allowed_tools, settings.default_allowed_tools)),
        (
            "disallowed tools",
            _tools(own.disallowed_tools, settings.default_disallowed_tools),
        ),
        ("project files", listing(files) or "none"),
        ("mcp servers", listing(details.mcp_servers)),
        ("stacks", listing(details.stacks)),
        ("databases", listing(details.dbs)),
        *(("warning", one_line(warning)) for warning in details.warnings or ()),
    ]
    title = paint(one_line(details.name), Colour.NAME, shell.stdout, shell.environ)
    return [title, *(f"  {label:<18}{text}" for label, text in rows if text)]


def _inherited(text: str, from_settings: bool) -> str:
    return f"{text} (from the settings)" if from_settings else text


def _or_inherit(value: str | None, from_settings: bool) -> str:
    if value is None:
        return "inherit (Claude Code's own)"
    return _inherited(one_line(value), from_settings)


def _budget(details: AgentDetails, own: AgentConfig) -> str:
    if details.max_budget_usd is None:
        return "no limit"
    text = f"${details.max_budget_usd:g} a run"
    return _inherited(text, own.max_budget_usd is None)


def _tools(own: Sequence[str] | None, default: Sequence[str] | None) -> str:
    """The three states: a list, none, or inherited."""
    if own is not None:
        return listing(own) or "none (nothing beyond the project's own settings)"
    if default is None:
        return "inherit (the project's own settings)"
    return f"inherit: {listing(default) or 'none'} (from the settings)"

"""`list` and `describe`: show agents."""

import shlex
from collections.abc import Sequence

from agent_dispatch.cli.agents.import_yaml import mention_unimported
from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.output import (
    Colour,
    cell_width,
    columns_of,
    fit_end,
    listing,
    local_time,
    one_line,
    pad,
    paint,
    table,
    title,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.model.agent import AgentDetails, AgentSummary
from agent_dispatch.model.config import AgentConfig, Settings
from agent_dispatch.model.rights import RightsChange

_INSTRUCTIONS_CHARS = 200
_PREVIEW_LINES = 40
"""Of the documents of an agent, as the tool `inspect_agent` shows by default."""
_RIGHTS_CHANGES = 5
"""The newest, shown; `--json` has more."""


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
        write_lines(shell, _agent_table(agents, shell))
    elif agents:
        agents.sort(key=lambda agent: agent.name)
        width = max(cell_width(one_line(agent.name)) for agent in agents)
        for agent in agents:
            write_lines(shell, _summary_lines(agent, width, shell))
    else:
        write_lines(shell, ["No agents yet. Register one with: agent-dispatch add NAME DIRECTORY"])
    mention_unimported(registry, shell)
    return 0


def describe(name: str, /, *, json: bool = False, shell: Shell) -> int:
    """Show the full configuration of one agent, and its project files.

    Args:
        name: The agent.
        json: Print what the MCP tool `inspect_agent` answers.
    """
    registry = open_registry(shell)
    config = registry.load()
    configured = config.agents.get(name)
    preview_lines = _PREVIEW_LINES if json else 0
    if configured is None or configured.host is None:
        details = registry.inspect_agent(name, preview_lines)
    else:
        details = call_service(shell, lambda service: service.agents.inspect(name, preview_lines))
    if json:
        write_json(shell, details)
        return 0
    own = configured or AgentConfig(directory=details.directory)
    if own.host is not None:
        # Nothing is inherited from our settings: its host reports the effective values.
        fields = set(AgentConfig.__struct_fields__) & set(AgentDetails.__struct_fields__)
        own = AgentConfig(**{field: getattr(details, field) for field in fields})
    write_lines(shell, _detail_lines(details, own, config.settings, shell))
    return 0


def _agent_table(agents: Sequence[AgentSummary], shell: Shell) -> list[str]:
    """One row for each agent, sorted by name: health, place, and its description or problem."""
    agents = sorted(agents, key=lambda agent: agent.name)
    is_terminal = shell.stdout.isatty()
    most = columns_of(shell) // 3
    rows = [
        (
            one_line(agent.name),
            "ok" if agent.healthy else "broken",
            fit_end(_from_home(_place(agent), shell) if is_terminal else _place(agent), most),
            one_line(agent.description if agent.problem is None else agent.problem),
        )
        for agent in agents
    ]
    colours = [
        {0: Colour.NAME, 1: Colour.GOOD if agent.healthy else Colour.BAD} for agent in agents
    ]
    return table(rows, shell, colours=colours)


def _summary_lines(agent: AgentSummary, width: int, shell: Shell) -> list[str]:
    """One agent of `list --long`; `width` is that of the longest name."""
    indent = " " * (width + 2)
    name = paint(pad(one_line(agent.name), width), Colour.NAME, shell)
    lines = [f"{name}  {_health(agent.healthy, shell)}  {_place(agent)}"]
    if agent.problem:
        lines.append(f"{indent}problem: {one_line(agent.problem)}")
    if agent.description:
        lines.append(indent + one_line(agent.description))
    # A description that we generated names these already.
    facts = _named(
        ("mcp", None if "MCP: " in agent.description else agent.mcp_servers or None),
        ("stacks", None if "Stack: " in agent.description else agent.stacks or None),
        ("dbs", None if "DB: " in agent.description else agent.dbs or None),
        ("groups", agent.groups or None),
        ("capabilities", agent.capabilities or None),
    )
    permissions = _named(
        ("mode", [agent.permission_mode] if agent.permission_mode else None),
        ("allowed", agent.allowed_tools),
        ("disallowed", agent.disallowed_tools),
    )
    lines += [indent + line for line in (facts, permissions) if line]
    return lines


def _from_home(path: str, shell: Shell) -> str:
    home = shell.environ.get("HOME", "").rstrip("/")
    return f"~{path.removeprefix(home)}" if home and path.startswith(f"{home}/") else path


def _place(agent: AgentSummary) -> str:
    return one_line(agent.directory) if agent.host is None else f"on {agent.host}"


def _named(*items: tuple[str, Sequence[str] | None]) -> str:
    return "; ".join(
        f"{name}: {listing(values) or 'none'}" for name, values in items if values is not None
    )


def _health(healthy: bool, shell: Shell) -> str:
    word, colour = ("ok    ", Colour.GOOD) if healthy else ("broken", Colour.BAD)
    return paint(word, colour, shell)


def _detail_lines(
    details: AgentDetails, own: AgentConfig, settings: Settings, shell: Shell
) -> list[str]:
    """The lines of `describe`; `own` has the values of the agent's own table."""
    files = list(details.instruction_files or ())
    if details.has_mcp_config:
        files.append(".mcp.json")
    rights_changes = (details.rights_changes or [])[-_RIGHTS_CHANGES:]
    rows = [
        ("health", _health(details.healthy, shell).rstrip()),
        ("problem", one_line(details.problem or "")),
        ("host", one_line(details.host or "")),
        ("directory", one_line(details.directory)),
        ("description", one_line(details.description)),
        ("timeout", _inherited(f"{details.timeout:g} s", own.timeout is None)),
        ("model", _or_inherit(details.model, own.model is None)),
        ("effort", one_line(details.effort or "")),
        ("fallback model", one_line(details.fallback_model or "")),
        ("max budget", _budget(details, own)),
        ("permission mode", _mode(details, own)),
        ("allowed tools", _tools(own.allowed_tools, settings.default_allowed_tools)),
        ("disallowed tools", _tools(own.disallowed_tools, settings.default_disallowed_tools)),
        *_own_rows(details),
        ("project files", listing(files) or "none"),
        ("mcp servers", listing(details.mcp_servers)),
        ("stacks", listing(details.stacks)),
        ("databases", listing(details.dbs)),
        ("groups", listing(details.groups)),
        ("asks", "a person, for permissions that it lacks" if details.permission_prompts else ""),
        *(("rights changed", _rights_change(change)) for change in reversed(rights_changes)),
        *(("warning", one_line(warning)) for warning in details.warnings or ()),
    ]
    name = title(one_line(details.name), shell)
    return [name, *(f"  {label:<18}{text}" for label, text in rows if text)]


def _own_rows(details: AgentDetails) -> list[tuple[str, str]]:
    """Values that only an agent's own table can set, if it sets them."""
    lists = (
        ("tools", details.tools),
        ("env allow", details.env_allow),
        ("env deny", details.env_deny),
        ("capabilities", details.capabilities),
    )
    instructions = one_line(details.instructions or "")
    if len(instructions) > _INSTRUCTIONS_CHARS:
        instructions = f"{instructions[:_INSTRUCTIONS_CHARS]}…"
    return [
        *((label, listing(items) or "none") for label, items in lists if items is not None),
        ("instructions", instructions),
        ("verify", _verify(details)),
        ("exclusive", "one run at a time on this machine" if details.exclusive else ""),
        ("nested", "no (this server is not started in it)" if details.nested is False else ""),
    ]


def _verify(details: AgentDetails) -> str:
    if details.verify is None:
        return ""
    always = "after each call" if details.verify_always else "when a call asks for it"
    attempts = details.verify_attempts or 1
    up_to = f", up to {attempts} times" if attempts > 1 else ""
    return one_line(f"{shlex.join(details.verify)} ({always}{up_to})")


def _rights_change(change: RightsChange) -> str:
    old, new = (_right(value) for value in (change.old, change.new))
    return f"{local_time(change.at)} {change.key}: {old} -> {new} (by {change.by})"


def _right(value: object) -> str:
    match value:
        case None:
            return "inherited"
        case list():
            return listing([str(item) for item in value]) or "none"
        case _:
            return one_line(str(value))


def _inherited(text: str, from_settings: bool) -> str:
    return f"{text} (from the settings)" if from_settings else text


def _or_inherit(value: str | None, from_settings: bool) -> str:
    if value is None:
        return "inherit (Claude Code's own)"
    return _inherited(one_line(value), from_settings)


def _mode(details: AgentDetails, own: AgentConfig) -> str:
    if details.inherited_permission_mode is None:
        return _or_inherit(details.permission_mode, own.permission_mode is None)
    mode, file = details.inherited_permission_mode, details.inherited_permission_mode_from or ""
    return f"inherit: {one_line(mode)} (permissions.defaultMode of {one_line(file)})"


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

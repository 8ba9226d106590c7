"""`add`, `update` and `remove`: change the agents in `agents.toml`. They start nothing."""

import shlex

from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.output import listing, one_line, warn, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.cli.validation import check_agent, check_choice
from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.hosts import remote_directory
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.agent import AgentChange, AgentFields


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
        change = _add_remote(shell, name, *place, fields)
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
    """Change an agent. Options left out change nothing.

    Args:
        name: The agent.
        description: What the agent can do; "none" clears it.
        timeout: Seconds a run may take; a negative number clears it.
        max_budget_usd: US dollars a run may cost; a negative number clears it.
        model: The model; "none" clears it.
        permission_mode: acceptEdits, auto, bypassPermissions, default, dontAsk, manual or plan;
            "none" clears it.
        allowed_tools: Tools granted, separated by commas; "none" clears them.
        disallowed_tools: Tools forbidden, separated by commas; "none" clears them.
        effort: low, medium, high, xhigh or max; "none" clears it.
        permission_prompts: "ask" asks a person about each call without a permission, "deny"
            denies it; "none" clears it.
        allow: A rule to add to the allowed tools, like "Bash(git log:*)".
        verify: The command that checks the agent's work when a call asks for that, like "make
            test"; no shell runs it. "none" clears it.
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


def _add_remote(
    shell: Shell, name: str, host: str, directory: str, fields: AgentFields
) -> AgentChange:
    """Register a directory of a host there, and link the agent here.

    Only a person on the host may set more than a description.
    """
    given = [
        f"--{option.replace('_', '-')}"
        for option, value in fields.items()
        if value and option != "description"
    ]
    if given:
        raise InvalidRequestError(
            f"{', '.join(given)}: what an agent may do is set on its own host. Add it without, then"
            f" run on {host}: agent-dispatch update {shlex.quote(name)} {given[0]} VALUE"
        )
    if not directory:
        raise InvalidRequestError(f"Give a directory on {host}, such as {host}:~/project.")
    description = fields.get("description", "")
    return call_service(
        shell, lambda service: service.agents.add_remote(name, host, directory, description)
    )


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

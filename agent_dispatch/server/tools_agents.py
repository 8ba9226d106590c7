"""The tools that look after the configured agents; none of them starts anything."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from agent_dispatch.core.agent_list import Row, fit_agents
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.server.ports import Service
from agent_dispatch.server.tools import Tool

MAX_PREVIEW_LINES = 200

_Name = Annotated[str, msgspec.Meta(description="Agent name from list_agents")]


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class InspectAgentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `inspect_agent`."""

    name: _Name
    preview_lines: Annotated[
        int,
        msgspec.Meta(description="Lines of CLAUDE.md and README.md to show (0-200, 0 = none)"),
    ] = 40


class AddAgentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `add_agent`."""

    name: Annotated[
        str, msgspec.Meta(description="Agent name: letters, digits, hyphens, underscores")
    ]
    directory: Annotated[
        str,
        msgspec.Meta(description="Existing project directory; ~ is expanded, relative is resolved"),
    ]
    description: Annotated[
        str,
        msgspec.Meta(description="What the agent can do; empty = taken from the project's files"),
    ] = ""
    timeout: Annotated[
        float, msgspec.Meta(description="Seconds per dispatch; 0 = default of the settings")
    ] = 0
    max_budget_usd: Annotated[
        float, msgspec.Meta(description="Most US dollars per dispatch; 0 = no limit of its own")
    ] = 0
    model: Annotated[str, msgspec.Meta(description="Model; empty = the project's own")] = ""
    permission_mode: Annotated[
        str,
        msgspec.Meta(
            description="manual (= default), acceptEdits, plan, dontAsk, auto or bypassPermissions"
        ),
    ] = ""
    allowed_tools: Annotated[
        str,
        msgspec.Meta(description='Tools to allow, e.g. "Read,Grep,Bash(git log:*)"'),
    ] = ""
    disallowed_tools: Annotated[str, msgspec.Meta(description="Tools to take away")] = ""


class UpdateAgentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `update_agent`."""

    name: _Name
    description: Annotated[str, msgspec.Meta(description="What the agent can do")] = ""
    timeout: Annotated[float, msgspec.Meta(description="Seconds per dispatch; 0 = keep")] = 0
    max_budget_usd: Annotated[
        float,
        msgspec.Meta(description="Most US dollars per dispatch; 0 = keep, negative = clear"),
    ] = 0
    model: Annotated[str, msgspec.Meta(description='Model; "none" clears')] = ""
    permission_mode: Annotated[
        str,
        msgspec.Meta(
            description="manual (= default), acceptEdits, plan, dontAsk, auto or"
            ' bypassPermissions; "none" clears'
        ),
    ] = ""
    allowed_tools: Annotated[
        str,
        msgspec.Meta(description='Replaces the list, e.g. "Read,Bash(git log:*)"; "none" clears'),
    ] = ""
    disallowed_tools: Annotated[
        str, msgspec.Meta(description='Replaces the list; "none" clears')
    ] = ""


class RemoveAgentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of `remove_agent`."""

    name: _Name


async def list_agents(
    service: Service, _params: NoParams, _on_progress: OnProgress
) -> Sequence[AgentSummary | Row]:
    """All agents, each with less if they are many."""
    return fit_agents(await service.list_agents())


async def inspect_agent(
    service: Service, params: InspectAgentParams, _on_progress: OnProgress
) -> AgentDetails:
    """One agent in full; `preview_lines` out of range is brought into it."""
    lines = min(max(params.preview_lines, 0), MAX_PREVIEW_LINES)
    return await service.inspect_agent(params.name, lines)


async def add_agent(
    service: Service, params: AddAgentParams, _on_progress: OnProgress
) -> AgentChange:
    """Register an agent."""
    return await service.add_agent(**msgspec.structs.asdict(params))


async def update_agent(
    service: Service, params: UpdateAgentParams, _on_progress: OnProgress
) -> AgentChange:
    """Change an agent."""
    return await service.update_agent(**msgspec.structs.asdict(params))


async def remove_agent(
    service: Service, params: RemoveAgentParams, _on_progress: OnProgress
) -> AgentChange:
    """Forget an agent."""
    return await service.remove_agent(params.name)


LIST_AGENTS = Tool(
    name="list_agents",
    title="List agents",
    description=(
        "List the configured agents: name, directory, what each can do, its MCP servers, stacks,"
        " databases and permissions, and whether it is healthy. Call this first."
    ),
    params=NoParams,
    run=list_agents,
    result=None,
    read_only=True,
)

INSPECT_AGENT = Tool(
    name="inspect_agent",
    title="Inspect an agent",
    description=(
        "Show one agent's full configuration and the beginning of its CLAUDE.md and README.md,"
        " without starting it. Use it to check that an agent has the tools for a task."
    ),
    params=InspectAgentParams,
    run=inspect_agent,
    result=AgentDetails,
    read_only=True,
)

ADD_AGENT = Tool(
    name="add_agent",
    title="Add an agent",
    description="Register a project directory as an agent.",
    params=AddAgentParams,
    run=add_agent,
    result=AgentChange,
)

UPDATE_AGENT = Tool(
    name="update_agent",
    title="Update an agent",
    description=(
        "Change an agent's configuration. Only what is given is changed. Grant the fewest tools"
        " that do; a tool list replaces the old one."
    ),
    params=UpdateAgentParams,
    run=update_agent,
    result=AgentChange,
    destructive=True,
    idempotent=True,
)

REMOVE_AGENT = Tool(
    name="remove_agent",
    title="Remove an agent",
    description="Remove an agent from the configuration. Its directory is not touched.",
    params=RemoveAgentParams,
    run=remove_agent,
    result=AgentChange,
    destructive=True,
    idempotent=True,
)

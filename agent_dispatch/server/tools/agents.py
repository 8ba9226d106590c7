"""The tools for configured agents and the cache; none of them starts an agent."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from agent_dispatch.model.agent import AgentDetails, AgentSummary
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.agents import Row, fit_agents
from agent_dispatch.server.tools.tool import Params, Tool

MAX_PREVIEW_LINES = 200
MAX_INSTRUCTIONS_CHARS = 2000

_Name = Annotated[str, msgspec.Meta(description="Agent name from list_agents")]
_Tools = str | list[str]


class NoParams(Params, frozen=True):
    """No arguments."""


class InspectAgentParams(Params, frozen=True):
    """Arguments of `inspect_agent`."""

    name: _Name
    preview_lines: Annotated[
        int,
        msgspec.Meta(description="Lines of CLAUDE.md and README.md to show (0-200, 0 = none)"),
    ] = 40


class AddAgentParams(Params, frozen=True):
    """Arguments of `add_agent`."""

    name: Annotated[str, msgspec.Meta(description="Letters, digits, hyphens, underscores")]
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
    model: Annotated[str, msgspec.Meta(description="Empty = the project's own")] = ""
    permission_mode: Annotated[
        str,
        msgspec.Meta(
            description="manual (= default), acceptEdits, plan, dontAsk, auto or bypassPermissions"
        ),
    ] = ""
    allowed_tools: Annotated[
        _Tools, msgspec.Meta(description='List or text: "Read,Bash(git log:*)"; [] = none')
    ] = ""
    disallowed_tools: Annotated[_Tools, msgspec.Meta(description="Tools to take away")] = ""


class UpdateAgentParams(Params, frozen=True):
    """Arguments of `update_agent`."""

    name: _Name
    description: Annotated[str, msgspec.Meta(description="What the agent can do")] = ""
    timeout: Annotated[float, msgspec.Meta(description="0 = keep, negative = clear")] = 0
    max_budget_usd: Annotated[float, msgspec.Meta(description="0 = keep, negative = clear")] = 0
    model: Annotated[str, msgspec.Meta(description='"none" clears')] = ""
    permission_mode: Annotated[str, msgspec.Meta(description='"none" clears')] = ""
    allowed_tools: Annotated[_Tools, msgspec.Meta(description='"none" clears')] = ""
    disallowed_tools: Annotated[_Tools, msgspec.Meta(description='"none" clears')] = ""


class RemoveAgentParams(Params, frozen=True):
    """Arguments of `remove_agent`."""

    name: _Name


async def list_agents(
    service: Service, _params: NoParams, _on_progress: OnProgress
) -> Sequence[AgentSummary | Row]:
    """List all agents, with less about each if there are many."""
    return fit_agents(await service.agents.summaries())


async def inspect_agent(
    service: Service, params: InspectAgentParams, _on_progress: OnProgress
) -> AgentDetails:
    """Show one agent in full; out of range, `preview_lines` becomes the nearest limit."""
    lines = min(max(params.preview_lines, 0), MAX_PREVIEW_LINES)
    details = await service.agents.inspect(params.name, lines)
    if len(text := details.instructions or "") > MAX_INSTRUCTIONS_CHARS:
        text = f"{text[: MAX_INSTRUCTIONS_CHARS - 1]}…"
        details = msgspec.structs.replace(details, instructions=text)
    return details


def _fields(params: AddAgentParams | UpdateAgentParams) -> dict[str, Any]:
    """Return the arguments for the service, which takes a list of tools as JSON text."""
    return {
        name: msgspec.json.encode(value).decode() if isinstance(value, list) else value
        for name, value in msgspec.structs.asdict(params).items()
    }


LIST_AGENTS = Tool(
    name="list_agents",
    title="List agents",
    description=(
        "List the configured agents: name, directory, what each can do, its MCP servers, stacks,"
        " databases and permissions, and whether it is healthy. Call this first."
    ),
    params=NoParams,
    run=list_agents,
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
    read_only=True,
)

ADD_AGENT = Tool(
    name="add_agent",
    title="Add an agent",
    description="Register a project directory as an agent.",
    params=AddAgentParams,
    creates_config=True,
    run=lambda service, params, _on_progress: service.agents.add(
        **_fields(params), by=ChangedBy.MCP
    ),
    run_granted=lambda service, params, _on_progress: service.agents.add(
        **_fields(params), by=ChangedBy.ELICITATION
    ),
)

UPDATE_AGENT = Tool(
    name="update_agent",
    title="Update an agent",
    description=(
        "Change an agent's configuration; parameters as in add_agent. Only what is given is"
        " changed; a tool list replaces the old one. More rights are for your user to grant:"
        " ask first."
    ),
    params=UpdateAgentParams,
    run=lambda service, params, _on_progress: service.agents.update(
        **_fields(params), by=ChangedBy.MCP
    ),
    run_granted=lambda service, params, _on_progress: service.agents.update(
        **_fields(params), by=ChangedBy.ELICITATION
    ),
    destructive=True,
    idempotent=True,
)

REMOVE_AGENT = Tool(
    name="remove_agent",
    title="Remove an agent",
    description="Remove an agent from the configuration. Its directory is not touched.",
    params=RemoveAgentParams,
    run=lambda service, params, _on_progress: service.agents.remove(params.name),
    destructive=True,
    idempotent=True,
)

CACHE_STATS = Tool(
    name="cache_stats",
    title="Cache statistics",
    description="Show how many answers are cached, and how often one was used.",
    params=NoParams,
    run=lambda service, _params, _on_progress: service.cache_stats(),
    read_only=True,
)

CACHE_CLEAR = Tool(
    name="cache_clear",
    title="Clear the cache",
    description="Forget all cached answers, so that the next dispatch of each runs anew.",
    params=NoParams,
    run=lambda service, _params, _on_progress: service.cache_clear(),
    idempotent=True,
)

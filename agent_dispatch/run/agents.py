"""List and inspect agents, with a bound for each directory: a network mount may never answer."""

from functools import partial

import msgspec
import trio

from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.agent import AgentDetails, AgentSummary
from agent_dispatch.threads import DirectoryThreads

_LOOK_S = 5.0
"""How long looking at an agent's directory may take."""


async def list_agents(registry: Registry, threads: DirectoryThreads) -> list[AgentSummary]:
    """List all configured agents, the broken ones with their problem."""
    try:
        return await threads.run_within(_LOOK_S, "list", registry.list_agents)
    except trio.TooSlowError:
        return await _list_one_by_one(registry, threads)


async def _list_one_by_one(registry: Registry, threads: DirectoryThreads) -> list[AgentSummary]:
    """Look at each directory with a bound of its own, because one of them does not answer."""
    unseen = partial(registry.list_agents, look=False)
    rows = {row.name: row for row in await threads.run("list unseen", unseen)}

    async def look(name: str) -> None:
        summary = partial(registry.summary, name)
        try:
            rows[name] = await threads.run_within(_LOOK_S, f"list {name}", summary)
        except trio.TooSlowError:
            problem = rows[name].problem or _hangs(name)
            rows[name] = msgspec.structs.replace(rows[name], problem=problem)

    async with trio.open_nursery() as nursery:
        for name in rows:
            nursery.start_soon(look, name)
    return list(rows.values())


async def inspect_agent(
    registry: Registry, threads: DirectoryThreads, name: str, preview_lines: int
) -> AgentDetails:
    """Return one agent as it takes effect, with the first lines of its documents.

    Raises:
        DispatchError: No such agent, or its directory does not answer.
    """
    look = partial(registry.inspect_agent, name, preview_lines)
    try:
        return await threads.run_within(_LOOK_S, f"inspect {name}", look)
    except trio.TooSlowError:
        raise DispatchError(_hangs(name)) from None


def _hangs(name: str) -> str:
    return (
        f"The directory of agent {name!r} did not answer for {_LOOK_S:g} s. Is it on a network"
        " mount that hangs?"
    )

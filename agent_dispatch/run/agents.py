"""The configured agents: list, inspect, add, change and remove them.

Each look at a directory has a bound: a network mount may never answer.
"""

from functools import partial
from typing import Unpack

import msgspec
import trio

from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.hosts import remote_directory
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields, AgentSummary
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.remote.caller.hosts import Hosts
from agent_dispatch.run.plan import Planner
from agent_dispatch.threads import DirectoryThreads

_LOOK_S = 5.0
"""How long looking at an agent's directory may take."""


class Agents:
    """The agents of one registry, here and on other hosts."""

    def __init__(
        self, registry: Registry, planner: Planner, hosts: Hosts, threads: DirectoryThreads
    ) -> None:
        """Look at directories in `threads`; ask `hosts` about their agents."""
        self._registry = registry
        self._planner = planner
        self._hosts = hosts
        self._threads = threads

    async def summaries(self) -> list[AgentSummary]:
        """List all configured agents, the broken ones with their problem."""
        try:
            return await self._threads.run_within(_LOOK_S, "list", self._registry.list_agents)
        except trio.TooSlowError:
            return await self._look_one_by_one()

    async def _look_one_by_one(self) -> list[AgentSummary]:
        """Look at each directory with a bound of its own, because one of them does not answer."""
        unseen = partial(self._registry.list_agents, look=False)
        rows = {row.name: row for row in await self._threads.run("list unseen", unseen)}

        async def look(name: str) -> None:
            summary = partial(self._registry.summary, name)
            try:
                rows[name] = await self._threads.run_within(_LOOK_S, f"list {name}", summary)
            except trio.TooSlowError:
                problem = rows[name].problem or _hangs(name)
                rows[name] = msgspec.structs.replace(rows[name], problem=problem)

        async with trio.open_nursery() as nursery:
            for name in rows:
                nursery.start_soon(look, name)
        return [*rows.values()]

    async def inspect(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """Return one agent as it takes effect, with the first lines of its documents.

        Raises:
            DispatchError: No such agent, or its directory or host does not answer.
        """
        snapshot = await self._planner.snapshot()
        configured = snapshot.config.agents.get(name)
        if configured is not None and configured.host is not None:
            agent = snapshot.effective(name)
            return await self._hosts.agents.inspect(agent, configured.host, preview_lines)
        look = partial(self._registry.inspect_agent, name, preview_lines)
        try:
            return await self._threads.run_within(_LOOK_S, f"inspect {name}", look)
        except trio.TooSlowError:
            raise DispatchError(_hangs(name)) from None

    async def add(
        self, name: str, directory: str, *, by: ChangedBy, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Register a directory; empty and 0 mean that the setting is inherited.

        `HOST:DIRECTORY` is registered on that host, and linked here.

        Raises:
            WideningError: A model asks for rights that only a person may give.
        """
        if (place := remote_directory(directory)) is not None:
            given = [key for key, value in fields.items() if value and key != "description"]
            if given:
                raise InvalidRequestError(
                    f"{', '.join(given)}: what an agent may do is set on its own host. Leave it"
                    " out."
                )
            return await self.add_remote(name, *place, fields.get("description", ""))
        add = partial(add_agent, self._registry, name, directory, by=by, **fields)
        return await self._threads.run(f"add {name}", add)

    async def update(
        self, name: str, *, by: ChangedBy, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Change what is not empty or 0; `none` and a negative budget clear the agent's own.

        Raises:
            WideningError: A model asks for rights that only a person may give.
        """
        update = partial(update_agent, self._registry, name, by=by, **fields)
        return await self._threads.run(f"update {name}", update)

    async def add_remote(
        self, name: str, host: str, directory: str, description: str = ""
    ) -> AgentChange:
        """Register a directory of another machine there, and link the agent here.

        Raises:
            DispatchError: The host refuses or cannot be reached, or the name is taken; nothing is
                written on this machine.
        """
        return await self._hosts.agents.add(name, host, directory, description)

    async def remove(self, name: str) -> AgentChange:
        """Forget an agent; its directory stays as it is."""
        remove = partial(remove_agent, self._registry, name)
        return await self._threads.run(f"remove {name}", remove)


def _hangs(name: str) -> str:
    return (
        f"The directory of agent {name!r} did not answer for {_LOOK_S:g} s. Is it on a network"
        " mount that hangs?"
    )

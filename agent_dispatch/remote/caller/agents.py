"""Agents on other hosts: asks their hosts about them, and registers new ones there."""

from functools import partial
from typing import Any

import msgspec

from agent_dispatch.config.hosts import link_agent, require_free_name
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.sightings import AgentSeen, Sightings
from agent_dispatch.model.agent import AgentChange, AgentDetails
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.remote.caller.links import Links
from agent_dispatch.threads import in_thread

_ADD_S = 30.0
"""How long to try to reach a host that is to get an agent."""
_INSPECT_S = 5.0


class AgentsOnHosts:
    """The agents of one configuration that are on other hosts."""

    def __init__(self, registry: Registry, links: Links, sightings: Sightings) -> None:
        """Ask hosts over `links`; keep what they say in `sightings`, for listings."""
        self._registry = registry
        self._links = links
        self._sightings = sightings

    async def inspect(self, agent: EffectiveAgent, host: str, preview_lines: int) -> AgentDetails:
        """Return an agent as its host sees it.

        Raises:
            DispatchError: The host does not know it, or cannot be reached.
        """
        there = agent.agent or agent.name
        args = {"name": there, "preview_lines": preview_lines}
        details = await self._links.call(host, "inspect", AgentDetails, args, _INSPECT_S)
        seen = {there: AgentSeen(healthy=details.healthy, problem=details.problem)}
        await in_thread(self._sightings.note, host, seen)
        return msgspec.structs.replace(details, name=agent.name, host=host)

    async def add(self, name: str, host: str, directory: str, description: str = "") -> AgentChange:
        """Register a directory of a host as an agent there, and link it here.

        Raises:
            DispatchError: The host refuses or cannot be reached, or the name is taken here;
                nothing is written on this machine.
        """
        file = self._registry.file
        await in_thread(require_free_name, file, name)
        args = {"name": name, "directory": directory, "description": description}
        value = await self._links.call(host, "add", dict[str, Any], args, _ADD_S)
        description = description or str(value.get("description") or "")
        change = await in_thread(partial(link_agent, file, name, host, description=description))
        return msgspec.structs.replace(change, directory=value.get("directory"))

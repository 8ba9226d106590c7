"""What the service offers about agents: list, look at, add, change, remove."""

from functools import partial
from typing import Unpack

from agent_dispatch.config.registry import Registry
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields, AgentSummary
from agent_dispatch.run.threads import Lookouts


class AgentService:
    """The part of the service that is about the configuration."""

    def __init__(self, registry: Registry) -> None:
        """Read and edit `registry`."""
        self._registry = registry
        self._lookouts = Lookouts()

    async def list_agents(self) -> list[AgentSummary]:
        """All configured agents, the broken ones with their problem."""
        return await self._lookouts.run("list", self._registry.list_agents)

    async def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """One agent as it takes effect, with the first lines of its documents."""
        look = partial(self._registry.inspect_agent, name, preview_lines)
        return await self._lookouts.run(f"inspect {name}", look)

    async def add_agent(
        self, name: str, directory: str, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Register a directory as an agent."""
        add = partial(self._registry.add_agent, name, directory, **fields)
        return await self._lookouts.run(f"add {name}", add)

    async def update_agent(self, name: str, **fields: Unpack[AgentFields]) -> AgentChange:
        """Change what is given."""
        update = partial(self._registry.update_agent, name, **fields)
        return await self._lookouts.run(f"update {name}", update)

    async def remove_agent(self, name: str) -> AgentChange:
        """Forget an agent; its directory stays as it is."""
        remove = partial(self._registry.remove_agent, name)
        return await self._lookouts.run(f"remove {name}", remove)

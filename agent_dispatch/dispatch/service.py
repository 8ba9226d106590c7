"""The service: wires configuration, slots and the run loop, and is what the surfaces call."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, TypeVarTuple, Unpack

import trio

from agent_dispatch.core.command import current_depth
from agent_dispatch.dispatch.dispatcher import Dispatcher
from agent_dispatch.dispatch.slots import Slots
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields, AgentSummary
from agent_dispatch.model.config import Config, EffectiveAgent
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.process.claude import open_claude
from agent_dispatch.process.launcher import Launcher
from agent_dispatch.process.spawner import Spawner
from agent_dispatch.project.config_file import config_path, jobs_path
from agent_dispatch.project.registry import Registry

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Service:
    """What the MCP server and the CLI offer, without their wire formats.

    Calls that are wrong raise a `DispatchError`. Each call reads the configuration anew, so
    agents can be added without a restart.
    """

    def __init__(self, *, registry: Registry, dispatcher: Dispatcher) -> None:
        """Wire a service; `open_service` does it for real."""
        self._registry = registry
        self._dispatcher = dispatcher

    async def dispatch(
        self, request: DispatchRequest, on_progress: OnProgress = ignore_progress
    ) -> DispatchResult:
        """Give one task to one agent; see `Dispatcher.dispatch`.

        Raises:
            UnknownAgentError: No such agent.
            UnusableAgentError: Its table in `agents.toml` is broken.
            ConfigError: `agents.toml` cannot be read.
            InvalidRequestError: The request cannot be sent as it is.
        """
        agent, config = await _in_thread(self._look_up, request.agent)
        return await self._dispatcher.dispatch(request, agent, config.settings, on_progress)

    async def list_agents(self) -> list[AgentSummary]:
        """All configured agents, the broken ones with their problem."""
        return await _in_thread(self._registry.list_agents)

    async def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """One agent as it takes effect, with the first lines of its documents."""
        return await _in_thread(self._registry.inspect_agent, name, preview_lines)

    async def add_agent(
        self, name: str, directory: str, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Register a directory as an agent."""
        return await _in_thread(partial(self._registry.add_agent, name, directory, **fields))

    async def update_agent(self, name: str, **fields: Unpack[AgentFields]) -> AgentChange:
        """Change what is given."""
        return await _in_thread(partial(self._registry.update_agent, name, **fields))

    async def remove_agent(self, name: str) -> AgentChange:
        """Forget an agent; its directory stays as it is."""
        return await _in_thread(self._registry.remove_agent, name)

    def _look_up(self, name: str) -> tuple[EffectiveAgent, Config]:
        return self._registry.effective(name), self._registry.load()


async def _in_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Keep the event loop away from the file system.

    If cancelled, the call goes on unobserved: an edit of `agents.toml` is either whole or absent.
    """
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def open_service(  # noqa: ASYNC124  # async for the nursery that jobs will need
    *,
    environ: Mapping[str, str],
    spawner: Spawner | None,
    claude: Sequence[str] | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Service]:
    """Wire a service for as long as the block runs.

    Args:
        environ: Where configuration and jobs are, what agents inherit, and the nesting depth.
        spawner: Forks the guards; None starts each the slow way.
        claude: The program to run in place of `claude` on PATH, with its first arguments.
        registry: The agents, in place of the file that `environ` names.

    Raises:
        ConfigError: `environ` names a configuration file that cannot be used.
    """
    registry = registry or Registry(config_path(environ))
    slots = Slots(jobs_path(environ, registry.path) / "slots", current_depth(environ))
    dispatcher = Dispatcher(
        slots=slots,
        open_claude=partial(open_claude, Launcher(spawner)),
        environ=environ,
        claude=claude,
    )
    yield Service(registry=registry, dispatcher=dispatcher)

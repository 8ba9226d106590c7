"""What the MCP surface needs of the rest: one protocol, implemented by `dispatch.service`."""

from typing import Protocol

from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)


class Service(Protocol):
    """Everything a tool can ask for.

    A call that is wrong raises a `DispatchError`; a run that went wrong is a `DispatchResult`.
    Cancelling the task that awaits a call ends what the call started.
    """

    async def list_agents(self) -> list[AgentSummary]:
        """All configured agents, the broken ones with their problem."""
        ...

    async def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """One agent as it takes effect, with the first lines of its documents."""
        ...

    async def dispatch(
        self, request: DispatchRequest, on_progress: OnProgress = ignore_progress
    ) -> DispatchResult:
        """Run one task; `on_progress` is called from this event loop and returns at once."""
        ...

    async def add_agent(
        self,
        name: str,
        directory: str,
        *,
        description: str = "",
        timeout: float = 0,  # noqa: ASYNC109  # the agent's setting, not a deadline of this call
        max_budget_usd: float = 0.0,
        model: str = "",
        permission_mode: str = "",
        allowed_tools: str = "",
        disallowed_tools: str = "",
    ) -> AgentChange:
        """Register a directory; empty and 0 mean that the setting is inherited."""
        ...

    async def update_agent(
        self,
        name: str,
        *,
        description: str = "",
        timeout: float = 0,  # noqa: ASYNC109  # the agent's setting, not a deadline of this call
        max_budget_usd: float = 0.0,
        model: str = "",
        permission_mode: str = "",
        allowed_tools: str = "",
        disallowed_tools: str = "",
    ) -> AgentChange:
        """Change what is not empty or 0; `none` and a negative budget clear the agent's own."""
        ...

    async def remove_agent(self, name: str) -> AgentChange:
        """Forget an agent; its directory stays as it is."""
        ...

"""What the MCP surface needs of the rest: one protocol, implemented by `run.service`."""

from collections.abc import Sequence
from typing import Protocol

from agent_dispatch.jobs.store import Collected, Listing
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary
from agent_dispatch.model.answer import CacheCleared, CacheStats
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.parallel import Member, ParallelResult


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
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        ref: bool = False,
        fresh: bool = False,
    ) -> DispatchResult:
        """Run one task; `on_progress` is called from this event loop and returns at once.

        Args:
            ref: The caller gets the job's id in place of the answer: the record stays until `gc`.
            fresh: Neither from the cache, nor by a run that is under way.
        """
        ...

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        """Run several tasks at once, and have `aggregate`, if given, combine their answers."""
        ...

    async def cache_stats(self) -> CacheStats:
        """How full the cache is and how often it helped."""
        ...

    async def cache_clear(self) -> CacheCleared:
        """Forget all answers that are kept."""
        ...

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """Let two agents talk about a topic."""
        ...

    async def submit(self, request: DispatchRequest) -> Job:
        """Start a background job, which goes on whatever becomes of us; give its record."""
        ...

    async def job(self, job_id: str) -> Job:
        """A job as it is now; it says `running` only if somebody runs it."""
        ...

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """A job when it is over, or as it is after `patience_s` seconds."""
        ...

    async def cancel(self, job_id: str) -> CancelOutcome:
        """Have a job end, whoever runs it, and wait for its processes to be gone."""
        ...

    async def jobs(self, status: JobStatus | None = None, limit: int = 50) -> Listing:
        """The newest jobs, or the newest of one status."""
        ...

    async def gc(self, max_age_days: float = 7, *, dry_run: bool = False) -> Collected:
        """Remove jobs that are over for longer than that, and what dead processes left."""
        ...

    async def result(self, ref: str) -> DispatchResult:
        """The whole result of a job that is over."""
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

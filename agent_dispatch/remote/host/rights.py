"""What a caller on another machine may do here."""

import msgspec

from agent_dispatch.errors import UnknownAgentError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.threads import in_thread


class Rights(msgspec.Struct, frozen=True):
    """Everything, or what the forced command of its ssh key allows."""

    caller: str = ""
    """The name that a forced command gives the caller; empty without one."""
    agents: frozenset[str] | None = None
    """The agents that it sees. None without a forced command: all."""

    @property
    def are_limited(self) -> bool:
        """Whether a forced command limits the caller."""
        return self.agents is not None

    def sees(self, agent: str) -> bool:
        """Return whether the caller may use an agent."""
        return self.agents is None or agent in self.agents

    def require_agent(self, name: str) -> None:
        """Check that the caller may use an agent.

        Raises:
            UnknownAgentError: It may not.
        """
        if not self.sees(name):
            raise UnknownAgentError(name, self.agents or ())

    async def require_job(self, store: JobStore, job_id: str) -> None:
        """Check that the caller may see a job: with a forced command, only its own.

        Raises:
            UnknownJobError: It may not.
        """
        if not self.are_limited:
            return
        submission = await in_thread(store.submissions.of, job_id)
        if submission is None or submission.caller != self.caller:
            raise UnknownJobError(job_id)

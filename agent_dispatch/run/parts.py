"""What every run uses: made once per service, and given to each run as one value."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import Command
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.run.accounts import Accounts, Close
from agent_dispatch.run.limits import Held, Limits
from agent_dispatch.run.plan import Planner
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.turns import OpenClaude
from agent_dispatch.run.work_tree import WorkTrees


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """The parts of a service that dispatches and dialogues run with."""

    planner: Planner
    """Makes the commands."""
    limits: Limits
    accounts: Accounts
    open_claude: OpenClaude
    launcher: Launcher
    """Starts the guards of other programs."""
    work_trees: WorkTrees

    @contextlib.asynccontextmanager
    async def admitted(
        self,
        run: JobRun,
        settings: Settings,
        commands: Sequence[Command],
        agents: Sequence[EffectiveAgent],
        close: Close,
    ) -> AsyncIterator[Held | DispatchResult]:
        """Let a run start: take its locks and a slot, then book its cost.

        In this order, so that a run that waits for a slot has booked nothing. Yields what is held,
        or the result that says why the run may not start.

        Args:
            commands: They begin or resume the sessions to lock.
            agents: Those that run, with the caps to book.
            close: Returns the shares of the agents at the end.
        """
        session_ids = [command.session_id for command in commands]
        async with self.limits.hold(run, settings.max_concurrency, session_ids, agents) as held:
            account = await self.accounts.book(run.owned.job, agents, settings, close)
            if isinstance(account, DispatchResult):
                yield account
                return
            run.account = account
            yield held

"""Runs what was planned: under a record, within the limits, by turns of claude."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

import msgspec

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import Command
from agent_dispatch.core.dialogue.exchange import (
    as_dispatch,
    dialogue_from_result,
    dialogue_request,
)
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership, adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.event import TellEvent, ignore_event
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.accounts import Accounts, Close, capped
from agent_dispatch.run.background import begin_for_remote_caller, end_with_lease
from agent_dispatch.run.dialogue import Dialogue, not_begun
from agent_dispatch.run.dispatch import Dispatch
from agent_dispatch.run.housekeeping import Housekeeping
from agent_dispatch.run.limits import Held, Limits
from agent_dispatch.run.plan import DialoguePlan, Plan, Planner, plan_dialogue, plan_run
from agent_dispatch.run.run_job import JobRun, Work, run_job
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.run.turns import OpenClaude
from agent_dispatch.run.work_tree import WorkTrees
from agent_dispatch.threads import in_thread


class Runner:
    """Runs dispatches and dialogues; made once per service."""

    def __init__(
        self,
        *,
        store: JobStore,
        planner: Planner,
        limits: Limits,
        open_claude: OpenClaude,
        work_trees: WorkTrees,
        launcher: Launcher,
        parent: str | None,
        tell: TellEvent = ignore_event,
    ) -> None:
        """Run what `planner` plans, within `limits`, recorded in `store` below the job `parent`.

        `tell` is told of permission questions, and of the ends of background jobs.
        """
        self._tell = tell
        self._store = store
        self._planner = planner
        self._limits = limits
        self._open_claude = open_claude
        self._work_trees = work_trees
        self._launcher = launcher
        self._parent = parent
        self._may_hold = False
        """It runs a background job, which may wait for a limit of the account to reset."""
        self._accounts = Accounts(store.ledger, planner.environ)
        self._calls: dict[str, Ownership] = {}
        """The calls that run in this process, by the ids of their jobs."""
        self._housekeeping = Housekeeping(store.retention.prune, limits.sessions.sweep)

    async def call(
        self,
        plan: Plan,
        ref: bool,
        on_progress: OnProgress,
        limit: TimeLimit,
        *,
        tree: str | None = None,
    ) -> DispatchResult:
        """Run one dispatch whose caller waits, under a record of its own.

        If cancelled, no process of the run is left, and its record says so.

        Args:
            plan: What to run.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            on_progress: Called with the job's id first, then with what happens.
            limit: How long the agent may take.
            tree: The tree of runs that it belongs to; None: it begins one.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        work = partial(self._dispatch, plan, limit)
        return await self._recorded(plan.request, plan.settings, ref, tree, on_progress, work)

    async def dialogue(
        self, plan: DialoguePlan, on_progress: OnProgress, *, tree: str | None = None
    ) -> DialogueResult:
        """Let two agents talk, under one record and one slot.

        If cancelled, no process of the two is left, and the record has what they said.

        Raises:
            DispatchError: As for `call`.
        """
        work = partial(self._dialogue, plan)
        request = as_dispatch(plan.request)
        return dialogue_from_result(
            await self._recorded(request, plan.settings, False, tree, on_progress, work)
        )

    async def _dialogue(self, plan: DialoguePlan, run: JobRun) -> DispatchResult:
        """Run a dialogue under a slot, once it is booked; returns what is to be recorded."""
        request, settings = plan.request, plan.settings
        agents = {role: capped(agent, settings) for role, agent in plan.agents.items()}
        run.owned.note(agents=[request.requester, request.responder])
        max_holds = self._max_holds(settings)
        dialogue = Dialogue(request, agents, settings, run, self._planner, max_holds=max_holds)
        commands = await dialogue.prepare()
        if isinstance(commands, DispatchResult):
            return not_begun(request, commands)
        async with self._admitted(
            run, settings, commands, list(agents.values()), dialogue.shares
        ) as held:
            if isinstance(held, DispatchResult):
                return not_begun(request, held)
            return await dialogue.go(self._open_claude, held)

    async def background(self, job_id: str, fds: Sequence[int], run_group: Work) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

        Args:
            job_id: The job.
            fds: Its descriptors.
            run_group: Runs a group.

        Raises:
            DispatchError: It cannot be run; its record says so.
        """
        async with adopt_job(self._store, job_id, fds) as owned:
            # A call from another machine has a worker too, but does not wait.
            self._may_hold = owned.job.kind is not JobKind.CALL

            async def work(run: JobRun) -> DispatchResult:
                if owned.job.kind is JobKind.GROUP:
                    return await run_group(run)
                snapshot = await self._planner.snapshot()
                if owned.job.max_rounds is not None:
                    request = dialogue_request(owned.job)
                    return await self._dialogue(plan_dialogue(snapshot, request), run)
                await begin_for_remote_caller(self._store, job_id)
                plan = plan_run(snapshot, owned.job.request())
                return await self._dispatch(plan, TimeLimit(plan.timeout_s), run)

            await run_job(
                owned,
                work,
                ignore_progress,
                on_behalf_of="a signal to its worker",
                beside=partial(end_with_lease, self._store, job_id),
                tell=self._tell,
            )

    def _max_holds(self, settings: Settings) -> int:
        return settings.max_holds if self._may_hold and settings.hold_at_usage_limit else 0

    async def _recorded(
        self,
        request: DispatchRequest,
        settings: Settings,
        ref: bool,
        tree: str | None,
        on_progress: OnProgress,
        work: Work,
    ) -> DispatchResult:
        tidy = None
        if self._housekeeping.is_due:
            tidy = partial(self._housekeeping.run, settings)
        async with create_job(
            self._store, request, kind=JobKind.CALL, parent=self._parent, tree=tree, ref=ref
        ) as owned:
            self._calls[owned.job.id] = owned
            try:
                result = await run_job(
                    owned,
                    work,
                    on_progress,
                    on_behalf_of="its caller",
                    beside=tidy,
                    tell=self._tell,
                )
            finally:
                del self._calls[owned.job.id]
        is_kept = owned.job.ref or settings.call_retention_days > 0
        if not is_kept and await self._forget(owned.job.id):
            # The id fetches nothing from now on: the caller must get all of the answer now.
            return msgspec.structs.replace(result, job_id=None)
        return result

    async def tidy(self, settings: Settings) -> None:
        """Remove old records, if it is time; raises nothing but `Cancelled`."""
        if self._housekeeping.is_due:
            await self._housekeeping.run(settings)

    def keep_record(self, job_id: str) -> None:
        """Keep the record of a call until `gc`: its client gave it up. Returns at once.

        Only for a call that runs in this process.
        """
        if (owned := self._calls.get(job_id)) is not None:
            owned.note(ref=True, client_gave_up=True)

    async def _forget(self, job_id: str) -> bool:
        """Remove the record of a call; False if it stays, which is no reason to fail the call."""
        try:
            await in_thread(self._store.retention.forget, job_id)
        except DispatchError:
            return False
        return True

    async def _dispatch(self, plan: Plan, limit: TimeLimit, run: JobRun) -> DispatchResult:
        """Run one dispatch under a slot, once it is booked."""
        settings = plan.settings
        dispatch = Dispatch(
            plan,
            limit,
            run,
            self._planner,
            max_holds=self._max_holds(settings),
            work_trees=self._work_trees,
            launcher=self._launcher,
        )
        command = await dispatch.prepare()
        if isinstance(command, DispatchResult):
            return command
        async with self._admitted(
            run, settings, [command], [dispatch.agent], dispatch.shares
        ) as held:
            if isinstance(held, DispatchResult):
                return held
            run.owned.note_started()
            return await dispatch.go(self._open_claude, held)

    @contextlib.asynccontextmanager
    async def _admitted(
        self,
        run: JobRun,
        settings: Settings,
        commands: Sequence[Command],
        agents: Sequence[EffectiveAgent],
        close: Close,
    ) -> AsyncIterator[Held | DispatchResult]:
        """Take the locks and a slot, then book the cost; or give the result that refuses the run.

        In this order, so that a run that waits for a slot has booked nothing.
        """
        session_ids = [command.session_id for command in commands]
        async with self._limits.hold(run, settings.max_concurrency, session_ids, agents) as held:
            account = await self._accounts.book(run.owned.job, agents, settings, close)
            if isinstance(account, DispatchResult):
                yield account
                return
            run.account = account
            yield held

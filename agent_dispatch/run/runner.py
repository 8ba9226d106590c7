"""Run what was planned under a record: calls in this process, and the job of a worker."""

from collections.abc import Awaitable, Sequence
from functools import partial

import msgspec

from agent_dispatch.core.dialogue.record import as_dispatch, dialogue_from_result, dialogue_request
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership, adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.event import OnEvent, ignore_event
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.background import begin_for_remote_caller, end_with_lease
from agent_dispatch.run.dialogue import Dialogue
from agent_dispatch.run.dispatch import Dispatch
from agent_dispatch.run.housekeeping import Housekeeping
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import DialoguePlan, Plan, plan_dialogue, plan_run
from agent_dispatch.run.run_job import JobRun, Work, run_job
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.threads import in_thread


class Runner:
    """Runs dispatches and dialogues; made once per service."""

    def __init__(
        self,
        *,
        store: JobStore,
        parts: RunParts,
        parent: str | None,
        on_event: OnEvent = ignore_event,
    ) -> None:
        """Record runs in `store`.

        Args:
            store: The records.
            parts: What every run uses.
            parent: The job whose agent started this process, if any.
            on_event: Gets permission questions, and the ends of background jobs.
        """
        self._on_event = on_event
        self._store = store
        self._parts = parts
        self._parent = parent
        self._may_hold = False
        """It runs a background job, which may wait for a usage limit to reset."""
        self._calls: dict[str, Ownership] = {}
        """The calls that run in this process, by the ids of their jobs."""
        self.housekeeping = Housekeeping(store.retention.prune, parts.limits.sessions.sweep)

    async def call(
        self,
        plan: Plan,
        on_progress: OnProgress,
        limit: TimeLimit,
        *,
        ref: bool = False,
        tree: str | None = None,
    ) -> DispatchResult:
        """Run one dispatch whose caller waits, under a record of its own.

        If cancelled, no process of the run is left, and its record says so.

        Args:
            plan: What to run.
            on_progress: Called with the job's id first, then with what happens.
            limit: How long the agent may take.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            tree: The tree of runs that it belongs to; None: it begins one.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        work = partial(self._dispatch, plan, limit)
        return await self._run_call(
            plan.request, plan.settings, work, on_progress, ref=ref, tree=tree
        )

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
            await self._run_call(request, plan.settings, work, on_progress, tree=tree)
        )

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
                snapshot = await self._parts.planner.snapshot()
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
                on_event=self._on_event,
            )

    async def _run_call(
        self,
        request: DispatchRequest,
        settings: Settings,
        work: Work,
        on_progress: OnProgress,
        *,
        ref: bool = False,
        tree: str | None,
    ) -> DispatchResult:
        """Do the work of a call under a record, which is removed if it need not be kept."""
        job = self._store.new_job(
            request, kind=JobKind.CALL, parent=self._parent, tree=tree, ref=ref
        )
        async with create_job(self._store, job) as owned:
            self._calls[owned.job.id] = owned
            try:
                result = await run_job(
                    owned,
                    work,
                    on_progress,
                    on_behalf_of="its caller",
                    beside=partial(self.housekeeping.run_if_due, settings),
                    on_event=self._on_event,
                )
            finally:
                del self._calls[owned.job.id]
        is_kept = owned.job.ref or settings.call_retention_days > 0
        if not is_kept and await self._forget(owned.job.id):
            # The id fetches nothing any more, so the caller must get the whole answer now.
            return msgspec.structs.replace(result, job_id=None)
        return result

    def keep_record(self, job_id: str) -> None:
        """Keep the record of a call until `gc`, because its client gave up. Returns at once.

        Only for a call that runs in this process.
        """
        if (owned := self._calls.get(job_id)) is not None:
            owned.note(ref=True, client_gave_up=True)

    async def _forget(self, job_id: str) -> bool:
        """Remove the record of a call; false if that fails, which must not fail the call."""
        try:
            await in_thread(self._store.retention.forget, job_id)
        except DispatchError:
            return False
        return True

    def _dispatch(self, plan: Plan, limit: TimeLimit, run: JobRun) -> Awaitable[DispatchResult]:
        max_holds = self._max_holds(plan.settings)
        return Dispatch(plan, limit, run, self._parts, max_holds=max_holds).go()

    def _dialogue(self, plan: DialoguePlan, run: JobRun) -> Awaitable[DispatchResult]:
        return Dialogue(plan, run, self._parts, max_holds=self._max_holds(plan.settings)).go()

    def _max_holds(self, settings: Settings) -> int:
        return settings.max_holds if self._may_hold and settings.hold_at_usage_limit else 0

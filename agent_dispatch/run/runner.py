"""Run what was planned under a record: calls in this process, and the job of a worker."""

from collections.abc import Awaitable, Sequence
from functools import partial

import msgspec

from agent_dispatch.core.dialogue.record import as_dispatch, dialogue_request
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership, adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchResult, OnProgress, ignore_progress
from agent_dispatch.model.event import OnEvent, ignore_event
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.background import end_with_lease
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
        plan: Plan | DialoguePlan,
        on_progress: OnProgress,
        limit: TimeLimit | None = None,
        *,
        ref: bool = False,
        tree: str | None = None,
    ) -> DispatchResult:
        """Run a dispatch or a dialogue whose caller waits, under a record of its own.

        If cancelled, no process of the run is left, and its record says so. The record is removed
        if it need not be kept.

        Args:
            on_progress: Called with the job's id first, then with what happens.
            limit: How long the agent of a dispatch may take, if not as long as its plan says.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            tree: The tree of runs that it belongs to; None: it begins one.

        Returns:
            The result; of a dialogue its record.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        request = as_dispatch(plan.request) if isinstance(plan, DialoguePlan) else plan.request
        job = self._store.new_job(
            request, kind=JobKind.CALL, parent=self._parent, tree=tree, ref=ref
        )
        async with create_job(self._store, job) as owned:
            self._calls[owned.job.id] = owned
            try:
                result = await run_job(
                    owned,
                    partial(self._go, plan, limit),
                    on_progress,
                    on_behalf_of="its caller",
                    beside=partial(self.housekeeping.run_if_due, plan.settings),
                    on_event=self._on_event,
                )
            finally:
                del self._calls[owned.job.id]
        is_kept = owned.job.ref or plan.settings.call_retention_days > 0
        if not is_kept and await self._forget(owned.job.id):
            # The id fetches nothing any more, so the caller must get the whole answer now.
            return msgspec.structs.replace(result, job_id=None)
        return result

    async def run_handed_over(self, job_id: str, fds: Sequence[int], run_group: Work) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

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
                plan: Plan | DialoguePlan
                if owned.job.max_rounds is not None:
                    plan = plan_dialogue(snapshot, dialogue_request(owned.job))
                else:
                    # From here on, a repeated submission of its caller cannot start it again.
                    await in_thread(self._store.submissions.begin, job_id)
                    plan = plan_run(snapshot, owned.job.request())
                return await self._go(plan, None, run)

            await run_job(
                owned,
                work,
                ignore_progress,
                on_behalf_of="a signal to its worker",
                beside=partial(end_with_lease, self._store, job_id),
                on_event=self._on_event,
            )

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

    def _go(
        self, plan: Plan | DialoguePlan, limit: TimeLimit | None, run: JobRun
    ) -> Awaitable[DispatchResult]:
        may_hold = self._may_hold and plan.settings.hold_at_usage_limit
        max_holds = plan.settings.max_holds if may_hold else 0
        if isinstance(plan, DialoguePlan):
            return Dialogue(plan, run, self._parts, max_holds=max_holds).go()
        limit = limit or TimeLimit(plan.timeout_s)
        return Dispatch(plan, limit, run, self._parts, max_holds=max_holds).go()

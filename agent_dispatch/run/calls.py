"""Dispatches whose caller waits: recorded, run, and forgotten again where that is wanted."""

from collections.abc import Mapping
from functools import partial

import msgspec

from agent_dispatch.core.dialogue import as_dispatch, from_record
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, OnProgress, Progress
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.dispatcher import Dispatcher
from agent_dispatch.run.housekeeping import Housekeeping
from agent_dispatch.run.run_job import Work, run_recorded
from agent_dispatch.run.threads import in_thread
from agent_dispatch.run.time_limit import TimeLimit


class Calls:
    """Runs dispatches of kind `call`; made once per service."""

    def __init__(self, dispatcher: Dispatcher, store: JobStore, parent: str | None) -> None:
        """Run by `dispatcher` and record in `store`, as children of the job `parent`."""
        self._dispatcher = dispatcher
        self._store = store
        self._parent = parent
        self._housekeeping = Housekeeping(store, dispatcher.tidy)

    async def run(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: Settings,
        ref: bool,
        on_progress: OnProgress,
        limit: TimeLimit | None = None,
    ) -> DispatchResult:
        """Run one dispatch, under a record of its own.

        If cancelled, no process of the run is left, and its record says so.

        Args:
            request: What is asked.
            agent: Of whom.
            settings: The limits, and how long records are kept.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            on_progress: Called with the job's id first, then with what happens.
            limit: How long the agent may take, if not as the request says.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        work = partial(self._dispatcher.dispatch, request, agent, settings, limit=limit)
        return await self._record(request, settings, ref, on_progress, work)

    async def dialogue(
        self,
        request: DialogueRequest,
        agents: Mapping[Role, EffectiveAgent],
        settings: Settings,
        on_progress: OnProgress,
    ) -> DialogueResult:
        """Let two agents talk, under one record.

        If cancelled, no process of the two is left, and the record says what they said.

        Args:
            request: As `check_dialogue` gave it.
            agents: The two.
            settings: The limits, and how long records are kept.
            on_progress: Called with the job's id first, then with what happens.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        work = partial(self._dispatcher.dialogue, request, agents, settings)
        recorded = as_dispatch(request)
        return from_record(await self._record(recorded, settings, False, on_progress, work))

    async def _record(
        self,
        request: DispatchRequest,
        settings: Settings,
        ref: bool,
        on_progress: OnProgress,
        work: Work,
    ) -> DispatchResult:
        tidy = None
        if self._housekeeping.is_due:
            tidy = partial(self._housekeeping.run, settings.call_retention_days)
        async with create_job(
            self._store, request, kind=JobKind.CALL, parent=self._parent, ref=ref
        ) as owned:
            on_progress(Progress(f"Job {owned.job.id}", owned.job.id))
            result = await run_recorded(
                owned,
                work,
                on_progress,
                on_behalf_of="its caller",
                beside=tidy,
            )
        if settings.call_retention_days == 0 and not ref and await self._forget(owned.job.id):
            # There is nothing to fetch by it any more: the caller must get all of the answer now.
            return msgspec.structs.replace(result, job_id=None)
        return result

    async def _forget(self, job_id: str) -> bool:
        """Remove the record of a call; False if it stays, which is no reason to fail the call."""
        try:
            await in_thread(self._store.forget, job_id)
        except DispatchError:
            return False
        return True

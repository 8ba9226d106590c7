"""The jobs of one caller on another machine: taken once, watched, cancelled, kept by leases.

Each job belongs to a worker, and has the id that its caller made. So this process may be killed at
any moment, and the one that serves the caller next goes on from the files.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import trio

from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.ids import is_time_ordered
from agent_dispatch.jobs.remote_callers import EventReader, Submission
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, settled, wait_until_over
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.remote.frames import (
    Accepted,
    Attach,
    Cancel,
    Cancelled,
    End,
    Event,
    Frame,
    Submit,
)
from agent_dispatch.remote.host.rights import Rights
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.service import Service
from agent_dispatch.threads import in_own_thread, in_thread

MAX_LEASE_S = 3600.0
_EVENTS_EVERY_S = 0.25
_TAKE_S = 30.0
"""Longer than the lock of a submission, the disk and the start of a worker take together."""
_END_CALLS_S = 15.0
"""How long to wait for calls that are being ended. Their workers go on with it afterwards."""


class CallerJobs:
    """The jobs of one caller."""

    def __init__(
        self,
        service: Service,
        store: JobStore,
        rights: Rights,
        post: Callable[[Frame], object],
        *,
        is_in_chain: bool,
    ) -> None:
        """Serve a caller.

        Args:
            service: Runs its jobs.
            store: The jobs of this host.
            rights: What it may do.
            post: Sends it a frame.
            is_in_chain: Whether its dispatch has come through this host before.
        """
        self._service = service
        self._store = store
        self._rights = rights
        self._post = post
        self._is_in_chain = is_in_chain
        self._leases: dict[str, float] = {}
        """The running calls of this caller, and how many seconds each goes on without it."""

    async def submit(self, frame: Submit) -> Frame:
        """Take a job once: the same submission again finds the job of the first.

        Raises:
            DispatchError: The submission is refused.
        """
        try:
            request = msgspec.convert(frame.request, DispatchRequest)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"The request cannot be read: {error}.") from error
        self._rights.require_agent(request.agent)
        if self._is_in_chain:
            text = (
                "This host is in the chain of hosts that the dispatch came through, so it was"
                " refused. Do the task here instead of dispatching it."
            )
            return _without_job(frame, refused(request.agent, text, ErrorType.RECURSION))
        is_call = frame.kind == JobKind.CALL
        # Asked first: a change of the configuration must not refuse a job that was taken before.
        job, again = await self._taken_before(frame), True
        if job is None:
            plan = await self._plan(request)
            if is_call and not frame.fresh:
                cached = self._service.kept_answer(plan)
                if cached is not None:
                    return _without_job(frame, cached)
            # Shielded: a cut does not withdraw a submission, and its caller repeats it.
            with trio.fail_after(_TAKE_S, shield=True):
                job, again = await self._take(frame, plan)
        if is_call and frame.lease_s and not job.status.is_terminal:
            self._leases[job.id] = _bounded(frame.lease_s)
        return Accepted(n=frame.n, id=job.id, status=job.status, again=again)

    async def _plan(self, request: DispatchRequest) -> Plan:
        """Plan a run by the configuration of this host; a caller may only shorten its time.

        Raises:
            InvalidRequestError: The caller wants another model or effort than is configured.
        """
        plan = await self._service.plan(msgspec.structs.replace(request, model="", effort=""))
        agent = plan.agent
        for key, wanted, configured in (
            ("model", request.model, agent.model),
            ("effort", request.effort, agent.effort),
        ):
            if wanted.strip() not in ("", configured):
                raise InvalidRequestError(
                    f"{key} of agent {agent.name!r} is {configured or 'not set'} in the file of its"
                    " host, and a caller on another machine cannot choose another one. Leave it"
                    " out."
                )
        if plan.timeout_s <= agent.timeout_s:
            return plan
        unlimited = msgspec.structs.replace(plan.request, timeout_s=None)
        return msgspec.structs.replace(plan, request=unlimited)

    @asynccontextmanager
    async def _locked(self, frame: Submit) -> AsyncIterator[None]:
        """Lock a submission, and record it if it is new."""
        content = msgspec.json.encode([frame.request, frame.kind, frame.ref], order="sorted")
        submission = Submission(hashlib.sha256(content).hexdigest(), self._rights.caller)
        lock = await in_own_thread(self._store.submissions.take, frame.id, submission)
        try:
            yield
        finally:
            os.close(lock)

    async def _taken_before(self, frame: Submit) -> Job | None:
        """Return the job of an earlier, identical submission."""
        if not await in_thread(self._store.submissions.knows, frame.id):
            return None
        async with self._locked(frame):
            return await self._begun_or_startable(frame.id)

    async def _take(self, frame: Submit, plan: Plan) -> tuple[Job, bool]:
        """Submit a job, unless it was taken meanwhile. Return it, and whether it was."""
        async with self._locked(frame):
            if (job := await self._begun_or_startable(frame.id)) is not None:
                return job, True
            is_call = frame.kind == JobKind.CALL
            job = await self._service.workers.submit(
                plan.request,
                # A call is a worker's job too, with a lease.
                JobKind.CALL if is_call else JobKind.BACKGROUND,
                ref=frame.ref,
                job_id=frame.id,
                lease_s=_bounded(frame.lease_s) if is_call else 0,
                tree=frame.tree if is_time_ordered(frame.tree) else None,
            )
            return job, False

    async def _begun_or_startable(self, job_id: str) -> Job | None:
        """Return a job, or None if no worker has begun it and none ever will."""
        with suppress(UnknownJobError):
            job = await settled(self._store, job_id)
            if job.error_type is not ErrorType.LOST:
                return job
            if await in_thread(self._store.submissions.has_begun, job_id):
                return job
        # The process that took it died before a worker had it: nothing of it ever ran.
        await in_thread(self._store.retention.forget_unbegun, job_id)
        return None

    async def attach(self, frame: Attach) -> Frame:
        """Send the events of a job until it ends; return its end.

        Raises:
            UnknownJobError: There is no such job, or this caller may not see it.
        """
        await self._rights.require_job(self._store, frame.id)
        await in_thread(self._store.head, frame.id)
        if frame.lease_s:
            self._leases[frame.id] = lease_s = _bounded(frame.lease_s)
            await in_thread(self._store.submissions.lease(frame.id).write, lease_s)
        events = EventReader(self._store.submissions.events_path(frame.id), frame.after)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_events, frame.id, events)
                job = await wait_until_over(self._store, frame.id)
                nursery.cancel_scope.cancel()
            # The last events, from the open file: its name may be gone.
            self._post_events(frame.id, await in_thread(events.read))
        finally:
            events.close()
            self._leases.pop(frame.id, None)
        if job.result is not None:
            # The answer is sent even if the configuration is broken by now.
            with suppress(DispatchError):
                await self._service.keep_answer(job)
        return End(n=frame.n, id=job.id, job=msgspec.to_builtins(job))

    async def _send_events(self, job_id: str, events: EventReader) -> None:
        while True:
            # Not abandoned when cancelled: the reader is used again after this.
            self._post_events(job_id, await trio.to_thread.run_sync(events.read))
            await trio.sleep(_EVENTS_EVERY_S)

    def _post_events(self, job_id: str, events: Sequence[tuple[int, str]]) -> None:
        for seq, line in events:
            self._post(Event(id=job_id, seq=seq, line=line))

    async def cancel(self, frame: Cancel) -> Frame:
        """Cancel a job.

        Raises:
            UnknownJobError: This caller may not see the job.
        """
        await self._rights.require_job(self._store, frame.id)
        by = frame.by or "a caller on another machine"
        outcome = await self._service.jobs.cancel(frame.id, by=by, keep=frame.keep)
        if outcome is CancelOutcome.NOT_FOUND:
            # Its submission may still be on the way. It must not begin then.
            await in_thread(self._store.submissions.bury, frame.id)
            outcome = await self._service.jobs.cancel(frame.id, by=by)
        return Cancelled(n=frame.n, outcome=outcome)

    async def end_calls(self, ids: Collection[str] | None) -> None:
        """Cancel calls of this caller: all of them, or those in `ids`."""
        calls = [job_id for job_id in self._leases if ids is None or job_id in ids]
        with trio.move_on_after(_END_CALLS_S):
            async with trio.open_nursery() as nursery:
                for job_id in calls:
                    nursery.start_soon(self._end_call, job_id)

    async def _end_call(self, job_id: str) -> None:
        # If this fails, the lease ends the call.
        with suppress(DispatchError):
            await self._service.jobs.cancel(job_id, by="its caller")

    async def renew_leases(self) -> None:
        """Record that the caller was heard now."""
        if not self._leases:
            return
        # A disk error does not end the runs; the next bytes of the caller try again.
        with suppress(OSError):
            await in_thread(self._write_leases, dict(self._leases))

    def _write_leases(self, leases: Mapping[str, float]) -> None:
        for job_id, lease_s in leases.items():
            self._store.submissions.lease(job_id).write(lease_s)


def _bounded(lease_s: float) -> float:
    return min(lease_s, MAX_LEASE_S)


def _without_job(frame: Submit, result: DispatchResult) -> Accepted:
    """Answer a submission at once, without a job."""
    status = "done" if result.success else "failed"
    return Accepted(n=frame.n, id=frame.id, status=status, result=msgspec.to_builtins(result))

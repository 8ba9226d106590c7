"""Dispatches to agents on other hosts, and the way to all else on those hosts.

The host owns the job. This side makes its id, records it before anything is sent, and keeps what
was last known. `unreachable` says how this process sees the host; it is never the end of a job.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import trio

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.sightings import Sightings
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobKind, new_job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.remote.caller.agents import AgentsOnHosts
from agent_dispatch.remote.caller.bookkeeping import Bookkeeping, Place
from agent_dispatch.remote.caller.connection import LinkLostError
from agent_dispatch.remote.caller.followed_job import FollowedJob
from agent_dispatch.remote.caller.jobs import JobsOnHosts
from agent_dispatch.remote.caller.link import Link, UnreachableError
from agent_dispatch.remote.caller.links import Links, follow
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs
from agent_dispatch.remote.caller.translate import job_here, read, result_here
from agent_dispatch.remote.frames import Accepted, Cancel, Submit
from agent_dispatch.threads import in_own_thread, in_thread

_CANCEL_S = 3.0
"""How long a cancelled call waits for its host to confirm. Otherwise its lease ends it."""
_KEEP_DAYS = 30.0
"""How long this machine remembers where a job is. `gc` forgets sooner."""


class Hosts:
    """The hosts of one configuration. `jobs` and `agents` reach what is on them."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: JobStore,
        jobs: str,
        launcher: Launcher,
        environ: Mapping[str, str],
        nursery: trio.Nursery,
        on_end: Callable[[Job], object],
    ) -> None:
        """Serve the hosts of `registry`; nothing is contacted yet.

        Args:
            registry: The configuration.
            store: This machine's jobs, for its ledger.
            jobs: The jobs directory, where remote jobs are recorded.
            launcher: Starts ssh under guards.
            environ: The environment of ssh and of this process.
            nursery: Where links live. Leaving it ends our calls.
            on_end: Called in a thread when the end of a job is first seen here.
        """
        self.remote_jobs = RemoteJobs(jobs)
        self._store = store
        self._nursery = nursery
        self._ids = IdSource()
        self._is_tidy = False
        self._links = Links(registry=registry, launcher=launcher, environ=environ, nursery=nursery)
        self._bookkeeping = Bookkeeping(self.remote_jobs, store, on_end)
        self.jobs = JobsOnHosts(registry, self._links, self.remote_jobs, self._bookkeeping)
        self.agents = AgentsOnHosts(registry, self._links, Sightings.of(environ, registry.path))

    async def check(self, host: str) -> list[dict[str, Any]]:
        """Run `doctor` on a host.

        Raises:
            DispatchError: There is no such host, or it cannot be reached.
        """
        return await self._links.call(host, "doctor", list[dict[str, Any]])

    async def call(
        self,
        agent: EffectiveAgent,
        request: DispatchRequest,
        on_progress: OnProgress,
        *,
        ref: bool,
        fresh: bool,
        tree: str | None,
    ) -> DispatchResult:
        """Run a task on the host of its agent and wait for the answer.

        If cancelled, the host ends the job: at once if it can be reached, else with its lease.

        Raises:
            DispatchError: The host refused the call, or it cannot be recorded here.
        """
        link = await self._links.to(agent.host or "")
        followed, place = await self._record(
            link, agent, request, JobKind.CALL, ref=ref, fresh=fresh, tree=tree
        )
        on_progress(with_agent(agent.name, started_line(place.shown_id), 0))
        try:
            answer = await self._dispatch(link, followed, on_progress)
        except UnreachableError as error:
            return await self._unreachable(agent, followed, place, error)
        except trio.Cancelled:
            with trio.move_on_after(_CANCEL_S, shield=True):
                await self._cancel(link, place)
            raise
        if isinstance(answer, Accepted):
            result = read(answer.result, DispatchResult)
            return result_here(result, agent.name, link.name)
        job = await self._bookkeeping.record(place, answer)
        return job.result or refused(agent.name, job.error or "", job.error_type or ErrorType.LOST)

    async def submit(
        self, agent: EffectiveAgent, request: DispatchRequest, *, tree: str | None
    ) -> Job:
        """Start a background job on the host of its agent.

        Raises:
            DispatchError: The host refused the job, or it cannot be recorded here; or the host
                cannot be reached, and the error names the job.
        """
        link = await self._links.to(agent.host or "")
        followed, place = await self._record(
            link, agent, request, JobKind.BACKGROUND, ref=False, fresh=True, tree=tree
        )
        try:
            answer = await self._dispatch(link, followed)
        except UnreachableError as error:
            result = await self._unreachable(agent, followed, place, error)  # noqa: ASYNC120  # a cancellation outranks it
            raise DispatchError(result.error or "", *(result.next_steps or ())) from error
        assert isinstance(answer, Accepted)
        if answer.result is not None:
            # Refused before there was a job, because of how deeply it is nested.
            result = read(answer.result, DispatchResult)
            raise DispatchError(f"on {link.name}: {result.error}")
        known = await in_thread(self.remote_jobs.read, place.id)
        assert known is not None
        return job_here(known.job, place.shown_id, place.host, agent.name)

    async def _record(
        self,
        link: Link,
        agent: EffectiveAgent,
        request: DispatchRequest,
        kind: JobKind,
        *,
        ref: bool,
        fresh: bool,
        tree: str | None,
    ) -> tuple[FollowedJob, Place]:
        """Make the id of a job and record it, before anything is sent."""
        job = new_job(self._ids.next(), request, time.time(), kind=kind, ref=ref)
        if (origin := self._store.origin) is not None:
            job = msgspec.structs.replace(job, **origin.fields())
        known = RemoteJob(
            id=job.id, host=link.name, agent=agent.name, noted_at=job.created_at, job=job
        )
        await in_own_thread(self.remote_jobs.create, known)
        if not self._is_tidy:
            self._is_tidy = True
            self._nursery.start_soon(in_thread, self.remote_jobs.clean, _KEEP_DAYS)
        there = msgspec.structs.replace(request, agent=agent.agent or agent.name)
        lease_s = link.host.lease_seconds
        submit = Submit(
            n=0,
            id=job.id,
            request=msgspec.to_builtins(there),
            kind=kind,
            lease_s=lease_s if kind is JobKind.CALL else 0,
            ref=ref,
            fresh=fresh,
            tree=tree or "",
        )
        followed = FollowedJob(submit, job.id, trio.current_time(), lease_s)
        return followed, Place(job.id, link.name, known)

    async def _dispatch(
        self, link: Link, followed: FollowedJob, on_progress: OnProgress = ignore_progress
    ) -> Accepted | Job:
        """Submit and follow a job as `follow` does; forget it if its host has no job of this id."""
        try:
            answer = await follow(link, followed, on_progress)
        except UnreachableError:
            raise
        except DispatchError:
            if not followed.is_accepted:
                await in_thread(self.remote_jobs.remove, followed.job_id)  # noqa: ASYNC120  # a cancellation outranks it
            raise
        if isinstance(answer, Accepted) and answer.result is not None:
            await in_thread(self.remote_jobs.remove, followed.job_id)
        return answer

    async def _unreachable(
        self,
        agent: EffectiveAgent,
        followed: FollowedJob,
        place: Place,
        error: UnreachableError,
    ) -> DispatchResult:
        """Answer a dispatch whose host cannot be reached."""
        steps: list[NextStep] = list(error.next_steps)
        if not followed.was_sent:
            text = f"{error}\nThe task was not sent, and will not be."
            await in_thread(self.remote_jobs.withdraw, place.id, text)
        else:
            goes_on = (
                f"ends there {followed.lease_s:g} s after it was cut off, if it runs"
                if followed.lease_s
                else "goes on there if it was accepted"
            )
            text = f"{error}\nJob {place.shown_id} {goes_on}."
            steps.append(NextStep(kind=StepKind.WAIT, job_id=place.shown_id))
            await in_thread(self.remote_jobs.mark_unreachable, place.id)
        result = refused(agent.name, text, ErrorType.UNREACHABLE, steps)
        return msgspec.structs.replace(result, job_id=place.shown_id)

    async def _cancel(self, link: Link, place: Place) -> None:
        """Tell the host that a call was cancelled, if a link is up."""
        connection = link.open_connection
        if connection is None:
            return
        with suppress(LinkLostError, DispatchError):
            await connection.ask(lambda n: Cancel(n=n, id=place.id, by="its caller"))
            job = await self._links.call(link.name, "status", Job, {"job_id": place.id})
            await self._bookkeeping.record(place, job)

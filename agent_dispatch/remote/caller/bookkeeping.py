"""What this machine does when it learns something about one of its jobs on another host."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import Settings
from agent_dispatch.model.job import Job
from agent_dispatch.model.ledger import LedgerLine
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs, at_host
from agent_dispatch.remote.caller.translate import job_here
from agent_dispatch.threads import in_thread

_NOTIFY_S = 1.0


class Place(NamedTuple):
    """Where a job is."""

    id: str
    """The id on its host."""
    host: str
    known: RemoteJob | None
    """What is known of it here; None for a job of another caller."""

    @property
    def shown_id(self) -> str:
        """The id as callers here read it."""
        return at_host(self.id, self.host)


class Bookkeeping:
    """Keeps the records of remote jobs, their costs, and reports their ends."""

    def __init__(
        self, remote_jobs: RemoteJobs, store: JobStore, on_end: Callable[[Job], object]
    ) -> None:
        """Keep records in `remote_jobs`.

        Args:
            remote_jobs: What is known of jobs on other hosts.
            store: This machine's jobs, for its ledger.
            on_end: Called in a thread when the end of a job is first seen here.
        """
        self._remote_jobs = remote_jobs
        self._store = store
        self._on_end = on_end

    async def record(self, place: Place, job: Job) -> Job:
        """Record a job as its host has it now, and return it as callers here read it."""
        agent = job.agent if place.known is None else place.known.agent
        here = job_here(job, place.shown_id, place.host, agent)
        if await in_thread(self._save, place, job):
            with trio.move_on_after(_NOTIFY_S):
                # Abandoned after that: the command goes on, and has a bound of its own.
                await in_thread(self._on_end, here)
        return here

    def _save(self, place: Place, job: Job) -> bool:
        """Save a job and its cost; return whether its end is seen here for the first time."""
        self._remote_jobs.update(place.id, job)
        if place.known is None or not job.status.is_terminal:
            return False
        if not self._remote_jobs.claim_entry(place.id):
            return False
        result = job.result
        if result is None or result.duration_ms is None:
            return True
        line = LedgerLine(
            at=time.time(),
            job_id=place.shown_id,
            agent=place.known.agent,
            caller=job.caller or None,
            session_id=result.session_id,
            tree=job.tree or place.id,
            cost_usd=result.cost_usd,
            duration_ms=result.duration_ms,
            success=result.success,
            error_type=result.error_type,
            host=place.host,
        )
        # A copy for this machine's view: its host has booked and recorded it.
        with suppress(DispatchError):
            self._store.ledger.settle([], [line], Settings())
        return True

    async def record_unreachable(self, place: Place) -> Job | None:
        """Record that the host of a job cannot be reached; return the job as last known."""
        known = await in_thread(self._remote_jobs.mark_unreachable, place.id)
        return None if known is None else last_known(known)

    async def record_unknown(self, place: Place) -> UnknownJobError:
        """Record that the host does not know a job, and return the error that says so."""
        if place.known is not None and not place.known.job.status.is_terminal:
            text = f"Host {place.host} does not know this job: it never arrived, or was removed."
            await in_thread(self._remote_jobs.withdraw, place.id, text)
        return UnknownJobError(place.shown_id)


def last_known(remote_job: RemoteJob) -> Job:
    """Return what was last known of a job, as callers here read it."""
    job = job_here(remote_job.job, remote_job.shown_id, remote_job.host, remote_job.agent)
    return msgspec.structs.replace(job, unreachable_since=remote_job.unreachable_since)

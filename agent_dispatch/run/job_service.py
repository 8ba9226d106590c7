"""What the service offers about jobs that exist: look, wait, cancel, fetch, remove."""

from functools import partial

import trio

from agent_dispatch.core import outcome
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.store import Collected, JobStore, Listing
from agent_dispatch.jobs.threads import Pool, in_pool
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, settled, wait_until_over
from agent_dispatch.model.dispatch import (
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.run.threads import in_thread

_CANCEL_PATIENCE_S = 10.0
"""How long a cancellation may take before its outcome is `running`: a ladder, with room."""
_WATCH_EVERY_S = 1.0
"""How often a waiter looks for new progress lines; they are written once a second at most."""


class JobService:
    """The part of the service that is about jobs, whoever runs them."""

    def __init__(self, store: JobStore) -> None:
        """Look into `store`."""
        self._store = store

    async def job(self, job_id: str) -> Job:
        """One job as it is now: a job whose owner died is over, and says so.

        Raises:
            DispatchError: Not an id, no such job, or its record cannot be read.
        """
        return await settled(self._store, job_id)

    async def is_recorded(self, job_id: str) -> bool:
        """Whether there is a record of that job, by which its answer can be fetched."""
        try:
            await in_thread(self._store.head, job_id)
        except DispatchError:
            return False
        return True

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """Wait until a job is over, but not longer than `patience_s`; its status tells.

        Wakes within milliseconds of the end, also of a sudden one.

        Args:
            job_id: The job.
            patience_s: Seconds; the job goes on if they do not suffice.
            on_progress: Called with new lines on what the agent does.

        Raises:
            DispatchError: As for `job`.
        """
        seen_at: float | None = None

        def tell(job: Job) -> None:
            nonlocal seen_at
            if job.progress and job.progress_updated_at != seen_at:
                seen_at = job.progress_updated_at
                on_progress(Progress(job.progress[-1]))

        with trio.move_on_after(patience_s):
            return await wait_until_over(self._store, job_id, tell, _WATCH_EVERY_S)
        return await self.job(job_id)

    async def cancel(self, job_id: str, *, by: str = "a caller") -> CancelOutcome:
        """Cancel a job, wherever it runs; returns when its processes are gone.

        Args:
            job_id: The job.
            by: Who asks, for the end of a sentence.

        Raises:
            DispatchError: Not an id, or its record cannot be read.
        """
        return await cancel(self._store, job_id, by=by, patience_s=_CANCEL_PATIENCE_S)

    async def jobs(self, status: JobStatus | None = None, limit: int = 50) -> Listing:
        """The newest jobs, or the newest of one status, each settled."""
        return await in_pool(Pool.BULK, partial(self._store.list_jobs, status=status, limit=limit))

    async def gc(self, max_age_days: float = 7, *, dry_run: bool = False) -> Collected:
        """Remove jobs that are over for longer than that."""
        return await in_pool(Pool.BULK, partial(self._store.gc, max_age_days, dry_run=dry_run))

    async def result(self, ref: str) -> DispatchResult:
        """The whole result of a job that is over.

        Raises:
            DispatchError: As for `job`; or the job is not over, or has no result.
        """
        job = await self.job(ref)
        if not job.status.is_terminal:
            raise JobNotOverError(job)
        if job.result is None:
            return outcome.refused(
                job.agent, job.error or "", job.error_type or ErrorType.CLI_ERROR
            )
        return job.result


class JobNotOverError(DispatchError):
    """The result of a job was asked for that has none yet."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"Job {job.id} is {job.status}: its result is not there yet. Wait for it with"
            f' dispatch_wait(job_id="{job.id}"), or in a shell: agent-dispatch wait {job.id}'
        )

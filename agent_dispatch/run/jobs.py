"""The jobs of this machine and of other hosts: read, wait, cancel, message, answer, list, remove.

A job that is on another host is given to `remote.caller`.
"""

import contextlib
from collections.abc import Callable

import trio

from agent_dispatch.core.outcome.refusal import result_of_job
from agent_dispatch.core.questions import QuestionRow
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import JobNotEndedError
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.jobs.retention import Collected
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, settled, wait_until_over
from agent_dispatch.model.dispatch import DispatchResult, OnProgress, Progress, ignore_progress
from agent_dispatch.model.job import Job, JobStatus, JobSummary
from agent_dispatch.model.message import Sending
from agent_dispatch.model.question import AnsweredBy, Question, Verdict
from agent_dispatch.model.replies import Answered
from agent_dispatch.remote.caller.hosts import Hosts
from agent_dispatch.remote.caller.remote_jobs import with_remote_jobs
from agent_dispatch.run.give_answer import SubmitAllowed, give_answer
from agent_dispatch.run.send_message import send_message
from agent_dispatch.threads import Pool, in_pool, in_thread

_CANCEL_PATIENCE_S = 10.0
"""How long a cancellation may take before its outcome is `running`: a ladder, with room."""
_WATCH_EVERY_S = 1.0
"""How often a waiter looks for new progress lines; they are written once a second at most."""


class Jobs:
    """The jobs that one service can reach."""

    def __init__(
        self, store: JobStore, hosts: Hosts, submit_allowed: SubmitAllowed, *, is_nested: bool
    ) -> None:
        """Find jobs in `store` and on `hosts`.

        Args:
            submit_allowed: Starts the job that makes a call which was allowed late.
            is_nested: This process belongs to a dispatched agent.
        """
        self._store = store
        self._hosts = hosts
        self._submit_allowed = submit_allowed
        self._is_nested = is_nested

    async def get(self, job_id: str) -> Job:
        """Return a job as it is now; a job whose owner died is recorded as lost first.

        Raises:
            DispatchError: Not an id, no such job, or its record cannot be read.
        """
        if (place := await self._hosts.jobs.place_of(job_id)) is not None:
            return await self._hosts.jobs.get(place)
        return await settled(self._store, job_id)

    async def shown_id(self, job_id: str) -> str:
        """Return the id of a job as answers have it: with its host, if that is another machine."""
        with contextlib.suppress(DispatchError):
            if (place := await self._hosts.jobs.place_of(job_id)) is not None:
                return place.shown_id
        return job_id

    async def is_recorded(self, job_id: str) -> bool:
        """Whether the job has a record, so that its answer can be fetched; no host is asked."""
        if await self._hosts.jobs.place_of(job_id) is not None:
            return True
        try:
            await in_thread(self._store.head, job_id)
        except DispatchError:
            return False
        return True

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """Wait until a job has ended, at most `patience_s`; its status says whether it has.

        Returns within milliseconds of the end, also if its owner is killed.

        Args:
            patience_s: Seconds; the job goes on after them.
            on_progress: Gets new lines about what the agent does.

        Raises:
            DispatchError: As for `get`.
        """
        if (place := await self._hosts.jobs.place_of(job_id)) is not None:
            return await self._hosts.jobs.wait(place, patience_s, on_progress)
        reported_at: float | None = None
        reported_questions: tuple[Question, ...] = ()

        def report(job: Job) -> None:
            nonlocal reported_at, reported_questions
            if not job.progress or job.progress_updated_at == reported_at:
                return
            reported_at = job.progress_updated_at
            progress = Progress(job.progress[-1])
            questions = tuple(job.open_questions)
            if questions != reported_questions:
                reported_questions = questions
                progress = Progress(job.progress[-1], job.id, questions=questions)
            on_progress(progress)

        with trio.move_on_after(patience_s):
            return await wait_until_over(self._store, job_id, report, _WATCH_EVERY_S)
        return await settled(self._store, job_id)

    async def send(self, job_id: str, text: str) -> Sending:
        """Send a message to the agent of a job while it works; see `send_message`.

        Raises:
            DispatchError: Not an id, not a message, or its record cannot be read.
        """
        if (place := await self._hosts.jobs.place_of(job_id)) is not None:
            return await self._hosts.jobs.send(place, text)
        return await send_message(self._store, job_id, text)

    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        """Cancel a job, wherever it runs; returns when its processes are gone.

        Args:
            keep: Interrupt a run that has begun, and keep what its agent said.
            by: Who cancels it, for the end of a sentence.

        Raises:
            DispatchError: Not an id, or its record cannot be read.
        """
        if (place := await self._hosts.jobs.place_of(job_id)) is not None:
            return await self._hosts.jobs.cancel(place, by, keep=keep)
        return await cancel(self._store, job_id, by=by, patience_s=_CANCEL_PATIENCE_S, keep=keep)

    async def newest(
        self,
        status: JobStatus | None = None,
        limit: int = 50,
        *,
        mine: bool = False,
        matches: Callable[[JobSummary], bool] | None = None,
    ) -> Listing:
        """List the newest jobs, each settled; of those on other hosts, what was last known.

        Args:
            mine: Only jobs of this client's session, or if that is not known, those that were
                started from the directory of this process.
            matches: Only jobs that it accepts.
        """
        origin = self._store.origin

        def is_wanted(row: JobSummary) -> bool:
            if mine and (origin is None or not origin.is_mine(row)):
                return False
            return matches is None or matches(row)

        def look() -> Listing:
            listing = self._store.lister.newest(status=status, limit=limit, matches=is_wanted)
            return with_remote_jobs(
                listing,
                self._hosts.remote_jobs,
                limit,
                lambda row: status in (None, row.status) and is_wanted(row),
            )

        return await in_pool(Pool.BULK, look)

    async def gc(self, max_age_days: float) -> Collected:
        """Remove jobs that ended before that, and what dead processes left.

        Of jobs on other hosts only the local notes are removed.
        """
        collected = await in_pool(Pool.BULK, self._store.retention.collect, max_age_days)
        await in_pool(Pool.BULK, self._hosts.remote_jobs.clean, max_age_days)
        return collected

    async def result(self, ref: str) -> DispatchResult:
        """Return the whole result of a job that has ended.

        Raises:
            DispatchError: As for `get`; or the job has not ended, or its host cannot be reached.
        """
        job = await self.get(ref)
        if not job.status.is_terminal:
            raise JobNotEndedError(job)
        if job.unreachable_since is not None:
            raise DispatchError(
                f"Host {job.host} cannot be reached, and the answer of job {job.id} is there. It"
                f" is {job.status} as far as is known. Ask again later."
            )
        return result_of_job(job)

    async def answer(
        self, job_id: str, verdict: Verdict, by: AnsweredBy, question_id: str = ""
    ) -> Answered:
        """Give a person's answer to a permission question; see `give_answer`.

        Raises:
            InvalidRequestError: A dispatched agent tries to allow something.
        """
        if self._is_nested and verdict is Verdict.ALLOW:
            raise InvalidRequestError(
                "A dispatched agent does not allow itself anything: this process runs inside a"
                " dispatch (AGENT_DISPATCH_DEPTH is set). Answer from a shell of your own."
            )
        if (place := await self._hosts.jobs.place_of(job_id)) is not None:
            return await self._hosts.jobs.answer(place, verdict, by, question_id)
        return await give_answer(
            self._store, self._submit_allowed, job_id, verdict, by, question_id
        )

    async def questions_on_hosts(self) -> tuple[list[QuestionRow], list[str]]:
        """Return the questions of our jobs on other hosts, and why a host cannot be asked."""
        return await self._hosts.jobs.questions()

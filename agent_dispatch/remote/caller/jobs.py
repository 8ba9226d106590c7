"""Jobs on other hosts: where they are, their state, and what callers here send to them."""

import time
from contextlib import suppress

import msgspec
import trio

from agent_dispatch.config.registry import Registry
from agent_dispatch.core.questions import QuestionRow
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import OnProgress, ignore_progress
from agent_dispatch.model.job import Job
from agent_dispatch.model.message import Sending
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.model.replies import Answered
from agent_dispatch.remote.caller.bookkeeping import Bookkeeping, Place, last_known
from agent_dispatch.remote.caller.followed_job import FIRST_CONTACT_S, FollowedJob
from agent_dispatch.remote.caller.link import UnreachableError
from agent_dispatch.remote.caller.links import Links, follow
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs, at_host, split_id
from agent_dispatch.remote.caller.translate import error_from, step_here
from agent_dispatch.remote.frames import Cancel, Cancelled
from agent_dispatch.threads import in_thread

_LOOK_AGAIN_S = 5.0
_RECENT_S = 7 * 86_400.0


class JobsOnHosts:
    """The jobs on other hosts that callers of this machine may ask about."""

    def __init__(
        self, registry: Registry, links: Links, remote_jobs: RemoteJobs, bookkeeping: Bookkeeping
    ) -> None:
        """Find jobs in `remote_jobs` and on the hosts of `registry`, which `links` reach."""
        self._registry = registry
        self._links = links
        self._remote_jobs = remote_jobs
        self._bookkeeping = bookkeeping

    async def place_of(self, text: str) -> Place | None:
        """Return where a job is, by its id with or without `@HOST`; None for this machine.

        Raises:
            UnknownJobError: It is not on the host that the id names, or there is no such host.
        """
        job_id, host = split_id(text)
        known = await in_thread(self._remote_jobs.read, job_id)
        if host is None:
            return None if known is None else Place(job_id, known.host, known)
        if known is not None and known.host != host:
            raise UnknownJobError(text)
        config = await in_thread(self._registry.load)
        if host not in config.hosts:
            raise UnknownJobError(text)
        return Place(job_id, host, known)

    async def get(self, place: Place) -> Job:
        """Return a job as it is now, or as last known if its host cannot be reached.

        Raises:
            DispatchError: Its host does not know it; or it cannot be reached, and nothing is known
                here.
        """
        if place.known is not None and place.known.is_withdrawn:
            return last_known(place.known)
        try:
            job = await self._links.call(place.host, "status", Job, {"job_id": place.id})
        except UnknownJobError:
            raise await self._bookkeeping.record_unknown(place) from None
        except UnreachableError:
            known = await self._bookkeeping.record_unreachable(place)  # noqa: ASYNC120  # a cancellation outranks it
            if known is None:
                raise
            return known
        return await self._bookkeeping.record(place, job)

    async def wait(
        self, place: Place, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """Wait for the end of a job through all cuts, for at most `patience_s` seconds.

        Raises:
            DispatchError: As for `get`.
        """
        if place.known is not None and place.known.is_withdrawn:
            return last_known(place.known)
        link = await self._links.to(place.host)
        followed = FollowedJob(None, place.id, trio.current_time(), patience_s)
        with trio.move_on_after(patience_s):
            while True:
                try:
                    ended = await follow(link, followed, on_progress)
                except UnknownJobError:
                    raise await self._bookkeeping.record_unknown(place) from None
                except UnreachableError:
                    # Not an error yet: the host may be back before the time has passed.
                    await trio.sleep(_LOOK_AGAIN_S)
                    continue
                assert isinstance(ended, Job)
                return await self._bookkeeping.record(place, ended)
        if link.open_connection is not None:
            return await self.get(place)
        job = await self._bookkeeping.record_unreachable(place)
        if job is None:
            raise UnreachableError(place.host, link.reason)
        return job

    async def cancel(self, place: Place, by: str, *, keep: bool) -> CancelOutcome:
        """Have its host cancel a job.

        Raises:
            DispatchError: The host refuses it, or cannot be reached.
        """
        answer = await self._links.request(
            place.host, lambda n: Cancel(n=n, id=place.id, by=by, keep=keep), FIRST_CONTACT_S
        )
        if not isinstance(answer, Cancelled):
            raise error_from(place.host, answer)
        # This records how the job is now.
        with suppress(DispatchError):
            await self.get(place)
        return CancelOutcome(answer.outcome)

    async def send(self, place: Place, text: str) -> Sending:
        """Have its host send a message to the agent of a job.

        Raises:
            DispatchError: The host refuses it, or cannot be reached.
        """
        args = {"job_id": place.id, "text": text}
        sending = await self._links.call(place.host, "send", Sending, args)
        step = sending.next_step
        if step is not None and place.known is not None:
            step = step_here(step, place.host, place.known.agent, place.shown_id)
        return msgspec.structs.replace(sending, job_id=place.shown_id, next_step=step)

    async def answer(
        self, place: Place, verdict: Verdict, by: AnsweredBy, question_id: str
    ) -> Answered:
        """Have its host answer a permission question of a job.

        Raises:
            DispatchError: The host refuses it, or cannot be reached.
        """
        args = {"job_id": place.id, "verdict": verdict, "by": by, "question_id": question_id}
        answered = await self._links.call(place.host, "answer", Answered, args)
        return msgspec.structs.replace(answered, job_id=at_host(answered.job_id, place.host))

    async def questions(self) -> tuple[list[QuestionRow], list[str]]:
        """Return the permission questions of our jobs, and an error for each host not reached."""
        known = await in_thread(lambda: [*self._remote_jobs.all()])
        agents = {job.shown_id: job.agent for job in known}
        rows: list[QuestionRow] = []
        problems: list[str] = []

        async def ask(host: str) -> None:
            try:
                found = await self._links.call(host, "questions", list[QuestionRow])
            except DispatchError as error:
                problems.append(str(error))
                return
            for row in found:
                shown_id = at_host(row.job_id, host)
                if shown_id in agents:
                    agent = agents[shown_id]
                    rows.append(msgspec.structs.replace(row, job_id=shown_id, agent=agent))

        async with trio.open_nursery() as nursery:
            for host in {job.host for job in known if _may_have_questions(job)}:
                nursery.start_soon(ask, host)
        return rows, problems


def _may_have_questions(remote_job: RemoteJob) -> bool:
    if remote_job.is_withdrawn:
        return False
    # A call of a job that ended recently can still be allowed.
    is_recent = remote_job.noted_at > time.time() - _RECENT_S
    return is_recent or not remote_job.job.status.is_terminal

"""A person's answer to a permission question, given from any process.

While the job runs, the answer goes to its owner by mail. After the job has ended it is recorded
once, beside the final record; `allow` then resumes the session in a new background job, in which
exactly that call is allowed, once.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
import trio

from agent_dispatch.core.dialogue.exchange import session_of_agent
from agent_dispatch.core.questions import NoQuestionError, answerable, question_for
from agent_dispatch.core.request.prompt import allowed_later_task
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.pools import in_own_thread
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post, settled, wait_to_see
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.question import (
    ANSWER_MAIL,
    Answer,
    AnsweredBy,
    PastQuestion,
    Question,
    Verdict,
)
from agent_dispatch.model.replies import Answered

_TAKEN_S = 10.0
"""How long the owner of a job may take to read an answer; it needs milliseconds."""

_RECORDED_S = 2.0
"""How long a question may take to stand in the record: a moment, as the owner writes it at once."""

Submit = Callable[[DispatchRequest, PastQuestion], Awaitable[Job]]
"""Starts a background job in which the call of the question is allowed once."""


class Answering:
    """Gives answers to the questions of one jobs directory."""

    def __init__(
        self,
        store: JobStore,
        submit: Submit,
        *,
        is_nested: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Answer questions in `store`; `submit` starts background jobs.

        Args:
            store: The jobs.
            submit: Starts the job that makes a call which was allowed late.
            is_nested: This process belongs to a dispatched agent, which must not allow itself
                anything.
            now: Gives the time to be recorded.
        """
        self._store = store
        self._submit = submit
        self._is_nested = is_nested
        self._now = now

    async def answer(
        self, job_id: str, verdict: Verdict, by: AnsweredBy, question_id: str = ""
    ) -> Answered:
        """Answer the oldest question of a job, or the one of that id.

        Returns:
            Under which job the call is made, if it is: the same, or a new one.

        Raises:
            InvalidRequestError: A dispatched agent tries to allow something, or the question waits
                for the end of its job.
            NoQuestionError: There is no such question, or another answer was faster.
            DispatchError: No such job, or what `submit` raises; the question can be answered again.
        """
        if self._is_nested and verdict is Verdict.ALLOW:
            raise InvalidRequestError(
                "A dispatched agent does not allow itself anything: this process runs inside a"
                " dispatch (AGENT_DISPATCH_DEPTH is set). Answer from a shell of your own."
            )
        job = await self._job(job_id, question_id)
        if job.kind is JobKind.GROUP:
            job, question_id = await self._member_that_asks(job, question_id)
            job_id = job.id
        question = question_for(job, question_id)
        if isinstance(question, Question):
            job = await self._answer_owner(
                job_id, Answer(question=question.id, answer=verdict, answered_by=by)
            )
            past = _past(job, question.id)
            if past is not None and (past.answer, past.answered_by) == (verdict, by):
                return Answered(job_id=job_id, outcome="answered")
            if past is None:
                raise DispatchError(
                    f"The owner of job {job_id} did not take the answer within {_TAKEN_S:g} s. It"
                    " takes it as soon as it goes on."
                )
            question = question_for(job, question.id)
        if not isinstance(question, PastQuestion):
            raise AssertionError("an open question of a job that has ended")
        return await self._answer_late(job, question, verdict, by)

    async def _job(self, job_id: str, question_id: str) -> Job:
        """Read a job; a question that was asked just now may not be in its record yet."""

        def knows(job: Job) -> bool:
            known = [*job.open_questions, *(job.questions or ())]
            return not question_id or any(question.id == question_id for question in known)

        with trio.move_on_after(_RECORDED_S):
            return await wait_to_see(self._store, job_id, knows)
        return await settled(self._store, job_id)

    async def _member_that_asks(self, group: Job, question_id: str) -> tuple[Job, str]:
        """The member of a group that an answer to the group is for, and the question's id.

        Raises:
            NoQuestionError: No member has such a question.
        """
        found: list[tuple[bool, float, Job, str]] = []
        for member_id in group.members or ():
            with suppress(UnknownJobError):
                member = await settled(self._store, member_id)
                found += [
                    (isinstance(each, PastQuestion), each.asked_at, member, each.id)
                    for each in answerable(member)
                    if question_id in ("", each.id)
                ]
        if not found:
            raise NoQuestionError(f"Job {group.id} has no question that waits for an answer.")
        *_, member, found_id = min(found, key=lambda each: each[:2])
        return member, found_id

    async def _answer_owner(self, job_id: str, answer: Answer) -> Job:
        def is_closed(job: Job) -> bool:
            return _past(job, answer.question) is not None

        await post(self._store, job_id, ANSWER_MAIL, answer)
        with trio.move_on_after(_TAKEN_S):
            return await wait_to_see(self._store, job_id, is_closed)
        return await settled(self._store, job_id)

    async def _answer_late(
        self, job: Job, question: PastQuestion, verdict: Verdict, by: AnsweredBy
    ) -> Answered:
        answered = msgspec.structs.replace(
            question, answer=verdict, answered_by=by, answered_at=self._now()
        )
        session_id = session_of_agent(job, question.agent)
        if verdict is Verdict.ALLOW and session_id is None:
            raise InvalidRequestError(
                f"Job {job.id} ended before it had a session, so there is none in which the call"
                " could be made. Dispatch its task again."
            )
        # Not abandoned if we are cancelled: it is known then whether the question was answered.
        await in_own_thread(self._store.answer_late, job.id, answered)
        if verdict is Verdict.DENY:
            return Answered(job_id=job.id, outcome="answered")
        request = DispatchRequest(
            agent=question.agent,
            task=allowed_later_task(question),
            response_format=job.response_format,
            json_schema=job.json_schema,
            timeout_s=job.timeout_seconds,
            session_id=session_id,
            model=job.model,
            effort=job.effort,
            verify=job.verify,
        )
        try:
            resumed = await self._submit(request, answered)
        except (DispatchError, trio.Cancelled):
            # Nothing runs, and nothing will.
            undo = partial(self._store.take_back_answer, job.id, question.id)
            with trio.CancelScope(shield=True):
                await in_own_thread(undo)
            raise
        return Answered(job_id=resumed.id, outcome="resumed")


def _past(job: Job, question_id: str) -> PastQuestion | None:
    return next((past for past in job.questions or () if past.id == question_id), None)

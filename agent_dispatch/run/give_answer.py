"""Give a person's answer to a permission question, from any process.

While the job runs, the answer goes to its owner by mail. After the job has ended, the answer is
recorded once, beside the final record. `allow` then resumes the session in a new background job,
which may make exactly that call, once.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import msgspec
import trio

from agent_dispatch.core.dialogue.record import session_of_agent
from agent_dispatch.core.questions import NoQuestionError, answerable, question_for
from agent_dispatch.core.request.prompt import allowed_later_task
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
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
from agent_dispatch.threads import in_own_thread

_TAKEN_S = 10.0
"""How long the owner of a job may take to read an answer; it needs milliseconds."""
_RECORDED_S = 2.0
"""How long a new question may take to appear in the record; the owner writes it at once."""

SubmitAllowed = Callable[[DispatchRequest, PastQuestion], Awaitable[Job]]
"""Starts a background job that may make the call of this question once."""


async def give_answer(
    store: JobStore,
    submit: SubmitAllowed,
    job_id: str,
    verdict: Verdict,
    by: AnsweredBy,
    question_id: str,
) -> Answered:
    """Answer the question of a job with that id, or the oldest if the id is empty.

    Returns:
        The job that makes the call, if it is allowed: the same job, or a new one.

    Raises:
        InvalidRequestError: The job ended before it had a session.
        NoQuestionError: There is no such question, or another answer came first.
        DispatchError: No such job, or an error of `submit`; the question can be answered again.
    """
    job = await _read_with_question(store, job_id, question_id)
    if job.kind is JobKind.GROUP:
        job, question_id = await _member_that_asks(store, job, question_id)
        job_id = job.id
    question = question_for(job, question_id)
    if isinstance(question, Question):
        job = await _answer_owner(
            store, job_id, Answer(question=question.id, answer=verdict, answered_by=by)
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
    return await _answer_late(store, submit, job, question, verdict, by)


async def _read_with_question(store: JobStore, job_id: str, question_id: str) -> Job:
    """Read a job; wait a moment for a new question, which may not be in the record yet."""

    def knows(job: Job) -> bool:
        known = [*job.open_questions, *(job.questions or ())]
        return not question_id or any(question.id == question_id for question in known)

    with trio.move_on_after(_RECORDED_S):
        return await wait_to_see(store, job_id, knows)
    return await settled(store, job_id)


async def _member_that_asks(store: JobStore, group: Job, question_id: str) -> tuple[Job, str]:
    """Find the member of a group whose question is meant, and the id of that question.

    Raises:
        NoQuestionError: No member has such a question.
    """
    found: list[tuple[bool, float, Job, str]] = []
    for member_id in group.members or ():
        with suppress(UnknownJobError):
            member = await settled(store, member_id)
            found += [
                (isinstance(each, PastQuestion), each.asked_at, member, each.id)
                for each in answerable(member)
                if question_id in ("", each.id)
            ]
    if not found:
        raise NoQuestionError(f"Job {group.id} has no question that waits for an answer.")
    *_, member, found_id = min(found, key=lambda each: each[:2])
    return member, found_id


async def _answer_owner(store: JobStore, job_id: str, answer: Answer) -> Job:
    def is_closed(job: Job) -> bool:
        return _past(job, answer.question) is not None

    await post(store, job_id, ANSWER_MAIL, answer)
    with trio.move_on_after(_TAKEN_S):
        return await wait_to_see(store, job_id, is_closed)
    return await settled(store, job_id)


async def _answer_late(
    store: JobStore,
    submit: SubmitAllowed,
    job: Job,
    question: PastQuestion,
    verdict: Verdict,
    by: AnsweredBy,
) -> Answered:
    answered = msgspec.structs.replace(
        question, answer=verdict, answered_by=by, answered_at=time.time()
    )
    session_id = session_of_agent(job, question.agent)
    if verdict is Verdict.ALLOW and session_id is None:
        raise InvalidRequestError(
            f"Job {job.id} ended before it had a session, so there is none in which the call"
            " could be made. Dispatch its task again."
        )
    # Not abandoned on cancellation: afterwards it is known whether the question was answered.
    await in_own_thread(store.late_answers.give, job.id, answered)
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
        resumed = await submit(request, answered)
    except (DispatchError, trio.Cancelled):
        # Nothing runs, and nothing will.
        undo = partial(store.late_answers.take_back, job.id, question.id)
        with trio.CancelScope(shield=True):
            await in_own_thread(undo)
        raise
    return Answered(job_id=resumed.id, outcome="resumed")


def _past(job: Job, question_id: str) -> PastQuestion | None:
    return next((past for past in job.questions or () if past.id == question_id), None)

"""Calls of the newer era whose answer asks something: the client repeats them with the response.

The first answer names a job, and the repeated call follows that job: it is answered when the job
has ended, or when there is another question.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import trio

from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.model.dispatch import OnProgress, Progress
from agent_dispatch.model.job import Job
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.form_texts import question_text
from agent_dispatch.server.calls.pending import Caller, Early, Ongoing
from agent_dispatch.server.tools.finished_jobs import answer_of

VERDICTS = {"accept": Verdict.ALLOW, "decline": Verdict.DENY}
"""What a form's user did, as an answer; any other action leaves a question open."""


@dataclass(frozen=True, slots=True)
class Asks:
    """An answer that asks: the client shows forms, and repeats the call with the responses."""

    requests: Mapping[str, str]
    """What each form says, by the key of its response."""
    state: str
    """Comes back with the repeated call."""


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer that asks leaves with its client.

    It is not signed: with it a client can do nothing that it could not do by its own word.
    """

    call: str
    """Names what the call asks for, so that a response counts for no other one."""
    job_id: str = ""
    """The job that the call is about; empty: the call is about rights."""
    asked: tuple[str, ...] = ()
    """The questions that its user was asked."""

    def encode(self) -> str:
        """The state as text."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class Response:
    """What comes with a repeated call."""

    state: str
    actions: Mapping[str, str]
    """What the user did with each form, by its key."""

    def state_of(self, key: bytes) -> State:
        """The state, if it was given to the call of this key.

        Raises:
            InvalidRequestError: It was not.
        """
        try:
            state = msgspec.json.decode(self.state, type=State)
        except (msgspec.DecodeError, RecursionError):
            state = None
        if state is None or state.call != key.hex():
            raise InvalidRequestError("requestState does not belong to this call. Leave it out.")
        return state


async def give_answers(service: Service, job_id: str, actions: Mapping[str, str]) -> None:
    """Pass on what a user answered in forms."""
    for question_id, action in actions.items():
        if (verdict := VERDICTS.get(action)) is not None:
            try:
                await service.answer(job_id, verdict, AnsweredBy.ELICITATION, question_id)
            except DispatchError:
                continue  # Another answer was faster; the record says whose.


async def follow(
    service: Service,
    ongoing: Ongoing,
    key: bytes,
    job_id: str,
    on_progress: OnProgress,
    caller: Caller,
    *,
    until: float,
) -> object:
    """Wait for the answer of a job, or for a question that the caller's user was not asked yet.

    Args:
        service: Where the job is.
        ongoing: Where the wait goes on.
        key: Names the call.
        job_id: The job.
        on_progress: Gets what the agent does.
        caller: Who calls.
        until: When an answer is due, on Trio's clock.

    Returns:
        The answer; `Asks` if there is a question; the job if it goes on.
    """

    async def wait(report: OnProgress) -> object:
        report(Progress(f"Job {job_id}", job_id))
        return answer_of(await service.wait(job_id, math.inf, report))

    while True:
        job: Job = await service.job(job_id)
        if job.status.is_terminal:
            return answer_of(job)
        new = {q.id: question_text(q) for q in job.open_questions if q.id not in caller.asked}
        if new:
            asked = (*caller.asked, *new)
            return Asks(new, State(call=key.hex(), job_id=job_id, asked=asked).encode())
        if trio.current_time() >= until:
            return job
        wait_key = b"job " + job_id.encode()
        answer = await ongoing.wait(wait_key, wait, on_progress, caller, detached=True, until=until)
        if not isinstance(answer, Early):
            return answer

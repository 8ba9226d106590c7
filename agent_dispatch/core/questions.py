"""Which questions of a job a person can answer, and which one an answer is for."""

from typing import Any

import msgspec

from agent_dispatch.errors import DispatchError, InvalidRequestError, quoted
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import NextStep, StepKind, run
from agent_dispatch.model.question import PastQuestion, Question, Verdict


class QuestionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A question that can be answered: a row of `questions --json`."""

    job_id: str
    id: str
    agent: str
    tool: str
    input: Any
    asked_at: float
    state: str
    """`open`, or `unanswered`: the call was denied, and can be allowed later."""


class NoQuestionError(DispatchError):
    """The job has no question that can be answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, run("agent-dispatch questions"))


def answerable(job: Job) -> list[Question | PastQuestion]:
    """Return the open questions, then the unanswered ones, each oldest first."""
    unanswered = [
        question for question in job.questions or () if question.answer is Verdict.UNANSWERED
    ]
    return [*job.open_questions, *unanswered]


def question_rows(job: Job) -> list[QuestionRow]:
    """Return the answerable questions as rows; a group has none, its members have them."""
    if job.kind is JobKind.GROUP:
        return []
    return [
        QuestionRow(
            job_id=job.id,
            id=question.id,
            agent=question.agent,
            tool=question.tool,
            input=question.input,
            asked_at=question.asked_at,
            state="open" if isinstance(question, Question) else "unanswered",
        )
        for question in answerable(job)
    ]


def shown_input(tool_input: object) -> str:
    """Return the input of a tool as JSON on one line, nothing cut."""
    return shown_text(msgspec.json.encode(tool_input).decode())


def shown_text(text: str) -> str:
    """Return text on one line, nothing cut.

    Characters that a terminal or a form would obey, hide or reorder are escaped as in JSON: a
    person has to see what would be done.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def question_for(job: Job, question_id: str = "") -> Question | PastQuestion:
    """Return the question that an answer is for: the oldest, or the one with that id.

    Raises:
        NoQuestionError: No question can be answered.
        InvalidRequestError: It can be answered only after its job has ended.
    """
    candidates = answerable(job)
    if question_id:
        candidates = [question for question in candidates if question.id == question_id]
    if not candidates:
        raise NoQuestionError(_why_none(job, question_id))
    question = candidates[0]
    if isinstance(question, PastQuestion) and not job.status.is_terminal:
        raise InvalidRequestError(
            f"Nobody answered question {question.id} in time, so the call was denied and job"
            f" {job.id} goes on without it. Answer it when the job has ended.",
            NextStep(kind=StepKind.WAIT, job_id=job.id),
        )
    return question


def _why_none(job: Job, question_id: str) -> str:
    for question in job.questions or ():
        if question.id == question_id and question.answer is Verdict.WITHDRAWN:
            return f"Question {question_id} was withdrawn: the agent no longer asks."
        if question.id == question_id:
            by = f" (by {question.answered_by})" if question.answered_by is not None else ""
            return f"Question {question_id} was answered already: {question.answer}{by}."
    if question_id:
        return f"Job {job.id} has no question {quoted(question_id)}."
    return f"Job {job.id} has no question that waits for an answer."

"""Events for the user's `notify` command."""

from collections.abc import Callable

import msgspec

from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.question import Question

_SUMMARY_CHARS = 200


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a job."""

    event: str
    """`question`, or how a background job ended: `done`, `failed`, `cancelled`, `lost`."""
    job_id: str
    agent: str
    agents: list[str] | None = None
    question: Question | None = None
    success: bool | msgspec.UnsetType = msgspec.UNSET
    error_type: ErrorType | None = None
    summary: str | msgspec.UnsetType = msgspec.UNSET
    """The beginning of the answer, or of the error."""


OnEvent = Callable[[Event], object]
"""Reports an event; blocks for a bounded time and never raises."""


def ignore_event(_event: Event) -> None:
    """Report the event to nobody."""


def question_event(job: Job, question: Question) -> Event:
    """Return the event of a permission question."""
    return Event(
        event="question",
        job_id=job.id,
        agent=question.agent,
        agents=job.agents,
        question=question,
    )


def end_event(job: Job) -> Event:
    """Return the event of a job that has ended."""
    is_lost = job.error_type is ErrorType.LOST
    result = job.result
    answer = "" if result is None else result.result
    return Event(
        event="lost" if is_lost else job.status.value,
        job_id=job.id,
        agent=job.agent,
        agents=job.agents,
        success=job.status is JobStatus.DONE if result is None else result.success,
        error_type=job.error_type,
        summary=(answer or job.error or "")[:_SUMMARY_CHARS],
    )

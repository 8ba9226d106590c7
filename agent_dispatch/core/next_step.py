"""The next steps that several decisions propose, and how they get into texts."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from agent_dispatch.core.request.timeout import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind

Say = Callable[[NextStep], str]
"""Words a step; each surface has its own."""
_ResultT = TypeVar("_ResultT", DispatchResult, DialogueResult)


def resume(agent: EffectiveAgent, session_id: str | None) -> NextStep:
    """Return how to continue a session."""
    return NextStep(
        kind=StepKind.RESUME, agent=agent.name, session_id=session_id, directory=agent.directory
    )


def more_time(timeout_s: float, agent: str = "") -> NextStep:
    """Return how to double a timeout, within its range."""
    longer = min(MAX_TIMEOUT_S, max(MIN_TIMEOUT_S, round(2 * timeout_s)))
    return NextStep(kind=StepKind.MORE_TIME, agent=agent, timeout_s=longer)


def raise_budget(agent: str, cap_usd: float) -> NextStep:
    """Return how to double a cap."""
    return NextStep(kind=StepKind.RAISE_BUDGET, agent=agent, budget_usd=amount(2 * cap_usd))


def amount(usd: float) -> str:
    """Return an exact amount of US dollars as digits, without an exponent."""
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def worded(result: _ResultT, say: Say) -> _ResultT:
    """Put the next steps of a result into its error, or into its hint if it has no error."""
    if not result.next_steps:
        return result
    if result.error is not None:
        error = with_steps(result.error, result.next_steps, say)
        return msgspec.structs.replace(result, error=error, next_steps=None)
    hint = with_steps(result.hint or "", result.next_steps, say)
    return msgspec.structs.replace(result, hint=hint, next_steps=None)


def worded_job(job: Job, say: Say) -> Job:
    """Put the next steps of a job's result into the texts of both."""
    if job.result is None or not job.result.next_steps:
        return job
    result = worded(job.result, say)
    return msgspec.structs.replace(
        job, result=result, error=None if job.error is None else result.error
    )


def worded_error(error: DispatchError, say: Say) -> str:
    """Return the text of an error with its next steps."""
    return with_steps(str(error), error.next_steps, say)


def with_steps(text: str, steps: Iterable[NextStep], say: Say) -> str:
    """Return `text` with the worded steps below it."""
    return "\n".join(filter(None, [text, *dict.fromkeys(map(say, steps))]))

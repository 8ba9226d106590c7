"""The next steps that several decisions propose, and how a surface puts them into words."""

import shlex
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
"""How a surface words a step."""
ResultT = TypeVar("ResultT", DispatchResult, DialogueResult)


def resume(agent: EffectiveAgent, session_id: str | None) -> NextStep:
    """Return how to continue a session."""
    return NextStep(
        kind=StepKind.RESUME, agent=agent.name, session_id=session_id, directory=agent.directory
    )


def more_time(timeout_s: float, agent: str = "") -> NextStep:
    """Return how to give twice the time, as far as that is allowed."""
    longer = min(MAX_TIMEOUT_S, max(MIN_TIMEOUT_S, round(2 * timeout_s)))
    return NextStep(kind=StepKind.MORE_TIME, agent=agent, timeout_s=longer)


def raise_budget(agent: str, cap_usd: float) -> NextStep:
    """Return how to double a cap."""
    return NextStep(kind=StepKind.RAISE_BUDGET, agent=agent, budget_usd=amount(2 * cap_usd))


def amount(usd: float) -> str:
    """Return US dollars as digits, without an exponent."""
    return f"{usd:.9f}".rstrip("0").rstrip(".")


def worded(result: ResultT, say: Say) -> ResultT:
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
    """Return what was wrong with a call, and what to do."""
    return with_steps(str(error), error.next_steps, say)


def with_steps(text: str, steps: Iterable[NextStep], say: Say) -> str:
    """Return `text` and below it a line or two for each step."""
    return "\n".join(filter(None, [text, *dict.fromkeys(map(say, steps))]))


def on_host(step: NextStep, host: str, agent: str, job_id: str) -> NextStep:
    """Say for the caller of another machine what a step means there.

    Its agents and jobs have names here; what is to be changed or run is done on the host.

    Args:
        step: As the host gave it.
        host: The host's name here.
        agent: The agent's name here.
        job_id: The id of the job that the step is about, as callers here read it.
    """
    name = shlex.quote(step.agent)
    match step.kind:
        case StepKind.RAISE_BUDGET:
            command = f"agent-dispatch update {name} --max-budget-usd {step.budget_usd}"
        case StepKind.MORE_TIME if step.agent:
            command = f"agent-dispatch update {name} --timeout {step.timeout_s}"
        case StepKind.UPDATE_AGENT:
            command = f"agent-dispatch update {name} --help"
        case StepKind.RUN:
            command = step.command
        case _:
            return msgspec.structs.replace(
                step,
                agent=step.agent and agent,
                job_id=step.job_id and job_id,
                # A directory of the host: `claude --resume` by hand is nothing for this machine.
                directory="",
            )
    return NextStep(kind=StepKind.RUN, command=command, agent=agent, host=host)

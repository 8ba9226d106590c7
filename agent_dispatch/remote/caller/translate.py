"""Translates what a host says for callers here: ids get `@HOST`, names are those of this file."""

import shlex
from contextlib import suppress
from typing import TypeVar

import msgspec

from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.remote.caller.remote_jobs import at_host
from agent_dispatch.remote.frames import AnyFrame, Failed

T = TypeVar("T")


def read(value: object, kind: type[T]) -> T:
    """Read a value that a host sent. Fields of newer versions are ignored.

    Raises:
        InvalidRequestError: It is not of this kind.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"The host's answer cannot be read: {error}.") from error


def result_here(result: DispatchResult, agent: str, host: str) -> DispatchResult:
    """Return a result as callers here read it."""
    shown_id = result.job_id and at_host(result.job_id, host)
    steps = [step_here(step, host, agent, shown_id or "") for step in result.next_steps or ()]
    return msgspec.structs.replace(
        result,
        agent=agent,
        job_id=shown_id,
        error=result.error and f"on {host}: {result.error}",
        hint=result.hint and f"on {host}: {result.hint}",
        next_steps=steps or None,
    )


def error_from(host: str, answer: AnyFrame) -> DispatchError:
    """Return the error that a host answered with, or one for an answer of the wrong kind."""
    if not isinstance(answer, Failed):
        return DispatchError(f"on {host}: it gave an answer of the wrong kind.")
    if answer.kind == "unknown_job":
        return UnknownJobError(f"…@{host}")
    steps = []
    with suppress(msgspec.ValidationError):
        steps = msgspec.convert(answer.steps, list[NextStep])
    shown = [step_here(step, host, step.agent, step.job_id) for step in steps]
    return InvalidRequestError(f"on {host}: {answer.error}", *shown)


def job_here(job: Job, shown_id: str, host: str, agent: str) -> Job:
    """Return a job as callers here read it."""
    result = None if job.result is None else result_here(job.result, agent, host)
    error = job.error
    if result is not None and error is not None:
        error = result.error
    return msgspec.structs.replace(
        job, id=shown_id, agent=agent, host=host, parent=None, result=result, error=error
    )


def step_here(step: NextStep, host: str, agent: str, job_id: str) -> NextStep:
    """Return a step of a host as callers here read it; changes and commands run on the host.

    Args:
        host: The host's name here.
        agent: The agent's name here.
        job_id: The id, for callers here, of the job that the step is about.
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
                # It is a directory of the host: `claude --resume` cannot run here.
                directory="",
            )
    return NextStep(kind=StepKind.RUN, command=command, agent=agent, host=host)

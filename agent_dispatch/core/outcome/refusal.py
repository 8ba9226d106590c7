"""Results of dispatches that were not started."""

from collections.abc import Sequence

from agent_dispatch.core.command import DEPTH_VARIABLE, UNREADABLE_DEPTH
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep


def refused(
    agent: str,
    error: str,
    error_type: ErrorType = ErrorType.CLI_ERROR,
    next_steps: Sequence[NextStep] = (),
) -> DispatchResult:
    """Return the result of a dispatch that was not started."""
    return DispatchResult(
        agent=agent,
        success=False,
        result="",
        error=error,
        error_type=error_type,
        next_steps=list(next_steps) or None,
    )


def refused_by(error: DispatchError, agent: str) -> DispatchResult:
    """Return the result of a dispatch that was not started because of `error`."""
    return refused(agent, str(error), next_steps=error.next_steps)


def result_of_job(job: Job) -> DispatchResult:
    """Return the result of a job that has ended; records of other programs may have none."""
    if job.result is not None:
        return job.result
    return refused(job.agent, job.error or "", job.error_type or ErrorType.CLI_ERROR)


def recursion_refused(agent: str, depth: int, max_depth: int) -> DispatchResult:
    """Return the result of a dispatch that would nest deeper than allowed."""
    if depth == UNREADABLE_DEPTH:
        error = (
            f"The environment variable {DEPTH_VARIABLE} is not a number, so it is not known how"
            " deeply this dispatch is nested, and it was refused. Unset the variable."
        )
    else:
        error = (
            f"{depth} dispatch(es) are nested here already, and max_dispatch_depth is {max_depth}."
            " Do the task here instead of dispatching it. If the nesting is intended, raise"
            " max_dispatch_depth in [settings] of agents.toml."
        )
    return refused(agent, error, ErrorType.RECURSION)


def exclusive_refused(agent: str) -> DispatchResult:
    """Return the result of a dispatch that would wait for its own enclosing run."""
    error = (
        f"This dispatch is inside a run of agent {agent!r}, which has `exclusive = true` in"
        " agents.toml: it runs only once at a time, so this dispatch would wait for itself. Do the"
        " task here instead of dispatching it."
    )
    return refused(agent, error, ErrorType.RECURSION)

"""The record of a group: several dispatches under one background job.

The record holds the results of the members as values; a surface words their next steps.
"""

from collections.abc import Sequence

import msgspec

from agent_dispatch.core.next_step import Say, worded
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.core.text import scrubbed
from agent_dispatch.model.dispatch import (
    COST_DECIMALS,
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Member,
)
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.parallel import ParallelResult

_NAMED_AGENTS = 5
_NAMED_TASKS = 20
_SHOWN_MEMBERS = 5


def agents_of(members: Sequence[Member], aggregate: str) -> list[str]:
    """Return the agents of a group, each once."""
    names = [member.request.agent for member in members]
    return list(dict.fromkeys([*names, aggregate] if aggregate else names))


def as_dispatch(members: Sequence[Member], aggregate: str) -> DispatchRequest:
    """Return the request that a group is recorded as: it names the agents and tasks."""
    agents = agents_of(members, aggregate)
    if len(agents) > _NAMED_AGENTS:
        agents = [*agents[:_NAMED_AGENTS], "…"]
    tasks = [
        f"{member.request.agent}: {one_line(member.request.task)}"
        for member in members[:_NAMED_TASKS]
    ]
    if len(members) > _NAMED_TASKS:
        tasks.append(f"and {len(members) - _NAMED_TASKS} more")
    first = members[0].request
    return DispatchRequest(
        agent=", ".join(agents),
        task=f"{len(members)} dispatches: {'; '.join(tasks)}",
        caller=first.caller,
        goal=first.goal,
    )


def to_record(agent: str, outcome: ParallelResult, duration_ms: int) -> DispatchResult:
    """Return the result of a group that ran to its end, even if members failed."""
    results = outcome.individual_results
    done = sum(result.success for result in results)
    text = f"{done} of {len(results)} dispatches succeeded; parsed_result has the answers."
    every = list(results)
    if outcome.aggregated is not None:
        every.append(outcome.aggregated)
        text = outcome.aggregated.result if outcome.aggregated.success else text
    # Identical tasks share a run, which is paid for once.
    paid = {result.job_id or number: result for number, result in enumerate(every)}
    costs = [result.cost_usd for result in paid.values() if result.cost_usd is not None]
    return DispatchResult(
        agent=agent,
        success=True,
        result=text,
        cost_usd=round(sum(costs), COST_DECIMALS) if costs else None,
        duration_ms=duration_ms,
        # One answer that is not valid UTF-8 must not keep the others from being recorded.
        parsed_result=scrubbed(msgspec.to_builtins(_as_parsed(outcome))),
    )


def cancelled(agent: str, members: Sequence[str], by: str) -> DispatchResult:
    """Return the result of a cancelled group; its members have their own results."""
    return refused(agent, f"Cancelled by {by}.", ErrorType.CANCELLED, look_at_members(members))


def look_at_members(members: Sequence[str]) -> list[NextStep]:
    """Return how to look at the first members."""
    shown = members[:_SHOWN_MEMBERS]
    return [NextStep(kind=StepKind.LOOK_AT_JOB, job_id=job_id) for job_id in shown]


def from_record(result: DispatchResult) -> ParallelResult | None:
    """Return the results of the members; None for a group that did not run to its end."""
    parsed = result.parsed_result
    if isinstance(parsed, list):
        parsed = {"individual_results": parsed}
    try:
        return msgspec.convert(parsed, ParallelResult)
    except msgspec.ValidationError:
        return None


def member_results(job: Job) -> ParallelResult | None:
    """Return the results of the members of a group that ran to its end; None for any other job."""
    if job.kind is not JobKind.GROUP or job.result is None:
        return None
    return from_record(job.result)


def with_whole_answers(job: Job, say: Say) -> Job:
    """Word the results in the record of a group; any other job stays as it is."""
    outcome = member_results(job)
    if outcome is None:
        return job
    aggregated = None if outcome.aggregated is None else worded(outcome.aggregated, say)
    results = [worded(result, say) for result in outcome.individual_results]
    shown = ParallelResult(individual_results=results, aggregated=aggregated)
    return with_answers(job, _as_parsed(shown))


def with_answers(job: Job, answers: object) -> Job:
    """Return the record of a group with these answers in place of its results."""
    assert job.result is not None
    result = msgspec.structs.replace(job.result, parsed_result=msgspec.to_builtins(answers))
    return msgspec.structs.replace(job, result=result)


def _as_parsed(outcome: ParallelResult) -> object:
    return outcome.individual_results if outcome.aggregated is None else outcome

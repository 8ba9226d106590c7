"""The tools for jobs: start one in the background, and handle any job by its id."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from agent_dispatch.core.group_job import with_whole_answers
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.outcome.refusal import result_of_job
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import DispatchResult, OnProgress
from agent_dispatch.model.job import MAX_LISTED, Job, status_named
from agent_dispatch.model.message import SendOutcome
from agent_dispatch.model.replies import Cancellation, Purged, Sent, Submitted, WaitedFor
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.job import inline_job, short_row
from agent_dispatch.server.inline.result import cut_page
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.dispatch import (
    SESSION_ARGUMENT,
    DispatchParams,
    TaskParams,
    request_from,
)
from agent_dispatch.server.tools.tool import Params, Tool, WithWarnings

MAX_PATIENCE_S = 3600

_NO_SUCH_JOB = "No such job; it may have been removed. dispatch_jobs() lists the known ones."
_HINTS: Mapping[CancelOutcome, str] = {
    CancelOutcome.RUNNING: "It is still ending; dispatch_wait(job_id) returns when it has ended.",
    CancelOutcome.ALREADY_TERMINAL: "It had already ended; dispatch_status(job_id) says how.",
    CancelOutcome.NOT_FOUND: _NO_SUCH_JOB,
}

_JobId = Annotated[str, msgspec.Meta(description="job_id of any dispatch")]


class JobParams(Params, frozen=True):
    """Arguments of tools that take only a job."""

    job_id: _JobId


class DispatchWaitParams(JobParams, frozen=True):
    """Arguments of `dispatch_wait`."""

    timeout_seconds: Annotated[
        float, msgspec.Meta(description="Longest wait (0-3600); the job goes on after it")
    ] = 60


class DispatchSendParams(JobParams, frozen=True):
    """Arguments of `dispatch_send`."""

    message: Annotated[str, msgspec.Meta(description="What the agent should know or do")]


class DispatchCancelParams(JobParams, frozen=True):
    """Arguments of `dispatch_cancel`."""

    keep: Annotated[
        bool, msgspec.Meta(description="Interrupt; the result is what the agent said last")
    ] = False


class DispatchJobsParams(Params, frozen=True):
    """Arguments of `dispatch_jobs`."""

    status: Annotated[
        str,
        msgspec.Meta(description="pending, running, done, failed or cancelled; empty = all"),
    ] = ""
    limit: Annotated[int, msgspec.Meta(description="How many (1-1000)")] = 20
    mine: Annotated[bool, msgspec.Meta(description="Only those of this session")] = False


class DispatchGcParams(Params, frozen=True):
    """Arguments of `dispatch_gc`."""

    max_age_days: Annotated[
        float, msgspec.Meta(description="Days since a job ended; 0 = every ended job")
    ] = 7


class FetchResultParams(Params, frozen=True):
    """Arguments of `fetch_result`."""

    ref: Annotated[str, msgspec.Meta(description="A ref, or the job_id of any dispatch")]
    max_chars: Annotated[int, msgspec.Meta(description="Most characters of the text; 0 = all")] = 0
    offset: Annotated[int, msgspec.Meta(description="The character to begin at")] = 0


async def dispatch_async(
    service: Service, params: TaskParams, _on_progress: OnProgress
) -> Submitted:
    """Start a background job."""
    job = await service.submit(request_from(params))
    return Submitted(job_id=job.id, status=job.status, agent=job.agent)


async def dispatch_status(service: Service, params: JobParams, _on_progress: OnProgress) -> Job:
    """Return a job as it is now."""
    return inline_job(await service.jobs.get(params.job_id))


async def dispatch_wait(
    service: Service, params: DispatchWaitParams, on_progress: OnProgress
) -> WaitedFor:
    """Return a job when it has ended, or as it is when the time to wait has passed."""
    patience_s = min(max(params.timeout_seconds, 0), MAX_PATIENCE_S)
    job = inline_job(await service.jobs.wait(params.job_id, patience_s, on_progress))
    return WaitedFor(**msgspec.structs.asdict(job), timed_out_waiting=not job.status.is_terminal)


def _wait_at_most(params: DispatchWaitParams, patience_s: float) -> DispatchWaitParams:
    shorter = min(params.timeout_seconds, patience_s)
    return msgspec.structs.replace(params, timeout_seconds=shorter)


async def dispatch_send(
    service: Service, params: DispatchSendParams, _on_progress: OnProgress
) -> Sent:
    """Send a message to a running agent; if it cannot be delivered, the answer says so."""
    sending = await service.jobs.send(params.job_id, params.message)
    step = sending.next_step
    return Sent(
        job_id=sending.job_id,
        outcome=sending.outcome,
        session_id=step.session_id if step else None,
        next=in_tools(step) if step else None,
        hint=_NO_SUCH_JOB if sending.outcome is SendOutcome.NOT_FOUND else None,
    )


async def dispatch_cancel(
    service: Service, params: DispatchCancelParams, _on_progress: OnProgress
) -> Cancellation:
    """End a job; if there is none, the answer says so."""
    outcome = await service.jobs.cancel(params.job_id, keep=params.keep)
    job_id = await service.jobs.shown_id(params.job_id)
    return Cancellation(job_id=job_id, outcome=outcome, hint=_HINTS.get(outcome))


async def dispatch_jobs(
    service: Service, params: DispatchJobsParams, _on_progress: OnProgress
) -> WithWarnings:
    """List the newest jobs; a limit that is out of range becomes the nearest one in range."""
    limit = min(max(params.limit, 1), MAX_LISTED)
    listing = await service.jobs.newest(status_named(params.status), limit, mine=params.mine)
    return WithWarnings([short_row(row) for row in listing.jobs], listing.warnings)


async def dispatch_gc(
    service: Service, params: DispatchGcParams, _on_progress: OnProgress
) -> Purged:
    """Remove old jobs."""
    collected = await service.jobs.gc(params.max_age_days)
    return Purged(
        purged=len(collected.purged),
        litter=collected.litter,
        warnings=collected.warnings or None,
    )


async def fetch_result(
    service: Service, params: FetchResultParams, _on_progress: OnProgress
) -> DispatchResult:
    """Return the result of a job, or a page of it; negative numbers count as 0."""
    result = await whole_result(service, params.ref)
    return cut_page(result, max(params.max_chars, 0), max(params.offset, 0))


async def whole_result(service: Service, ref: str) -> DispatchResult:
    """Return the result of a job under this id, uncut, with its next steps in words.

    Raises:
        DispatchError: As `Jobs.result`.
    """
    result = worded(await service.jobs.result(ref), in_tools)
    result = msgspec.structs.replace(result, job_id=ref)
    if result.parsed_result is msgspec.UNSET:
        return result
    job = with_whole_answers(await service.jobs.get(ref), in_tools)
    return msgspec.structs.replace(result, parsed_result=result_of_job(job).parsed_result)


DISPATCH_ASYNC = Tool(
    name="dispatch_async",
    title="Dispatch in the background",
    foreign_arguments=SESSION_ARGUMENT,
    description=(
        "Start a task as a background job and return its job_id at once. The job goes on when this"
        " session ends. Use it for tasks of minutes; collect the answers with dispatch_wait."
        " Parameters as in dispatch."
    ),
    params=TaskParams,
    described_by=DispatchParams,
    run=dispatch_async,
    destructive=True,
    open_world=True,
)

DISPATCH_STATUS = Tool(
    name="dispatch_status",
    title="Look at a job",
    description=(
        "Show a job without waiting: status, the last lines of progress, and once it has ended its"
        " result, session_id and error."
    ),
    params=JobParams,
    run=dispatch_status,
    read_only=True,
    large_answers=True,
)

DISPATCH_WAIT = Tool(
    name="dispatch_wait",
    title="Wait for a job",
    description=(
        "Wait until a job has ended and return it with its result. With `timed_out_waiting` it"
        " still runs: wait again, or do something else meanwhile."
    ),
    params=DispatchWaitParams,
    run=dispatch_wait,
    wait_at_most=_wait_at_most,
    read_only=True,
    reports_progress=True,
    large_answers=True,
)

DISPATCH_SEND = Tool(
    name="dispatch_send",
    title="Send a message to a running agent",
    description=(
        "Tell a working agent something more; it reads it after its current tool call. `outcome`:"
        " delivered, queued, already_terminal (`next` says how to go on) or not_found."
    ),
    params=DispatchSendParams,
    run=dispatch_send,
    destructive=True,
    open_world=True,
)

DISPATCH_CANCEL = Tool(
    name="dispatch_cancel",
    title="Cancel a job",
    description=(
        "End a job, pending or running, with all its processes. `outcome`: cancelled, running"
        " (still ending), already_terminal or not_found. Its session can be resumed."
    ),
    params=DispatchCancelParams,
    run=dispatch_cancel,
    destructive=True,
    idempotent=True,
)

DISPATCH_JOBS = Tool(
    name="dispatch_jobs",
    title="List jobs",
    description="List the newest jobs of all sessions: status, task, cost, last progress.",
    params=DispatchJobsParams,
    run=dispatch_jobs,
    read_only=True,
)

DISPATCH_GC = Tool(
    name="dispatch_gc",
    title="Remove old jobs",
    description="Remove jobs that ended long ago, with their results. Others are never touched.",
    params=DispatchGcParams,
    run=dispatch_gc,
    destructive=True,
    idempotent=True,
)

FETCH_RESULT = Tool(
    name="fetch_result",
    title="Fetch a result",
    description=(
        "Fetch the whole result of a ref or job. A long one page by page: max_chars=40000, then"
        " offset=40000, and so on, up to `full_size`."
    ),
    params=FetchResultParams,
    run=fetch_result,
    read_only=True,
    large_answers=True,
)

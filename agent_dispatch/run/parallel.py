"""Several dispatches at once, each in a task of its own; cancelling the call ends them all.

In the background they are one job, a group, whose members have records of their own.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

import msgspec
import trio

from agent_dispatch.core import group_job
from agent_dispatch.core.outcome.refusal import refused, refused_by
from agent_dispatch.core.request.parallel import aggregate_request
from agent_dispatch.core.stream.progress_text import with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchResult, Member, OnProgress, Progress
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.model.question import Question
from agent_dispatch.run.run_job import JobRun

logger = logging.getLogger(__name__)

DispatchOne = Callable[[Member, OnProgress], Awaitable[DispatchResult]]


async def dispatch_parallel(
    members: Sequence[Member], aggregate: str, dispatch: DispatchOne, on_progress: OnProgress
) -> ParallelResult:
    """Run all members; then `aggregate` combines their answers, if it is not empty.

    A member that goes wrong is a result like the others. If cancelled, all of them end.
    """
    results = await _run_all(members, dispatch, on_progress)
    if not aggregate:
        return ParallelResult(individual_results=results)
    aggregated = await _aggregate(members, results, aggregate, dispatch, on_progress)
    return ParallelResult(individual_results=results, aggregated=aggregated)


async def _run_all(
    members: Sequence[Member], dispatch: DispatchOne, on_progress: OnProgress
) -> list[DispatchResult]:
    results: dict[int, DispatchResult] = {}

    async def run_one(index: int, member: Member) -> None:
        label = f"[{index + 1}/{len(members)}] "

        def report(progress: Progress) -> None:
            on_progress(labelled(label, progress, index))

        result = results[index] = await _dispatch_or_refuse(member, dispatch, report)
        how = "done" if result.success else f"failed ({result.error_type})"
        ended = Progress(f"{how}, {len(results)} of {len(members)} ended")
        report(with_agent(member.request.agent, ended, 0))

    async with trio.open_nursery() as nursery:
        for index, member in enumerate(members):
            nursery.start_soon(run_one, index, member)
    return [results[index] for index in range(len(members))]


def labelled(label: str, progress: Progress, member: int) -> Progress:
    """Return the progress of one of several dispatches with its label."""
    return msgspec.structs.replace(
        progress,
        message=f"{label}{progress.message}",
        stem=f"{label}{progress.stem or progress.message}",
        member=member,
    )


async def _dispatch_or_refuse(
    member: Member, dispatch: DispatchOne, on_progress: OnProgress
) -> DispatchResult:
    """Run one member; a refusal, or a bug of ours, is a failure of this member only."""
    try:
        return await dispatch(member, on_progress)
    except DispatchError as error:
        return refused_by(error, member.request.agent)
    except Exception as bug:
        # The others are paid for.
        logger.exception("bug in agent-dispatch: one of several dispatches failed")
        message = (
            f"Bug in agent-dispatch: {bug!r}. The traceback is on its stderr; please report it."
        )
        return refused(member.request.agent, message)


async def _aggregate(
    members: Sequence[Member],
    results: Sequence[DispatchResult],
    agent: str,
    dispatch: DispatchOne,
    on_progress: OnProgress,
) -> DispatchResult:
    if not any(result.success for result in results):
        error = "None of the dispatches succeeded, so there was nothing to combine."
        return refused(agent, error)

    def report(progress: Progress) -> None:
        on_progress(labelled("[all] ", progress, len(members)))

    request = aggregate_request(agent, members, results)
    return await _dispatch_or_refuse(Member(request=request), dispatch, report)


async def run_group(run: JobRun, dispatch: DispatchOne) -> DispatchResult:
    """Run the dispatches of a group job, in the worker that was started for it.

    The record of the group shows the jobs of its members and all of their open questions.
    """
    job, began = run.owned.job, trio.current_time()
    members = job.dispatches or []
    ids = {at: member.job_id for at, member in enumerate(members) if member.job_id}
    questions: dict[str, tuple[Question, ...]] = {}
    """The open questions of each member, by its job."""

    def report(progress: Progress) -> None:
        at = progress.member
        if progress.job_id is not None and progress.questions is not None:
            questions[progress.job_id] = progress.questions
            waiting = sorted(chain(*questions.values()), key=lambda each: each.asked_at)
            run.owned.note(
                question=waiting[0] if waiting else None, later_questions=waiting[1:] or None
            )
        if progress.job_id is not None and at is not None and at < len(members):
            ids.setdefault(at, progress.job_id)
            run.owned.note(members=[ids[known] for known in sorted(ids)])
        run.report(progress)

    run.cancelled = lambda by: group_job.cancelled(job.agent, list(ids.values()), by)
    run.owned.note_started()
    outcome = await dispatch_parallel(members, job.aggregate, dispatch, report)
    duration_ms = round((trio.current_time() - began) * 1000)
    return group_job.to_record(job.agent, outcome, duration_ms)

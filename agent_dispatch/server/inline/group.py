"""The answers of several dispatches, cut to what goes out with one call."""

from collections.abc import Sequence

from agent_dispatch.core.group_job import member_results, with_answers
from agent_dispatch.core.next_step import Say, worded
from agent_dispatch.model.dispatch import DispatchResult, Member
from agent_dispatch.model.job import Job
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.inline.result import INLINE_CHARS, inline, inline_all


def inline_parallel(
    outcome: ParallelResult, members: Sequence[Member], say: Say
) -> list[DispatchResult | ResultRef] | ParallelAnswer:
    """Return the answer of `dispatch_parallel`, cut to what goes out with one call."""
    summaries = [member.summary_chars if member.ref else None for member in members]
    results = [worded(result, say) for result in outcome.individual_results]
    if outcome.aggregated is None:
        return inline_all(results, summaries)
    # The caller asked for this one, so it gets at least half of the room.
    others_chars = sum(len(result.result) for result in results)
    room_chars = max(INLINE_CHARS // 2, INLINE_CHARS - others_chars)
    aggregated = inline(worded(outcome.aggregated, say), room_chars)
    room_chars = INLINE_CHARS - len(aggregated.result)
    return ParallelAnswer(
        individual_results=inline_all(results, summaries, room_chars),
        aggregated=aggregated,
    )


def inline_group(job: Job, say: Say) -> Job:
    """Cut and word the results in the record of a group; any other job stays as it is."""
    outcome = member_results(job)
    if outcome is None:
        return job
    return with_answers(job, inline_parallel(outcome, job.dispatches or (), say))

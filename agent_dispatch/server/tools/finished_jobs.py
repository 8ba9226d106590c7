"""What tools answer about a job that has ended, made from its record."""

import msgspec

from agent_dispatch.core.dialogue.record import dialogue_from_result
from agent_dispatch.core.group_job import member_results, with_whole_answers
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.outcome.refusal import result_of_job
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import Job
from agent_dispatch.model.parallel import ParallelAnswer
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.dialogue import inline_dialogue
from agent_dispatch.server.inline.group import inline_parallel
from agent_dispatch.server.inline.result import inline, refer
from agent_dispatch.server.next_steps import in_tools

CallAnswer = (
    DispatchResult | ResultRef | DialogueResult | list[DispatchResult | ResultRef] | ParallelAnswer
)


async def whole_result(service: Service, ref: str) -> DispatchResult:
    """Return the result of a job, uncut, with its next steps in words.

    Raises:
        DispatchError: As `Jobs.result`.
    """
    result = worded(await service.jobs.result(ref), in_tools)
    if result.parsed_result is msgspec.UNSET:
        return result
    job = with_whole_answers(await service.jobs.get(ref), in_tools)
    return msgspec.structs.replace(result, parsed_result=result_of_job(job).parsed_result)


def answer_of(job: Job) -> CallAnswer:
    """Return the answer to the call that started this job."""
    if (outcome := member_results(job)) is not None:
        return inline_parallel(outcome, job.dispatches or (), in_tools)
    result = worded(result_of_job(job), in_tools)
    if job.max_rounds is not None:
        return inline_dialogue(dialogue_from_result(result))
    return inline(result) if job.summary_chars is None else refer(result, job.summary_chars)

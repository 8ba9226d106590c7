"""Jobs as answers show them: one job without its large texts, its answer, and short rows."""

from collections.abc import Sequence
from typing import Any

import msgspec

from agent_dispatch.core.dialogue.record import dialogue_from_result
from agent_dispatch.core.group_job import member_results, with_answers
from agent_dispatch.core.next_step import worded, worded_job
from agent_dispatch.core.outcome.refusal import result_of_job
from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.core.text import clip, scrubbed
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import DispatchResult, Member
from agent_dispatch.model.job import PROGRESS_LINES, SUMMARY_TASK_CHARS, Job, JobSummary
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.inline.dialogue import inline_dialogue
from agent_dispatch.server.inline.result import INLINE_CHARS, inline, inline_all, refer
from agent_dispatch.server.next_steps import in_tools

ParallelReply = list[DispatchResult | ResultRef] | ParallelAnswer
CallAnswer = DispatchResult | ResultRef | DialogueResult | ParallelReply

MAX_ROW_CHARS = 300
_DROPPED = ("session_id", "started_at", "completed_at", "last_progress", "task")
"""Left out of a row that is too long, in this order."""
_DROPPED_LAST = ("parent", "ref", "created_at")
"""Left out next, if the row is still too long; a row is useful without them."""
_SHOWN_AGENTS = 3
_ASKED_CHARS = 2_000
"""Of each text in the request of a job."""
_NAME_CHARS = 40
"""Of each agent's name, if the row is too long with whole names."""


def short_row(summary: JobSummary) -> dict[str, Any]:
    """Return the row of a job, with at most 300 characters of compact JSON."""
    shown = msgspec.structs.replace(summary, client_session=None, started_from=None)
    row: dict[str, Any] = msgspec.to_builtins(shown)
    if shown.agents is not None:
        row["agents"] = _first(shown.agents)
    for name in (*_DROPPED, *_DROPPED_LAST):
        if _chars(row) <= MAX_ROW_CHARS:
            return row
        row.pop(name, None)
    if _chars(row) > MAX_ROW_CHARS and "agents" in row:
        row["agents"] = [one_line(name, _NAME_CHARS) for name in row["agents"]]
    return row


def _first(names: list[str]) -> list[str]:
    more = len(names) - _SHOWN_AGENTS
    return [*names[:_SHOWN_AGENTS], f"+{more}"] if more > 0 else names


def _chars(row: dict[str, Any]) -> int:
    return len(msgspec.json.encode(scrubbed(row)).decode())


def answer_of(job: Job) -> CallAnswer:
    """Return the answer to the call that started this job, which has ended."""
    if (outcome := member_results(job)) is not None:
        return inline_parallel(outcome, job.dispatches or ())
    result = worded(result_of_job(job), in_tools)
    if job.max_rounds is not None:
        return inline_dialogue(dialogue_from_result(result))
    return inline(result) if job.summary_chars is None else refer(result, job.summary_chars)


def inline_parallel(outcome: ParallelResult, members: Sequence[Member]) -> ParallelReply:
    """Return the answer of `dispatch_parallel`, cut to what goes out with one call."""
    summaries = [member.summary_chars if member.ref else None for member in members]
    results = [worded(result, in_tools) for result in outcome.individual_results]
    if outcome.aggregated is None:
        return inline_all(results, summaries)
    # The caller asked for this one, so it gets at least half of the room.
    others_chars = sum(len(result.result) for result in results)
    room_chars = max(INLINE_CHARS // 2, INLINE_CHARS - others_chars)
    aggregated = inline(worded(outcome.aggregated, in_tools), room_chars)
    room_chars = INLINE_CHARS - len(aggregated.result)
    return ParallelAnswer(
        individual_results=inline_all(results, summaries, room_chars),
        aggregated=aggregated,
    )


def inline_job(job: Job) -> Job:
    """Return a job with its next steps in words and its large texts cut or left out.

    The caller knows its own request, so the context is left out and the task cut.
    """
    if (outcome := member_results(job)) is not None:
        job = with_answers(job, inline_parallel(outcome, job.dispatches or ()))
    job = worded_job(job, in_tools)
    result = job.result
    if result is not None:
        result = inline(msgspec.structs.replace(result, job_id=job.id))
    progress = job.progress and [_clipped(line) for line in job.progress[-PROGRESS_LINES:]]
    messages = job.messages and [
        msgspec.structs.replace(message, text=clip(message.text, SUMMARY_TASK_CHARS))
        for message in job.messages[-PROGRESS_LINES:]
    ]
    return msgspec.structs.replace(
        job,
        task=job.task[:SUMMARY_TASK_CHARS],
        context="",
        dispatches=None,
        answer="",
        caller=_clipped(job.caller),
        goal=_clipped(job.goal),
        result=result,
        progress=progress,
        messages=messages,
    )


def _clipped(text: str) -> str:
    if len(text) <= _ASKED_CHARS:
        return text
    return f"{text[:_ASKED_CHARS]}… ({len(text)} characters in all)"

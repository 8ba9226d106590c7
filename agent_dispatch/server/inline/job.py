"""Jobs as answers show them: one job without its large texts, and short rows of a listing."""

from typing import Any

import msgspec

from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.core.text import clip, scrubbed
from agent_dispatch.model.job import PROGRESS_LINES, SUMMARY_TASK_CHARS, Job, JobSummary
from agent_dispatch.server.inline.result import inline

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


def inline_job(job: Job) -> Job:
    """Return a job with its large texts cut or left out.

    The caller knows its own request, so the context is left out and the task cut.
    """
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

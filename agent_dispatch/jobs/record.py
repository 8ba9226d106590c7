"""The record of a job: what each step of its life makes of the one before. No I/O."""

from collections.abc import Sequence

import msgspec

from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import PROGRESS_LINE_CHARS, PROGRESS_LINES, Job, JobStatus
from agent_dispatch.model.question import Verdict, closed


def started(job: Job, now: float) -> Job:
    """The record of a job whose run begins."""
    return msgspec.structs.replace(job, status=JobStatus.RUNNING, started_at=now)


def with_progress(job: Job, lines: Sequence[str], now: float) -> Job:
    """The record with the last of these progress lines."""
    tail = [line[:PROGRESS_LINE_CHARS] for line in lines[-PROGRESS_LINES:]]
    return msgspec.structs.replace(job, progress=tail, progress_updated_at=now)


def ended(job: Job, result: DispatchResult, now: float) -> Job:
    """The final record; its status follows from the result."""
    if result.success:
        status = JobStatus.DONE
    elif result.error_type is ErrorType.CANCELLED:
        status = JobStatus.CANCELLED
    else:
        status = JobStatus.FAILED
    return msgspec.structs.replace(
        _without_open_questions(job, status, result),
        status=status,
        completed_at=now,
        held_until=None,
        answer="",
        session_id=result.session_id or job.session_id,
        result=msgspec.structs.replace(result, job_id=job.id),
        error=result.error,
        error_type=result.error_type,
    )


def _without_open_questions(job: Job, status: JobStatus, result: DispatchResult) -> Job:
    """Close the open questions; those of a lost job can still be answered later."""
    if not job.open_questions:
        return job
    is_lost = status is JobStatus.FAILED and result.error_type is ErrorType.LOST
    verdict = Verdict.UNANSWERED if is_lost else Verdict.WITHDRAWN
    past = [*(job.questions or ()), *(closed(each, verdict) for each in job.open_questions)]
    return msgspec.structs.replace(job, question=None, later_questions=None, questions=past)


def shortened(result: DispatchResult, max_chars: int) -> DispatchResult:
    """Cut a result to what fits on a full disk; its fields say that it was cut."""
    return msgspec.structs.replace(
        result,
        result=result.result[:max_chars],
        parsed_result=msgspec.UNSET,
        earlier_results=None,
        truncated=True,
        full_size=len(result.result),
    )

"""What becomes of a job's record: started, ended, lost, cancelled. Values in, values out."""

from collections.abc import Sequence

import msgspec

from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import PROGRESS_LINE_CHARS, PROGRESS_LINES, Job, JobStatus


def started(job: Job, now: float) -> Job:
    """Say that the job's run begins."""
    return msgspec.structs.replace(job, status=JobStatus.RUNNING, started_at=now)


def with_progress(job: Job, lines: Sequence[str], now: float) -> Job:
    """Replace the progress tail."""
    tail = [line[:PROGRESS_LINE_CHARS] for line in lines[-PROGRESS_LINES:]]
    return msgspec.structs.replace(job, progress=tail, progress_updated_at=now)


def ended(job: Job, result: DispatchResult, now: float) -> Job:
    """Say what came of the job: its status follows from the result."""
    if result.success:
        status = JobStatus.DONE
    elif result.error_type is ErrorType.CANCELLED:
        status = JobStatus.CANCELLED
    else:
        status = JobStatus.FAILED
    return msgspec.structs.replace(
        job,
        status=status,
        completed_at=now,
        session_id=result.session_id or job.session_id,
        result=msgspec.structs.replace(result, job_id=job.id),
        error=result.error,
        error_type=result.error_type,
    )


def lost(job: Job, now: float) -> Job:
    """End a job whose owner died."""
    why = "The process that ran this job died before the job was over; what was left is ended."
    return _given_up(job, ErrorType.LOST, why, now)


def cancelled(job: Job, by: str, now: float) -> Job:
    """End a job that somebody asked to be cancelled, and whose owner is gone."""
    return _given_up(job, ErrorType.CANCELLED, f"Cancelled by {by or 'a caller'}.", now)


def cancelled_with_parent(job: Job, now: float) -> Job:
    """End a job that was started inside another job's agent, and ended with that."""
    why = f"Cancelled with the dispatch that started it (job {job.parent}), which ended."
    return _given_up(job, ErrorType.CANCELLED, why, now)


def _given_up(job: Job, error_type: ErrorType, why: str, now: float) -> Job:
    error = f"{why} {_what_next(job)}"
    result = DispatchResult(
        agent=job.agent,
        success=False,
        result="",
        session_id=job.session_id,
        error=error,
        error_type=error_type,
    )
    return ended(job, result, now)


def _what_next(job: Job) -> str:
    if job.session_id is None:
        return "There is no conversation to resume: dispatch the task again if it is still wanted."
    return (
        "Its conversation can be resumed: dispatch_session(agent="
        f'"{job.agent}", task="Continue where you left off", session_id="{job.session_id}")'
    )

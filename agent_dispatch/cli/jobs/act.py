"""Commands that act on jobs: `cancel`, `send` and `gc`."""

from functools import partial

from agent_dispatch.cli.errors import report_error
from agent_dispatch.cli.event_loop import call_service, run_trio
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.lookup import find_job, is_remote, open_remote_jobs
from agent_dispatch.cli.next_steps import tips_for
from agent_dispatch.cli.output import counted, warn, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.validation import check_range
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.message import SendOutcome
from agent_dispatch.model.replies import Cancellation, Purged, Sent

MAX_AGE_DAYS = 1_000_000

_DONE, _FAILED, _STILL_RUNNING = 0, 1, 3
_CANCEL_PATIENCE_S = 10.0


def cancel(job_id: str, /, *, keep: bool = False, json: bool = False, shell: Shell) -> int:
    """Cancel a pending or running job of any client. Its session can be resumed.

    The exit status is 0 if all its processes have ended, 3 if it is still ending.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        keep: Interrupt the agent; its last words become the job's result.
        json: Print what the MCP tool `dispatch_cancel` answers.
    """
    from agent_dispatch.jobs.waiting import CancelOutcome
    from agent_dispatch.jobs.waiting import cancel as cancel_job

    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))
    by = "agent-dispatch cancel"
    if is_remote(full):
        outcome = call_service(shell, lambda service: service.jobs.cancel(full, by=by, keep=keep))
    else:
        local = partial(cancel_job, by=by, patience_s=_CANCEL_PATIENCE_S, keep=keep)
        outcome = run_trio(local, store, full)
    short = short_id(full)
    messages = {
        CancelOutcome.CANCELLED: f"Cancelled {short}.",
        CancelOutcome.RUNNING: f"Job {short} is still ending.",
        CancelOutcome.ALREADY_TERMINAL: f"Job {short} had ended before.",
    }
    if json:
        write_json(shell, Cancellation(job_id=full, outcome=outcome))
    elif outcome is CancelOutcome.NOT_FOUND:
        report_error(shell, UnknownJobError(full), as_json=False)
    else:
        write_lines(shell, [messages[outcome]])
    statuses = {CancelOutcome.RUNNING: _STILL_RUNNING, CancelOutcome.NOT_FOUND: _FAILED}
    return statuses.get(outcome, _DONE)


def send(job_id: str, text: str, /, *, json: bool = False, shell: Shell) -> int:
    """Tell a running agent something more; it reads it after its current tool call.

    The exit status is 0 if the agent has it, or gets it as soon as it can.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        text: What the agent should know or do.
        json: Print the outcome as JSON.
    """
    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))
    if is_remote(full):
        sending = call_service(shell, lambda service: service.jobs.send(full, text))
    else:
        from agent_dispatch.run.send_message import send_message as send_to_job

        sending = run_trio(send_to_job, store, full, text)
    outcome, step = sending.outcome, sending.next_step
    if json:
        answer = Sent(
            job_id=full,
            outcome=outcome,
            session_id=step.session_id if step else None,
            next="\n".join(tips_for(step)) if step else None,
        )
        write_json(shell, answer)
    elif outcome is SendOutcome.NOT_FOUND:
        report_error(shell, UnknownJobError(full), as_json=False)
    elif outcome is SendOutcome.ALREADY_TERMINAL:
        ended = DispatchError(f"Job {short_id(full)} has ended.", *([step] if step else []))
        report_error(shell, ended, as_json=False)
    else:
        done = "Delivered to" if outcome is SendOutcome.DELIVERED else "Queued for"
        write_lines(shell, [f"{done} job {short_id(full)}."])
    return _DONE if outcome in (SendOutcome.DELIVERED, SendOutcome.QUEUED) else _FAILED


def gc(*, max_age_days: float = 7, dry_run: bool = False, json: bool = False, shell: Shell) -> int:
    """Remove old jobs and their answers. Pending and running jobs are never removed.

    Args:
        max_age_days: Days since a job ended; 0 removes every job that has ended.
        dry_run: Only print what would be removed.
        json: Print what the MCP tool `dispatch_gc` answers, and the ids.
    """
    check_range("--max-age-days", max_age_days, 0, MAX_AGE_DAYS)
    collected = open_store(shell).retention.collect(max_age_days, dry_run=dry_run)
    if not dry_run:
        open_remote_jobs(shell).clean(max_age_days)
    if json:
        answer = Purged(
            purged=len(collected.purged),
            litter=collected.litter,
            ids=collected.purged,
            dry_run=dry_run,
            warnings=collected.warnings or None,
        )
        write_json(shell, answer)
        return _DONE
    verb = "Would remove" if dry_run else "Removed"
    write_lines(shell, [f"{verb} {counted(len(collected.purged), 'job')}."])
    if dry_run:
        write_lines(shell, collected.purged)
    if collected.litter:
        litter = counted(collected.litter, "file")
        write_lines(shell, [f"Removed {litter} that dead processes had left."])
    warn(shell, *collected.warnings)
    return _DONE

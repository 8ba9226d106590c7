"""Commands about jobs: list and show them, cancel them, remove old ones.

They ask the store themselves, so that none but `cancel` needs an event loop.
"""

import time

from agent_dispatch.cli.errors import report_error
from agent_dispatch.cli.jobs.display import agents_of, details, job_table, short_id
from agent_dispatch.cli.jobs.follow import worded_record
from agent_dispatch.cli.jobs.lookup import NEWEST, find_job, read_job
from agent_dispatch.cli.jobs.remote import (
    is_remote,
    open_remote_jobs,
    remote_cancel,
)
from agent_dispatch.cli.output import (
    counted,
    warn,
    write_answer,
    write_json,
    write_lines,
)
from agent_dispatch.cli.run.results import show_parallel
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.validation import check_choice, check_range, since_time
from agent_dispatch.core.group_job import member_results
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.model.job import MAX_LISTED, JobStatus, JobSummary, status_named
from agent_dispatch.model.replies import Cancellation, Purged
from agent_dispatch.remote.caller.remote_jobs import with_remote_jobs

MAX_AGE_DAYS = 1_000_000

_DONE, _FAILED, _STILL_RUNNING = 0, 1, 3
_CANCEL_PATIENCE_S = 10.0


def jobs(
    *,
    agent: str = "",
    since: str = "",
    status: str = "",
    mine: bool = False,
    limit: int = 50,
    json: bool = False,
    shell: Shell,
) -> int:
    """List the newest jobs of all clients.

    Args:
        agent: Only jobs on which this agent works, also as a member of a group or dialogue.
        since: Only jobs created since then: 24h, 7d, or a date like 2026-11-28.
        status: Only jobs of this status: pending, running, done, failed or cancelled.
        mine: Only jobs that were started from this directory.
        limit: How many, 1 to 1000.
        json: Print what the MCP tool `dispatch_jobs` answers.
    """
    check_range("--limit", limit, 1, MAX_LISTED)
    if status:
        check_choice("--status", status, JobStatus)
    wanted = status_named(status)
    now = time.time()
    here = Origin({}) if mine else None

    def is_wanted(row: JobSummary) -> bool:
        return (here is None or here.is_mine(row)) and (not agent or agent in agents_of(row))

    listing = open_store(shell).lister.newest(
        status=wanted,
        limit=limit,
        matches=is_wanted if agent or mine else None,
        since=since_time(since, now) if since else 0,
    )
    listing = with_remote_jobs(
        listing,
        open_remote_jobs(shell),
        limit,
        lambda row: (
            wanted in (None, row.status)
            and (not agent or row.agent == agent)
            and row.created_at >= (since_time(since, now) if since else 0)
        ),
    )
    if json:
        write_json(shell, listing.jobs)
    elif listing.jobs:
        write_lines(shell, job_table(listing.jobs, shell, now))
    else:
        wanted_jobs = " ".join(
            filter(
                None,
                [
                    wanted and f"that are {wanted}",
                    agent and f"of {agent}",
                    "from here" if mine else "",
                ],
            )
        )
        write_lines(
            shell, [f"No jobs {wanted_jobs}".rstrip() + (f" since {since}." if since else ".")]
        )
    warn(shell, *listing.warnings)
    return _DONE


def job(job_id: str = NEWEST, /, *, json: bool = False, shell: Shell) -> int:
    """Show one job: the task, its status and its answer.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        json: Print the whole record.
    """
    found = read_job(shell, job_id)
    if json:
        write_json(shell, worded_record(found))
        return _DONE
    write_lines(shell, details(found, time.time()))
    if (members := member_results(found)) is not None:
        write_lines(shell, [""])
        show_parallel(shell, members)
    elif found.result is not None and found.result.result:
        write_lines(shell, [""])
        write_answer(shell, found.result.result)
    return _DONE


def cancel(job_id: str, /, *, keep: bool = False, json: bool = False, shell: Shell) -> int:
    """Cancel a pending or running job of any client. Its session can be resumed.

    The exit status is 0 if all its processes have ended, 3 if it is still ending.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        keep: Interrupt the agent; its last words become the job's result.
        json: Print what the MCP tool `dispatch_cancel` answers.
    """
    import trio

    from agent_dispatch.jobs.waiting import CancelOutcome
    from agent_dispatch.jobs.waiting import cancel as cancel_job

    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))

    async def work() -> CancelOutcome:
        return await cancel_job(
            store, full, by="agent-dispatch cancel", patience_s=_CANCEL_PATIENCE_S, keep=keep
        )

    outcome = remote_cancel(shell, full, keep=keep) if is_remote(full) else trio.run(work)
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

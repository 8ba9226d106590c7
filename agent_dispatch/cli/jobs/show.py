"""`jobs` and `job`: list the newest jobs, and show one."""

import time

from agent_dispatch.cli.jobs.display import agents_of, details, job_table
from agent_dispatch.cli.jobs.follow import worded_record
from agent_dispatch.cli.jobs.lookup import NEWEST, open_remote_jobs, read_job
from agent_dispatch.cli.output import warn, write_answer, write_json, write_lines
from agent_dispatch.cli.run.results import show_parallel
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.validation import check_choice, check_range, since_time
from agent_dispatch.core.group_job import member_results
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.model.job import MAX_LISTED, JobStatus, JobSummary
from agent_dispatch.remote.caller.remote_jobs import with_remote_jobs


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
    wanted = JobStatus(status) if status else None
    now = time.time()
    begin = since_time(since, now) if since else 0
    here = Origin({}) if mine else None

    def is_wanted(row: JobSummary) -> bool:
        return (here is None or here.is_mine(row)) and (not agent or agent in agents_of(row))

    listing = open_store(shell).lister.newest(
        status=wanted,
        limit=limit,
        matches=is_wanted if agent or mine else None,
        since=begin,
    )
    listing = with_remote_jobs(
        listing,
        open_remote_jobs(shell),
        limit,
        lambda row: wanted in (None, row.status) and row.created_at >= begin and is_wanted(row),
    )
    if json:
        write_json(shell, listing.jobs)
    elif listing.jobs:
        write_lines(shell, job_table(listing.jobs, shell, now))
    else:
        narrowed = (
            f"that are {wanted}" if wanted else "",
            f"of {agent}" if agent else "",
            "from here" if mine else "",
            f"since {since}" if since else "",
        )
        write_lines(shell, [" ".join(filter(None, ("No jobs", *narrowed))) + "."])
    warn(shell, *listing.warnings)
    return 0


def job(job_id: str = NEWEST, /, *, json: bool = False, shell: Shell) -> int:
    """Show one job: the task, its status and its answer.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        json: Print the whole record.
    """
    found = read_job(shell, job_id)
    if json:
        write_json(shell, worded_record(found))
        return 0
    write_lines(shell, details(found, time.time()))
    if (members := member_results(found)) is not None:
        write_lines(shell, [""])
        show_parallel(shell, members)
    elif found.result is not None and found.result.result:
        write_lines(shell, [""])
        write_answer(shell, found.result.result)
    return 0

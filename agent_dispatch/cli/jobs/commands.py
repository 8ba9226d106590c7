"""Commands about jobs: look at them, wait for them, end them, remove them.

They ask the store themselves, so that none but `cancel` needs an event loop.
"""

import os
import select
import time
from collections.abc import Generator, Sequence
from contextlib import closing

import msgspec

from agent_dispatch.cli.errors import report_error, show_error
from agent_dispatch.cli.jobs.display import agents_of, details, end_line, job_table, short_id
from agent_dispatch.cli.jobs.names import NEWEST, find_job
from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.cli.output import (
    Colour,
    counted,
    one_line,
    remark,
    write_answer,
    write_json,
    write_lines,
)
from agent_dispatch.cli.remote_jobs import (
    is_remote,
    open_remote_jobs,
    remote_cancel,
    remote_follow,
    remote_job,
    remote_wait,
)
from agent_dispatch.cli.run.results import exit_status, show_parallel, show_result
from agent_dispatch.cli.shell import Shell
from agent_dispatch.cli.validation import check_choice, check_range, since_time
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.config.registry import Registry
from agent_dispatch.core.group_job import from_record, with_answers
from agent_dispatch.core.next_step import worded_job
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import MAX_LISTED, Job, JobKind, JobStatus, JobSummary, status_named
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.model.replies import Cancellation, Purged, WaitedFor
from agent_dispatch.remote.caller.remote_jobs import with_remote_jobs

MAX_AGE_DAYS = 1_000_000

_DONE, _FAILED, _STILL_RUNNING = 0, 1, 3
_LOOK_EVERY_S = 1.0
"""Progress is written once a second at most; the end of a job wakes us."""
_UNWATCHED_LOOK_EVERY_S = 0.05
_CANCEL_PATIENCE_S = 10.0
_WAIT_S = 60.0
"""How long `wait` waits where nobody can press Ctrl-C."""


def open_store(shell: Shell) -> JobStore:
    """The jobs that this environment points at."""
    path = config_path(shell.environ)

    def tell_end(job: Job) -> None:
        from agent_dispatch.run.notify import Notifier

        Notifier(Registry(path, environ=shell.environ), shell.environ).job_ended(job)

    return JobStore(jobs_path(shell.environ, path), on_end=tell_end)


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
        status: Only those: pending, running, done, failed or cancelled.
        mine: Only jobs that were started from this directory.
        limit: How many, 1 to 1000.
        json: Print what the MCP tool `dispatch_jobs` answers.
        shell: The outside world.
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
        those = " ".join(
            filter(
                None,
                [
                    wanted and f"that are {wanted}",
                    agent and f"of {agent}",
                    "from here" if mine else "",
                ],
            )
        )
        write_lines(shell, [f"No jobs {those}".rstrip() + (f" since {since}." if since else ".")])
    _warn(shell, listing.warnings)
    return _DONE


def job(job_id: str = NEWEST, /, *, json: bool = False, shell: Shell) -> int:
    """Show one job: the task, its status and its answer.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        json: Print the whole record.
        shell: The outside world.
    """
    found = read_job(shell, job_id)
    if json:
        write_json(shell, _told(found))
        return _DONE
    write_lines(shell, details(found, time.time()))
    if (members := _members(found)) is not None:
        write_lines(shell, [""])
        show_parallel(shell, members)
    elif found.result is not None and found.result.result:
        write_lines(shell, [""])
        write_answer(shell, found.result.result)
    return _DONE


def read_job(shell: Shell, name: str) -> Job:
    """Read the job that a person named, here or on another machine, settled."""
    store = open_store(shell)
    full = find_job(store, name, open_remote_jobs(shell))
    return remote_job(shell, full) if is_remote(full) else store.settle(full)


def wait(
    job_id: str = NEWEST,
    /,
    *,
    timeout_seconds: float | None = None,
    json: bool = False,
    shell: Shell,
) -> int:
    """Wait for a job and print its answer. The job continues after you stop waiting.

    The exit status is 0 if it is done, 3 if it is still running, 124 if it timed out, and 1 if it
    failed or was cancelled.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        timeout_seconds: Seconds to wait at most; by default no limit on a terminal, else 60.
        json: Print what the MCP tool `dispatch_wait` answers, with the whole result.
        shell: The outside world.
    """
    store = open_store(shell)
    if timeout_seconds is None:
        timeout_seconds = float("inf") if shell.stdout.isatty() else _WAIT_S
    full = find_job(store, job_id, open_remote_jobs(shell))
    if is_remote(full):
        found = remote_wait(shell, full, timeout_seconds, quiet=json)
    else:
        found = _wait(shell, store, full, timeout_seconds, quiet=json)
    is_over = found.status.is_terminal
    if json:
        fields = msgspec.structs.asdict(_told(found))
        write_json(shell, WaitedFor(**fields, timed_out_waiting=not is_over))
    elif not is_over:
        remark(shell, f"Job {short_id(found.id)} is {found.status}; it goes on.", Colour.DOUBTFUL)
    elif (members := _members(found)) is not None:
        show_parallel(shell, members)
    elif found.result is not None:
        show_result(shell, found.result)
    else:
        show_error(shell, found.error or "It ended without a result.", [], found.error_type or "")
    return _exit_status(found)


def _told(job: Job) -> Job:
    """The whole record, with its next steps in words."""
    return worded_job(with_answers(job, in_shell, whole=True), in_shell)


def _members(job: Job) -> ParallelResult | None:
    """What came of the members of a group that ran to its end."""
    if job.kind is not JobKind.GROUP or job.result is None:
        return None
    return from_record(job.result)


def _wait(shell: Shell, store: JobStore, job_id: str, patience_s: float, *, quiet: bool) -> Job:
    started = time.monotonic()
    with closing(_looks(store, job_id, patience_s)) as looks:
        shown: Sequence[str] = ()
        for found in looks:
            new = new_lines(shown, found.progress or ())
            shown = found.progress or ()
            if new and not quiet and not found.status.is_terminal:
                remark(shell, f"[{time.monotonic() - started:>3.0f} s] {one_line(new[-1])}")
    return found


def tail(job_id: str = NEWEST, /, *, follow: bool = False, json: bool = False, shell: Shell) -> int:
    """Print a job's latest progress.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        follow: Keep printing until the job ends; the exit status is then that of `wait`.
        json: Print JSON; with --follow one line per message, and one at the end.
        shell: The outside world.
    """
    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))
    if not follow:
        found = remote_job(shell, full) if is_remote(full) else store.settle(full)
        lines = found.progress or []
        if json:
            write_json(shell, {"id": found.id, "status": found.status, "progress": lines})
        else:
            write_lines(shell, [*map(one_line, lines), *end_line(found)])
        return _DONE
    if is_remote(full):
        found = remote_follow(shell, full, as_json=json)
    else:
        found = _follow(shell, store, full, as_json=json)
    if json:
        write_lines(shell, [_compact({"id": found.id, "status": found.status})])
    else:
        write_lines(shell, end_line(found))
    return _exit_status(found)


def _follow(shell: Shell, store: JobStore, job_id: str, *, as_json: bool) -> Job:
    with closing(_looks(store, job_id, float("inf"))) as looks:
        shown: Sequence[str] = ()
        clock = ""
        for found in looks:
            new = new_lines(shown, found.progress or ())
            shown = found.progress or ()
            texts = [
                _compact({"progress": line}) if as_json else clock + one_line(line) for line in new
            ]
            write_lines(shell, texts, at_once=True)
            # The times of the earlier lines are not known.
            clock = time.strftime("%H:%M:%S  ")
    return found


def cancel(job_id: str, /, *, keep: bool = False, json: bool = False, shell: Shell) -> int:
    """Cancel a pending or running job of any client. Its session can be resumed.

    The exit status is 0 if all its processes have ended, 3 if it is still ending.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        keep: Interrupt the agent; its last words become the job's result.
        json: Print what the MCP tool `dispatch_cancel` answers.
        shell: The outside world.
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
    told = {
        CancelOutcome.CANCELLED: f"Cancelled {short}.",
        CancelOutcome.RUNNING: f"Job {short} is still ending.",
        CancelOutcome.ALREADY_TERMINAL: f"Job {short} had ended before.",
    }
    if json:
        write_json(shell, Cancellation(job_id=full, outcome=outcome))
    elif outcome is CancelOutcome.NOT_FOUND:
        report_error(shell, UnknownJobError(full), as_json=False)
    else:
        write_lines(shell, [told[outcome]])
    statuses = {CancelOutcome.RUNNING: _STILL_RUNNING, CancelOutcome.NOT_FOUND: _FAILED}
    return statuses.get(outcome, _DONE)


def gc(*, max_age_days: float = 7, dry_run: bool = False, json: bool = False, shell: Shell) -> int:
    """Remove old jobs and their answers. Pending and running jobs are never removed.

    Args:
        max_age_days: Days since a job ended; 0 removes every job that has ended.
        dry_run: Only print what would be removed.
        json: Print what the MCP tool `dispatch_gc` answers, and the ids.
        shell: The outside world.
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
    _warn(shell, collected.warnings)
    return _DONE


def _looks(store: JobStore, job_id: str, patience_s: float) -> Generator[Job]:
    """Look at a job again and again, until it has ended or the time to wait has passed."""
    deadline = time.monotonic() + max(patience_s, 0)
    while True:
        # Opened before the look, so that it reports every change after it.
        watch = store.watch(job_id)
        try:
            found = store.settle(job_id)
            yield found
            left_s = deadline - time.monotonic()
            if found.status.is_terminal or left_s <= 0:
                return
            pause_s = _UNWATCHED_LOOK_EVERY_S if watch is None else _LOOK_EVERY_S
            select.select([] if watch is None else [watch], [], [], min(pause_s, left_s))
        finally:
            if watch is not None:
                os.close(watch)


def new_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """Lines of a rolling tail that were not in it before."""
    for kept in range(min(len(before), len(now)), 0, -1):
        if list(before[-kept:]) == list(now[:kept]):
            return now[kept:]
    return now


def _exit_status(job: Job) -> int:
    if not job.status.is_terminal:
        return _STILL_RUNNING
    return exit_status([] if job.status is JobStatus.DONE else [job.error_type])


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _warn(shell: Shell, warnings: Sequence[str]) -> None:
    for warning in warnings:
        remark(shell, f"warning: {one_line(warning)}", Colour.DOUBTFUL)

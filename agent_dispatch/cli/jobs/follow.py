"""Commands that follow a job until it ends: `wait` and `tail --follow`."""

import os
import select
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from agent_dispatch.cli.errors import show_error
from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.jobs.display import end_line, short_id
from agent_dispatch.cli.jobs.lookup import NEWEST, find_job, is_remote, open_remote_jobs, read_job
from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.cli.output import Colour, one_line, remark, write_json, write_lines
from agent_dispatch.cli.run.results import exit_status, show_parallel, show_result
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.core.group_job import member_results, with_whole_answers
from agent_dispatch.core.next_step import worded_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.replies import WaitedFor

if TYPE_CHECKING:
    from agent_dispatch.run.service import Service

_STILL_RUNNING = 3
_LOOK_EVERY_S = 1.0
"""Progress is written once a second at most; the end of a job wakes us."""
_UNWATCHED_LOOK_EVERY_S = 0.05
_HOST_WAIT_S = 3600.0
"""How long one wait of `tail --follow` at a host lasts; then the next begins."""
_WAIT_S = 60.0
"""How long `wait` waits where nobody can press Ctrl-C."""


def worded_record(job: Job) -> Job:
    """The record for `--json`: whole answers, and next steps in words."""
    return worded_job(with_whole_answers(job, in_shell), in_shell)


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
    """
    store = open_store(shell)
    if timeout_seconds is None:
        timeout_seconds = float("inf") if shell.stdout.isatty() else _WAIT_S
    full = find_job(store, job_id, open_remote_jobs(shell))
    found = _wait(shell, store, full, max(timeout_seconds, 0), quiet=json)
    is_over = found.status.is_terminal
    if json:
        fields = msgspec.structs.asdict(worded_record(found))
        write_json(shell, WaitedFor(**fields, timed_out_waiting=not is_over))
    elif not is_over:
        remark(shell, f"Job {short_id(found.id)} is {found.status}; it goes on.", Colour.DOUBTFUL)
    elif (members := member_results(found)) is not None:
        show_parallel(shell, members)
    elif found.result is not None:
        show_result(shell, found.result)
    else:
        show_error(shell, found.error or "It ended without a result.", [], found.error_type or "")
    return _exit_status(found)


def _wait(shell: Shell, store: JobStore, job_id: str, patience_s: float, *, quiet: bool) -> Job:
    """Wait for the end of the job; print progress to stderr unless `quiet`."""
    started = time.monotonic()

    def show(line: str) -> None:
        if not quiet:
            remark(shell, f"[{time.monotonic() - started:>3.0f} s] {one_line(line)}")

    if is_remote(job_id):
        return call_service(
            shell,
            lambda service: service.jobs.wait(job_id, patience_s, lambda step: show(step.message)),
        )
    with closing(_looks(store, job_id, patience_s)) as looks:
        for found, new in looks:
            if new and not found.status.is_terminal:
                show(new[-1])
    return found


def tail(job_id: str = NEWEST, /, *, follow: bool = False, json: bool = False, shell: Shell) -> int:
    """Print a job's latest progress.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        follow: Keep printing until the job ends; the exit status is then that of `wait`.
        json: Print JSON; with --follow one line per message, and one at the end.
    """
    if not follow:
        found = read_job(shell, job_id)
        lines = found.progress or []
        if json:
            write_json(shell, {"id": found.id, "status": found.status, "progress": lines})
        else:
            write_lines(shell, [*map(one_line, lines), *end_line(found)])
        return 0
    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))
    found = _follow(shell, store, full, as_json=json)
    if json:
        write_lines(shell, [_compact({"id": found.id, "status": found.status})])
    else:
        write_lines(shell, end_line(found))
    return _exit_status(found)


def _follow(shell: Shell, store: JobStore, job_id: str, *, as_json: bool) -> Job:
    """Print each line of progress until the job ends."""

    def show(lines: Sequence[str], clock: str = "") -> None:
        texts = [
            _compact({"progress": line}) if as_json else clock + one_line(line) for line in lines
        ]
        write_lines(shell, texts, at_once=True)

    if is_remote(job_id):

        async def follow(service: "Service") -> Job:
            while True:
                job = await service.jobs.wait(
                    job_id, _HOST_WAIT_S, lambda progress: show([progress.message])
                )
                if job.status.is_terminal:
                    return job

        return call_service(shell, follow)
    with closing(_looks(store, job_id, float("inf"))) as looks:
        clock = ""
        for found, new in looks:  # noqa: B007 - returned below
            show(new, clock)
            # The times of the earlier lines are not known.
            clock = time.strftime("%H:%M:%S  ")
    return found


def _looks(store: JobStore, job_id: str, patience_s: float) -> Generator[tuple[Job, Sequence[str]]]:
    """Yield a job and its new lines of progress until it has ended or the time has passed."""
    deadline = time.monotonic() + patience_s
    shown: Sequence[str] = ()
    while True:
        # Opened before the look, so that it reports every change after it.
        watch = store.watch(job_id)
        try:
            found = store.settle(job_id)
            yield found, new_lines(shown, found.progress or ())
            shown = found.progress or ()
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

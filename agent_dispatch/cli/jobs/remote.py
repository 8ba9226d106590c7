"""The parts of commands that are about a job on another host. They ask the host."""

import time
from typing import TYPE_CHECKING

import msgspec

from agent_dispatch.cli.output import one_line, remark, write_lines
from agent_dispatch.cli.service import call_service
from agent_dispatch.cli.shell import Shell
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.job import Job
from agent_dispatch.remote.caller.remote_jobs import RemoteJobs

if TYPE_CHECKING:
    from agent_dispatch.jobs.waiting import CancelOutcome
    from agent_dispatch.model.message import Sending
    from agent_dispatch.run.service import Service

_WAIT_AT_ONCE_S = 3600.0


def open_remote_jobs(shell: Shell) -> RemoteJobs:
    """Open what this machine knows of its jobs on other hosts."""
    return RemoteJobs(str(jobs_path(shell.environ, config_path(shell.environ))))


def is_remote(job_id: str) -> bool:
    """Return whether an id from `find_job` is that of a job on another host."""
    return "@" in job_id


def remote_job(shell: Shell, job_id: str) -> Job:
    """Return the job as it is now, or as last known."""
    return call_service(shell, lambda service: service.jobs.get(job_id))


def remote_cancel(shell: Shell, job_id: str, *, keep: bool) -> "CancelOutcome":
    """Cancel the job; with `keep`, keep what its agent has said."""
    by = "agent-dispatch cancel"
    return call_service(shell, lambda service: service.jobs.cancel(job_id, by=by, keep=keep))


def remote_send(shell: Shell, job_id: str, text: str) -> "Sending":
    """Send a message to the agent of the job."""
    return call_service(shell, lambda service: service.jobs.send(job_id, text))


def remote_wait(shell: Shell, job_id: str, patience_s: float, *, quiet: bool) -> Job:
    """Wait for the end of the job; print progress to stderr unless `quiet`."""
    began = time.monotonic()

    def on_progress(progress: Progress) -> None:
        if not quiet:
            passed_s = time.monotonic() - began
            remark(shell, f"[{passed_s:>3.0f} s] {one_line(progress.message)}")

    return call_service(
        shell, lambda service: service.jobs.wait(job_id, max(patience_s, 0), on_progress)
    )


def remote_follow(shell: Shell, job_id: str, *, as_json: bool) -> Job:
    """Print each line of progress until the job ends."""

    def on_progress(progress: Progress) -> None:
        line = progress.message
        text = msgspec.json.encode({"progress": line}).decode() if as_json else one_line(line)
        write_lines(shell, [text], at_once=True)

    async def follow(service: "Service") -> Job:
        while True:
            job = await service.jobs.wait(job_id, _WAIT_AT_ONCE_S, on_progress)
            if job.status.is_terminal:
                return job

    return call_service(shell, follow)

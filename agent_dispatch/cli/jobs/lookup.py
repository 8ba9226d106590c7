"""Find the job that a person names: by a part of its id, or as the newest one."""

import re
from collections.abc import Iterable, Iterator

from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.output import counted, fit, one_line
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.remote.caller.remote_jobs import RemoteJobs

NEWEST = "last"
"""Names the newest job, for commands that must not guess."""

_LIST_JOBS = NextStep(kind=StepKind.LIST_JOBS)
_PART_OF_ID = re.compile(r"[0-9a-f]{4,31}")
_SHOWN_CANDIDATES = 10
_SHOWN_CHARS = 60
_TASK_COLUMNS = 40


def open_remote_jobs(shell: Shell) -> RemoteJobs:
    """Open what this machine knows of its jobs on other hosts."""
    return RemoteJobs(str(jobs_path(shell.environ, config_path(shell.environ))))


def is_remote(job_id: str) -> bool:
    """Whether an id from `find_job` is that of a job on another host."""
    return "@" in job_id


def find_job(store: JobStore, name: str, remote_jobs: RemoteJobs | None = None) -> str:
    """Return the id of the job that `name` stands for; `ID@HOST` of one on another machine.

    Args:
        store: The jobs.
        name: `last` for the newest job; a whole id; or at least 4 hex digits that
            an id begins or ends with, or that its last 8 digits begin with.
        remote_jobs: The jobs on other machines, for commands that can ask there.

    Raises:
        DispatchError: No job matches, or several do.
    """
    part, _, host = name.strip().partition("@")
    part = part.lower()
    if part == NEWEST:
        return _newest(store, remote_jobs)
    if is_job_id(part):
        if host:
            return f"{part}@{host}"
        remote = None if remote_jobs is None else remote_jobs.read(part)
        return part if remote is None else remote.shown_id
    if not _PART_OF_ID.fullmatch(part):
        raise InvalidRequestError(
            f"Not a job id: {name[:_SHOWN_CHARS]!r}. Give at least 4 hex digits of its beginning or"
            f" end, or `{NEWEST}`.",
            _LIST_JOBS,
        )
    found = [] if host else list(_matching(store.lister.ids(), part))
    if remote_jobs is not None:
        matching = map(remote_jobs.read, _matching(remote_jobs.ids(), part))
        found += [job.shown_id for job in matching if job and host in ("", job.host)]
    if not found:
        raise UnknownJobError(part)
    if len(found) > 1:
        lines = [f"{counted(len(found), 'job')} match {part}. Use more digits."]
        lines += [_candidate(store, job_id) for job_id in found[:_SHOWN_CANDIDATES]]
        if (more := len(found) - _SHOWN_CANDIDATES) > 0:
            lines.append(f"… and {more} more")
        raise InvalidRequestError("\n".join(lines), _LIST_JOBS)
    return found[0]


def read_job(shell: Shell, name: str) -> Job:
    """Read the job that a person named, here or on another machine, settled."""
    store = open_store(shell)
    full = find_job(store, name, open_remote_jobs(shell))
    if is_remote(full):
        return call_service(shell, lambda service: service.jobs.get(full))
    return store.settle(full)


def _newest(store: JobStore, remote_jobs: RemoteJobs | None) -> str:
    local = [job.id for job in store.lister.newest(limit=1).jobs]
    remote = [] if remote_jobs is None else remote_jobs.ids()[:1]
    # Ids sort by the time when they were made.
    if remote_jobs is not None and remote and remote > local:
        newest = remote_jobs.read(remote[0])
        if newest is not None:
            return newest.shown_id
    if not local:
        raise DispatchError("There are no jobs yet.", NextStep(kind=StepKind.LIST_AGENTS))
    return local[0]


def _matching(ids: Iterable[str], part: str) -> Iterator[str]:
    for job_id in ids:
        if job_id.startswith(part) or job_id.endswith(part) or short_id(job_id).startswith(part):
            yield job_id


def _candidate(store: JobStore, job_id: str) -> str:
    """Return a line about one of several matching jobs."""
    if "@" in job_id:
        return job_id
    try:
        head = store.head(job_id)
    except DispatchError:
        return f"{short_id(job_id)}  (its record cannot be read)"
    task = fit(one_line(head.task), _TASK_COLUMNS)
    return f"{short_id(job_id)}  {head.status}  {one_line(head.agent)}  {task}"

"""How a person names a job: a part of its id, or the newest one."""

import re
from collections.abc import Iterator

from agent_dispatch.cli.job_text import short_id
from agent_dispatch.cli.output import counted, fit, one_line
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import InvalidJobIdError, UnknownJobError
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.next_step import NextStep, StepKind

NEWEST = "last"
"""Names the newest job, for commands that must not guess."""

_PART_OF_ID = re.compile(r"[0-9a-f]{4,31}")
_SHOWN_CANDIDATES = 10
_TASK_COLUMNS = 40


class NoJobsError(DispatchError):
    """The newest job was asked for, and there is none."""

    def __init__(self) -> None:
        super().__init__("There are no jobs yet.", NextStep(kind=StepKind.LIST_AGENTS))


class AmbiguousJobError(InvalidRequestError):
    """Several jobs have the given part in their ids."""

    def __init__(self, part: str, found: list[str], details: str) -> None:
        super().__init__(
            f"{counted(len(found), 'job')} match {part}. Use more digits.\n{details}",
            NextStep(kind=StepKind.LIST_JOBS),
        )


def find_job(store: JobStore, name: str) -> str:
    """Return the id of the job that `name` stands for.

    Args:
        store: The jobs.
        name: `last` for the newest job; a whole id; or at least 4 hex digits that
            an id begins or ends with, or that its last 8 digits begin with.

    Raises:
        NoJobsError: There is no newest job.
        InvalidJobIdError: The text cannot be a part of an id.
        UnknownJobError: No job matches.
        AmbiguousJobError: Several do.
    """
    part = name.strip().lower()
    if part == NEWEST:
        newest = store.list_jobs(limit=1).jobs
        if not newest:
            raise NoJobsError
        return newest[0].id
    if is_job_id(part):
        return part
    if not _PART_OF_ID.fullmatch(part):
        raise InvalidJobIdError(name)
    found = list(_matching(store, part))
    if not found:
        raise UnknownJobError(part)
    if len(found) > 1:
        lines = [_candidate(store, job_id) for job_id in found[:_SHOWN_CANDIDATES]]
        more = len(found) - len(lines)
        details = "\n".join([*lines, *([f"… and {more} more"] if more else [])])
        raise AmbiguousJobError(part, found, details)
    return found[0]


def _matching(store: JobStore, part: str) -> Iterator[str]:
    for job_id in store.ids():
        if job_id.startswith(part) or job_id.endswith(part) or short_id(job_id).startswith(part):
            yield job_id


def _candidate(store: JobStore, job_id: str) -> str:
    """Return a line about a job, with the form of its id that tells it from the others."""
    try:
        head = store.head(job_id)
    except DispatchError:
        return f"{short_id(job_id)}  (its record cannot be read)"
    task = fit(one_line(head.task), _TASK_COLUMNS)
    return f"{short_id(job_id)}  {head.status}  {one_line(head.agent)}  {task}"

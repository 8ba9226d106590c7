"""Errors about jobs: a wrong call, or a jobs directory that cannot be used."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from agent_dispatch.errors import DispatchError, InvalidRequestError, quoted
from agent_dispatch.files import NO_ROOM, NOT_A_FILE, remedy
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind

_SHOWN_CHARS = 80


class InvalidJobIdError(InvalidRequestError):
    """The text cannot be the id of a job; no file was read."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"Not a job id: {quoted(text, _SHOWN_CHARS)}. An id is 32 hex digits in lower case, as"
            " the answer of the dispatch gave it.",
            NextStep(kind=StepKind.LIST_JOBS),
        )


class UnknownJobError(DispatchError):
    """No such job; it may have been removed."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Unknown job: {job_id!r}. It never existed here, or it was removed.",
            NextStep(kind=StepKind.LIST_JOBS),
        )
        self.job_id = job_id


class BrokenJobError(DispatchError):
    """The record of a job is damaged, or is not a record."""

    def __init__(self, job_id: str, path: str, reason: str) -> None:
        super().__init__(
            f"The record of job {job_id} cannot be read: {reason}. It was not changed. Look at"
            f" {path}, and remove it if you do not need it."
        )
        self.job_id = job_id
        self.reason = reason


class AnsweredError(DispatchError):
    """The question has an answer already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The question of job {job_id} was answered already; the first answer counts.",
            NextStep(kind=StepKind.LOOK_AT_JOB, job_id=job_id),
        )


class JobNotEndedError(DispatchError):
    """The job has no result yet."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"Job {job.id} is {job.status}: its result is not there yet.",
            NextStep(kind=StepKind.WAIT, job_id=job.id),
        )


class JobStoreError(DispatchError):
    """The jobs directory cannot be used; nothing on disk was changed."""


def store_error(what: str, directory: str, error: OSError) -> JobStoreError:
    """Turn a failed system call into what could not be done, why, and how to fix it."""
    reason = error.strerror or str(error)
    where = error.filename or directory
    if error.errno in (*NOT_A_FILE, errno.ENOTDIR) and error.filename not in (None, directory):
        # The directory can be used; another kind of file has the entry's name, and is not ours.
        return JobStoreError(
            f"{what}: {reason} ({where}). That entry is not what its name says. Look at it with"
            f" `ls -ld {shlex.quote(str(where))}`, and move it away if you do not need it; or set"
            " AGENT_DISPATCH_JOBS_DIR to another directory."
        )
    return JobStoreError(
        f"{what}: {reason} ({where}). The jobs directory is {directory}."
        f" {remedy(error, 'Make it writable for you.')} Or set AGENT_DISPATCH_JOBS_DIR to another"
        " directory.",
        *((NextStep(kind=StepKind.REMOVE_OLD_JOBS),) if error.errno in NO_ROOM else ()),
    )


@contextmanager
def store_errors(what: str, directory: str) -> Iterator[None]:
    """Raise `JobStoreError` for each `OSError`; `what` says what could not be done."""
    try:
        yield
    except OSError as error:
        raise store_error(what, directory, error) from error


class JobOverError(JobStoreError):
    """The job has ended; its record is final."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(
            f"Job {job_id} has ended ({status}); its record is final.",
            NextStep(kind=StepKind.LOOK_AT_JOB, job_id=job_id),
        )
        self.job_id = job_id

"""Calls about jobs that are wrong, or that the store cannot serve."""

import errno
import shlex

from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.disk import NOT_A_FILE

_SHOWN_CHARS = 80
_SPACE = "Free some space on its disk (agent-dispatch gc removes old jobs)"
_FILES = "Raise the limit of open files (ulimit -n 4096), or let fewer jobs run at once"
_WRITABLE = "Make it writable for you"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EIO: "Look at the disk: the system log (dmesg) says more",
}


class InvalidJobIdError(InvalidRequestError):
    """The text cannot be the id of a job; no file was looked at."""

    def __init__(self, text: str) -> None:
        shown = repr(text[:_SHOWN_CHARS]) + ("…" if len(text) > _SHOWN_CHARS else "")
        super().__init__(
            f"Not a job id: {shown}. An id is 32 hex digits in lower case, as the answer of the"
            " dispatch gave it; list the known ones with: agent-dispatch jobs"
        )


class UnknownJobError(DispatchError):
    """There is no such job, or not any more."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Unknown job: {job_id!r}. It was never made here, or was removed since."
            " List the known ones with: agent-dispatch jobs"
        )
        self.job_id = job_id


class BrokenJobError(DispatchError):
    """There is something of that name, but it cannot be read as a job."""

    def __init__(self, job_id: str, path: str, reason: str) -> None:
        super().__init__(
            f"The record of job {job_id} cannot be read: {reason}. It was left as it is; look at"
            f" {path}, and remove it if it is of no use."
        )
        self.job_id = job_id
        self.reason = reason


class JobStoreError(DispatchError):
    """The jobs directory does not let itself be used; what was on disk is as it was."""


def store_error(what: str, directory: str, error: OSError) -> JobStoreError:
    """Tell a failed system call as a sentence: what it means, why, and what mends it."""
    remedy = _REMEDIES.get(error.errno or 0, _WRITABLE)
    reason = error.strerror or str(error)
    where = error.filename or directory
    if error.errno in (*NOT_A_FILE, errno.ENOTDIR) and error.filename not in (None, directory):
        # The directory is sound; what stands in the entry's place is not ours to remove.
        return JobStoreError(
            f"{what}: {reason} ({where}). That entry is not what its name says. Look at it with"
            f" `ls -ld {shlex.quote(str(where))}`, and move it away if it is of no use; or let"
            " AGENT_DISPATCH_JOBS_DIR name another directory."
        )
    return JobStoreError(
        f"{what}: {reason} ({where}). The jobs directory is {directory}. {remedy}, or let"
        " AGENT_DISPATCH_JOBS_DIR name another one."
    )


class JobOverError(JobStoreError):
    """The job has ended already; its record does not change any more."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(
            f"Job {job_id} is over ({status}) and does not change any more."
            f" Look at it with: agent-dispatch job {job_id}"
        )
        self.job_id = job_id

"""Requests to the owner of a job, which may be another process: to cancel it, or to take a message.

A request is written to `live/`, durably, and then the owner's bell is rung.
"""

from collections.abc import Callable

from agent_dispatch.files import Disk, remove_quietly
from agent_dispatch.jobs.errors import store_errors
from agent_dispatch.jobs.ids import check_job_id
from agent_dispatch.jobs.locks import CANCEL, MAIL, Locks
from agent_dispatch.jobs.mailbox import Delivery, Mail, append, new_mail, read_new
from agent_dispatch.model.job import Job


class Requests:
    """The requests to the owners of one directory's jobs. Safe to use from several threads."""

    def __init__(
        self,
        jobs: str,
        locks: Locks,
        disk: Disk,
        *,
        settle: Callable[[str], Job],
        now: Callable[[], float],
    ) -> None:
        """Use the directory `jobs`; `settle` is that of the store."""
        self._jobs = jobs
        self._locks = locks
        self._disk = disk
        self._settle = settle
        self._now = now

    def cancel(self, job_id: str, by: str) -> bool:
        """Ask the owner of a job, durably, to cancel it.

        Args:
            by: Who asks, for the end of a sentence; an earlier name is kept.

        Returns:
            False if the job had ended already.
        """
        if self._settle(job_id).status.is_terminal:
            return False
        with store_errors(f"The cancellation of job {job_id} cannot be recorded", self._jobs):
            self._locks.mark_cancel(job_id, by)
            self._locks.ring(job_id)
        if self._settle(job_id).status.is_terminal:
            # It may have ended, and its files been removed, before our marker was made.
            remove_quietly(self._locks.path(job_id, CANCEL), disk=self._disk)
        return True

    def cancelled_by(self, job_id: str) -> str | None:
        """Who asked for the job to be cancelled; None if nobody did."""
        with store_errors(f"Cannot tell whether job {job_id} is to be cancelled", self._jobs):
            return self._locks.cancelled_by(check_job_id(job_id))

    def post(self, job_id: str, kind: str, body: object) -> Mail | None:
        """Put a message into the mailbox of a job, durably, and ring its owner.

        The owner answers in the job's record, unless the job ends before it reads the message.

        Args:
            kind: Which of the owner's handlers it is for.
            body: The value that this handler decodes; msgspec encodes it.

        Returns:
            None if the job had ended already.

        Raises:
            InvalidRequestError: The message is too large, or holds text that is not Unicode.
        """
        if self._settle(job_id).status.is_terminal:
            return None
        mail = new_mail(kind, body, self._now())
        path = self._locks.path(job_id, MAIL)
        with store_errors(f"The message to job {job_id} cannot be recorded", self._jobs):
            append(path, mail, self._disk)
            self._locks.ring(job_id)
        if self._settle(job_id).status.is_terminal:
            # It may have ended, and its files been removed, before we made the mailbox.
            remove_quietly(path, disk=self._disk)
            return None
        return mail

    def read_mail(self, job_id: str, read_bytes: int) -> Delivery:
        """Read the mail of a job after the first `read_bytes`, which were read before."""
        with store_errors(f"The messages to job {job_id} cannot be read", self._jobs):
            return read_new(self._locks.path(check_job_id(job_id), MAIL), read_bytes, self._disk)

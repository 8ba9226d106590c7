"""Writes records on behalf of whoever holds a job's lock."""

import errno
import os
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from agent_dispatch.jobs.disk import NO_DESCRIPTOR, NO_ROOM, Disk, remove_quietly, write_new
from agent_dispatch.jobs.errors import (
    BrokenJobError,
    JobOverError,
    JobStoreError,
    UnknownJobError,
)
from agent_dispatch.jobs.record_files import RecordFiles
from agent_dispatch.jobs.records import decode_unknown, encode_record, shortened
from agent_dispatch.jobs.store import Claim
from agent_dispatch.model.job import Job

T = TypeVar("T")

_RESERVE_BYTES = 64 * 1024
"""Kept for the last word of jobs on a disk that has become full."""
_SHORTENED_CHARS = 8_000
"""What is kept of an answer when not even the reserve makes room for all of it."""
_PAUSES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""How long the end of a job waits, time after time, for a descriptor."""


class EndWritten(NamedTuple):
    """What became of a terminal record."""

    visible: bool
    """Readers see the job's end."""
    problem: str | None
    """What is wrong with it all the same; None: it is whole and durable."""


class RecordWriter:
    """Writes records of one jobs directory. Safe to use from several threads, for other jobs."""

    def __init__(self, records: RecordFiles, disk: Disk) -> None:
        """Write through `records`."""
        self._records = records
        self._disk = disk
        self._reserve = os.path.join(records.directory, ".reserve")

    def keep_reserve(self) -> None:
        """Occupy the space that a terminal record may need one day.

        Raises:
            OSError: There is none: then a new job's answer might have no place either.
        """
        try:
            if self._disk.status(self._reserve).st_size >= _RESERVE_BYTES:
                return
            self._disk.unlink(self._reserve)
        except FileNotFoundError:
            pass
        try:
            # Random: zeros would take no space on a file system that compresses.
            write_new(self._disk, self._reserve, os.urandom(_RESERVE_BYTES), durable=False)
        except FileExistsError:
            return  # Another process was faster.

    def write(self, claim: Claim, job: Job) -> None:
        """Put `job` in the place of the record.

        Raises:
            OSError: The record is as it was.
            JobOverError: It is terminal, whoever wrote that.
        """
        self._look_again(claim)
        self._records.put(job.id, encode_record(job, claim.unknown))
        try:
            claim.seen = self._records.seen(job.id)
        except OSError:
            claim.seen = None  # Then it is read again before the next write.

    def write_new(self, claim: Claim) -> None:
        """Write the first record of a job, durably; if that fails there is none.

        Raises:
            OSError: It failed.
        """
        try:
            self.write(claim, claim.job)
            self._records.sync()
        except BaseException:
            remove_quietly(self._disk, self._records.path(claim.job.id))
            raise

    def write_end(self, claim: Claim, job: Job) -> EndWritten:
        """Write a terminal record, or as much of it as the disk takes."""
        try:
            problem = _patiently(lambda: self._write_with_little_room(claim, job))
        except JobOverError as error:
            return EndWritten(True, f"{error} What was to be recorded now is not.")
        except JobStoreError as error:
            return EndWritten(False, str(error))
        except OSError as error:
            return EndWritten(False, _not_kept(error))
        try:
            _patiently(self._records.sync)
        except OSError as error:
            problem = problem or _not_kept(error)
        return EndWritten(True, problem)

    def _write_with_little_room(self, claim: Claim, job: Job) -> str | None:
        try:
            self.write(claim, job)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        else:
            return None
        remove_quietly(self._disk, self._reserve)
        try:
            self.write(claim, job)
        except OSError as error:
            if error.errno not in NO_ROOM or job.result is None:
                raise
            result = shortened(job.result, _SHORTENED_CHARS)
            self.write(claim, msgspec.structs.replace(job, result=result))
            return (
                f"{_why_no_room(error)} of this answer only the first {_SHORTENED_CHARS} characters"
                " are kept. Take the rest from here."
            )
        return None

    def _look_again(self, claim: Claim) -> None:
        """Take over what somebody else has added to the record since we wrote it."""
        seen = self._records.seen(claim.job.id)
        if seen in (None, claim.seen):
            return
        try:
            loaded = self._records.load(claim.job.id)
        except (UnknownJobError, BrokenJobError):
            return  # We know better what belongs there.
        if loaded.job.status.is_terminal:
            raise JobOverError(claim.job.id, loaded.job.status)
        claim.unknown = decode_unknown(loaded.content)


def _patiently(write: Callable[[], T]) -> T:
    """Do it once there is a descriptor: the other threads give theirs back within milliseconds."""
    for pause_s in _PAUSES_S:
        try:
            return write()
        except (OSError, JobStoreError) as error:
            reason = error.__cause__ if isinstance(error, JobStoreError) else error
            if not (isinstance(reason, OSError) and reason.errno in NO_DESCRIPTOR):
                raise
        time.sleep(pause_s)
    return write()


def _why_no_room(error: OSError) -> str:
    if error.errno == errno.EFBIG:
        return "No file may be that large here (raise `ulimit -f`):"
    return "The disk is full (free some space):"


def _not_kept(error: OSError) -> str:
    return (
        f"The end of this job may not be on disk ({error.strerror or error}): take the answer from"
        " here, and see to the disk."
    )

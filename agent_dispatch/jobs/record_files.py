"""The record files: listed, read with a bound on their size, and replaced as a whole."""

import errno
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from agent_dispatch.files import (
    NO_DESCRIPTOR,
    NO_ROOM,
    Disk,
    identity,
    make_private_directory,
    opened_regular,
    read_all,
    remedy,
    remove_quietly,
    replace_file,
    sync_directory,
    write_new,
)
from agent_dispatch.jobs.errors import (
    BrokenJobError,
    JobOverError,
    JobStoreError,
    UnknownJobError,
    store_error,
)
from agent_dispatch.jobs.ids import JOB_ID, TIME_ORDERED_ID
from agent_dispatch.jobs.locks import NO_DESCRIPTORS, Descriptors
from agent_dispatch.jobs.record import shortened
from agent_dispatch.jobs.record_format import (
    HEAD_BYTES,
    TAIL,
    CorruptRecordError,
    decode_head,
    decode_record,
    decode_unknown,
    encode_record,
)
from agent_dispatch.model.job import Job, JobSummary, summarise

T = TypeVar("T")

SUFFIX = ".json"
_RECORD_NAME = re.compile(JOB_ID + re.escape(SUFFIX))
_ORDERED_NAME = re.compile(TIME_ORDERED_ID + re.escape(SUFFIX))
_MAX_BYTES = 512 * 1024 * 1024
_MAX_FOREIGN_BYTES = 8 * 1024 * 1024
"""A listing reads a record without our first line as a whole, up to this size."""
_DIRECTORY_ERRORS = (*NO_DESCRIPTOR, errno.ENOMEM, errno.ENOTDIR)
_RESERVE_BYTES = 64 * 1024
"""Disk space kept for final records, in case the disk becomes full."""
_SHORTENED_CHARS = 8_000
"""How much of an answer is kept if even the reserve is too small for all of it."""
_PAUSES_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Pauses between attempts to record the end of a job at the limit of open files."""


class Claim:
    """The right to write one record, because its lock is held."""

    def __init__(
        self, job: Job, fds: Descriptors = NO_DESCRIPTORS, content: bytes | None = None
    ) -> None:
        self.job = job
        """The record as its owner knows it, even if the last write failed."""
        self.fds = fds
        self.unknown = {} if content is None else decode_unknown(content)
        """Fields of the record that this version does not know."""
        self.seen: tuple[int, ...] | None = None
        """Identity of the file as we last wrote or read it; shows a change by another process."""


class Names(NamedTuple):
    """What is in the jobs directory."""

    ordered: list[str]
    """Records whose names sort by time; in no order."""
    others: list[str]
    """Records of other programs."""
    strangers: list[str]
    """Unexpected names; hidden files are left out."""


class RecordFiles:
    """The records of one jobs directory. Safe to use from several threads."""

    def __init__(self, directory: str, scratch: str, disk: Disk) -> None:
        """Use `directory`; new files are first written in `scratch`, on the same file system."""
        self.directory = directory
        self._scratch = scratch
        self._disk = disk
        self._reserve = os.path.join(directory, ".reserve")

    def path(self, job_id: str) -> str:
        """The path of a record; the caller has checked `job_id`."""
        return os.path.join(self.directory, job_id + SUFFIX)

    # -- reading: each raises UnknownJobError, BrokenJobError or JobStoreError

    def load(self, job_id: str) -> Job:
        """Read a whole record."""
        return self.claim(job_id).job

    def claim(self, job_id: str, fds: Descriptors = NO_DESCRIPTORS) -> Claim:
        """Read a whole record, to write it later."""
        try:
            with opened_regular(self.path(job_id), self._disk) as (fd, status):
                self._check_size(job_id, status.st_size, _MAX_BYTES)
                content = read_all(fd, _MAX_BYTES, self._disk)
            claim = Claim(decode_record(content, job_id), fds, content)
            claim.seen = identity(status)
        except (OSError, CorruptRecordError) as error:
            raise self._unreadable(job_id, error) from error
        return claim

    def load_if_naming(self, job_id: str, word: bytes) -> Job | None:
        """Read a whole record if its bytes contain `word`; None if not, or if it is broken."""
        try:
            with opened_regular(self.path(job_id), self._disk) as (fd, _):
                content = read_all(fd, _MAX_BYTES, self._disk)
            return decode_record(content, job_id) if word in content else None
        except (OSError, CorruptRecordError) as error:
            failure = self._unreadable(job_id, error)
            if isinstance(failure, JobStoreError):
                raise failure from error
            return None

    def head(self, job_id: str) -> JobSummary:
        """Read the row of a listing: only a few KiB of a record that we wrote."""
        try:
            with opened_regular(self.path(job_id), self._disk) as (fd, status):
                start = self._disk.read(fd, HEAD_BYTES)
                summary = decode_head(start)
                if (
                    summary is not None
                    and summary.id == job_id
                    and self._is_whole(fd, start, status.st_size)
                ):
                    return summary
                self._check_size(job_id, status.st_size, _MAX_FOREIGN_BYTES)
                content = start + read_all(fd, _MAX_FOREIGN_BYTES, self._disk)
            return summarise(decode_record(content, job_id))
        except (OSError, CorruptRecordError) as error:
            raise self._unreadable(job_id, error) from error

    def _is_whole(self, fd: int, start: bytes, size: int) -> bool:
        if size <= len(start):
            return start.endswith(TAIL)
        return self._disk.pread(fd, len(TAIL), size - len(TAIL)) == TAIL

    def _check_size(self, job_id: str, size: int, limit: int) -> None:
        if size > limit:
            reason = f"with {size} bytes it is too large for a record"
            raise BrokenJobError(job_id, self.path(job_id), reason)

    def _unreadable(self, job_id: str, error: OSError | CorruptRecordError) -> Exception:
        reason = str(error)
        if isinstance(error, OSError):
            if error.errno == errno.ENOENT:
                return UnknownJobError(job_id)
            if error.errno in _DIRECTORY_ERRORS:
                return store_error("Jobs cannot be read", self.directory, error)
            reason = error.strerror or reason
            if error.errno == errno.ELOOP:
                reason = "it is a symbolic link, which is never followed"
        return BrokenJobError(job_id, self.path(job_id), reason)

    def names(self, known: frozenset[str]) -> Names:
        """List the directory by kinds of names.

        Args:
            known: Other expected names.

        Raises:
            OSError: It cannot be listed.
        """
        try:
            names = self._disk.listdir(self.directory)
        except FileNotFoundError:
            names = []
        ordered = list(filter(_ORDERED_NAME.fullmatch, names))
        found = Names(ordered, [], [])
        for name in set(names).difference(ordered):
            if _RECORD_NAME.fullmatch(name):
                found.others.append(name)
            elif not name.startswith(".") and name not in known:
                found.strangers.append(name)
        return found

    # -- writing

    def create(self, claim: Claim) -> None:
        """Write the first record of a job, durably; if that fails, none is left.

        Raises:
            OSError: The record or the reserve could not be written. Without the reserve, there
                might be no room for the job's answer.
        """
        self._keep_reserve()
        try:
            self.update(claim, claim.job)
            sync_directory(self.directory, self._disk)
        except BaseException:
            remove_quietly(self.path(claim.job.id), disk=self._disk)
            raise

    def update(self, claim: Claim, job: Job) -> None:
        """Replace the record of a job.

        Raises:
            OSError: The record is unchanged.
            JobOverError: The record is final already.
        """
        self._check_for_changes(claim)
        content = encode_record(job, claim.unknown)
        try:
            self._replace(job.id, content)
        except OSError as error:
            if error.errno == errno.ENOENT:  # The directory was removed.
                make_private_directory(self._scratch, self._disk)
            elif error.errno != errno.EIO:
                raise
            # After a failed fsync(2), a second one on the same file may succeed wrongly.
            self._replace(job.id, content)
        try:
            claim.seen = self._identity(job.id)
        except OSError:
            claim.seen = None  # Then it is read again before the next write.

    def end(self, claim: Claim, job: Job) -> tuple[bool, str | None]:
        """Write a final record, or as much of it as fits on the disk.

        Returns:
            Whether readers see the job's end, and what is wrong with its record; None if it is
            whole and durable.
        """
        try:
            problem = _with_retries(lambda: self._end_with_little_room(claim, job))
        except JobOverError as error:
            return True, f"{error} The new result was not recorded."
        except JobStoreError as error:
            return False, str(error)
        except OSError as error:
            return False, _not_recorded(error)
        try:
            _with_retries(lambda: sync_directory(self.directory, self._disk))
        except OSError as error:
            problem = problem or _not_recorded(error)
        return True, problem

    def _end_with_little_room(self, claim: Claim, job: Job) -> str | None:
        try:
            self.update(claim, job)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        else:
            return None
        remove_quietly(self._reserve, disk=self._disk)
        try:
            self.update(claim, job)
        except OSError as error:
            if error.errno not in NO_ROOM or job.result is None:
                raise
            result = shortened(job.result, _SHORTENED_CHARS)
            self.update(claim, msgspec.structs.replace(job, result=result))
            return (
                f"{error.strerror}: only the first {_SHORTENED_CHARS} characters of this answer"
                f" are kept. Take the rest from here. {remedy(error, 'Check the disk.')}"
            )
        return None

    def _keep_reserve(self) -> None:
        """Reserve disk space for a final record."""
        try:
            if self._disk.lstat(self._reserve).st_size >= _RESERVE_BYTES:
                return
            self._disk.unlink(self._reserve)
        except FileNotFoundError:
            pass
        try:
            # Random bytes: a file system may compress zeros to nothing.
            write_new(self._reserve, os.urandom(_RESERVE_BYTES), self._disk, durable=False)
        except FileExistsError:
            return  # Another process was faster.

    def _check_for_changes(self, claim: Claim) -> None:
        """Keep unknown fields that another process has added to the record since we wrote it.

        Raises:
            JobOverError: Another process has recorded the job's end.
        """
        job_id = claim.job.id
        seen = self._identity(job_id)
        if seen in (None, claim.seen):
            return
        try:
            found = self.claim(job_id)
        except (UnknownJobError, BrokenJobError):
            return  # Our record replaces it.
        if found.job.status.is_terminal:
            raise JobOverError(job_id, found.job.status)
        claim.unknown = found.unknown

    def _replace(self, job_id: str, content: bytes | bytearray) -> None:
        # Only the holder of the job's lock writes, so one name is enough.
        temporary = os.path.join(self._scratch, f"{job_id}.tmp")
        replace_file(self.path(job_id), content, temporary, self._disk)

    def _identity(self, job_id: str) -> tuple[int, ...] | None:
        try:
            return identity(self._disk.lstat(self.path(job_id)))
        except FileNotFoundError:
            return None


def _with_retries(write: Callable[[], T]) -> T:
    """Retry at the limit of open files: other threads close theirs within milliseconds."""
    for pause_s in _PAUSES_S:
        try:
            return write()
        except (OSError, JobStoreError) as error:
            reason = error.__cause__ if isinstance(error, JobStoreError) else error
            if not (isinstance(reason, OSError) and reason.errno in NO_DESCRIPTOR):
                raise
        time.sleep(pause_s)
    return write()


def _not_recorded(error: OSError) -> str:
    return (
        f"The end of this job may not be on disk ({error.strerror or error}). Take the answer from"
        " here, and check the disk."
    )

"""The files that hold the records: found, read with a bound, replaced whole."""

import errno
import os
import re
from typing import NamedTuple

from agent_dispatch.jobs.disk import (
    Disk,
    identity,
    make_private_directory,
    open_regular,
    read_all,
    remove,
    remove_quietly,
    sync_directory,
    write_new,
)
from agent_dispatch.jobs.errors import BrokenJobError, UnknownJobError, store_error
from agent_dispatch.jobs.ids import JOB_ID, TIME_ORDERED_ID
from agent_dispatch.jobs.records import (
    HEAD_BYTES,
    TAIL,
    CorruptRecordError,
    decode_head,
    decode_record,
)
from agent_dispatch.model.job import Job, JobSummary, summarise

SUFFIX = ".json"
_RECORD_NAME = re.compile(JOB_ID + re.escape(SUFFIX))
_ORDERED_NAME = re.compile(TIME_ORDERED_ID + re.escape(SUFFIX))
_MAX_BYTES = 512 * 1024 * 1024
_MAX_FOREIGN_BYTES = 8 * 1024 * 1024
"""A record without our first line is read whole for a listing, up to here."""
_NOT_THIS_FILES_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTDIR)


class Loaded(NamedTuple):
    """A record as it was read."""

    job: Job
    content: bytes
    seen: tuple[int, ...]
    """Changes when the file does."""


class Names(NamedTuple):
    """What is in the jobs directory."""

    ordered: list[str]
    """Records whose names sort by time, in no order."""
    others: list[str]
    """Records of other programs."""
    strangers: list[str]
    """What is no record by its name; hidden files excepted."""


class RecordFiles:
    """The records of one jobs directory. Safe to use from several threads."""

    def __init__(self, directory: str, scratch: str, disk: Disk) -> None:
        """Use `directory`; what is being written stands in `scratch`, on the same file system."""
        self.directory = directory
        self._scratch = scratch
        self._disk = disk

    def path(self, job_id: str) -> str:
        """Say where a record is; `job_id` was checked."""
        return os.path.join(self.directory, job_id + SUFFIX)

    def load(self, job_id: str) -> Loaded:
        """Read a record whole.

        Raises:
            UnknownJobError: There is none.
            BrokenJobError: What is there is no record of this job.
            JobStoreError: Nothing can be read at the moment.
        """
        try:
            fd, status = open_regular(self._disk, self.path(job_id))
            try:
                self._check_size(job_id, status.st_size, _MAX_BYTES)
                content = read_all(self._disk, fd, _MAX_BYTES)
            finally:
                self._disk.close(fd)
            return Loaded(decode_record(content, job_id), content, identity(status))
        except OSError as error:
            raise self._unreadable(job_id, error) from error
        except CorruptRecordError as error:
            raise BrokenJobError(job_id, self.path(job_id), str(error)) from error

    def load_if_naming(self, job_id: str, word: bytes) -> Job | None:
        """Read a record whole if `word` stands somewhere in its bytes; None if not, or broken.

        Raises:
            JobStoreError: Nothing can be read at the moment.
        """
        try:
            fd, _ = open_regular(self._disk, self.path(job_id))
            try:
                content = read_all(self._disk, fd, _MAX_BYTES)
            finally:
                self._disk.close(fd)
            return decode_record(content, job_id) if word in content else None
        except CorruptRecordError:
            return None
        except OSError as error:
            if isinstance(failure := self._unreadable(job_id, error), BrokenJobError):
                return None
            if isinstance(failure, UnknownJobError):
                return None  # Removed since we saw its name.
            raise failure from error

    def head(self, job_id: str) -> JobSummary:
        """Read what a listing shows, a few KiB of any record of ours.

        Raises:
            UnknownJobError: There is none.
            BrokenJobError: What is there is no record of this job, or not whole.
            JobStoreError: Nothing can be read at the moment.
        """
        try:
            fd, status = open_regular(self._disk, self.path(job_id))
            try:
                start = self._disk.read(fd, HEAD_BYTES)
                summary = decode_head(start)
                if (
                    summary is not None
                    and summary.id == job_id
                    and self._is_whole(fd, start, status.st_size)
                ):
                    return summary
                self._check_size(job_id, status.st_size, _MAX_FOREIGN_BYTES)
                content = start + read_all(self._disk, fd, _MAX_FOREIGN_BYTES)
            finally:
                self._disk.close(fd)
            return summarise(decode_record(content, job_id))
        except OSError as error:
            raise self._unreadable(job_id, error) from error
        except CorruptRecordError as error:
            raise BrokenJobError(job_id, self.path(job_id), str(error)) from error

    def _is_whole(self, fd: int, start: bytes, size: int) -> bool:
        if size <= len(start):
            return start.endswith(TAIL)
        return self._disk.read_at(fd, len(TAIL), size - len(TAIL)) == TAIL

    def _check_size(self, job_id: str, size: int, limit: int) -> None:
        if size > limit:
            reason = f"with {size} bytes it is too large for a record"
            raise BrokenJobError(job_id, self.path(job_id), reason)

    def _unreadable(self, job_id: str, error: OSError) -> Exception:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOENT:
            return UnknownJobError(job_id)
        if error.errno in _NOT_THIS_FILES_FAULT:
            return store_error("Jobs cannot be read", self.directory, error)
        if error.errno == errno.ELOOP:
            reason = "it is a symbolic link, which is never followed"
        return BrokenJobError(job_id, self.path(job_id), reason)

    def put(self, job_id: str, content: bytes | bytearray) -> None:
        """Put a record in the place of the one before: one or the other is there, always whole.

        Only the holder of the job's lock may call this: the name of the new file is fixed.

        Raises:
            OSError: The record is as it was, and nothing of the new one is left.
        """
        try:
            self._replace(job_id, content)
        except OSError as error:
            if error.errno == errno.ENOENT:  # Somebody removed the directory.
                make_private_directory(self._disk, self._scratch)
            elif error.errno != errno.EIO:
                raise
            # After a failed fsync(2) the same file may seem to be synced: write a new one.
            self._replace(job_id, content)

    def _replace(self, job_id: str, content: bytes | bytearray) -> None:
        new = os.path.join(self._scratch, f"{job_id}.tmp")
        remove(self._disk, new)  # Of a writer that was killed.
        write_new(self._disk, new, content)
        try:
            self._disk.rename(new, self.path(job_id))
        except BaseException:
            remove_quietly(self._disk, new)
            raise

    def sync(self) -> None:
        """Make names durable: a new record, or that the last one took its place."""
        sync_directory(self._disk, self.directory)

    def seen(self, job_id: str) -> tuple[int, ...] | None:
        """Tell the file now apart from all others of that name; None: there is none."""
        try:
            return identity(self._disk.status(self.path(job_id)))
        except FileNotFoundError:
            return None

    def remove(self, job_id: str) -> bool:
        """Remove a record; False if it was not there."""
        return remove(self._disk, self.path(job_id))

    def names(self, known: frozenset[str]) -> Names:
        """Sort out what is in the directory.

        Args:
            known: Names that are neither records nor strangers.

        Raises:
            OSError: It cannot be listed.
        """
        try:
            names = self._disk.list(self.directory)
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


def id_of(name: str) -> str:
    """The id in the name of a record."""
    return name[: -len(SUFFIX)]

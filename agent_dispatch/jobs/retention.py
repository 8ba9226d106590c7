"""Retention: remove the records of jobs that ended long ago, and the files of dead processes."""

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.files import NO_DESCRIPTOR, NO_ROOM, Disk, exists, names_in, remove
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError
from agent_dispatch.jobs.ids import creation_time_s, is_time_ordered
from agent_dispatch.jobs.late_answers import LateAnswers, job_of
from agent_dispatch.jobs.listing import REF, Entry, Lister, Warnings, entry_of
from agent_dispatch.jobs.locks import Locks, owners_of
from agent_dispatch.jobs.log import LOG_SUFFIX
from agent_dispatch.jobs.oddities import odd_entries, odd_names
from agent_dispatch.jobs.record_files import SUFFIX, RecordFiles
from agent_dispatch.jobs.remote_callers import Submissions
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import run

_DAY_S = 86_400.0
_FOR_REMOTE_CALLERS_DAYS = 1.0
"""How long a call's answer waits at least for a caller on another machine: it may be cut off."""


class Collected(NamedTuple):
    """What `gc` removed, or would remove."""

    purged: list[str]
    """Ids of the records."""
    litter: int
    """Files that dead processes had left behind."""
    warnings: list[str]


class Retention:
    """Removes records and litter of one jobs directory; several at once do no harm."""

    def __init__(
        self,
        records: RecordFiles,
        locks: Locks,
        lister: Lister,
        disk: Disk,
        *,
        logs: str,
        answers: LateAnswers,
        settle: Callable[[str], Job],
        now: Callable[[], float],
    ) -> None:
        """Clean `records`, `locks`, `logs` and `answers`; `settle` is that of the store."""
        self._records = records
        self._locks = locks
        self._lister = lister
        self._disk = disk
        self._logs = logs
        self._answers = answers
        self._settle = settle
        self._now = now
        self._submissions = Submissions(records.directory, disk=disk, now=now)

    def collect(self, max_age_days: float, *, dry_run: bool) -> Collected:
        """Remove old records, and litter.

        Args:
            max_age_days: How long ago they ended.
            dry_run: Only say which records.

        Raises:
            InvalidRequestError: `max_age_days` is not a number from 0 on.
        """
        if not (math.isfinite(max_age_days) and max_age_days >= 0):
            raise InvalidRequestError(
                f"Not an age in days: {max_age_days!r}. Give a number from 0 on; 0 removes every"
                " job that has ended."
            )
        warnings = self._oddities()
        litter = 0 if dry_run else self._remove_litter(warnings, unplaced_only=False)
        if not dry_run:
            self._submissions.clean()
        # With 0 every ended job goes, also one that a clock that was set back put in the future.
        youngest = self._before(max_age_days) if max_age_days else math.inf
        purged = self._purge(lambda *_: youngest, youngest, warnings, dry_run=dry_run)
        return Collected(purged, litter, warnings.told())

    def prune(self, call_days: float, background_days: float) -> Collected:
        """Remove old records that are not kept as references, and litter that is quickly found.

        Args:
            call_days: How long ago calls ended; 0: all that have ended. Calls of other machines
                stay for a day at least.
            background_days: How long ago all others ended; 0: none of them.
        """
        warnings = self._oddities()
        litter = self._remove_litter(warnings, unplaced_only=True)
        self._submissions.clean()
        calls = self._before(call_days) if call_days else math.inf
        calls_of_remote_callers = min(calls, self._before(_FOR_REMOTE_CALLERS_DAYS))
        others = self._before(background_days) if background_days else -math.inf

        def youngest(job_id: str, kind: str) -> float:
            if kind == REF:
                return -math.inf
            if kind != JobKind.CALL:
                return others
            return calls_of_remote_callers if self._submissions.knows(job_id) else calls

        purged = self._purge(youngest, max(calls, others), warnings, dry_run=False)
        return Collected(purged, litter, warnings.told())

    def _oddities(self) -> Warnings:
        warnings = Warnings()
        for oddity in odd_entries(self._records.directory, self._disk):
            warnings.add(oddity.warning)
        return warnings

    def _before(self, days: float) -> float:
        return self._now() - days * _DAY_S

    def forget(self, job_id: str, *, for_good: bool = True) -> None:
        """Remove one record of a job that has ended."""
        job = self._settle(job_id)
        if not job.status.is_terminal:
            raise JobStoreError(
                f"Job {job_id} is {job.status}, and its record is kept until it has ended.",
                run(f"agent-dispatch cancel {job_id}"),
            )
        self._remove(job_id, Warnings(), for_good=for_good)

    def _purge(
        self,
        youngest: Callable[[str, str], float],
        youngest_of_all: float,
        warnings: Warnings,
        *,
        dry_run: bool,
    ) -> list[str]:
        """Remove ended records.

        Args:
            youngest: When the last ones that go ended, in seconds since the epoch, by the id and
                the kind of a job.
            youngest_of_all: The latest of these times.
            warnings: Gets what is passed over.
            dry_run: Only say which.
        """

        def wanted(job_id: str) -> bool:
            # No job ends before it is made.
            return not is_time_ordered(job_id) or creation_time_s(job_id) <= youngest_of_all

        def may_go(job_id: str, entry: Entry) -> bool:
            is_old = entry.completed_at <= youngest_of_all
            return is_old and entry.completed_at <= youngest(job_id, entry.kind)

        entries = self._lister.entries(warnings, wanted=wanted)
        old = [job_id for job_id, entry in entries if may_go(job_id, entry)]
        if dry_run:
            return old
        purged = [job_id for job_id in old if self._remove_if(job_id, may_go, warnings)]
        if purged:
            self._lister.drop_from_index(purged)
        return purged

    def _remove_if(
        self, job_id: str, may_go: Callable[[str, Entry], bool], warnings: Warnings
    ) -> bool:
        """Remove a record if it says of itself what the index said of it."""
        try:
            summary = self._records.head(job_id)
        except UnknownJobError:
            return False  # Another one was faster.
        except BrokenJobError as error:
            warnings.left_alone(job_id + SUFFIX, error.reason)
            return False
        if summary.status.is_terminal and may_go(job_id, entry_of(summary)):
            with self._left_alone(job_id + SUFFIX, self._records.directory, warnings):
                return self._remove(job_id, warnings)
        return False

    def _remove(self, job_id: str, warnings: Warnings, *, for_good: bool = True) -> bool:
        if for_good:
            with self._left_alone(f"remote/jobs/{job_id}", self._records.directory, warnings):
                self._submissions.bury(job_id, only_known=True)
        log = job_id + LOG_SUFFIX
        with self._left_alone(f"logs/{log}", self._logs, warnings):
            remove(os.path.join(self._logs, log), self._disk)
        is_removed = remove(self._records.path(job_id), self._disk)
        # The record is gone. What cannot be removed now is litter, and is removed as such later.
        with suppress(OSError):
            self._answers.remove(job_id)
        return is_removed

    # -- litter

    def _remove_litter(self, warnings: Warnings, *, unplaced_only: bool) -> int:
        live = self._locks.directory
        names = self._locks.names()
        odd = odd_names(self._records.directory, "live", self._disk)
        spoilt = owners_of(odd)
        names = [name for name in names if name not in odd and not spoilt & owners_of([name])]
        litter = 0
        for name in names:
            with self._left_alone(f"live/{name}", live, warnings):
                litter += self._locks.remove_unplaced(name)
        if unplaced_only:
            return litter
        for job_id in owners_of(names):
            try:
                with self._left_alone(f"live/{job_id}", live, warnings):
                    litter += self.remove_live_files(job_id)
            except BrokenJobError as error:
                warnings.left_alone(job_id + SUFFIX, error.reason)
        return litter + self._remove_logs(warnings) + self._remove_answers(warnings)

    def remove_live_files(self, job_id: str) -> int:
        """Remove what is in `live/` of a job that has ended; settle one without an owner."""
        try:
            lock = self._locks.try_lock(job_id, create=False)
        except FileNotFoundError:
            if self._is_over(job_id):
                return self._locks.remove_beside_the_lock(job_id)
        else:
            if lock is None:
                return 0
            try:
                if self._is_over(job_id):
                    return self._locks.remove(job_id, lock)
            finally:
                self._disk.close(lock)
        self._settle(job_id)
        return 0

    def _is_over(self, job_id: str) -> bool:
        try:
            return self._records.head(job_id).status.is_terminal
        except UnknownJobError:
            return True

    def _remove_logs(self, warnings: Warnings) -> int:
        """Remove logs of jobs whose records are gone."""
        odd = odd_names(self._records.directory, "logs", self._disk)
        removed = 0
        for name in set(names_in(self._logs, self._disk)) - odd:
            if not exists(self._records.path(name.removesuffix(LOG_SUFFIX)), self._disk):
                with self._left_alone(f"logs/{name}", self._logs, warnings):
                    removed += remove(os.path.join(self._logs, name), self._disk)
        return removed

    def _remove_answers(self, warnings: Warnings) -> int:
        """Remove answers to questions of jobs whose records are gone."""
        directory, removed = self._answers.directory, 0
        odd = odd_names(self._records.directory, "answers", self._disk)
        for name in set(names_in(directory, self._disk)) - odd:
            job_id = job_of(name)
            if job_id is not None and not exists(self._records.path(job_id), self._disk):
                with self._left_alone(f"answers/{name}", directory, warnings):
                    removed += remove(os.path.join(directory, name), self._disk)
        return removed

    @contextmanager
    def _left_alone(self, name: str, directory: str, warnings: Warnings) -> Iterator[None]:
        """Go on with the others if one entry cannot be removed, and report it."""
        try:
            yield
        except OSError as error:
            if not _is_this_entrys_fault(error, directory):
                raise
            if error.filename:
                name = os.path.relpath(error.filename, self._records.directory)
            warnings.left_alone(name, error.strerror or str(error))


def _is_this_entrys_fault(error: OSError, directory: str) -> bool:
    """Whether the other entries of a directory can be worked on although this one could not."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return os.access(directory, os.W_OK | os.X_OK)
    return error.errno not in (*NO_ROOM, *NO_DESCRIPTOR, errno.EROFS, errno.EIO, errno.ENOMEM)

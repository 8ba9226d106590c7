"""Retention: remove the records of jobs that ended long ago, and the files of dead processes."""

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.files import NO_DESCRIPTOR, NO_ROOM, Disk, exists, names_in, remove
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError, store_errors
from agent_dispatch.jobs.ids import creation_time_s, is_time_ordered
from agent_dispatch.jobs.late_answers import LateAnswers
from agent_dispatch.jobs.listing import REF, Entry, Lister, Warnings, entry_of
from agent_dispatch.jobs.locks import Locks, owners_of
from agent_dispatch.jobs.log import LOG_SUFFIX
from agent_dispatch.jobs.oddities import odd_entries, odd_names
from agent_dispatch.jobs.record_files import SUFFIX, RecordFiles
from agent_dispatch.jobs.remote_callers import Submissions
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import run

_DAY_S = 86_400.0
_MIN_REMOTE_DAYS = 1.0
"""How long a call from another machine is kept at least: its caller may be cut off."""


class Collected(NamedTuple):
    """What was removed, or would be removed."""

    purged: list[str]
    """Ids of the jobs whose records were removed."""
    litter: int
    """Files that dead processes had left behind."""
    warnings: list[str]


class Retention:
    """Removes records and litter of one jobs directory; several at once do no harm.

    Every public method raises `JobStoreError` if the directory cannot be used.
    """

    def __init__(
        self,
        records: RecordFiles,
        locks: Locks,
        lister: Lister,
        disk: Disk,
        *,
        answers: LateAnswers,
        submissions: Submissions,
        settle: Callable[[str], Job],
        now: Callable[[], float],
    ) -> None:
        """Clean the directory of these parts of a store; `settle` is that of the store."""
        self._records = records
        self._locks = locks
        self._lister = lister
        self._disk = disk
        self._jobs = records.directory
        self._logs = os.path.join(self._jobs, "logs")
        self._answers = answers
        self._settle = settle
        self._now = now
        self._submissions = submissions

    def collect(self, max_age_days: float, *, dry_run: bool = False) -> Collected:
        """Remove jobs that ended longer ago than that, and the litter of dead processes.

        A job that has not ended is never removed.

        Args:
            max_age_days: 0 removes every job that has ended.
            dry_run: Remove nothing; only say which jobs would be removed.

        Raises:
            InvalidRequestError: `max_age_days` is not a number from 0 on.
        """
        if not (math.isfinite(max_age_days) and max_age_days >= 0):
            raise InvalidRequestError(
                f"Not an age in days: {max_age_days!r}. Give a number from 0 on; 0 removes every"
                " job that has ended."
            )
        with store_errors("Old jobs cannot be removed", self._jobs):
            warnings = self._oddities()
            litter = 0 if dry_run else self._remove_litter(warnings, unplaced_only=False)
            if not dry_run:
                self._submissions.clean()
            # With 0, even a job whose end is in the future, because a clock was set back.
            cutoff = self._days_ago(max_age_days) if max_age_days else math.inf
            purged = self._purge(lambda *_: cutoff, cutoff, warnings, dry_run=dry_run)
        return Collected(purged, litter, warnings.lines())

    def prune(self, call_days: float, background_days: float = 0) -> Collected:
        """Remove old records that are not kept as references, and litter that is quickly found.

        Args:
            call_days: How long ago calls ended; 0: all that have ended. Calls from other machines
                are kept for a day at least.
            background_days: How long ago background jobs ended; 0: none of them.
        """
        calls = self._days_ago(call_days) if call_days else math.inf
        remote_calls = min(calls, self._days_ago(_MIN_REMOTE_DAYS))
        others = self._days_ago(background_days) if background_days else -math.inf

        def cutoff(job_id: str, kind: str) -> float:
            if kind == REF:
                return -math.inf
            if kind != JobKind.CALL:
                return others
            return remote_calls if self._submissions.knows(job_id) else calls

        with store_errors("Old jobs cannot be removed", self._jobs):
            warnings = self._oddities()
            litter = self._remove_litter(warnings, unplaced_only=True)
            self._submissions.clean()
            purged = self._purge(cutoff, max(calls, others), warnings, dry_run=False)
        return Collected(purged, litter, warnings.lines())

    def forget(self, job_id: str) -> None:
        """Remove the record of a job that has ended.

        Raises:
            JobStoreError: It has not ended.
        """
        with store_errors(f"Job {job_id} cannot be removed", self._jobs):
            self._require_ended(job_id)
            self._remove(job_id, Warnings())

    def forget_unbegun(self, job_id: str) -> None:
        """Remove what is left of a job that was lost before it began, so that its id can be used.

        A process that dies while it takes a job leaves a record, or only the files in `live/`.

        Raises:
            JobStoreError: It has not ended.
        """
        with store_errors(f"Job {job_id} cannot be removed", self._jobs):
            with suppress(UnknownJobError):
                self._require_ended(job_id)
                self._remove(job_id, Warnings(), for_good=False)
                # The index knows how that record ended; the next one may end in another way.
                self._lister.drop_from_index([job_id])
            self._remove_live_files(job_id)

    def _require_ended(self, job_id: str) -> None:
        job = self._settle(job_id)
        if not job.status.is_terminal:
            raise JobStoreError(
                f"Job {job_id} is {job.status}, and its record is kept until it has ended.",
                run(f"agent-dispatch cancel {job_id}"),
            )

    def _oddities(self) -> Warnings:
        warnings = Warnings()
        for oddity in odd_entries(self._jobs, self._disk):
            warnings.add(oddity.warning)
        return warnings

    def _days_ago(self, days: float) -> float:
        return self._now() - days * _DAY_S

    def _purge(
        self,
        cutoff: Callable[[str, str], float],
        latest_cutoff: float,
        warnings: Warnings,
        *,
        dry_run: bool,
    ) -> list[str]:
        """Remove the records of jobs that ended up to the cutoff.

        Args:
            cutoff: Seconds since the epoch, by the id and the kind of a job.
            latest_cutoff: The latest of all cutoffs.
            warnings: Gets the records that were left alone.
            dry_run: Remove nothing; only say which jobs would be removed.
        """

        def may_be_old(job_id: str) -> bool:
            # No job ends before it is created.
            return not is_time_ordered(job_id) or creation_time_s(job_id) <= latest_cutoff

        def is_old(job_id: str, entry: Entry) -> bool:
            return entry.completed_at <= latest_cutoff and entry.completed_at <= cutoff(
                job_id, entry.kind
            )

        entries = self._lister.entries(warnings, wanted=may_be_old)
        old = [job_id for job_id, entry in entries if is_old(job_id, entry)]
        if dry_run:
            return old
        purged = [job_id for job_id in old if self._remove_if(job_id, is_old, warnings)]
        if purged:
            self._lister.drop_from_index(purged)
        return purged

    def _remove_if(
        self, job_id: str, is_old: Callable[[str, Entry], bool], warnings: Warnings
    ) -> bool:
        """Remove a record if it confirms what the index says about it."""
        try:
            summary = self._records.head(job_id)
        except UnknownJobError:
            return False  # Another process was faster.
        except BrokenJobError as error:
            warnings.left_alone(job_id + SUFFIX, error.reason)
            return False
        if summary.status.is_terminal and is_old(job_id, entry_of(summary)):
            with self._left_alone(job_id + SUFFIX, self._jobs, warnings):
                return self._remove(job_id, warnings)
        return False

    def _remove(self, job_id: str, warnings: Warnings, *, for_good: bool = True) -> bool:
        if for_good:
            with self._left_alone(f"remote/jobs/{job_id}", self._jobs, warnings):
                self._submissions.bury(job_id, only_known=True)
        log = job_id + LOG_SUFFIX
        with self._left_alone(f"logs/{log}", self._logs, warnings):
            remove(os.path.join(self._logs, log), self._disk)
        is_removed = remove(self._records.path(job_id), self._disk)
        # Without a record, answers that cannot be removed now are litter, and are removed later.
        with suppress(OSError):
            self._answers.remove(job_id)
        return is_removed

    # -- litter

    def _remove_litter(self, warnings: Warnings, *, unplaced_only: bool) -> int:
        live = self._locks.directory
        names = self._locks.names()
        odd = odd_names(self._jobs, "live", self._disk)
        jobs_left_alone = owners_of(odd)
        names = [
            name for name in names if name not in odd and not jobs_left_alone & owners_of([name])
        ]
        litter = 0
        for name in names:
            with self._left_alone(f"live/{name}", live, warnings):
                litter += self._locks.remove_unplaced(name)
        if unplaced_only:
            return litter
        for job_id in owners_of(names):
            try:
                with self._left_alone(f"live/{job_id}", live, warnings):
                    litter += self._remove_live_files(job_id)
            except BrokenJobError as error:
                warnings.left_alone(job_id + SUFFIX, error.reason)
        orphans = (self._remove_orphans(folder, warnings) for folder in ("logs", "answers"))
        return litter + sum(orphans)

    def _remove_live_files(self, job_id: str) -> int:
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

    def _remove_orphans(self, folder: str, warnings: Warnings) -> int:
        """Remove the files in a folder that belong to jobs whose records are gone."""
        directory, removed = os.path.join(self._jobs, folder), 0
        for name in set(names_in(directory, self._disk)) - odd_names(
            self._jobs, folder, self._disk
        ):
            job_id = name.partition(".")[0]
            if not exists(self._records.path(job_id), self._disk):
                with self._left_alone(f"{folder}/{name}", directory, warnings):
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
                name = os.path.relpath(error.filename, self._jobs)
            warnings.left_alone(name, error.strerror or str(error))


def _is_this_entrys_fault(error: OSError, directory: str) -> bool:
    """Whether the other entries of a directory can be worked on although this one could not."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return os.access(directory, os.W_OK | os.X_OK)
    return error.errno not in (*NO_ROOM, *NO_DESCRIPTOR, errno.EROFS, errno.EIO, errno.ENOMEM)

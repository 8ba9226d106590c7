"""What may be removed: records that are over for long, and what dead processes left behind."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.jobs.disk import Disk, names_in, remove
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError
from agent_dispatch.jobs.history import History, Warnings
from agent_dispatch.jobs.ids import creation_time_s, is_time_ordered
from agent_dispatch.jobs.index import Entry, Index, entry_of
from agent_dispatch.jobs.live import LiveFiles, NotLocked, owners_of
from agent_dispatch.jobs.oddities import (
    in_live,
    in_logs,
    is_this_entrys_fault,
    left_alone,
    odd_entries,
    odd_in,
)
from agent_dispatch.jobs.record_files import RecordFiles
from agent_dispatch.jobs.store import Collected
from agent_dispatch.model.job import Job

LOG_SUFFIX = ".log"
_DAY_S = 86_400.0


class Cleaner:
    """Removes records and litter of one jobs directory; several at once do no harm."""

    def __init__(
        self,
        records: RecordFiles,
        live: LiveFiles,
        index: Index,
        history: History,
        disk: Disk,
        *,
        logs: str,
        settle: Callable[[str], Job],
        now: Callable[[], float],
    ) -> None:
        """Clean `records`, `live` and the directory `logs`; `settle` is that of the store."""
        self._records = records
        self._live = live
        self._index = index
        self._history = history
        self._disk = disk
        self._logs = logs
        self._settle = settle
        self._now = now

    def collect(self, max_age_days: float, *, dry_run: bool) -> Collected:
        """Remove records of any kind, and all litter."""
        warnings = Warnings()
        for oddity in odd_entries(self._disk, self._records.directory):
            warnings.add(oddity.told)
        litter = 0 if dry_run else self._remove_litter(warnings)
        purged = self._purge(max_age_days, lambda entry: True, dry_run, warnings)
        return Collected(purged, litter, warnings.told())

    def prune_calls(self, retention_days: float) -> Collected:
        """Remove records of calls, and what processes that were killed kept for further jobs."""
        warnings = Warnings()
        for oddity in odd_entries(self._disk, self._records.directory):
            warnings.add(oddity.told)
        litter = self._remove_unplaced(self._sound_names(), warnings)
        purged = self._purge(retention_days, lambda entry: entry.is_plain_call, False, warnings)
        return Collected(purged, litter, warnings.told())

    def forget(self, job_id: str) -> None:
        """Remove one record of a job that is over."""
        job = self._settle(job_id)
        if not job.status.is_terminal:
            raise JobStoreError(
                f"Job {job_id} is {job.status} and is not removed before it is over. End it with:"
                f" agent-dispatch cancel {job_id}"
            )
        self._remove(job_id, Warnings())

    def _purge(
        self,
        max_age_days: float,
        may_go: Callable[[Entry], bool],
        dry_run: bool,
        warnings: Warnings,
    ) -> list[str]:
        if not (math.isfinite(max_age_days) and max_age_days >= 0):
            raise InvalidRequestError(
                f"Not an age in days: {max_age_days!r}. Give a number from 0 on; 0 removes every"
                " job that is over."
            )
        # With 0 all that is over goes, also what a clock that was set back has put in the future.
        youngest = self._now() - max_age_days * _DAY_S if max_age_days else math.inf

        def wanted(job_id: str) -> bool:
            # Over before it was made? Not by any clock worth asking.
            return not is_time_ordered(job_id) or creation_time_s(job_id) <= youngest

        def may_go_now(entry: Entry) -> bool:
            return entry.completed_at <= youngest and may_go(entry)

        entries = self._history.entries(warnings, wanted=wanted)
        old = [job_id for job_id, entry in entries if may_go_now(entry)]
        if dry_run:
            return old
        purged = [job_id for job_id in old if self._remove_if(job_id, may_go_now, warnings)]
        if purged:
            self._index.drop(purged)
        return purged

    def _remove_if(self, job_id: str, may_go: Callable[[Entry], bool], warnings: Warnings) -> bool:
        """Remove a record if it says of itself what the index said of it."""
        try:
            summary = self._records.head(job_id)
        except UnknownJobError:
            return False  # Another one was faster.
        except BrokenJobError as error:
            warnings.add(f"{job_id}.json: {error.reason}; left alone")
            return False
        if summary.status.is_terminal and may_go(entry_of(summary)):
            with self._left_alone(f"{job_id}.json", self._records.directory, warnings):
                return self._remove(job_id, warnings)
        return False

    def _remove(self, job_id: str, warnings: Warnings) -> bool:
        log = job_id + LOG_SUFFIX
        with self._left_alone(f"logs/{log}", self._logs, warnings):
            remove(self._disk, os.path.join(self._logs, log))
        return self._records.remove(job_id)

    # -- litter

    def _sound_names(self) -> list[str]:
        """Names in `live/`, without those of jobs that have something odd there."""
        names = self._live.names()
        odd = {oddity.name for oddity in odd_in(self._disk, self._live.directory, in_live)}
        spoilt = owners_of(odd)
        return [name for name in names if name not in odd and not spoilt & owners_of([name])]

    def _remove_litter(self, warnings: Warnings) -> int:
        names = self._sound_names()
        litter = self._remove_unplaced(names, warnings)
        for job_id in owners_of(names):
            try:
                with self._left_alone(f"live/{job_id}", self._live.directory, warnings):
                    litter += self._remove_live_files(job_id)
            except BrokenJobError as error:
                warnings.add(left_alone(f"{job_id}.json", error.reason))
        return litter + self._remove_logs(warnings)

    def _remove_unplaced(self, names: list[str], warnings: Warnings) -> int:
        removed = 0
        for name in names:
            with self._left_alone(f"live/{name}", self._live.directory, warnings):
                removed += self._live.remove_unplaced(name)
        return removed

    @contextmanager
    def _left_alone(self, name: str, directory: str, warnings: Warnings) -> Iterator[None]:
        """Go on with the others if one entry cannot be removed, and say so."""
        try:
            yield
        except OSError as error:
            if not is_this_entrys_fault(error, directory):
                raise
            where = (
                os.path.relpath(error.filename, self._records.directory) if error.filename else name
            )
            warnings.add(left_alone(where, error.strerror or str(error)))

    def _remove_live_files(self, job_id: str) -> int:
        """Remove what is in `live/` of a job that is over; settle one without an owner."""
        lock = self._live.try_lock(job_id, make=False)
        if lock is NotLocked.HELD:
            return 0
        if isinstance(lock, NotLocked):
            if self._is_over(job_id):
                return self._live.remove_beside_the_lock(job_id)
        else:
            try:
                if self._is_over(job_id):
                    return self._live.remove(job_id, lock)
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
        odd = {oddity.name for oddity in odd_in(self._disk, self._logs, in_logs)}
        removed = 0
        for name in set(names_in(self._disk, self._logs)) - odd:
            if self._records.seen(os.path.splitext(name)[0]) is None:
                with self._left_alone(f"logs/{name}", self._logs, warnings):
                    removed += remove(self._disk, os.path.join(self._logs, name))
        return removed

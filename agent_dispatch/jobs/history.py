"""Listings: the newest jobs, the newest of one status, and how all that are over ended."""

import contextlib
import heapq
from collections.abc import Callable, Generator, Iterator

from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError
from agent_dispatch.jobs.ids import is_time_ordered
from agent_dispatch.jobs.index import Entry, Index, entry_of, parse_entry
from agent_dispatch.jobs.live import LiveFiles
from agent_dispatch.jobs.record_files import Names, RecordFiles, id_of
from agent_dispatch.jobs.store import Listing
from agent_dispatch.model.job import Job, JobStatus, JobSummary, summarise

NEIGHBOURS = frozenset({"live", "logs", "sessions", "slots"})
"""Folders of ours in the jobs directory."""
_MAX_WARNINGS = 20
_INDEX_AT_ONCE = 4096
"""Entries kept back before they are written: who is cut off has not read in vain."""


class Warnings:
    """What was passed over, told for the first few."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        """Take note of something."""
        if len(self._texts) < _MAX_WARNINGS:
            self._texts.append(text)
        else:
            self._more += 1

    def told(self) -> list[str]:
        """All of it, in few lines."""
        more = [f"… and {self._more} more"] if self._more else []
        return self._texts + more


class History:
    """Reads the records of one jobs directory in bulk. Safe to use from several threads."""

    def __init__(
        self,
        records: RecordFiles,
        live: LiveFiles,
        index: Index,
        *,
        is_held: Callable[[str], bool],
        settle: Callable[[str], Job],
    ) -> None:
        """Read `records`; `is_held` and `settle` are those of the store."""
        self._records = records
        self._live = live
        self._index = index
        self._is_held = is_held
        self._settle = settle

    def newest(self, limit: int) -> Listing:
        """The newest jobs, each settled; only as many records are read."""
        warnings = Warnings()
        found: list[JobSummary] = []
        for job_id in self._newest_ids(limit, warnings):
            if (summary := self._summary(job_id, warnings)) is not None:
                found.append(summary)
            if len(found) >= limit:
                break
        return Listing(found, warnings.told())

    def living(self, status: JobStatus, limit: int) -> Listing:
        """The newest jobs of a status that is not final; reads `live/` and nothing else."""
        warnings = Warnings()
        found: list[JobSummary] = []
        for job_id in sorted(self._live.job_ids(), key=_age_key, reverse=True):
            summary = self._summary(job_id, warnings)
            if summary is not None and summary.status is status:
                found.append(summary)
            if len(found) >= limit:
                break
        return Listing(found, warnings.told())

    def over(self, status: JobStatus, limit: int) -> Listing:
        """The newest jobs that ended like that; reads what the index does not know yet."""
        warnings = Warnings()
        found: list[JobSummary] = []
        with contextlib.closing(self.entries(warnings, first=limit)) as entries:
            for job_id, entry in entries:
                if entry.status == status:
                    summary = self._summary(job_id, warnings)
                    # The record decides, not what the index says of it.
                    if summary is not None and summary.status is status:
                        found.append(summary)
                if len(found) >= limit:
                    break
        return Listing(found, warnings.told())

    def naming(self, word: str) -> Iterator[Job]:
        """The jobs whose records have `word` in them, the newest first, as they are recorded."""
        for job_id in self._newest_ids(0, Warnings()):
            if (job := self._records.load_if_naming(job_id, word.encode())) is not None:
                yield job

    def entries(
        self,
        warnings: Warnings,
        *,
        first: int = 0,
        wanted: Callable[[str], bool] | None = None,
    ) -> Generator[tuple[str, Entry]]:
        """How each job that is over ended, newest first; settles what it meets on the way.

        Args:
            warnings: Gets what is passed over.
            first: How many will be looked at, probably.
            wanted: Says of an id whether to look at it at all.
        """
        known = self._index.load()
        fresh: dict[str, Entry] = {}
        try:
            for job_id in self._newest_ids(first, warnings):
                if wanted is not None and not wanted(job_id):
                    continue
                entry = parse_entry(known.get(job_id, ""))
                if entry is None:
                    summary = self._summary(job_id, warnings)
                    if summary is None or not summary.status.is_terminal:
                        continue
                    entry = fresh[job_id] = entry_of(summary)
                    if len(fresh) == _INDEX_AT_ONCE:
                        self._index.append(fresh)
                        fresh.clear()
                yield job_id, entry
        finally:
            self._index.append(fresh)

    def _newest_ids(self, first: int, warnings: Warnings) -> Iterator[str]:
        names = self._records.names(NEIGHBOURS)
        for name in sorted(names.strangers):
            warnings.add(f"{name}: not a job record; left alone")
        return _newest_first(names, first)

    def _summary(self, job_id: str, warnings: Warnings) -> JobSummary | None:
        try:
            summary = self._records.head(job_id)
            if summary.status.is_terminal or self._is_held(job_id):
                return summary
            return summarise(self._settle(job_id))
        except UnknownJobError:
            return None  # Removed since we saw its name.
        except BrokenJobError as error:
            warnings.add(f"{job_id}.json: {error.reason}; left alone")
            return None
        except JobStoreError as error:
            warnings.add(f"{job_id}.json: {error}")
            return None


def _age_key(job_id: str) -> tuple[bool, str]:
    return is_time_ordered(job_id), job_id


def _newest_first(names: Names, first: int) -> Iterator[str]:
    """Ids by creation; those that do not tell it come last, by name."""
    for records in (names.ordered, names.others):
        yield from map(id_of, _descending(records, first))


def _descending(names: list[str], first: int) -> Iterator[str]:
    # Some more than asked for: what cannot be read is passed over.
    top = heapq.nlargest(first + 16, names)
    yield from top
    if len(top) < len(names):
        yield from sorted(names, reverse=True)[len(top) :]

"""Listings: the newest jobs, the newest with one status, and how each ended job ended.

An index with one line per ended job makes it unnecessary to read every record for "the failed
ones". A final record never changes, so a line stays true until the record is removed. The index may
be deleted at any time: it only says which records to read.
"""

import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, suppress
from typing import NamedTuple

from agent_dispatch.files import (
    PRIVATE_FILE,
    Disk,
    open_private,
    opened_regular,
    read_all,
    remove_quietly,
    write_all,
    write_new,
)
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError, store_errors
from agent_dispatch.jobs.ids import creation_time_s, is_time_ordered
from agent_dispatch.jobs.locks import Locks
from agent_dispatch.jobs.record_files import SUFFIX, RecordFiles
from agent_dispatch.model.job import Job, JobKind, JobStatus, JobSummary, summarise

OUR_FOLDERS = frozenset({"answers", "ledger", "live", "logs", "remote", "sessions", "slots"})
"""Our folders in the jobs directory."""
_MAX_WARNINGS = 20
_INDEX_AT_ONCE = 4096
"""How many new lines are written at once; an interrupted listing keeps those."""
_MAX_INDEX_BYTES = 256 * 1024 * 1024
REF = "ref"
"""The kind of a call whose record is kept as a reference."""
_KINDS = frozenset({*(kind.value for kind in JobKind), REF})
_TERMINAL = frozenset(status.value for status in JobStatus if status.is_terminal)


class Listing(NamedTuple):
    """Jobs, newest first, and warnings about entries that were skipped."""

    jobs: list[JobSummary]
    warnings: list[str]


class Warnings:
    """Warnings about entries that were skipped: the first few in full, then only a number."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._more = 0

    def left_alone(self, where: str, reason: str) -> None:
        """Add an entry that was left alone, and why."""
        self.add(f"{where}: {reason}; left alone")

    def add(self, text: str) -> None:
        """Add any other warning."""
        if len(self._texts) < _MAX_WARNINGS:
            self._texts.append(text)
        else:
            self._more += 1

    def lines(self) -> list[str]:
        """All warnings."""
        more = [f"… and {self._more} more"] if self._more else []
        return self._texts + more


class Entry(NamedTuple):
    """How a job ended."""

    status: str
    kind: str
    """A `JobKind`, or `ref` for a call whose record is kept as a reference."""
    completed_at: int
    """Seconds since the epoch, rounded down."""


def entry_of(summary: JobSummary) -> Entry:
    """Make the entry of a job that has ended."""
    kind = REF if summary.ref else summary.kind.value
    completed_at = summary.created_at if summary.completed_at is None else summary.completed_at
    return Entry(summary.status.value, kind, int(completed_at))


def _parse_entry(text: str) -> Entry | None:
    words = text.split(" ")
    if len(words) != 3 or words[0] not in _TERMINAL or words[1] not in _KINDS:
        return None
    try:
        return Entry(words[0], words[1], int(words[2]))
    except ValueError:
        return None


class Lister:
    """Reads the records of one jobs directory in bulk. Safe to use from several threads."""

    def __init__(
        self,
        records: RecordFiles,
        locks: Locks,
        disk: Disk,
        *,
        is_held: Callable[[str], bool],
        settle: Callable[[str], Job],
    ) -> None:
        """Read `records`; `is_held` and `settle` are those of the store."""
        self._records = records
        self._locks = locks
        self._disk = disk
        self._index = os.path.join(records.directory, ".index")
        self._is_held = is_held
        self._settle = settle

    def newest(
        self,
        *,
        status: JobStatus | None = None,
        limit: int = 50,
        matches: Callable[[JobSummary], bool] | None = None,
        since: float = 0,
    ) -> Listing:
        """List the newest jobs, each settled.

        Without `matches`, this reads no more records than it lists: jobs that have not ended are
        found in `live/`, and the index has the status of those that have.

        Args:
            matches: Only jobs whose summary it accepts; all records may have to be read.
            since: Only jobs created at or after this time, in seconds since the epoch.
        """
        warnings = Warnings()
        found: list[JobSummary] = []
        with (
            store_errors("Jobs cannot be listed", self._records.directory),
            closing(self._candidates(status, warnings)) as ids,
        ):
            for job_id in ids:
                if is_time_ordered(job_id) and creation_time_s(job_id) < since:
                    continue
                summary = self._summary(job_id, warnings)
                # The record decides, not the index.
                if (
                    summary is not None
                    and status in (None, summary.status)
                    and summary.created_at >= since
                    and (matches is None or matches(summary))
                ):
                    found.append(summary)
                if len(found) >= limit:
                    break
        return Listing(found, warnings.lines())

    def ids(self) -> list[str]:
        """The ids of all jobs, newest first; no record is read."""
        with store_errors("Jobs cannot be listed", self._records.directory):
            return list(self._newest_ids(Warnings()))

    def find(self, word: str, matches: Callable[[Job], bool]) -> Job | None:
        """The newest job with `word` in its record that `matches`; it is not settled.

        Reads all records if there is none.
        """
        with store_errors("Jobs cannot be searched", self._records.directory):
            for job_id in self._newest_ids(Warnings()):
                job = self._records.load_if_naming(job_id, word.encode())
                if job is not None and matches(job):
                    return job
        return None

    def with_questions(self) -> list[Job]:
        """The jobs with permission questions, open or not, newest first, each settled.

        Reads the first line of each record.
        """
        found: list[Job] = []
        warnings = Warnings()
        with store_errors("Jobs cannot be searched", self._records.directory):
            for job_id in self._newest_ids(warnings):
                summary = self._summary(job_id, warnings)
                if summary is not None and summary.has_questions:
                    with suppress(UnknownJobError, BrokenJobError):  # Removed or broken since.
                        found.append(self._settle(job_id))
        return found

    def entries(
        self, warnings: Warnings, *, wanted: Callable[[str], bool] | None = None
    ) -> Generator[tuple[str, Entry]]:
        """How each ended job ended, newest first. Lost jobs on the way are settled.

        Args:
            warnings: Gets the entries that are skipped.
            wanted: Says of an id whether it is of interest; records of the others are not read.
        """
        known = self._read_index()
        fresh: dict[str, Entry] = {}
        try:
            for job_id in self._newest_ids(warnings):
                if wanted is not None and not wanted(job_id):
                    continue
                entry = _parse_entry(known.get(job_id, ""))
                if entry is None:
                    summary = self._summary(job_id, warnings)
                    if summary is None or not summary.status.is_terminal:
                        continue
                    entry = fresh[job_id] = entry_of(summary)
                    if len(fresh) == _INDEX_AT_ONCE:
                        self._add_to_index(fresh)
                        fresh.clear()
                yield job_id, entry
        finally:
            self._add_to_index(fresh)

    def _candidates(self, status: JobStatus | None, warnings: Warnings) -> Generator[str]:
        if status is None:
            yield from self._newest_ids(warnings)
        elif not status.is_terminal:
            yield from sorted(
                self._locks.job_ids(),
                key=lambda job_id: (is_time_ordered(job_id), job_id),
                reverse=True,
            )
        else:
            with closing(self.entries(warnings)) as entries:
                for job_id, entry in entries:
                    if entry.status == status:
                        yield job_id

    def _newest_ids(self, warnings: Warnings) -> Iterator[str]:
        """Ids, newest first; those without a time of creation come last, by name."""
        names = self._records.names(OUR_FOLDERS)
        for name in sorted(names.strangers):
            warnings.left_alone(name, "not a job record")
        for records in (names.ordered, names.others):
            for name in sorted(records, reverse=True):
                yield name.removesuffix(SUFFIX)

    def _summary(self, job_id: str, warnings: Warnings) -> JobSummary | None:
        try:
            summary = self._records.head(job_id)
            if summary.status.is_terminal or self._is_held(job_id):
                return summary
            return summarise(self._settle(job_id))
        except UnknownJobError:
            return None  # Removed since it was listed.
        except BrokenJobError as error:
            warnings.left_alone(job_id + SUFFIX, error.reason)
        except JobStoreError as error:
            warnings.add(f"{job_id}{SUFFIX}: {error}")
        return None

    # -- the index; if it cannot be read or written, the records are read

    def _read_index(self) -> dict[str, str]:
        """Map each id to the text of its entry; only few of many are ever parsed."""
        try:
            with opened_regular(self._index, self._disk) as (fd, _):
                content = read_all(fd, _MAX_INDEX_BYTES, self._disk)
        except OSError:
            return {}
        lines = content.decode("ascii", errors="replace").split("\n")
        return {line[:32]: line[33:] for line in lines}

    def _add_to_index(self, entries: Mapping[str, Entry]) -> None:
        if not entries:
            return
        lines = "".join(
            f"{job_id} {' '.join(map(str, entry))}\n" for job_id, entry in entries.items()
        )
        with suppress(OSError):
            fd = open_private(self._index, os.O_WRONLY | os.O_CREAT | os.O_APPEND, self._disk)
            try:
                self._disk.fchmod(fd, PRIVATE_FILE)
                # One write, so that the lines of several processes do not mix. The first line feed
                # ends a line that another writer could not finish.
                write_all(fd, b"\n" + lines.encode(), self._disk)
            finally:
                self._disk.close(fd)

    def drop_from_index(self, job_ids: Collection[str]) -> None:
        """Drop removed jobs from the index.

        Lines that another process appends meanwhile may be lost; then those records are read again.
        """
        gone = set(job_ids)
        kept = ((job_id, text) for job_id, text in self._read_index().items() if text)
        lines = "".join(f"{job_id} {text}\n" for job_id, text in kept if job_id not in gone)
        new = f"{self._index}.tmp"
        remove_quietly(new, disk=self._disk)
        try:
            write_new(new, lines.encode("ascii", "replace"), self._disk, durable=False)
            self._disk.rename(new, self._index)
        except OSError:
            remove_quietly(new, disk=self._disk)

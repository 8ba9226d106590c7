"""Retention: remove records that ended long ago and files of dead processes; report odd entries.

An odd entry is one that is not what its name says, or has a name that agent-dispatch never gives:
a symbolic link in place of a lock, a file of another user. It must not stop the removal of
everything else, so it is found by looking, left alone, and reported.
"""

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.files import DISK, NO_DESCRIPTOR, NO_ROOM, Disk, exists, names_in, remove
from agent_dispatch.jobs.afar import Submissions
from agent_dispatch.jobs.answers import Answers, job_of
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError
from agent_dispatch.jobs.ids import creation_time_s, is_job_id, is_time_ordered
from agent_dispatch.jobs.listing import NEIGHBOURS, REF, Entry, Lister, Warnings, entry_of
from agent_dispatch.jobs.locks import UNPLACED, Locks, owners_of
from agent_dispatch.jobs.record_files import SUFFIX, RecordFiles
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import run

LOG_SUFFIX = ".log"
_DAY_S = 86_400.0
_FOR_CALLERS_AFAR_DAYS = 1.0
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
        answers: Answers,
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
        calls_from_afar = min(calls, self._before(_FOR_CALLERS_AFAR_DAYS))
        others = self._before(background_days) if background_days else -math.inf

        def youngest(job_id: str, kind: str) -> float:
            if kind == REF:
                return -math.inf
            if kind != JobKind.CALL:
                return others
            return calls_from_afar if self._submissions.knows(job_id) else calls

        purged = self._purge(youngest, max(calls, others), warnings, dry_run=False)
        return Collected(purged, litter, warnings.told())

    def _oddities(self) -> Warnings:
        warnings = Warnings()
        for oddity in odd_entries(self._records.directory, self._disk):
            warnings.add(oddity.told)
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
        odd = {oddity.name for oddity in _odd_in(live, _in_live, self._disk)}
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
        odd = {oddity.name for oddity in _odd_in(self._logs, _in_logs, self._disk)}
        removed = 0
        for name in set(names_in(self._logs, self._disk)) - odd:
            if not exists(self._records.path(name.removesuffix(LOG_SUFFIX)), self._disk):
                with self._left_alone(f"logs/{name}", self._logs, warnings):
                    removed += remove(os.path.join(self._logs, name), self._disk)
        return removed

    def _remove_answers(self, warnings: Warnings) -> int:
        """Remove answers to questions of jobs whose records are gone."""
        directory, removed = self._answers.directory, 0
        odd = {oddity.name for oddity in _odd_in(directory, _in_answers, self._disk)}
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


# -- odd entries

Expected = Callable[[str], frozenset[int]]
"""The kinds of file that may have a name; none: agent-dispatch never gives that name."""
_FILE, _FIFO, _DIRECTORY = map(frozenset, ([stat.S_IFREG], [stat.S_IFIFO], [stat.S_IFDIR]))
_NOTHING = frozenset[int]()
_IN_LIVE = {
    **dict.fromkeys((".lock", ".cancel", ".ending", ".mail", ".lease", ".events", ".tmp"), _FILE),
    **dict.fromkeys((".alive", ".bell"), _FIFO),
}
_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is never followed",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a regular file",
}


class Oddity(NamedTuple):
    """An entry that is left alone."""

    name: str
    """Its own name, without its folder."""
    told: str
    """Where it is, and what is wrong with it."""
    path: str


def odd_entries(directory: str, disk: Disk = DISK) -> Iterator[Oddity]:
    """Look at all that stands beside the records in a jobs directory; changes nothing."""
    folders: dict[str, Expected] = {
        "ledger": lambda name: _DIRECTORY if name == "open" else _FILE,
        "answers": _in_answers,
        "live": _in_live,
        "logs": _in_logs,
        "sessions": lambda name: _FILE if name.endswith(".lock") else _NOTHING,
        "slots": lambda name: _DIRECTORY if name.isdecimal() else _NOTHING,
    }
    yield from _odd_in(directory, lambda name: _DIRECTORY, disk, prefix="", only=NEIGHBOURS)
    for folder, expected in folders.items():
        yield from _odd_in(os.path.join(directory, folder), expected, disk)
    slots = os.path.join(directory, "slots")
    for depth in filter(str.isdecimal, names_in(slots, disk)):
        path = os.path.join(slots, depth)
        yield from _odd_in(path, _in_depth, disk, prefix=f"slots/{depth}/")


def _in_live(name: str) -> frozenset[int]:
    if name.startswith("."):
        return _FILE | _FIFO if name.endswith(UNPLACED) else _NOTHING
    job_id, suffix = os.path.splitext(name)
    return _IN_LIVE.get(suffix, _NOTHING) if is_job_id(job_id) else _NOTHING


def _in_answers(name: str) -> frozenset[int]:
    return _NOTHING if job_of(name) is None else _FILE


def _in_logs(name: str) -> frozenset[int]:
    job_id, suffix = os.path.splitext(name)
    return _FILE if suffix == LOG_SUFFIX and is_job_id(job_id) else _NOTHING


def _in_depth(name: str) -> frozenset[int]:
    return _FILE if name.isdecimal() or name == "waiting" else _NOTHING


def _odd_in(
    directory: str,
    expected: Expected,
    disk: Disk,
    *,
    prefix: str | None = None,
    only: frozenset[str] | None = None,
) -> Iterator[Oddity]:
    """Look at one folder, or at some names in it; nothing is odd in one that is not there."""
    prefix = f"{os.path.basename(directory)}/" if prefix is None else prefix
    for name in sorted(names_in(directory, disk) if only is None else only):
        path = os.path.join(directory, name)
        try:
            status = disk.lstat(path)
        except FileNotFoundError:
            continue  # Removed since it was listed.
        if (wrong := _wrong(status, expected(name))) is not None:
            yield Oddity(name, f"{prefix}{name}: {wrong}; left alone", path)


def _wrong(status: os.stat_result, expected: frozenset[int]) -> str | None:
    kind = stat.S_IFMT(status.st_mode)
    if not expected:
        return "not a name that agent-dispatch gives"
    if kind not in expected:
        wanted = " or ".join(_KINDS[kind] for kind in sorted(expected, reverse=True))
        return f"{_KINDS.get(kind, 'a device')} in place of {wanted}"
    euid = os.geteuid()
    if euid == 0:
        return None
    if status.st_uid != euid:
        return f"belongs to another user (uid {status.st_uid})"
    if not status.st_mode & stat.S_IRUSR:
        return f"not readable for you (mode {stat.S_IMODE(status.st_mode):04o})"
    return None

"""A disposable index: how the jobs that are over ended, in one file.

Without it, "the failed ones" of a long history would mean reading every record. A line is
appended when a listing meets a job that is over for the first time; as such a record never
changes, a line stays true until the record is removed. The file may be deleted at any time: it
answers nothing by itself, and whoever acts on a job reads its record.
"""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from agent_dispatch.jobs.disk import (
    PRIVATE_FILE,
    Disk,
    open_regular,
    read_all,
    remove_quietly,
    write_all,
    write_new,
)
from agent_dispatch.model.job import JobKind, JobStatus, JobSummary

_MAX_BYTES = 256 * 1024 * 1024
_REF = "ref"
_KINDS = frozenset({*(kind.value for kind in JobKind), _REF})
_TERMINAL = frozenset(status.value for status in JobStatus if status.is_terminal)


class Entry(NamedTuple):
    """How a job ended."""

    status: str
    kind: str
    """A `JobKind`, or `ref` for a call whose record is kept as a reference."""
    completed_at: int
    """Seconds since the epoch, rounded down."""

    @property
    def is_plain_call(self) -> bool:
        """Whether nobody was given the id to fetch the answer by."""
        return self.kind == JobKind.CALL


def entry_of(summary: JobSummary) -> Entry:
    """Make the entry of a job that is over."""
    kind = _REF if summary.ref else summary.kind.value
    completed_at = summary.created_at if summary.completed_at is None else summary.completed_at
    return Entry(summary.status.value, kind, int(completed_at))


def parse_entry(text: str) -> Entry | None:
    """Read an entry; None if it is not one."""
    words = text.split(" ")
    if len(words) != 3 or words[0] not in _TERMINAL or words[1] not in _KINDS:
        return None
    try:
        return Entry(words[0], words[1], int(words[2]))
    except ValueError:
        return None


class Index:
    """The index file of one jobs directory.

    That it cannot be read or written is no error: then the records are read.
    """

    def __init__(self, directory: str, disk: Disk) -> None:
        """Use `.index` in `directory`."""
        self._path = os.path.join(directory, ".index")
        self._disk = disk

    def load(self) -> dict[str, str]:
        """Give id -> entry as text, for `parse_entry`: few of many are looked at."""
        try:
            fd, _ = open_regular(self._disk, self._path)
            try:
                content = read_all(self._disk, fd, _MAX_BYTES)
            finally:
                self._disk.close(fd)
        except OSError:
            return {}
        lines = content.decode("ascii", errors="replace").split("\n")
        return {line[:32]: line[33:] for line in lines}

    def append(self, entries: Mapping[str, Entry]) -> None:
        """Add entries; one write, so that processes do not mix their lines."""
        if not entries:
            return
        try:
            fd = self._disk.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                self._disk.set_mode(fd, PRIVATE_FILE)
                # Begins a line of its own, should the last writer have been cut off.
                write_all(self._disk, fd, b"\n" + _lines(entries))
            finally:
                self._disk.close(fd)
        except OSError:
            return

    def drop(self, job_ids: Collection[str]) -> None:
        """Leave out what is gone; what others append meanwhile is found again by reading."""
        kept = self.load()
        for job_id in job_ids:
            kept.pop(job_id, None)
        lines = "".join(f"{job_id} {text}\n" for job_id, text in kept.items() if text)
        new = f"{self._path}.tmp"
        remove_quietly(self._disk, new)
        try:
            write_new(self._disk, new, lines.encode("ascii", "replace"), durable=False)
            self._disk.rename(new, self._path)
        except OSError:
            remove_quietly(self._disk, new)


def _lines(entries: Mapping[str, Entry]) -> bytes:
    return "".join(
        f"{job_id} {entry.status} {entry.kind} {entry.completed_at}\n"
        for job_id, entry in entries.items()
    ).encode()

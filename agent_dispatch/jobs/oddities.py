"""Entries of the jobs directory that cannot be used as what they are named, or have no use there.

A symbolic link in place of a lock, a file of another user, a name that nothing here gives. One
such entry must not stop the removal of everything else, so it is found by looking, left alone,
and reported.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agent_dispatch.jobs.disk import NO_DESCRIPTOR, NO_ROOM, Disk, names_in
from agent_dispatch.jobs.ids import is_job_id

_STRANGER = "not a name that agent-dispatch gives"
_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is never followed",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a regular file",
}
_EVERYBODYS_TROUBLE = (*NO_ROOM, *NO_DESCRIPTOR, errno.EROFS, errno.EIO, errno.ENOMEM)
_REFUSED = (errno.EACCES, errno.EPERM)

Expected = Callable[[str], frozenset[int]]
"""The kinds of file that may have a name; none: nothing has that name."""

_FILE = frozenset({stat.S_IFREG})
_FIFO = frozenset({stat.S_IFIFO})
_DIRECTORY = frozenset({stat.S_IFDIR})
_NOTHING = frozenset[int]()
_IN_LIVE = {
    ".lock": _FILE,
    ".cancel": _FILE,
    ".ending": _FILE,
    ".tmp": _FILE,
    ".alive": _FIFO,
    ".bell": _FIFO,
}


class Oddity(NamedTuple):
    """An entry that is left alone."""

    name: str
    """Its own name, without its folder."""
    told: str
    """Where it is, and what is wrong with it."""
    path: str


def in_live(name: str) -> frozenset[int]:
    """What a name in `live/` stands for."""
    if name.startswith("."):
        # A spare is a lock or a bell.
        return _FILE | _FIFO if name.endswith((".new", ".spare")) else _NOTHING
    job_id, suffix = os.path.splitext(name)
    return _IN_LIVE.get(suffix, _NOTHING) if is_job_id(job_id) else _NOTHING


def in_logs(name: str) -> frozenset[int]:
    """What a name in `logs/` stands for."""
    job_id, suffix = os.path.splitext(name)
    return _FILE if suffix == ".log" and is_job_id(job_id) else _NOTHING


def _in_sessions(name: str) -> frozenset[int]:
    return _FILE if name.endswith(".lock") else _NOTHING


def _in_slots(name: str) -> frozenset[int]:
    return _DIRECTORY if name.isdecimal() else _NOTHING


def _in_depth(name: str) -> frozenset[int]:
    return _FILE if name.isdecimal() or name == "waiting" else _NOTHING


def odd_entries(disk: Disk, directory: str) -> Iterator[Oddity]:
    """Look at all that stands beside the records in a jobs directory; changes nothing."""
    folders: dict[str, Expected] = {
        "live": in_live,
        "logs": in_logs,
        "sessions": _in_sessions,
        "slots": _in_slots,
    }
    yield from _odd_in(disk, directory, lambda name: _DIRECTORY, list(folders))
    for folder, expected in folders.items():
        yield from odd_in(disk, os.path.join(directory, folder), expected)
    slots = os.path.join(directory, "slots")
    for depth in filter(str.isdecimal, names_in(disk, slots)):
        yield from odd_in(disk, os.path.join(slots, depth), _in_depth, shown=f"slots/{depth}")


def odd_in(
    disk: Disk, directory: str, expected: Expected, shown: str | None = None
) -> Iterator[Oddity]:
    """Look at one folder; nothing is odd in one that is not there."""
    shown = shown or os.path.basename(directory)
    yield from _odd_in(disk, directory, expected, names_in(disk, directory), f"{shown}/")


def _odd_in(
    disk: Disk, directory: str, expected: Expected, names: list[str], prefix: str = ""
) -> Iterator[Oddity]:
    for name in sorted(names):
        path = os.path.join(directory, name)
        try:
            status = disk.status(path)
        except FileNotFoundError:
            continue  # Removed since it was listed.
        if (wrong := _wrong(status, expected(name))) is not None:
            yield Oddity(name, left_alone(prefix + name, wrong), path)


def _wrong(status: os.stat_result, expected: frozenset[int]) -> str | None:
    kind = stat.S_IFMT(status.st_mode)
    if not expected:
        return _STRANGER
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


def left_alone(where: str, reason: str) -> str:
    """Say that an entry was passed over, and why."""
    return f"{where}: {reason}; left alone"


def is_this_entrys_fault(error: OSError, directory: str) -> bool:
    """Whether the other entries of a directory can be worked on although this one could not."""
    if error.errno in _REFUSED:
        return os.access(directory, os.W_OK | os.X_OK)
    return error.errno not in _EVERYBODYS_TROUBLE

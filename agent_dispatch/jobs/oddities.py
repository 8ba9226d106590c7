"""Oddities: entries of a jobs directory that are not what their names say, or that nobody expects.

A symbolic link in place of a lock is one, and so is a file of another user. An oddity must not stop
the removal of everything else, so it is found first, left alone, and reported.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from agent_dispatch.files import DISK, Disk, names_in
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.late_answers import job_of
from agent_dispatch.jobs.listing import OUR_FOLDERS
from agent_dispatch.jobs.locks import (
    ALIVE,
    BELL,
    CANCEL,
    ENDING,
    EVENTS,
    LEASE,
    LOCK,
    MAIL,
    TMP,
    UNPLACED,
)
from agent_dispatch.jobs.log import LOG_SUFFIX

_Kinds = frozenset[int]
"""The kinds of file that a name may stand for; none: agent-dispatch never gives that name."""
_FILE, _FIFO, _DIRECTORY = map(frozenset, ([stat.S_IFREG], [stat.S_IFIFO], [stat.S_IFDIR]))
_NOTHING = frozenset[int]()
_IN_LIVE = {
    **dict.fromkeys((LOCK, CANCEL, ENDING, MAIL, LEASE, EVENTS, TMP), _FILE),
    **dict.fromkeys((ALIVE, BELL), _FIFO),
}
_KIND_NAMES = {
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
    warning: str
    """Where it is, and what is wrong with it."""
    path: str


def odd_entries(jobs: str, disk: Disk = DISK) -> Iterator[Oddity]:
    """Look at everything beside the records in a jobs directory; changes nothing."""
    yield from _odd_in(jobs, lambda name: _DIRECTORY, disk, prefix="", only=OUR_FOLDERS)
    for folder in _EXPECTED:
        yield from _odd_in_folder(jobs, folder, disk)
    slots = os.path.join(jobs, "slots")
    for depth in filter(str.isdecimal, names_in(slots, disk)):
        path = os.path.join(slots, depth)
        yield from _odd_in(path, _expected_for_depth, disk, prefix=f"slots/{depth}/")


def odd_names(jobs: str, folder: str, disk: Disk) -> set[str]:
    """Names of the odd entries in one folder of a jobs directory."""
    return {oddity.name for oddity in _odd_in_folder(jobs, folder, disk)}


def _expected_in_live(name: str) -> _Kinds:
    if name.startswith("."):
        return _FILE if name.endswith(UNPLACED) else _NOTHING
    job_id, suffix = os.path.splitext(name)
    return _IN_LIVE.get(suffix, _NOTHING) if is_job_id(job_id) else _NOTHING


def _expected_in_logs(name: str) -> _Kinds:
    job_id, suffix = os.path.splitext(name)
    return _FILE if suffix == LOG_SUFFIX and is_job_id(job_id) else _NOTHING


def _expected_for_depth(name: str) -> _Kinds:
    return _FILE if name.isdecimal() or name == "waiting" else _NOTHING


_EXPECTED: Mapping[str, Callable[[str], _Kinds]] = {
    "ledger": lambda name: _DIRECTORY if name == "open" else _FILE,
    "answers": lambda name: _NOTHING if job_of(name) is None else _FILE,
    "live": _expected_in_live,
    "logs": _expected_in_logs,
    "sessions": lambda name: _FILE if name.endswith(".lock") else _NOTHING,
    "slots": lambda name: _DIRECTORY if name.isdecimal() else _NOTHING,
}
"""What may stand in each folder, by its name."""


def _odd_in_folder(jobs: str, folder: str, disk: Disk) -> Iterator[Oddity]:
    return _odd_in(os.path.join(jobs, folder), _EXPECTED[folder], disk, prefix=f"{folder}/")


def _odd_in(
    directory: str,
    expected: Callable[[str], _Kinds],
    disk: Disk,
    *,
    prefix: str,
    only: frozenset[str] | None = None,
) -> Iterator[Oddity]:
    """Look at a directory, or at some names in it; nothing is odd in one that is missing."""
    for name in sorted(names_in(directory, disk) if only is None else only):
        path = os.path.join(directory, name)
        try:
            status = disk.lstat(path)
        except FileNotFoundError:
            continue  # Removed since it was listed.
        if (wrong := _wrong(status, expected(name))) is not None:
            yield Oddity(name, f"{prefix}{name}: {wrong}; left alone", path)


def _wrong(status: os.stat_result, expected: _Kinds) -> str | None:
    kind = stat.S_IFMT(status.st_mode)
    if not expected:
        return "not a name that agent-dispatch gives"
    if kind not in expected:
        wanted = " or ".join(_KIND_NAMES[kind] for kind in sorted(expected, reverse=True))
        return f"{_KIND_NAMES.get(kind, 'a device')} in place of {wanted}"
    euid = os.geteuid()
    if euid == 0:
        return None
    if status.st_uid != euid:
        return f"belongs to another user (uid {status.st_uid})"
    if not status.st_mode & stat.S_IRUSR:
        return f"not readable for you (mode {stat.S_IMODE(status.st_mode):04o})"
    return None

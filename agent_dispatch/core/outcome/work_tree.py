"""What changed in a Git work tree between two looks at it, decided from what Git printed.

A look is the output of `git status --porcelain=v2 --branch -z`, and for each path that differs from
the last commit a print of its content: what was in such a state before counts only if its content
is another one afterwards.
"""

import os.path
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from agent_dispatch.core.outcome.report import TreeChanges

MAX_COMMITS = 200
_MAX_FILES = 1000
"""The most that are handed on; how many are shown is decided later."""
_FIELDS_BEFORE_PATH = {"1": 8, "2": 9, "u": 10}
"""Of a line that begins so."""


class Entry(msgspec.Struct, frozen=True):
    """A path that differs from the last commit."""

    is_untracked: bool = False
    deleted_oid: str = ""
    """Of a file that is gone: what it held, as Git names it."""


class Status(msgspec.Struct, frozen=True):
    """What `git status` says."""

    head: str | None
    """The commit; None before the first one."""
    entries: Mapping[str, Entry]
    """By path, from the top of the work tree."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a work tree at one moment."""

    status: Status
    prints: Mapping[str, object]
    """Of each path that was asked for: equal values mean equal content."""


def parse_status(printed: bytes) -> Status:
    """Read the records of `git status --porcelain=v2 --branch -z`; others than known are skipped.

    File names that are not UTF-8 keep their bytes as surrogates (PEP 383).
    """
    head: str | None = None
    entries: dict[str, Entry] = {}
    records = iter(os.fsdecode(printed).split("\0"))
    for record in records:
        kind, _, rest = record.partition(" ")
        if kind == "#":
            name, _, value = rest.partition(" ")
            if name == "branch.oid" and not value.startswith("("):
                head = value
        elif kind == "?":
            entries[rest] = Entry(is_untracked=True)
        elif kind in _FIELDS_BEFORE_PATH:
            *fields, path = record.split(" ", _FIELDS_BEFORE_PATH[kind])
            if len(fields) < _FIELDS_BEFORE_PATH[kind]:
                continue
            if kind == "2":
                next(records, None)  # The old name.
            deleted_oid = fields[7] if kind == "1" and "D" in fields[1] else ""
            entries[path] = Entry(deleted_oid=deleted_oid)
    return Status(head, entries)


def parse_commits(ids: Iterable[str], printed: bytes) -> dict[str, list[str]]:
    """Read `git diff-tree --stdin --always --name-only -z`: the paths of each commit, in order.

    Args:
        ids: Of the commits, as they were given: a file may have a name that looks like an id.
        printed: What Git made of them.
    """
    commits: dict[str, list[str]] = {commit: [] for commit in ids}
    headings = iter(commits)
    expected = next(headings, None)
    paths: list[str] = []
    for record in filter(None, os.fsdecode(printed).split("\0")):
        if record == expected:
            paths, expected = commits[record], next(headings, None)
        else:
            paths.append(record)
    return commits


def changes(
    before: Look, after: Look, commits: Mapping[str, list[str]], *, prefix: str
) -> TreeChanges:
    """Say what changed from one look to the next.

    Args:
        before: With the prints of all its entries.
        after: With the prints of the entries of `before`, and of new untracked files.
        commits: Those that were made in between, oldest first, with the paths of each.
        prefix: The agent's directory, from the top of the work tree.
    """
    was, now = before.status.entries, after.status.entries
    changed = {path for path in now if path not in was}
    changed |= {path for paths in commits.values() for path in paths if path not in was}
    changed |= {path for path in was if before.prints.get(path) != after.prints.get(path)}
    changed -= _renamed(was, now, after.prints)
    files = sorted(_relative(path, prefix) for path in changed)
    return TreeChanges(tuple(files[:_MAX_FILES]), tuple(commits)[-MAX_COMMITS:])


def new_untracked(was: Status, now: Status) -> Iterator[str]:
    """Yield the untracked files that may be the new names of files that are gone."""
    if any(entry.deleted_oid for path, entry in now.entries.items() if path not in was.entries):
        for path, entry in now.entries.items():
            if entry.is_untracked and path not in was.entries:
                yield path


def _renamed(
    was: Mapping[str, Entry], now: Mapping[str, Entry], prints: Mapping[str, object]
) -> set[str]:
    """Return the old names of files whose content is that of a new untracked file.

    Git finds a rename only among what is staged or committed.
    """
    new = {prints.get(path) for path, entry in now.items() if entry.is_untracked}
    return {
        path
        for path, entry in now.items()
        if path not in was and entry.deleted_oid and entry.deleted_oid in new
    }


def _relative(path: str, prefix: str) -> str:
    return os.path.relpath(f"/{path}", f"/{prefix}")


def is_oid(text: str) -> bool:
    """Whether a text is the full id of an object."""
    return len(text) in (40, 64) and not text.strip("0123456789abcdef")

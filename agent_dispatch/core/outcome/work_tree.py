"""What changed in a Git work tree between two looks at it, from the output of Git.

A look is the output of `git status --porcelain=v2 --branch -z`, and a fingerprint of the content of
each path that differs from the last commit. A path that differed before counts as changed only if
its fingerprint has changed.
"""

import os.path
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from agent_dispatch.core.outcome.report import TreeChanges

MAX_COMMITS = 200
_MAX_FILES = 1000
"""Files that are returned; `evidence` shows fewer."""
_FIELDS_BEFORE_PATH = {"1": 8, "2": 9, "u": 10}
"""By the first character of a line."""


class Entry(msgspec.Struct, frozen=True):
    """A path that differs from the last commit."""

    is_untracked: bool = False
    deleted_oid: str = ""
    """The object id of a deleted file's content."""


class Status(msgspec.Struct, frozen=True):
    """The output of `git status`."""

    head: str | None
    """The commit; None before the first one."""
    entries: Mapping[str, Entry]
    """By path, from the top of the work tree."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a work tree at one moment."""

    status: Status
    prints: Mapping[str, object]
    """Fingerprints of the requested paths: equal values mean equal content."""


def parse_status(printed: bytes) -> Status:
    """Read the records of `git status --porcelain=v2 --branch -z`; unknown ones are skipped.

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
        ids: The commits that Git was given; a file name may look like an id.
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
    """Return what changed from one look to the next.

    Args:
        before: Has the prints of all its entries.
        after: Has the prints of the entries of `before`, and of new untracked files.
        commits: The commits in between, oldest first, with the paths of each.
        prefix: The agent's directory, from the top of the work tree.
    """
    was, now = before.status.entries, after.status.entries
    changed = {path for path in now if path not in was}
    changed |= {path for paths in commits.values() for path in paths if path not in was}
    changed |= {path for path in was if before.prints.get(path) != after.prints.get(path)}
    changed -= _renamed(was, now, after.prints)
    files = sorted(os.path.relpath(f"/{path}", f"/{prefix}") for path in changed)
    return TreeChanges(tuple(files[:_MAX_FILES]), tuple(commits)[-MAX_COMMITS:])


def new_untracked(was: Status, now: Status) -> Iterator[str]:
    """Yield the untracked files that may be new names of deleted files."""
    if any(entry.deleted_oid for path, entry in now.entries.items() if path not in was.entries):
        for path, entry in now.entries.items():
            if entry.is_untracked and path not in was.entries:
                yield path


def _renamed(
    was: Mapping[str, Entry], now: Mapping[str, Entry], prints: Mapping[str, object]
) -> set[str]:
    """Return the old names of files whose content is in a new untracked file.

    Git itself detects only renames that are staged or committed.
    """
    new = {prints.get(path) for path, entry in now.items() if entry.is_untracked}
    return {
        path
        for path, entry in now.items()
        if path not in was and entry.deleted_oid and entry.deleted_oid in new
    }


def is_oid(text: str) -> bool:
    """Tell whether a text is the full id of an object."""
    return len(text) in (40, 64) and not text.strip("0123456789abcdef")

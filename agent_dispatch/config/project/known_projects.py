"""The projects that Claude Code knows, offered as agents.

Measured with Claude Code 2.1.332: interactive sessions write `projects` of `.claude.json`, with an
entry for each directory that they were started in. Each key of an entry may be missing. Session
files and the history are not read, because they hold private text.
"""

import math
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

import msgspec

from agent_dispatch.config.project.facts import directory_problem
from agent_dispatch.config.values import is_agent_name, is_one_line

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME_CHARS = 90
"""Leaves room for a number after it."""


class KnownProject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory that could become an agent."""

    name: str
    """The name that its agent would get."""
    directory: str
    trusted: bool
    """Whether Claude Code's trust dialog was accepted there."""
    last_start: float | None = None
    """When the last session began, in seconds since the epoch; None if that is not recorded."""


def known_projects(
    claude_config: Mapping[str, object],
    *,
    taken: Iterable[str],
    registered: Iterable[str],
    home: str,
) -> list[KnownProject]:
    """List the projects that are not agents yet, the last used first, those without a time last.

    Directories that do not exist are left out, and so are the home directory and `/`.

    Args:
        claude_config: Claude Code's own configuration.
        taken: Names of agents.
        registered: Directories of agents.
        home: The user's home directory.
    """
    projects = claude_config.get("projects")
    entries = projects if isinstance(projects, Mapping) else {}
    known = {os.path.realpath(path) for path in (*registered, home, "/") if path}
    names = set(taken)
    found = []
    for path, entry in sorted(entries.items(), key=lambda item: -(_last_start(item[1]) or 0)):
        if not os.path.isabs(path) or not is_one_line(path) or directory_problem(path):
            continue
        directory = os.path.realpath(path)
        if directory in known:
            continue
        known.add(directory)
        name = free_name(os.path.basename(directory), names)
        names.add(name)
        found.append(
            KnownProject(
                name=name,
                directory=directory,
                trusted=isinstance(entry, Mapping) and entry.get("hasTrustDialogAccepted") is True,
                last_start=_last_start(entry),
            )
        )
    return found


def free_name(text: str, taken: Collection[str]) -> str:
    """Make an agent's name from a text; `-2` and so on distinguish it from the taken names."""
    name = text
    if not is_agent_name(text) or len(text) > _MAX_NAME_CHARS:
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        name = _NOT_IN_NAMES.sub("-", plain).strip("-")[:_MAX_NAME_CHARS] or "project"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _last_start(entry: object) -> float | None:
    """Return seconds since the epoch; None if no time is recorded."""
    milliseconds = entry.get("lastStartTime") if isinstance(entry, Mapping) else None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    try:
        return milliseconds / 1000 if math.isfinite(milliseconds) else None
    except OverflowError:
        return None

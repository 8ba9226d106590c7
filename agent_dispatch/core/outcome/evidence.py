"""Evidence of what a run did, from the tool calls in its stream and from its Git work tree."""

import os.path
from collections.abc import Iterable

import msgspec

from agent_dispatch.core.outcome.report import RunReport, TreeChanges
from agent_dispatch.core.text import SURROGATE
from agent_dispatch.model.dispatch import Evidence

MAX_FILES = 200
_MAX_CHARS = 40_000
"""Of all paths together."""


def evidence_of(report: RunReport) -> Evidence | None:
    """Return the evidence of a run; None if no output was read."""
    calls = report.seen.calls
    if calls is None:
        return None
    bases = [base for base in (report.agent.directory, report.seen.cwd) if base]
    changes = report.changes or TreeChanges((), ())
    files = {*changes.files, *(_relative(path, bases) for path in calls.written)}
    return Evidence(
        tool_calls=calls.total,
        tools=dict(calls.tools) or None,
        files_changed=_bounded(sorted(SURROGATE.sub("\ufffd", path) for path in files)) or None,
        commits=list(changes.commits) or None,
        read_only=calls.read_only,
    )


def without_lists(evidence: Evidence) -> Evidence:
    """Return the evidence without the lists that can be long."""
    return msgspec.structs.replace(evidence, files_changed=None, commits=None)


def merge_evidence(parts: Iterable[Evidence | None]) -> Evidence | None:
    """Return the evidence of several turns as one, without files and commits.

    The agents may work in different directories, so their paths cannot be merged.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    tools: dict[str, int] = {}
    for part in known:
        for name, count in (part.tools or {}).items():
            tools[name] = tools.get(name, 0) + count
    return Evidence(
        tool_calls=sum(part.tool_calls for part in known),
        tools=tools or None,
        read_only=all(part.read_only for part in known),
    )


def join_evidence(first: Evidence | None, second: Evidence | None) -> Evidence | None:
    """Return the evidence of two consecutive runs of one agent in one session."""
    both = merge_evidence([first, second])
    if both is None:
        return None
    parts = [part for part in (first, second) if part is not None]
    files = {path for part in parts for path in part.files_changed or ()}
    commits = dict.fromkeys(commit for part in parts for commit in part.commits or ())
    return msgspec.structs.replace(
        both, files_changed=_bounded(sorted(files)) or None, commits=list(commits) or None
    )


def _bounded(paths: list[str]) -> list[str]:
    chars = 0
    for count, path in enumerate(paths[:MAX_FILES]):
        chars += len(path)
        if chars > _MAX_CHARS:
            return paths[:count]
    return paths[:MAX_FILES]


def _relative(path: str, bases: list[str]) -> str:
    """Return a path relative to the agent's directory, which may have two names.

    Claude Code resolves symbolic links in the directory; a task may name the unresolved path.
    """
    if not os.path.isabs(path):
        return os.path.normpath(path)
    names = [os.path.relpath(path, base) for base in bases]
    return min(names, key=lambda name: name.count("../"), default=path)

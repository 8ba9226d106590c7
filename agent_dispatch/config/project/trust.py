"""Whether Claude Code trusts a directory, and what it ignores if not.

Measured with Claude Code 2.1.330: trust is recorded under `projects` of `.claude.json`, for the
root of the Git repository that holds the directory (of its main working tree, for a linked one),
else for the directory itself, symbolic links resolved; the trust of a parent does not count here.
Without it `claude -p` ignores `permissions.allow` of `.claude/settings.json`, and honours that of
`.claude/settings.local.json`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

_MAX_SETTINGS_BYTES = 4 * 1024 * 1024


class Workspace(msgspec.Struct, frozen=True):
    """A directory as Claude Code sees it."""

    root: str
    """The directory whose trust counts."""
    trusted: bool
    allow_rules: int
    """How many rules need that trust."""


def look_at(directory: str, claude_config: Mapping[str, object]) -> Workspace:
    """Say whether `directory` is trusted, and how much depends on it."""
    root = _root(Path(os.path.realpath(directory)))
    projects = claude_config.get("projects")
    project = projects.get(str(root)) if isinstance(projects, Mapping) else None
    trusted = isinstance(project, Mapping) and project.get("hasTrustDialogAccepted") is True
    return Workspace(str(root), trusted, _allow_rules(Path(directory)))


def _root(directory: Path) -> Path:
    for candidate in (directory, *directory.parents):
        mark = candidate / ".git"
        if os.path.isdir(mark):
            return candidate
        if os.path.isfile(mark):
            return _main_working_tree(mark) or candidate
    return directory


def _main_working_tree(mark: Path) -> Path | None:
    """Where a linked working tree belongs: its `.git` says `gitdir: MAIN/.git/worktrees/NAME`."""
    try:
        text = mark.read_text(errors="replace").strip()
    except OSError:
        return None
    linked = (mark.parent / text.removeprefix("gitdir:").strip()).resolve()
    if linked.parent.name == "worktrees" and linked.parents[1].name == ".git":
        return linked.parents[2]
    return None


def _allow_rules(directory: Path) -> int:
    try:
        with (directory / ".claude" / "settings.json").open("rb") as file:
            settings = msgspec.json.decode(file.read(_MAX_SETTINGS_BYTES), type=_ProjectSettings)
    except (OSError, msgspec.DecodeError):
        # Claude Code has its own words for settings that it cannot read; no rule comes of them.
        return 0
    return len(settings.permissions.allow)


class _Permissions(msgspec.Struct, frozen=True):
    allow: list[str] = []


class _ProjectSettings(msgspec.Struct, frozen=True):
    permissions: _Permissions = _Permissions()

"""Reads what Claude Code's own settings files say for a directory, and whether it is trusted.

Measured with Claude Code 2.1.330: the project's files are those of the directory itself, not of a
repository around it; the mode of a local file wins over the project's, and that over the user's;
`bypassPermissions` as a mode is ignored in the project's `settings.json`.

Trust is recorded under `projects` of `.claude.json`, for the root of the Git repository that holds
the directory (of its main working tree, for a linked one), else for the directory itself, symbolic
links resolved; the trust of a parent does not count. Without it, `claude -p` ignores
`permissions.allow` of `.claude/settings.json`, but not of `.claude/settings.local.json`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.paths import home_directory
from agent_dispatch.files import read_regular
from agent_dispatch.model.claude_settings import ClaudeSettings, Hook, SettingsFile

_MAX_BYTES = 4 * 1024 * 1024
_MANAGED = (
    "/Library/Application Support/ClaudeCode" if sys.platform == "darwin" else "/etc/claude-code"
)


class Workspace(msgspec.Struct, frozen=True):
    """A directory as Claude Code sees it."""

    root: str
    """The directory whose trust counts."""
    trusted: bool
    allow_rules: int
    """How many rules need that trust."""


def claude_folder(environ: Mapping[str, str]) -> Path:
    """Return where Claude Code keeps the user's settings."""
    return Path(
        environ.get("CLAUDE_CONFIG_DIR") or os.path.join(home_directory(environ), ".claude")
    )


def claude_config_path(environ: Mapping[str, str]) -> Path:
    """Return the file with Claude Code's user-scope servers and its trust in projects."""
    legacy = claude_folder(environ) / ".config.json"
    if legacy.exists():
        return legacy
    return Path(environ.get("CLAUDE_CONFIG_DIR") or home_directory(environ)) / ".claude.json"


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of Claude Code.

    A file that is missing, unreadable or broken counts as empty; Claude Code ignores it too.
    """
    try:
        content, _ = read_regular(os.fspath(path), _MAX_BYTES)
        return msgspec.json.decode(content, type=dict[str, Any])
    except (OSError, ValueError, RecursionError):
        return {}


def user_settings_files(environ: Mapping[str, str]) -> list[Path]:
    """List the settings that apply to every session: the user's and the machine's."""
    return [claude_folder(environ) / "settings.json", Path(_MANAGED) / "managed-settings.json"]


def read_claude_settings(
    directory: str, environ: Mapping[str, str], managed: str = _MANAGED
) -> ClaudeSettings:
    """Return what a run in `directory` inherits.

    Args:
        directory: The agent's.
        environ: The environment of the runs, which says where the user's home is.
        managed: The directory of the administrator's settings.
    """
    folder = Path(directory) / ".claude"
    project = _settings_file(folder / "settings.json")
    if project.default_mode == "bypassPermissions":
        project = msgspec.structs.replace(project, default_mode=None)
    workspace = workspace_of(directory, read_object(claude_config_path(environ)))
    ignored = 0 if workspace.trusted else workspace.allow_rules
    return ClaudeSettings(
        files=(
            _settings_file(Path(managed) / "managed-settings.json"),
            _settings_file(folder / "settings.local.json"),
            project,
            _settings_file(claude_folder(environ) / "settings.json"),
        ),
        untrusted_root=workspace.root if ignored else None,
        ignored_rules=ignored,
    )


def workspace_of(directory: str, claude_config: Mapping[str, object]) -> Workspace:
    """Return whether Claude Code trusts a directory, and how many rules depend on that."""
    root = str(_root(Path(os.path.realpath(directory))))
    projects = claude_config.get("projects")
    project = projects.get(root) if isinstance(projects, Mapping) else None
    trusted = isinstance(project, Mapping) and project.get("hasTrustDialogAccepted") is True
    settings = _settings_file(Path(directory) / ".claude" / "settings.json")
    return Workspace(root, trusted, len(settings.allow))


def _root(directory: Path) -> Path:
    for candidate in (directory, *directory.parents):
        mark = candidate / ".git"
        if os.path.isdir(mark):
            return candidate
        if os.path.isfile(mark):
            return _main_working_tree(mark) or candidate
    return directory


def _main_working_tree(mark: Path) -> Path | None:
    """Return the main tree of a linked one: `.git` says `gitdir: MAIN/.git/worktrees/NAME`."""
    try:
        text = mark.read_text(errors="replace").strip()
    except OSError:
        return None
    linked = (mark.parent / text.removeprefix("gitdir:").strip()).resolve()
    if linked.parent.name == "worktrees" and linked.parents[1].name == ".git":
        return linked.parents[2]
    return None


def _settings_file(path: Path) -> SettingsFile:
    data = read_object(path)
    permissions = data.get("permissions")
    if not isinstance(permissions, dict):
        permissions = {}
    mode = permissions.get("defaultMode")
    return SettingsFile(
        path=str(path),
        default_mode=mode if isinstance(mode, str) and mode else None,
        allow=_rules(permissions.get("allow")),
        ask=_rules(permissions.get("ask")),
        deny=_rules(permissions.get("deny")),
        hooks=tuple(_hooks(data.get("hooks"))),
    )


def _rules(value: object) -> tuple[str, ...]:
    return tuple(rule for rule in _list(value) if isinstance(rule, str))


def _hooks(value: object) -> Iterator[Hook]:
    groups = value.get("PreToolUse") if isinstance(value, dict) else None
    for group in _list(groups):
        if not isinstance(group, dict):
            continue
        matcher = group.get("matcher")
        for hook in _list(group.get("hooks")):
            if not isinstance(hook, dict):
                continue
            action = hook.get("command") or hook.get("url") or hook.get("prompt")
            yield Hook(
                matcher if isinstance(matcher, str) else "",
                action if isinstance(action, str) else "",
            )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

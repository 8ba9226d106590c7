"""Reads Claude Code's own settings files for a directory: blocks, so not for the event loop.

Measured with Claude Code 2.1.330: the project's files are those of the directory itself, not of a
repository around it; the mode of a local file wins over the project's, and that over the user's;
`bypassPermissions` as a mode is ignored in the project's `settings.json`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.project.trust import look_at
from agent_dispatch.files import read_regular
from agent_dispatch.model.claude_settings import ClaudeSettings, Hook, SettingsFile

_MAX_BYTES = 4 * 1024 * 1024
_MANAGED = (
    "/Library/Application Support/ClaudeCode" if sys.platform == "darwin" else "/etc/claude-code"
)


def claude_folder(environ: Mapping[str, str]) -> Path:
    """Where Claude Code keeps the user's settings."""
    return Path(environ.get("CLAUDE_CONFIG_DIR") or _home(environ) / ".claude")


def claude_config_path(environ: Mapping[str, str]) -> Path:
    """Where Claude Code keeps its user-scope servers and the trust of projects."""
    own_directory = environ.get("CLAUDE_CONFIG_DIR")
    legacy = Path(own_directory or _home(environ) / ".claude") / ".config.json"
    if legacy.exists():
        return legacy
    return Path(own_directory or _home(environ)) / ".claude.json"


def read_claude_settings(
    directory: str, environ: Mapping[str, str], managed: str = _MANAGED
) -> ClaudeSettings:
    """Return what a run in `directory` inherits.

    A file that is missing, unreadable or broken says nothing here; Claude Code ignores it too.

    Args:
        directory: The agent's.
        environ: Of the runs: names the user's home.
        managed: The directory of the administrator's settings.
    """
    user = claude_folder(environ)
    project = Path(directory) / ".claude"
    paths = (
        Path(managed) / "managed-settings.json",
        project / "settings.local.json",
        project / "settings.json",
        user / "settings.json",
    )
    files = []
    for path in paths:
        file = _settings_file(path, _object(path))
        if path == paths[2] and file.default_mode == "bypassPermissions":
            file = msgspec.structs.replace(file, default_mode=None)
        files.append(file)
    workspace = look_at(directory, _object(claude_config_path(environ)))
    ignored = 0 if workspace.trusted else workspace.allow_rules
    return ClaudeSettings(
        files=tuple(files),
        untrusted_root=workspace.root if ignored else None,
        ignored_rules=ignored,
    )


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _object(path: Path) -> dict[str, Any]:
    try:
        content, _ = read_regular(os.fspath(path), _MAX_BYTES)
        return msgspec.json.decode(content, type=dict[str, Any])
    except (OSError, ValueError, RecursionError):
        return {}


def _settings_file(path: Path, data: Mapping[str, Any]) -> SettingsFile:
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

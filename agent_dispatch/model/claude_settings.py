"""The parts of Claude Code's own settings files that decide what an agent may do."""

import msgspec


class Hook(msgspec.Struct, frozen=True):
    """A PreToolUse hook."""

    matcher: str
    """A regular expression over names of tools; empty or `*` for all."""
    action: str
    """The command, address or prompt."""


class SettingsFile(msgspec.Struct, frozen=True, kw_only=True):
    """One settings file."""

    path: str
    default_mode: str | None = None
    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    hooks: tuple[Hook, ...] = ()


class ClaudeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a run in one directory inherits."""

    files: tuple[SettingsFile, ...] = ()
    """In order of precedence: managed, local, project, user."""
    untrusted_root: str | None = None
    """The directory whose `permissions.allow` is ignored until a person trusts it; None if nothing
    is ignored."""
    ignored_rules: int = 0
    """The number of ignored rules."""

    def default_mode(self) -> tuple[str, str] | None:
        """Return the default permission mode, and the file that sets it."""
        for file in self.files:
            if file.default_mode is not None:
                return file.default_mode, file.path
        return None

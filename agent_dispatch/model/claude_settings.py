"""What Claude Code's own settings files say, as far as they decide what an agent may do."""

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
    """The one that wins first: managed, local, project, user."""
    untrusted_root: str | None = None
    """The directory that a person has to trust before `permissions.allow` of the project counts;
    None if nothing is ignored."""
    ignored_rules: int = 0
    """How many rules are ignored until then."""

    def default_mode(self) -> tuple[str, str] | None:
        """Return the permission mode of a run that is given none, and the file that sets it."""
        for file in self.files:
            if file.default_mode is not None:
                return file.default_mode, file.path
        return None

"""What callers see of a group of agents."""

import msgspec


class MemberDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member of a group."""

    agent: str
    use_for: str = ""
    missing: bool = False
    """No agent of that name is configured."""


class GroupDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One group, as `group list` and `group inspect` show it."""

    name: str
    description: str = ""
    shared_context: str = ""
    members: list[MemberDetails]
    missing: list[str] = []
    """Members that are not configured."""
    problem: str | None = None
    """Why the group cannot be used."""


class GroupChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The change that a command made to a group."""

    group: str
    action: str
    """`added`, `updated`, `unchanged` or `removed`."""
    changed: list[str] | None = None
    """The keys that were set or cleared."""
    members: list[str]
    missing: list[str] = []
    """Members that are not configured."""
    config: str
    """The path of `agents.toml`."""

"""What callers are shown of an agent: its project's files and its configuration."""

from typing import TypedDict

import msgspec

from agent_dispatch.model.rights import RightsChange


class ProjectFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a project directory says of itself, read without starting anything."""

    healthy: bool
    """The directory exists and can be entered."""
    problem: str | None = None
    """Why it is not healthy."""
    has_claude_md: bool = False
    """There are instructions that Claude Code may read: a CLAUDE.md, or an AGENTS.md."""
    has_mcp_config: bool = False
    mcp_servers: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    dbs: tuple[str, ...] = ()


class AgentSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `list_agents`; nulls are left out, an empty list of tools is shown."""

    name: str
    directory: str
    description: str
    healthy: bool
    problem: str | None = None
    has_claude_md: bool
    has_mcp_config: bool
    mcp_servers: list[str] | None = None
    stacks: list[str] | None = None
    dbs: list[str] | None = None
    permission_mode: str | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    host: str | None = None
    """Where it is, if not on this machine; `healthy` is as it was seen last then."""
    groups: list[str] | None = None
    """Groups that it is a member of."""
    capabilities: list[str] | None = None


class Membership(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller should know of an agent's place in a group."""

    group: str
    description: str = ""
    """How to work with the group."""
    use_for: str = ""
    """When to give this agent a task of the group."""


class AgentDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`inspect_agent`: the summary, what takes effect for a run, and previews of its documents."""

    name: str
    directory: str
    description: str
    healthy: bool
    problem: str | None = None
    has_claude_md: bool
    has_mcp_config: bool
    mcp_servers: list[str] | None = None
    stacks: list[str] | None = None
    dbs: list[str] | None = None
    timeout: float
    """Seconds, as it takes effect."""
    model: str | None = None
    effort: str | None = None
    max_budget_usd: float | None = None
    permission_mode: str | None = None
    inherited_permission_mode: str | None = None
    """What Claude Code's own settings say, where the agent has no mode."""
    inherited_permission_mode_from: str | None = None
    """The file that says it."""
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    groups: list[str] | None = None
    memberships: list[Membership] | None = None
    """What its groups say, where they say anything."""
    capabilities: list[str] | None = None
    fallback_model: str | None = None
    tools: list[str] | None = None
    env_allow: list[str] | None = None
    env_deny: list[str] | None = None
    instructions: str | None = None
    exclusive: bool | None = None
    """True, or left out."""
    verify: list[str] | None = None
    verify_always: bool | None = None
    """True, or left out."""
    verify_attempts: int | None = None
    nested: bool | None = None
    """False, or left out."""
    warnings: list[str] | None = None
    instruction_files: list[str] | None = None
    """Those that Claude Code sends; AGENTS.md only where no CLAUDE.md has content."""
    host: str | None = None
    """Where it is, if not on this machine."""
    permission_prompts: str | None = None
    """`ask`, if a person is asked for the permissions that it lacks."""
    rights_changes: list[RightsChange] | None = None
    """How its rights were changed, oldest first."""
    claude_md_preview: str | None = None
    """Of the first of them."""
    readme_preview: str | None = None


class AgentChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of `add_agent`, `update_agent` and `remove_agent`."""

    agent: str
    action: str
    """`added`, `updated`, `unchanged` or `removed`."""
    directory: str | None = None
    host: str | None = None
    description: str | None = None
    changed: list[str] | None = None
    """The keys that the call set or cleared."""
    warnings: list[str] | None = None
    config: str
    """The file that holds it."""


class AgentFields(TypedDict, total=False):
    """What a call may set at an agent; empty and 0 leave a field as it is, or inherited.

    In an update `none` clears a field, and so does a negative number. Tools are separated by
    commas outside parentheses, or a JSON array; `[]` is the empty list, which grants nothing.
    """

    description: str
    timeout: float
    max_budget_usd: float
    model: str
    permission_mode: str
    allowed_tools: str
    disallowed_tools: str
    effort: str
    permission_prompts: str
    verify: str

"""What callers see of an agent: facts of its project and its configuration."""

from typing import TypedDict

import msgspec

from agent_dispatch.model.rights import RightsChange


class ProjectFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a project directory, read from its files."""

    healthy: bool
    """The directory exists and can be entered."""
    problem: str | None = None
    """Why it is not healthy."""
    has_claude_md: bool = False
    """It has instructions that Claude Code may read: a CLAUDE.md or an AGENTS.md."""
    has_mcp_config: bool = False
    mcp_servers: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    dbs: tuple[str, ...] = ()


class _AgentBasics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class AgentSummary(_AgentBasics, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `list_agents`; nulls are left out, an empty list of tools is shown."""

    permission_mode: str | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    host: str | None = None
    """The host, if it is on another machine; `healthy` is then as last seen."""
    groups: list[str] | None = None
    """The groups that it is a member of."""
    capabilities: list[str] | None = None


class Membership(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The role of an agent in a group."""

    group: str
    description: str = ""
    """How to work with the group."""
    use_for: str = ""
    """When to give this agent a task of the group."""


class AgentDetails(_AgentBasics, frozen=True, kw_only=True, omit_defaults=True):
    """The answer of `inspect_agent`: effective settings, and previews of the documents."""

    timeout: float
    """In seconds, inherited if the agent has none."""
    model: str | None = None
    effort: str | None = None
    max_budget_usd: float | None = None
    permission_mode: str | None = None
    inherited_permission_mode: str | None = None
    """From Claude Code's own settings, if the agent has no mode."""
    inherited_permission_mode_from: str | None = None
    """The file with that setting."""
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    groups: list[str] | None = None
    memberships: list[Membership] | None = None
    """Those with a description or a use."""
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
    """The files that Claude Code reads; AGENTS.md only if no CLAUDE.md has content."""
    host: str | None = None
    """The host, if it is on another machine."""
    permission_prompts: str | None = None
    """`ask`, if a person is asked for missing permissions."""
    rights_changes: list[RightsChange] | None = None
    """Changes of its rights, oldest first."""
    claude_md_preview: str | None = None
    """Of the first of `instruction_files`."""
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
    """The keys that were set or cleared."""
    warnings: list[str] | None = None
    config: str
    """The path of `agents.toml`."""


class AgentFields(TypedDict, total=False):
    """The fields of an agent that a call may set; empty and 0 leave a field unchanged.

    In an update, `none` or a negative number clears a field. Tools are a list separated by commas
    outside parentheses, or a JSON array; `[]` is the empty list, which grants nothing.
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

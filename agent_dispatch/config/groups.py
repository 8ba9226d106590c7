"""The groups of `agents.toml`: list, inspect, add, update, remove.

A member need not be configured: it is reported as missing, and the others work.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent_dispatch.config.agent_fields import bad_field
from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.keys import GROUP_KEYS
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.schema import BadTableError, parse_group
from agent_dispatch.config.values import NAME_RULE, BadValueError, is_agent_name
from agent_dispatch.errors import InvalidRequestError, UnknownGroupError, quoted
from agent_dispatch.model.config import Config, GroupConfig, GroupMember
from agent_dispatch.model.group import GroupChange, GroupDetails, MemberDetails
from agent_dispatch.model.next_step import run

_CLEAR = "none"


def list_groups(registry: Registry) -> list[GroupDetails]:
    """List all groups in the order of the file, the unusable ones with their problem.

    Raises:
        ConfigError: The file cannot be read or parsed.
    """
    content = registry.file.read()
    return [_details(content.config, name) for name in content.data.get("groups", {})]


def inspect_group(registry: Registry, name: str) -> GroupDetails:
    """Show one group.

    Raises:
        UnknownGroupError: No group has that name.
        ConfigError: The file cannot be read or parsed.
    """
    config = registry.load()
    if name not in config.groups and name not in config.broken_groups:
        raise UnknownGroupError(name, (*config.groups, *config.broken_groups))
    return _details(config, name)


def add_group(
    registry: Registry,
    name: str,
    *,
    description: str = "",
    shared_context: str = "",
    members: Sequence[GroupMember] = (),
) -> GroupChange:
    """Create a group; a member that is not configured is accepted and reported.

    Raises:
        InvalidRequestError: An argument is not allowed, or the name is taken.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """
    if not is_agent_name(name):
        raise InvalidRequestError(f"Invalid name: {quoted(name, 100)}. A name has {NAME_RULE}.")
    values = _checked({"description": description, "shared_context": shared_context})
    values["members"] = _with_members([], members, ())

    def add(draft: Draft) -> GroupChange:
        if name in draft.data.get("groups", {}):
            raise InvalidRequestError(
                f"Group {name!r} exists already. Change it, or remove it and add it again.",
                run("agent-dispatch group update --help"),
                run(f"agent-dispatch group remove {shlex.quote(name)}"),
            )
        draft.add_table(("groups", name), {k: values[k] for k in GROUP_KEYS if values[k]})
        return _change(registry, draft, name, "added")

    return registry.file.edit(add)


def update_group(
    registry: Registry,
    name: str,
    *,
    description: str = "",
    shared_context: str = "",
    members: Sequence[GroupMember] = (),
    leaving: Sequence[str] = (),
) -> GroupChange:
    """Change what is not empty; the text `none` clears a field.

    Args:
        registry: Where the group is.
        name: The group.
        description: How to work with the group.
        shared_context: Context that every member gets with a task.
        members: Members to add, or to give another `use_for`.
        leaving: Members to remove.

    Raises:
        UnknownGroupError: No group has that name.
        InvalidRequestError: An argument is not allowed, or the group's table is broken.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """
    texts = {"description": description, "shared_context": shared_context}
    given = _checked({key: text for key, text in texts.items() if text})

    def update(draft: Draft) -> GroupChange:
        table = _table(draft, name)
        group = _parsed(name, table)
        unknown = [agent for agent in leaving if agent not in _names(group)]
        if unknown:
            raise InvalidRequestError(
                f"Agent {unknown[0]!r} is not a member of group {name!r}. Members:"
                f" {', '.join(_names(group)) or 'none yet'}"
            )
        requested: dict[str, Any] = {
            key: None if text == _CLEAR else text for key, text in given.items()
        }
        if members or leaving:
            present = table.get("members", [])
            requested["members"] = _with_members(present, members, leaving)
        changes = {key: value for key, value in requested.items() if table.get(key) != value}
        if changes:
            draft.set_keys(("groups", name), changes)
        action = "updated" if changes else "unchanged"
        return _change(registry, draft, name, action, changed=list(changes))

    return registry.file.edit(update)


def remove_group(registry: Registry, name: str) -> GroupChange:
    """Remove a group, usable or not; its agents stay.

    Raises:
        UnknownGroupError: No group has that name.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """

    def remove(draft: Draft) -> GroupChange:
        _table(draft, name)
        change = _change(registry, draft, name, "removed")
        draft.remove_table(("groups", name))
        return change

    return registry.file.edit(remove)


def missing_members(config: Config, group: GroupConfig) -> list[str]:
    """List the members that are not configured, each once."""
    return [
        name
        for name in dict.fromkeys(_names(group))
        if name not in config.agents and name not in config.broken
    ]


def _names(group: GroupConfig) -> list[str]:
    return [member.agent for member in group.members]


def _details(config: Config, name: str) -> GroupDetails:
    if name in config.broken_groups:
        return GroupDetails(name=name, members=[], problem=config.broken_groups[name])
    group = config.groups[name]
    missing = missing_members(config, group)
    return GroupDetails(
        name=name,
        description=group.description,
        shared_context=group.shared_context,
        members=[
            MemberDetails(agent=m.agent, use_for=m.use_for, missing=m.agent in missing)
            for m in group.members
        ],
        missing=missing,
    )


def _change(
    registry: Registry, draft: Draft, name: str, action: str, changed: list[str] | None = None
) -> GroupChange:
    agents = draft.data.get("agents", {})
    try:
        members = _names(parse_group(name, draft.data["groups"][name]))
    except BadTableError:
        members = []
    return GroupChange(
        group=name,
        action=action,
        changed=changed or None,
        members=members,
        missing=[agent for agent in dict.fromkeys(members) if agent not in agents],
        config=str(registry.path),
    )


def _checked(texts: Mapping[str, str]) -> dict[str, Any]:
    for key, text in texts.items():
        try:
            GROUP_KEYS[key].read(text)
        except BadValueError as error:
            raise bad_field(key, error) from error
    return dict(texts)


def _with_members(
    present: Sequence[Mapping[str, Any]], members: Sequence[GroupMember], leaving: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the tables of the members after a change; unknown keys stay."""
    tables = {table["agent"]: dict(table) for table in present if table["agent"] not in leaving}
    for member in members:
        table = tables.setdefault(member.agent, {})
        table |= msgspec.to_builtins(member)
        if not member.use_for:
            table.pop("use_for", None)
    written = list(tables.values())
    try:
        GROUP_KEYS["members"].read(written)
    except BadValueError as error:
        raise bad_field("members", error) from error
    return written


def _table(draft: Draft, name: str) -> Any:
    groups = draft.data.get("groups", {})
    if name not in groups:
        raise UnknownGroupError(name, groups)
    return groups[name]


def _parsed(name: str, table: object) -> GroupConfig:
    try:
        return parse_group(name, table)
    except BadTableError as error:
        raise InvalidRequestError(
            f"Group {name!r} is not usable: {error}. Correct its table, or remove the group."
        ) from error

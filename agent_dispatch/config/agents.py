"""Adds, updates and removes agents of `agents.toml`."""

from collections.abc import Mapping
from typing import Any, Unpack

from agent_dispatch.config.agent_fields import (
    check_directory,
    check_fields,
    check_name,
    require_free,
    require_not_negative,
)
from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.keys import AGENT_KEYS
from agent_dispatch.config.project.claude_files import file_problems
from agent_dispatch.config.project.documents import description_of
from agent_dispatch.config.registry import Registry, groups_of, readable_text
from agent_dispatch.config.rights import WITHOUT_RIGHTS, require_person, widening
from agent_dispatch.config.schema import BadTableError, parse_agent, parse_config
from agent_dispatch.config.snapshot import absolute, require_known, resolve, settings_problem
from agent_dispatch.config.values import BadValueError
from agent_dispatch.core.agents.rights import command_for
from agent_dispatch.errors import UnknownAgentError, UnusableAgentError
from agent_dispatch.model.agent import AgentChange, AgentFields
from agent_dispatch.model.config import AgentConfig, Config
from agent_dispatch.model.rights import ChangedBy


def add_agent(
    registry: Registry,
    name: str,
    directory: str,
    *,
    by: ChangedBy = ChangedBy.CLI,
    **fields: Unpack[AgentFields],
) -> AgentChange:
    """Register an existing directory as an agent; empty fields are inherited.

    Args:
        registry: Where the agent goes.
        name: Letters, digits, hyphens, underscores.
        directory: `~` is expanded; a relative path starts at the working directory.
        by: Who asks.
        fields: Without a description, one is made from the project's documents.

    Raises:
        InvalidRequestError: An argument is not allowed, or the name is taken.
        WideningError: It would have more rights than it inherits, which needs a person.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """
    check_name(name)
    path = check_directory(directory)
    require_not_negative(fields)
    given = _without_none(check_fields(fields))
    before = registry.file.read()
    require_free(before.data, name)
    description = given.get("description") or description_of(path)
    table = {**given, "directory": path, "description": description}
    table = {key: table[key] for key in AGENT_KEYS if key in table}

    def add(draft: Draft) -> None:
        require_free(draft.data, name)
        settings = parse_config(draft.data).settings
        require_person(
            name,
            widening(None, parse_agent(name, table), settings),
            by=by,
            settings=settings,
            is_nested=registry.is_nested,
            command=command_for(["add", name, path], given),
        )
        draft.add_table(("agents", name), table)

    registry.file.edit(add)
    warnings = [
        *_warnings(registry, table, before.config),
        *map(str, file_problems(path)),
        *registry.rights_log.add(name, {}, table, by),
    ]
    return AgentChange(
        agent=name,
        action="added",
        directory=path,
        description=description,
        warnings=warnings or None,
        config=str(registry.path),
    )


def update_agent(
    registry: Registry,
    name: str,
    *,
    by: ChangedBy = ChangedBy.CLI,
    allow: str = "",
    **fields: Unpack[AgentFields],
) -> AgentChange:
    """Change the given fields; the text `none` or a negative number removes one.

    A removed field is inherited again. `[]` for a list of tools is the empty list. A broken
    agent can be updated if that makes it usable.

    Args:
        registry: Where the agent is.
        name: The agent.
        by: Who asks.
        allow: Rules to add to those that are allowed, separated as in `allowed_tools`.
        fields: What to change.

    Raises:
        WideningError: It would give the agent more rights, which needs a person.
        UnknownAgentError: No agent has that name.
        UnusableAgentError: It would still be unusable.
        InvalidRequestError: An argument is not allowed.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """
    requested = check_fields(fields)
    added_rules = check_fields({"allowed_tools": allow}).get("allowed_tools") or []
    before = registry.load()
    require_known(before, name)

    def update(draft: Draft) -> tuple[dict[str, Any], dict[str, Any], AgentConfig]:
        table = _table_of(draft, name)
        settings = parse_config(draft.data).settings
        old = _parsed_or_without_rights(name, table)
        allowed = resolve(name, old, settings, registry.path.parent).allowed_tools or ()
        if not set(added_rules) <= set(allowed):
            listed = requested.get("allowed_tools", allowed) or []
            requested["allowed_tools"] = list(dict.fromkeys([*listed, *added_rules]))
        changes = {key: value for key, value in requested.items() if _differs(table, key, value)}
        try:
            agent = parse_agent(name, _without_none({**table, **changes}))
        except BadTableError as error:
            raise UnusableAgentError(name, str(error)) from error
        wider = widening(old, agent, settings)
        if "verify" not in changes:
            # A broken agent counts as one without this command, so it would seem to be new.
            wider.pop("verify", None)
        require_person(
            name,
            wider,
            by=by,
            settings=settings,
            is_nested=registry.is_nested,
            command=command_for(["update", name], changes),
        )
        if changes:
            draft.set_keys(("agents", name), changes)
        return dict(table), changes, agent

    old_table, changes, agent = registry.file.edit(update)
    warnings = [
        *_warnings(registry, requested, before),
        *registry.rights_log.add(name, old_table, old_table | changes, by),
    ]
    return AgentChange(
        agent=name,
        action="updated" if changes else "unchanged",
        directory=absolute(agent.directory, registry.path.parent) or None,
        host=agent.host,
        description=agent.description,
        changed=list(changes) or None,
        warnings=warnings or None,
        config=str(registry.path),
    )


def remove_agent(registry: Registry, name: str) -> AgentChange:
    """Remove an agent, usable or not; its project is not touched.

    Raises:
        UnknownAgentError: No agent has that name.
        ConfigError: The file cannot be read, parsed or written; it is unchanged.
    """
    require_known(registry.load(), name)

    def remove(draft: Draft) -> tuple[object, list[str]]:
        tables = draft.data.get("agents", {})
        if name not in tables:
            raise UnknownAgentError(name, tables)
        table = tables[name]
        draft.remove_table(("agents", name))
        return table, groups_of(parse_config(draft.data), name)

    table, groups = registry.file.edit(remove)
    return AgentChange(
        agent=name,
        action="removed",
        directory=absolute(readable_text(table, "directory"), registry.path.parent) or None,
        description=readable_text(table, "description") or None,
        warnings=[f"Group {group!r} still has it as a member." for group in groups] or None,
        config=str(registry.path),
    )


def _warnings(registry: Registry, values: Mapping[str, Any], before: Config) -> list[str]:
    found = [warning for key in values for warning in AGENT_KEYS[key].warnings(values[key])]
    if problem := settings_problem(before):
        found.append(f"No run starts before this is corrected in {registry.path}: {problem}.")
    return found


def _table_of(draft: Draft, name: str) -> dict[str, Any]:
    tables = draft.data.get("agents", {})
    if name not in tables:
        raise UnknownAgentError(name, available=tables)
    table = tables[name]
    if not isinstance(table, dict):
        raise UnusableAgentError(name, "expected a table with a directory")
    return table


def _parsed_or_without_rights(name: str, table: Mapping[str, Any]) -> AgentConfig:
    try:
        return parse_agent(name, table)
    except BadTableError:
        # It cannot run, so it may do nothing.
        return WITHOUT_RIGHTS


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _differs(table: Mapping[str, Any], key: str, value: object) -> bool:
    if key not in table:
        return value is not None
    try:
        return value is None or AGENT_KEYS[key].read(table[key]) != value
    except BadValueError:
        return True

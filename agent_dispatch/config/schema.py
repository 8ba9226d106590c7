"""Checks the data of `agents.toml` against the table of keys.

A bad key of an agent makes only that agent unusable. A bad setting keeps its default, so that
listing and editing still work, but it is named in `Config.broken_settings` and no run starts: a
limit that was not understood may cost money. An unknown key is only reported, with the known key
that it resembles. A bad group fails only the calls that name it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from agent_dispatch.config.keys import (
    AGENT_KEYS,
    CACHE_KEYS,
    GROUP_KEYS,
    HOST_KEYS,
    MEMBER_KEYS,
    REMOTE_KEYS,
    SETTING_KEYS,
    Key,
)
from agent_dispatch.config.values import (
    HOST_NAME_RULE,
    NAME_RULE,
    BadValueError,
    is_agent_name,
    is_host_name,
    shown,
)
from agent_dispatch.model.config import (
    AgentConfig,
    CacheSettings,
    Config,
    GroupConfig,
    HostConfig,
    Settings,
    UnknownKey,
    ValueWarning,
)
from agent_dispatch.model.names import nearest

T = TypeVar("T")


class BadTableError(ValueError):
    """A table cannot be used; `str(error)` names the key and what it takes."""


def parse_config(data: Mapping[str, object]) -> Config:
    """Check the data of `agents.toml`.

    Raises:
        BadTableError: `agents`, `groups` or `hosts` is not a table.
    """
    agent_tables = _tables_of(data, "agents")
    group_tables = _tables_of(data, "groups")
    host_tables = _tables_of(data, "hosts")
    section = data.get("settings", {})

    hosts, broken_hosts = _parse_each(host_tables, parse_host)
    agents, broken = _parse_each(
        agent_tables, lambda name, table: _with_host(parse_agent(name, table), hosts, broken_hosts)
    )
    groups, broken_groups = _parse_each(group_tables, parse_group)
    settings, broken_settings = _parse_settings(section)

    unknown = _unknown_keys("top level", data, ("agents", "groups", "hosts", "settings"))
    for name, table in host_tables.items():
        unknown += _unknown_keys(f"hosts.{name}", table, HOST_KEYS)
    for name, table in agent_tables.items():
        unknown += _unknown_keys(f"agents.{name}", table, {**AGENT_KEYS, **REMOTE_KEYS})
    for name, table in group_tables.items():
        unknown += _unknown_group_keys(f"groups.{name}", table)
    unknown += _unknown_keys("settings", section, (*SETTING_KEYS, "cache"))
    if isinstance(section, dict):
        unknown += _unknown_keys("settings.cache", section.get("cache"), CACHE_KEYS)

    warnings: list[ValueWarning] = []
    for name, agent in agents.items():
        warnings += _agent_warnings(f"agents.{name}", agent, agent_tables[name])
    warnings += warn("settings", SETTING_KEYS, msgspec.structs.asdict(settings))
    return Config(
        agents=agents,
        broken=broken,
        groups=groups,
        broken_groups=broken_groups,
        hosts=hosts,
        broken_hosts=broken_hosts,
        settings=settings,
        broken_settings=broken_settings,
        unknown_keys=tuple(unknown),
        warnings=tuple(warnings),
    )


def _parse_each(
    tables: Mapping[str, object], parse: Callable[[str, object], T]
) -> tuple[dict[str, T], dict[str, str]]:
    """Parse the tables of one kind; return those that can be used, and the others' problems."""
    parsed: dict[str, T] = {}
    broken: dict[str, str] = {}
    for name, table in tables.items():
        try:
            parsed[name] = parse(name, table)
        except BadTableError as error:
            broken[name] = str(error)
    return parsed, broken


def _tables_of(data: Mapping[str, object], kind: str) -> dict[str, object]:
    tables = data.get(kind, {})
    if not isinstance(tables, dict):
        raise BadTableError(f"{kind}: expected a table of {kind}, got {shown(tables)}")
    return tables


def parse_agent(name: str, table: object) -> AgentConfig:
    """Check the table of one agent.

    Raises:
        BadTableError: A key is missing or its value cannot be used; all such keys are named.
    """
    if not is_agent_name(name):
        raise BadTableError(f"its name is not made of {NAME_RULE}")
    if not isinstance(table, dict):
        raise BadTableError(f"expected a table with a directory, got {shown(table)}")
    is_remote = "host" in table
    values, problems = _read_keys(table, REMOTE_KEYS if is_remote else AGENT_KEYS)
    if is_remote:
        values["directory"] = ""
    elif "directory" not in table:
        problems["directory"] = "missing, expected the path of the project, as text"
    _raise_if_any(problems)
    return msgspec.convert(values, AgentConfig)


def _with_host(
    agent: AgentConfig, hosts: Mapping[str, HostConfig], broken: Mapping[str, str]
) -> AgentConfig:
    """Refuse an agent on an unknown host: it must never be looked for on this machine."""
    if agent.host is None or agent.host in hosts:
        return agent
    if agent.host in broken:
        raise BadTableError(f"host: [hosts.{agent.host}] cannot be used: {broken[agent.host]}")
    known = ", ".join(hosts) or "none"
    raise BadTableError(f"host: there is no [hosts.{agent.host}] in this file (hosts: {known})")


def _agent_warnings(where: str, agent: AgentConfig, table: Any) -> list[ValueWarning]:
    warnings = warn(where, AGENT_KEYS, msgspec.structs.asdict(agent))
    if agent.host is not None:
        warnings += [
            ValueWarning(where, key, "is ignored beside `host`; it stands in the host's own file")
            for key in AGENT_KEYS
            if key in table and key not in REMOTE_KEYS
        ]
    elif agent.verify_always and not agent.verify:
        problem = "is set without a verify command, so every call is refused"
        warnings.append(ValueWarning(where, "verify_always", problem))
    return warnings


def parse_host(name: str, table: object) -> HostConfig:
    """Check the table of one host.

    Raises:
        BadTableError: A value cannot be used, or not exactly one of `ssh` and `exec` is given.
    """
    if not is_host_name(name):
        raise BadTableError(f"its name is not made of {HOST_NAME_RULE}")
    if not isinstance(table, dict):
        raise BadTableError(f"expected a table with ssh or exec, got {shown(table)}")
    values, problems = _read_keys(table, HOST_KEYS)
    if ("ssh" in table) == ("exec" in table):
        problems["ssh, exec"] = "exactly one of the two has to be given"
    _raise_if_any(problems)
    return msgspec.convert(values, HostConfig)


def _raise_if_any(problems: Mapping[str, str]) -> None:
    if problems:
        raise BadTableError("; ".join(f"{key}: {problem}" for key, problem in problems.items()))


def parse_group(name: str, table: object) -> GroupConfig:
    """Check the table of one group; its members need not be configured.

    Raises:
        BadTableError: A value cannot be used; all such keys are named.
    """
    if not is_agent_name(name):
        raise BadTableError(f"its name is not made of {NAME_RULE}")
    if not isinstance(table, dict):
        raise BadTableError(f"expected a table with members, got {shown(table)}")
    values, problems = _read_keys(table, GROUP_KEYS)
    _raise_if_any(problems)
    return msgspec.convert(values, GroupConfig)


def warn(where: str, keys: Mapping[str, Key], values: Mapping[str, Any]) -> list[ValueWarning]:
    """List the values of a table that are passed on but are probably mistakes."""
    return [
        ValueWarning(where, name, problem)
        for name, key in keys.items()
        for problem in key.warnings(values.get(name))
    ]


def _parse_settings(section: object) -> tuple[Settings, dict[str, str]]:
    if not isinstance(section, dict):
        return Settings(), {"settings": f"expected a table, got {shown(section)}"}
    values, problems = _read_keys(section, SETTING_KEYS)
    broken = {f"settings.{key}": problem for key, problem in problems.items()}
    cache = section.get("cache", {})
    if isinstance(cache, dict):
        cache_values, cache_problems = _read_keys(cache, CACHE_KEYS)
        broken |= {f"settings.cache.{key}": problem for key, problem in cache_problems.items()}
        values["cache"] = msgspec.convert(cache_values, CacheSettings)
    else:
        broken["settings.cache"] = f"expected a table, got {shown(cache)}"
    return msgspec.convert(values, Settings), broken


def _read_keys(
    table: Mapping[str, object], keys: Mapping[str, Key]
) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, key in keys.items():
        if name in table:
            try:
                values[name] = key.read(table[name])
            except BadValueError as error:
                problems[name] = str(error)
    return values, problems


def _unknown_group_keys(where: str, table: object) -> list[UnknownKey]:
    unknown = _unknown_keys(where, table, GROUP_KEYS)
    members = table.get("members") if isinstance(table, Mapping) else None
    for member in members if isinstance(members, list) else ():
        unknown += _unknown_keys(f"{where}.members", member, MEMBER_KEYS)
    return unknown


def _unknown_keys(where: str, table: object, known: Iterable[str]) -> list[UnknownKey]:
    names = tuple(known)
    keys = table if isinstance(table, Mapping) else ()
    return [UnknownKey(where, key, nearest(key, names)) for key in keys if key not in names]

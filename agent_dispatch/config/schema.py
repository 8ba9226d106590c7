"""The data of `agents.toml` checked key by key: what cannot be used is named, never guessed.

A bad key of an agent makes that agent unusable and no other. A bad setting keeps its default, so
that listing and editing go on, and is named in `Config.broken_settings`, which keeps every run
from starting: a limit that was meant and not understood may cost money. Keys that nothing reads
are no mistake here; they are reported with the known key they resemble.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agent_dispatch.config.values import (
    AGENT_READERS,
    CACHE_READERS,
    NAME_RULE,
    SETTING_READERS,
    BadValueError,
    Reader,
    is_agent_name,
    nearest,
    permission_mode_problem,
    shown,
    tool_problem,
)
from agent_dispatch.model.config import AgentConfig, CacheSettings, Config, Settings, UnknownKey


class BadTableError(ValueError):
    """A table cannot be used; `str(error)` names the key and what it takes."""


def parse_config(data: Mapping[str, object]) -> Config:
    """Check what `agents.toml` says.

    Raises:
        BadTableError: `agents` is no table, so that nothing can be said about any agent.
    """
    tables = data.get("agents", {})
    if not isinstance(tables, dict):
        raise BadTableError(f"agents: expected a table of agents, got {shown(tables)}")
    agents: dict[str, AgentConfig] = {}
    broken: dict[str, str] = {}
    unknown = _unknown_keys("top level", data, ("agents", "settings"))
    warnings: list[str] = []
    for name, table in tables.items():
        try:
            agent = agents[name] = parse_agent(name, table)
        except BadTableError as error:
            broken[name] = str(error)
        else:
            warnings += _agent_warnings(name, agent)
        if isinstance(table, dict):
            unknown += _unknown_keys(f"agents.{name}", table, AGENT_READERS)
    settings, broken_settings = _parse_settings(data.get("settings", {}))
    section = data.get("settings")
    if isinstance(section, dict):
        unknown += _unknown_keys("settings", section, (*SETTING_READERS, "cache"))
        cache = section.get("cache")
        if isinstance(cache, dict):
            unknown += _unknown_keys("settings.cache", cache, CACHE_READERS)
    return Config(
        agents=agents,
        broken=broken,
        settings=settings,
        broken_settings=broken_settings,
        unknown_keys=tuple(unknown),
        warnings=(*warnings, *_settings_warnings(settings)),
    )


def parse_agent(name: str, table: object) -> AgentConfig:
    """Check the table of one agent.

    Raises:
        BadTableError: A key is missing or its value is of no use; all such keys are named.
    """
    if not is_agent_name(name):
        raise BadTableError(f"its name is not made of {NAME_RULE}")
    if not isinstance(table, dict):
        raise BadTableError(f"expected a table with a directory, got {shown(table)}")
    values, problems = _read_keys(table, AGENT_READERS)
    if "directory" not in table:
        problems["directory"] = "missing, expected the path of the project, as text"
    if problems:
        raise BadTableError("; ".join(f"{key}: {problem}" for key, problem in problems.items()))
    return msgspec.convert(values, AgentConfig)


def read_value(key: str, reader: Reader, value: object) -> object:
    """Check one value.

    Raises:
        BadTableError: It is not what the key takes.
    """
    try:
        return reader(value)
    except BadValueError as error:
        raise BadTableError(f"{key}: {error}") from None


def _parse_settings(section: object) -> tuple[Settings, dict[str, str]]:
    if not isinstance(section, dict):
        return Settings(), {"settings": f"expected a table, got {shown(section)}"}
    values, problems = _read_keys(section, SETTING_READERS)
    broken = {f"settings.{key}": problem for key, problem in problems.items()}
    cache = section.get("cache", {})
    if isinstance(cache, dict):
        cache_values, cache_problems = _read_keys(cache, CACHE_READERS)
        broken |= {f"settings.cache.{key}": said for key, said in cache_problems.items()}
        values["cache"] = msgspec.convert(cache_values, CacheSettings)
    else:
        broken["settings.cache"] = f"expected a table, got {shown(cache)}"
    return msgspec.convert(values, Settings), broken


def _read_keys(
    table: Mapping[str, object], readers: Mapping[str, Reader]
) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key, reader in readers.items():
        if key in table:
            try:
                values[key] = reader(table[key])
            except BadValueError as error:
                problems[key] = str(error)
    return values, problems


def _unknown_keys(
    where: str, table: Mapping[str, object], known: Iterable[str]
) -> list[UnknownKey]:
    names = tuple(known)
    return [UnknownKey(where, key, nearest(key, names)) for key in table if key not in names]


def _agent_warnings(name: str, agent: AgentConfig) -> list[str]:
    lists = {"allowed_tools": agent.allowed_tools, "disallowed_tools": agent.disallowed_tools}
    return _warnings(
        f"agents.{name}", agent.model, ("permission_mode", agent.permission_mode), lists
    )


def _settings_warnings(settings: Settings) -> list[str]:
    lists = {
        "default_allowed_tools": settings.default_allowed_tools,
        "default_disallowed_tools": settings.default_disallowed_tools,
    }
    mode = ("default_permission_mode", settings.default_permission_mode)
    return _warnings("settings", settings.default_model, mode, lists)


def _warnings(
    where: str,
    model: str | None,
    mode: tuple[str, str | None],
    lists: Mapping[str, list[str] | None],
) -> list[str]:
    found: list[str] = []
    if model is not None and model.startswith("-"):
        found.append(f"{where}.model: {model!r} starts with '-', so a run with it is refused.")
    mode_key, mode_value = mode
    if mode_value is not None and (problem := permission_mode_problem(mode_value)):
        found.append(f"{where}.{mode_key}: {problem}")
    for key, tools in lists.items():
        found += [f"{where}.{key}: {said}" for tool in tools or () if (said := tool_problem(tool))]
    return found

"""The configuration as one read saw it: the settings, and agents with their settings inherited."""

import os
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.keys import AGENT_KEYS
from agent_dispatch.errors import (
    ConfigError,
    InvalidRequestError,
    UnknownAgentError,
    UnknownGroupError,
    UnusableAgentError,
)
from agent_dispatch.model.config import AgentConfig, Config, EffectiveAgent, Settings


class ConfigSnapshot(msgspec.Struct, frozen=True):
    """The configuration as one read of the file saw it."""

    config: Config
    path: Path

    @property
    def settings(self) -> Settings:
        """What every agent inherits, and the limits of this machine."""
        return self.config.settings

    def effective(self, name: str) -> EffectiveAgent:
        """Return an agent with its settings inherited; its directory need not exist.

        Raises:
            UnknownAgentError: No agent has that name.
            UnusableAgentError: Its own table is broken.
            ConfigError: A setting is broken. No run starts under limits that were not understood.
        """
        config = self.config
        require_known(config, name)
        if name in config.broken:
            raise UnusableAgentError(name, config.broken[name])
        if problem := settings_problem(config):
            raise ConfigError(f"{self.path}: {problem}. Correct it: until then no run starts.")
        return resolve(name, config.agents[name], config.settings, self.path.parent)

    def shared_context(self, group: str, agent: str) -> str:
        """Return the context that a member of a group gets with each task; it may be empty.

        Raises:
            UnknownGroupError: No group has that name.
            InvalidRequestError: The agent is not a member, or the group's own table is broken.
        """
        config = self.config
        if group in config.broken_groups:
            raise InvalidRequestError(
                f"Group {group!r} is not usable: {config.broken_groups[group]}. Correct its table"
                f" in {self.path}."
            )
        if group not in config.groups:
            raise UnknownGroupError(group, (*config.groups, *config.broken_groups))
        members = [member.agent for member in config.groups[group].members]
        if agent not in members:
            raise InvalidRequestError(
                f"Agent {agent!r} is not a member of group {group!r}. Members:"
                f" {', '.join(members) or 'none yet'}"
            )
        return config.groups[group].shared_context


def resolve(name: str, agent: AgentConfig, settings: Settings, base: Path) -> EffectiveAgent:
    """Fill what an agent's table leaves out from the settings.

    Args:
        name: The agent's.
        agent: Its table.
        settings: What it inherits.
        base: Where a relative directory starts.
    """
    if agent.host is not None:
        # Everything else comes from the file on that host.
        agent = AgentConfig(
            directory="", description=agent.description, host=agent.host, agent=agent.agent
        )
        settings = Settings()
    values: dict[str, Any] = {"name": name}
    for key, rule in AGENT_KEYS.items():
        value = getattr(agent, key)
        if value is None and rule.has_default:
            value = getattr(settings, f"default_{key}")
        values[key] = value
    values["directory"] = absolute(agent.directory, base)
    values["host"], values["agent"] = agent.host, agent.agent
    values["permission_prompts"] = agent.permission_prompts or settings.permission_prompts
    # 0 lifts the limit.
    values["max_budget_usd"] = values["max_budget_usd"] or None
    return msgspec.convert(values, EffectiveAgent)


def absolute(directory: str, base: Path) -> str:
    """Expand `~` and let a relative path start at `base`; an empty one stays empty."""
    return os.path.join(base, os.path.expanduser(directory)) if directory else ""


def require_known(config: Config, name: str) -> None:
    """Check that an agent is configured, even if its table is broken.

    Raises:
        UnknownAgentError: No agent has that name.
    """
    if name not in config.agents and name not in config.broken:
        raise UnknownAgentError(name, available=(*config.agents, *config.broken))


def settings_problem(config: Config) -> str | None:
    """Return what is wrong with the settings, which keeps every run from starting."""
    problems = [f"{key}: {problem}" for key, problem in config.broken_settings.items()]
    return "; ".join(problems) or None

"""An agent as it takes effect: its own table, and the settings where that leaves something open."""

import os
from pathlib import Path
from typing import TypeVar

from agent_dispatch.model.config import AgentConfig, EffectiveAgent, Settings

T = TypeVar("T")


def resolve_agent(name: str, agent: AgentConfig, settings: Settings, base: Path) -> EffectiveAgent:
    """Let an agent inherit what its own table leaves open.

    Args:
        name: The agent's.
        agent: Its table; 0 for `max_budget_usd` lifts the default, an empty list stays empty.
        settings: What is inherited.
        base: Where a relative directory starts.
    """
    budget = _first(agent.max_budget_usd, settings.default_max_budget_usd)
    allowed = _first(agent.allowed_tools, settings.default_allowed_tools)
    disallowed = _first(agent.disallowed_tools, settings.default_disallowed_tools)
    return EffectiveAgent(
        name=name,
        directory=absolute_directory(agent.directory, base),
        description=agent.description,
        timeout_s=settings.default_timeout if agent.timeout is None else agent.timeout,
        model=_first(agent.model, settings.default_model),
        max_budget_usd=budget or None,
        permission_mode=_first(agent.permission_mode, settings.default_permission_mode),
        allowed_tools=None if allowed is None else tuple(allowed),
        disallowed_tools=None if disallowed is None else tuple(disallowed),
    )


def absolute_directory(directory: str, base: Path) -> str:
    """Expand `~` and let a relative path start at `base`; an empty one stays empty."""
    return os.path.join(base, os.path.expanduser(directory)) if directory else ""


def _first(own: T | None, inherited: T | None) -> T | None:
    return inherited if own is None else own

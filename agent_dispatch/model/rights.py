"""What an agent may do, and how that was changed."""

from enum import StrEnum
from typing import Any

import msgspec

RIGHTS_KEYS = ("permission_mode", "allowed_tools", "disallowed_tools", "max_budget_usd")
"""The keys of an agent's table that give or take rights."""


class ChangedBy(StrEnum):
    """The way by which rights are changed."""

    CLI = "cli"
    MCP = "mcp"
    """A model asked for it by a tool."""
    ELICITATION = "elicitation"
    """A person accepted in a form what a model asked for."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """The rights of an agent as they take effect."""

    permission_mode: str = "default"
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    max_budget_usd: float | None = None
    """US dollars per run; None: no limit."""


class RightsChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one key, as `describe` shows it."""

    at: float
    """Seconds since the epoch."""
    key: str
    old: Any
    """As the agent's table had it; None: it was inherited."""
    new: Any
    by: ChangedBy

"""The rights of an agent, and their changes."""

from enum import StrEnum
from typing import Any

import msgspec

RIGHTS_KEYS = ("permission_mode", "allowed_tools", "disallowed_tools", "max_budget_usd")
"""The keys of an agent's table that widen or narrow its rights."""


class ChangedBy(StrEnum):
    """How rights were changed."""

    CLI = "cli"
    MCP = "mcp"
    """By a model, with a tool."""
    ELICITATION = "elicitation"
    """By a person who accepted the request of a model in a form."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """The effective rights of an agent."""

    permission_mode: str = "default"
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    max_budget_usd: float | None = None
    """US dollars per run; None: no limit."""


class RightsChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of one key, shown by `describe`."""

    at: float
    """Seconds since the epoch."""
    key: str
    old: Any
    """The value in the agent's table; None: inherited."""
    new: Any
    by: ChangedBy

"""The ledger: one line for each run that was started, and the limits of the account."""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, UnsetType

TREE_VARIABLE = "AGENT_DISPATCH_TREE"
"""Names the tree in the environment of an agent and of everything below it. A tree is the outermost
call or command with everything below it; its costs count against one ceiling."""


class ModelCost(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one model in a run."""

    cost_usd: float | None = None
    """None: not known."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One run; the order of the fields is the order in the file."""

    at: float
    """Seconds since the epoch: when the run ended, or began if its owner died."""
    job_id: str
    agent: str
    caller: str | None = None
    session_id: str | None = None
    parent: str | None = None
    """The job inside whose agent the run was started."""
    tree: str = ""
    model_usage: Mapping[str, ModelCost] | None = None
    cost_usd: float | None = None
    """US dollars; None: not known, so the booked amount counts."""
    booked_usd: float = 0.0
    duration_ms: int | None = None
    success: bool = False
    error_type: str | None = None
    tool_calls: int | None = None
    traceparent: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    denied: int | UnsetType = UNSET
    """Denied tool calls; left out if there were none."""

    @property
    def spent_usd(self) -> float:
        """The amount that counts against ceilings."""
        return self.booked_usd if self.cost_usd is None else self.cost_usd


class LimitWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of the account."""

    name: str
    """The name in the API: `five_hour`, `seven_day` …"""
    used: float
    """The share in use: 0.92 is 92 %."""
    resets_at: float | None = None
    """Seconds since the epoch."""


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the API last said about the limits of the account."""

    at: float
    """When the API said so, in seconds since the epoch."""
    status: str | None = None
    """`allowed`, `allowed_warning` or `rejected`."""
    windows: list[LimitWindow] = []

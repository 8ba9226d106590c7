"""What one agent's part of a job cost, and its line in the ledger."""

import msgspec
from msgspec import UNSET

from agent_dispatch.core.stream.events import RateLimitInfo, RateLimitWindow
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.core.stream.usage import MAX_NAME_CHARS, Usage, add_usage, sum_counts, sum_usd
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.ledger import AccountLimits, LedgerLine, LimitWindow, ModelCost

_MAX_WINDOWS = 20


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's part of a job: the figures of its line in the ledger."""

    session_id: str | None = None
    model_usage: Usage | None = None
    cost_usd: float | None = None
    """None: it is not known."""
    duration_ms: int | None = None
    success: bool = False
    error_type: str | None = None
    tool_calls: int | None = None
    denied: int = 0
    rate_limit: RateLimitInfo | None = None
    """What the API last said about the account's limits; not in the ledger."""


def share_of(seen: Seen, result: DispatchResult) -> Share:
    """Return the share of a run."""
    usage = seen.model_usage
    if not usage and seen.model is not None and result.cost_usd is not None:
        # Older versions give only the total; the model is that of the last `init`.
        usage = {seen.model[:MAX_NAME_CHARS]: ModelCost(cost_usd=result.cost_usd)}
    return Share(
        session_id=result.session_id and result.session_id[:MAX_NAME_CHARS],
        model_usage=usage or None,
        cost_usd=result.cost_usd,
        duration_ms=result.duration_ms,
        success=result.success,
        error_type=result.error_type,
        tool_calls=None if result.evidence is None else result.evidence.tool_calls,
        denied=len(seen.denials),
        rate_limit=seen.rate_limit,
    )


def join_shares(first: Share | None, second: Share) -> Share:
    """Return the share of two consecutive runs that count as one."""
    if first is None:
        return second
    usage = add_usage(first.model_usage or {}, second.model_usage or {})
    return Share(
        session_id=second.session_id or first.session_id,
        model_usage=usage or None,
        cost_usd=sum_usd(first.cost_usd, second.cost_usd),
        duration_ms=sum_counts(first.duration_ms, second.duration_ms),
        success=second.success,
        error_type=second.error_type,
        tool_calls=sum_counts(first.tool_calls, second.tool_calls),
        denied=first.denied + second.denied,
        rate_limit=second.rate_limit or first.rate_limit,
    )


def ledger_line(booked: LedgerLine, share: Share, now: float) -> LedgerLine:
    """Return the line of a run that ended.

    Args:
        booked: The line that was booked when the run began.
        now: When it ended, in seconds since the epoch.
    """
    return msgspec.structs.replace(
        booked,
        at=now,
        session_id=share.session_id,
        model_usage=share.model_usage,
        cost_usd=share.cost_usd,
        duration_ms=share.duration_ms,
        success=share.success,
        error_type=share.error_type,
        tool_calls=share.tool_calls,
        denied=share.denied or UNSET,
    )


def account_limits(info: RateLimitInfo, now: float) -> AccountLimits | None:
    """Return the account's limits; None if the API gave no share in use."""
    known = dict(info.windows or {})
    if not known:
        name = info.rate_limit_type or "limit"
        known[name] = RateLimitWindow(utilization=info.utilization, resets_at=info.resets_at)
    windows = [
        LimitWindow(name=name[:MAX_NAME_CHARS], used=used, resets_at=window.resets_at)
        for name, window in known.items()
        if (used := window.utilization) is not None and used >= 0
    ]
    if not windows and info.status != "rejected":
        return None
    return AccountLimits(at=now, status=info.status, windows=windows[:_MAX_WINDOWS])

"""Joins a run that was held at a usage limit with the run that resumed its session."""

from typing import TypeVar

import msgspec

from agent_dispatch.core.outcome.evidence import join_evidence
from agent_dispatch.core.stream.usage import sum_counts, sum_usd
from agent_dispatch.model.dispatch import DispatchResult

T = TypeVar("T")


def join_runs(
    before: DispatchResult, after: DispatchResult, cap_usd: float | None
) -> DispatchResult:
    """Return the result of two runs of one dispatch: the answer of the second, the sums of both."""
    cost_usd = sum_usd(before.cost_usd, after.cost_usd)
    over = bool(cap_usd and cost_usd is not None and cost_usd > cap_usd)
    return msgspec.structs.replace(
        after,
        session_id=after.session_id or before.session_id,
        cost_usd=cost_usd,
        duration_ms=sum_counts(before.duration_ms, after.duration_ms),
        num_turns=sum_counts(before.num_turns, after.num_turns),
        denied_tools=_both(before.denied_tools, after.denied_tools),
        denied_calls=_both(before.denied_calls, after.denied_calls),
        evidence=join_evidence(before.evidence, after.evidence),
        earlier_results=[*(before.earlier_results or ()), *(after.earlier_results or ())] or None,
        budget_exceeded=over or after.budget_exceeded,
    )


def end_held_run(before: DispatchResult, failure: DispatchResult) -> DispatchResult:
    """Return the result of a held dispatch that was not resumed, because of `failure`."""
    return msgspec.structs.replace(
        before,
        error=failure.error,
        error_type=failure.error_type,
        next_steps=failure.next_steps,
        resets_at=None,
    )


def _both(first: list[T] | None, second: list[T] | None) -> list[T] | None:
    return list(dict.fromkeys([*(first or ()), *(second or ())])) or None

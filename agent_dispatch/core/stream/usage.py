"""Sums of usage by model; a sum with an unknown cost is unknown."""

from collections.abc import Mapping

from agent_dispatch.core.stream.events import ModelUsage
from agent_dispatch.model.dispatch import COST_DECIMALS
from agent_dispatch.model.ledger import ModelCost

MAX_NAME_CHARS = 200
_MAX_MODELS = 50

Usage = Mapping[str, ModelCost]


def model_costs(used: Mapping[str, ModelUsage]) -> Usage:
    """Return the usage that a result reported."""
    return {name[:MAX_NAME_CHARS]: _model_cost(usage) for name, usage in used.items()}


def add_usage(first: Usage, second: Usage) -> Usage:
    """Return the sum of two usages; the number of models is bounded."""
    usage = dict(first)
    for name, cost in second.items():
        if name in usage:
            usage[name] = _sum(usage[name], cost)
        elif len(usage) < _MAX_MODELS:
            usage[name] = cost
    return usage


def sum_usd(first: float | None, second: float | None) -> float | None:
    """Return the sum of two amounts; None if either is not known."""
    if first is None or second is None:
        return None
    return round(first + second, COST_DECIMALS)


def sum_counts(first: int | None, second: int | None) -> int | None:
    """Return the sum of the known counts; None if neither is known."""
    return first if second is None else (first or 0) + second


def _model_cost(used: ModelUsage) -> ModelCost:
    return ModelCost(
        cost_usd=None if used.cost_usd is None else round(used.cost_usd, COST_DECIMALS),
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_input_tokens=used.cache_read_input_tokens,
        cache_creation_input_tokens=used.cache_creation_input_tokens,
    )


def _sum(first: ModelCost, second: ModelCost) -> ModelCost:
    return ModelCost(
        cost_usd=sum_usd(first.cost_usd, second.cost_usd),
        input_tokens=sum_counts(first.input_tokens, second.input_tokens),
        output_tokens=sum_counts(first.output_tokens, second.output_tokens),
        cache_read_input_tokens=sum_counts(
            first.cache_read_input_tokens, second.cache_read_input_tokens
        ),
        cache_creation_input_tokens=sum_counts(
            first.cache_creation_input_tokens, second.cache_creation_input_tokens
        ),
    )

"""The tools for the answers that are kept."""

from agent_dispatch.model.answer import CacheCleared, CacheStats
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.server.ports import Service
from agent_dispatch.server.tools import Tool
from agent_dispatch.server.tools_agents import NoParams


async def cache_stats(service: Service, _params: NoParams, _on_progress: OnProgress) -> CacheStats:
    """How often the cache helped."""
    return await service.cache_stats()


async def cache_clear(
    service: Service, _params: NoParams, _on_progress: OnProgress
) -> CacheCleared:
    """Forget what is kept."""
    return await service.cache_clear()


CACHE_STATS = Tool(
    name="cache_stats",
    title="Cache statistics",
    description="Show how many answers are cached, and how often one was used.",
    params=NoParams,
    run=cache_stats,
    result=CacheStats,
    read_only=True,
)

CACHE_CLEAR = Tool(
    name="cache_clear",
    title="Clear the cache",
    description="Forget all cached answers, so that the next dispatch of each runs anew.",
    params=NoParams,
    run=cache_clear,
    result=CacheCleared,
    idempotent=True,
)

"""The cache of answers: which are kept, for which requests, and for how long.

An answer serves requests that ask the same of the same agent with the same configuration. Only the
answer of a run that changed nothing is kept, so "build it" and "run the tests again" always run. An
answer with a hint is not kept: what was denied or cut short may succeed the next time.
"""

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime

import msgspec

from agent_dispatch.model.config import CacheSettings, EffectiveAgent
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.model.replies import CacheStats

MAX_KEPT_CHARS = 8 * 1024 * 1024
"""Of all answers together, whatever `max_size` allows."""


def request_key(request: DispatchRequest, agent: EffectiveAgent, prompt: str = "") -> bytes:
    """Return a key that is equal for requests that one answer can serve.

    The timeout does not matter to the answer. The prompt contains what the request only names: the
    shared context of a group.
    """
    without_timeout = msgspec.structs.replace(request, timeout_s=None)
    fields = msgspec.msgpack.encode((without_timeout, agent, prompt))
    return hashlib.blake2b(fields, digest_size=32).digest()


def is_clean(result: DispatchResult) -> bool:
    """Tell whether an answer may be given again.

    It is a success without a hint, of a run that only read and that no command had to verify.
    """
    if not result.success or result.hint or result.verified is not None:
        return False
    return result.evidence is not None and result.evidence.read_only


class Cache:
    """Clean answers in the order in which they were put; the oldest are dropped first.

    Times are seconds on a monotonic clock of the caller.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._kept: OrderedDict[bytes, tuple[float, DispatchResult]] = OrderedDict()
        self._chars = 0
        self._hits = 0
        self._misses = 0
        self.generation = 0
        """How often it was cleared; a run that began before must not fill it afterwards."""

    def get(self, key: bytes, now: float, settings: CacheSettings) -> DispatchResult | None:
        """Return the answer kept for `key`, marked as cached and free, if it is not too old."""
        self._drop(now, settings)
        found = self._kept.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        return found[1]

    def peek(self, key: bytes) -> DispatchResult | None:
        """Return the answer kept for `key`, however old, without counting a hit or miss."""
        found = self._kept.get(key)
        return None if found is None else found[1]

    def count_shared(self) -> None:
        """Count the last miss as a hit: a run under way answered it."""
        self._misses -= 1
        self._hits += 1

    def put(
        self,
        key: bytes,
        result: DispatchResult,
        now: float,
        settings: CacheSettings,
        *,
        ended_at: float,
    ) -> None:
        """Keep `result` in place of an older one, if it is clean and not too large.

        Args:
            key: From `request_key`.
            now: On the clock of the cache.
            ended_at: When the run ended, in seconds since the epoch.
        """
        self.forget(key)
        if is_clean(result) and _size(result) <= MAX_KEPT_CHARS:
            cached_at = datetime.fromtimestamp(ended_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            again = msgspec.structs.replace(result, cost_usd=0, cached=True, cached_at=cached_at)
            self._kept[key] = (now, again)
            self._chars += _size(result)
        self._drop(now, settings)

    def clear(self) -> int:
        """Forget everything; return the number of answers."""
        cleared = len(self._kept)
        self._kept.clear()
        self._chars = 0
        self.generation += 1
        return cleared

    def stats(self, now: float, settings: CacheSettings) -> CacheStats:
        """Return its size and its hits and misses."""
        self._drop(now, settings)
        lookups = self._hits + self._misses
        return CacheStats(
            enabled=settings.enabled,
            size=len(self._kept),
            max_size=settings.max_size,
            ttl=settings.ttl,
            hits=self._hits,
            misses=self._misses,
            hit_rate=self._hits / lookups if lookups else 0.0,
        )

    def _drop(self, now: float, settings: CacheSettings) -> None:
        """Forget answers that are too old or too many."""
        while self._kept:
            key, (kept_at, _) = next(iter(self._kept.items()))
            expired = now - kept_at >= settings.ttl
            too_many = len(self._kept) > settings.max_size or self._chars > MAX_KEPT_CHARS
            if not (expired or too_many):
                return
            self.forget(key)

    def forget(self, key: bytes) -> None:
        """Forget one answer, if it is kept."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._chars -= _size(kept[1])


def _size(result: DispatchResult) -> int:
    """Count the characters of the answers; a parsed answer is about as large again."""
    return len(result.result) + sum(map(len, result.earlier_results or ()))

"""Answers that need not be paid for twice: which are kept, for whom, and for how long.

An answer is kept for requests that ask the same of the same agent, configured the same; anything
else may be answered differently. Only the answer of a run that changed nothing is kept, so that
"build it" and "run the tests again" always run; and only one without a remark: what was denied, cut
off or left behind may go better the next time.
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
    """Return what two requests have in common when one answer serves both.

    How long a caller is ready to wait does not matter to the answer. The prompt holds what the
    request only names: the shared context of a group.
    """
    asked = msgspec.structs.replace(request, timeout_s=None)
    return hashlib.blake2b(msgspec.msgpack.encode((asked, agent, prompt)), digest_size=32).digest()


def is_clean(result: DispatchResult) -> bool:
    """Tell whether an answer may be given again.

    It is a success that nothing has to be said about, of a run that did nothing but read and that
    no command had to verify.
    """
    if not result.success or result.hint or result.verified is not None:
        return False
    return result.evidence is not None and result.evidence.read_only


class Cache:
    """Clean answers in the order they came; the oldest leave first.

    Times are seconds on a clock of the caller's that never goes back.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._kept: OrderedDict[bytes, tuple[float, DispatchResult]] = OrderedDict()
        self._chars = 0
        self._hits = 0
        self._misses = 0
        self.generation = 0
        """How often it was cleared: a run that began before is no news after."""

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
        """Return the answer kept for `key`, however old, without counting the question."""
        found = self._kept.get(key)
        return None if found is None else found[1]

    def count_shared(self) -> None:
        """Take note that the last miss was answered by a run that was under way."""
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
        """Keep `result` in the place of an older one, if it is clean and there is room for it.

        Args:
            key: Of `request_key`.
            result: Of the run.
            now: On the clock of the cache.
            settings: As they are now.
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
        """Forget everything; return how many answers that were."""
        cleared = len(self._kept)
        self._kept.clear()
        self._chars = 0
        self.generation += 1
        return cleared

    def stats(self, now: float, settings: CacheSettings) -> CacheStats:
        """Return how full it is and how often it helped."""
        self._drop(now, settings)
        asked = self._hits + self._misses
        return CacheStats(
            enabled=settings.enabled,
            size=len(self._kept),
            max_size=settings.max_size,
            ttl=settings.ttl,
            hits=self._hits,
            misses=self._misses,
            hit_rate=self._hits / asked if asked else 0.0,
        )

    def _drop(self, now: float, settings: CacheSettings) -> None:
        """Forget what is too old or too much, as the settings are now."""
        while self._kept:
            key, (kept_at, _) = next(iter(self._kept.items()))
            expired = now - kept_at >= settings.ttl
            if not expired and self._chars <= MAX_KEPT_CHARS and self._fits(settings):
                return
            self.forget(key)

    def _fits(self, settings: CacheSettings) -> bool:
        return len(self._kept) <= settings.max_size

    def forget(self, key: bytes) -> None:
        """Forget one answer, if it is kept."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._chars -= _size(kept[1])


def _size(result: DispatchResult) -> int:
    """Characters of the answers; what was parsed of one is about as much again."""
    return len(result.result) + sum(map(len, result.earlier_results or ()))

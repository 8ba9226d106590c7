"""Where calls that wait for the file system go, so that the event loop need not."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar, TypeVarTuple

import trio

from agent_dispatch.jobs.patience import within

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PER_PURPOSE = 4
"""How many threads may hang at one directory, or for one other purpose; the next ones wait."""


async def in_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Keep the event loop away from the file system.

    If cancelled, the call goes on unobserved: an edit of `agents.toml` is either whole or absent.
    """
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)


class Lookouts:
    """Looks at directories that may never answer, such as a network mount that is gone.

    A thread that the kernel does not give back is lost until it does, so each directory has a few
    of its own: no other directory, and nothing else, waits for them. Made once per service.
    """

    def __init__(self) -> None:
        """Have no threads yet."""
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def run(self, purpose: str, call: Callable[[], T]) -> T:
        """Call in a thread of those that are for this purpose; cancelled as `in_thread` is."""
        limiter = self._limiters.setdefault(purpose, trio.CapacityLimiter(_PER_PURPOSE))
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        finally:
            if limiter.borrowed_tokens == 0:
                self._limiters.pop(purpose, None)

    async def look(self, directory: str, call: Callable[[], T], timeout_s: float) -> T:
        """Give what `call` sees at `directory`.

        If cancelled, the look goes on unobserved.

        Raises:
            TooSlowError: It does not answer for `timeout_s`.
        """
        return await within(timeout_s, partial(self.run, directory), call)

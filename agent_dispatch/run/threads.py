"""Threads for calls that wait for the file system, which the event loop must not do."""

import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PER_PURPOSE = 4
"""How many threads may hang at one directory, or for one other purpose; further calls wait."""


async def in_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call in a thread; if cancelled, the call goes on unobserved."""
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)


async def gain(
    call: Callable[[], T], undo: Callable[[T], object], limiter: trio.CapacityLimiter
) -> T:
    """Call in a thread; if cancelled, what `call` gained is undone as soon as it has it."""
    lock, is_wanted, gained = threading.Lock(), True, list[T]()

    def do() -> None:
        value = call()
        with lock:
            if is_wanted:
                gained.append(value)
                return
        undo(value)

    try:
        await trio.to_thread.run_sync(do, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        with lock:
            is_wanted = False
        for value in gained:
            undo(value)
        raise
    return gained[0]


async def give_back(call: Callable[[*Ts], object], *args: *Ts, within_s: float = 2.0) -> None:
    """Call in a thread of its own, also under cancellation; after `within_s` it goes on alone."""
    with trio.move_on_after(within_s, shield=True):
        await trio.to_thread.run_sync(
            call, *args, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )


class Lookouts:
    """Looks at directories that may never answer, such as a dead network mount.

    A thread that the kernel does not give back is lost until it does, so each directory has a few
    of its own: no other directory, and nothing else, waits for them. Made once per service.
    """

    def __init__(self) -> None:
        """Have no threads yet."""
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def run(self, purpose: str, call: Callable[[], T]) -> T:
        """Call in one of the threads for this purpose; if cancelled, it goes on unobserved."""
        limiter = self._limiters.setdefault(purpose, trio.CapacityLimiter(_PER_PURPOSE))
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        finally:
            if limiter.borrowed_tokens == 0:
                self._limiters.pop(purpose, None)

    async def look(self, directory: str, call: Callable[[], T], timeout_s: float) -> T:
        """Give what `call` sees at `directory`.

        Raises:
            TooSlowError: It does not answer for `timeout_s`; the look goes on unobserved.
        """
        with trio.fail_after(timeout_s):
            return await self.run(directory, call)

"""Threads for calls that wait for a file system or a lock, which the event loop must not do.

Records have a few threads: a hundred jobs that end at once must not start a hundred, which would
only wait for each other. Slow work has threads of its own, and so has each directory that may
hang: the record of a paid answer never waits behind them.
"""

import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 4
"""Enough for the disk to make several records durable in one go."""
_PER_DIRECTORY = 4
"""How many threads may hang at one directory; further calls wait."""


class Pool(Enum):
    """Work on the job store that has `THREADS` threads of its own."""

    RECORDS = auto()
    """The owner's reads and writes."""
    LOOKS = auto()
    """Reads of jobs that have an owner or have ended; these return at once."""
    SETTLING = auto()
    """The end of a lost job, whose processes must be found and ended first."""
    BULK = auto()
    """Listings and cleaning, which read many records and may settle some."""


_limiters = trio.lowlevel.RunVar[dict[Pool, trio.CapacityLimiter]]("threads of the job store")


async def in_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call in a thread; if cancelled, the call goes on unobserved."""
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)


async def in_own_thread(call: Callable[[*Ts], T], *args: *Ts, abandon_on_cancel: bool = False) -> T:
    """Call in a thread that no limit delays; a cancellation waits for it by default."""
    return await trio.to_thread.run_sync(
        call, *args, abandon_on_cancel=abandon_on_cancel, limiter=trio.CapacityLimiter(1)
    )


async def in_record_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Read or write a job that this process owns; a cancellation waits for it."""
    return await trio.to_thread.run_sync(call, *args, limiter=_limiter(Pool.RECORDS))


async def in_pool(pool: Pool, call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call in a thread of `pool`; if cancelled, the call goes on unobserved."""
    return await trio.to_thread.run_sync(
        call, *args, abandon_on_cancel=True, limiter=_limiter(pool)
    )


def _limiter(pool: Pool) -> trio.CapacityLimiter:
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {pool: trio.CapacityLimiter(THREADS) for pool in Pool}
        _limiters.set(limiters)
    return limiters[pool]


async def gain(
    call: Callable[[], T], undo: Callable[[T], object], limiter: trio.CapacityLimiter
) -> T:
    """Acquire something in a thread; if cancelled, `undo` releases it once it is acquired."""
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
    """Release something in a thread, also under cancellation; waits at most `within_s`."""
    with trio.move_on_after(within_s, shield=True):
        await trio.to_thread.run_sync(
            call, *args, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )


class DirectoryThreads:
    """Threads for directories that may never answer, such as a dead network mount.

    A thread that hangs in the kernel is lost until the kernel returns. Each directory has a few of
    its own, so nothing else waits for them. Made once per service.
    """

    def __init__(self) -> None:
        """Start with no threads."""
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def run(self, directory: str, call: Callable[[], T]) -> T:
        """Call in a thread of `directory`; if cancelled, the call goes on unobserved.

        Another purpose that may hang by itself can stand in place of a directory.
        """
        limiter = self._limiters.setdefault(directory, trio.CapacityLimiter(_PER_DIRECTORY))
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        finally:
            if limiter.borrowed_tokens == 0:
                self._limiters.pop(directory, None)

    async def run_within(self, timeout_s: float, directory: str, call: Callable[[], T]) -> T:
        """Do the same, but wait at most `timeout_s`.

        Raises:
            TooSlowError: The call has not returned; it goes on unobserved.
        """
        with trio.fail_after(timeout_s):
            return await self.run(directory, call)

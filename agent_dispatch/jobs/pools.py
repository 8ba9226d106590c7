"""The few threads in which a process reads and writes the records of its jobs.

A hundred jobs that end at once do not start a hundred threads, which would only wait for each
other. Work that may take long has threads of its own: ending what a lost job has left takes
seconds, and no answer that was paid for may wait in line behind it.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 4
"""Enough for the disk to make several records durable in one go."""


class Pool(Enum):
    """Work with threads of its own, `THREADS` of them."""

    RECORDS = auto()
    """The owner's reads and writes."""
    LOOKS = auto()
    """Looks at jobs that have an owner or have ended: these return at once."""
    SETTLING = auto()
    """The end of a lost job: its processes are searched for and ended first."""
    BULK = auto()
    """Listings and cleaning, which read many records and may settle some."""


_limiters = trio.lowlevel.RunVar[dict[Pool, trio.CapacityLimiter]]("threads of the job store")


async def in_record_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Read or write a job of ours, away from the event loop; a cancellation waits for it."""
    limiter = _limiter(Pool.RECORDS)
    return await trio.to_thread.run_sync(call, *args, limiter=limiter)


async def in_pool(pool: Pool, call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Do anything else with the store there; if cancelled, it goes on unobserved."""
    return await trio.to_thread.run_sync(
        call, *args, abandon_on_cancel=True, limiter=_limiter(pool)
    )


async def in_own_thread(call: Callable[[*Ts], T], *args: *Ts, abandon_on_cancel: bool = False) -> T:
    """Do what must be on disk before this process is gone, without waiting in any line."""
    return await trio.to_thread.run_sync(
        call, *args, abandon_on_cancel=abandon_on_cancel, limiter=trio.CapacityLimiter(1)
    )


def _limiter(pool: Pool) -> trio.CapacityLimiter:
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {pool: trio.CapacityLimiter(THREADS) for pool in Pool}
        _limiters.set(limiters)
    return limiters[pool]

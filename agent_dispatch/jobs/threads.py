"""The few threads in which a process reads and writes the records of its jobs.

However many jobs it has: a hundred that end at once do not start a hundred threads, which would
only wait for each other. What is to be on disk before this process is gone does not stand in line
here, but gets a thread of its own.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 4
"""Enough for the disk to make several records durable in one go."""

_limiter = trio.lowlevel.RunVar[trio.CapacityLimiter]("record threads")


async def in_record_thread(
    call: Callable[[*Ts], T], *args: *Ts, abandon_on_cancel: bool = False
) -> T:
    """Keep the event loop away from the disk.

    Args:
        call: What to do there.
        args: Its arguments.
        abandon_on_cancel: If cancelled, it goes on unobserved; else it is waited for.
    """
    return await trio.to_thread.run_sync(
        call, *args, abandon_on_cancel=abandon_on_cancel, limiter=_of_this_loop()
    )


def _of_this_loop() -> trio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
        return limiter

"""Wait for a thread with a bound, where a disk or a mount may never answer."""

import math
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")

_MOMENT_S = 0.5
"""Within this time nearly everything answers; a deadline is set only for what does not."""


async def within(
    timeout_s: float,
    in_thread: Callable[[Callable[[], None]], Awaitable[object]],
    call: Callable[[], T],
) -> T:
    """Give what `call` gives or raises in a thread; if that takes longer, it goes on unobserved.

    Args:
        timeout_s: Seconds.
        in_thread: Calls in a thread, which is abandoned if cancelled.
        call: What to do there.

    Raises:
        TooSlowError: It takes longer.
    """
    over = threading.Event()
    given: list[T] = []
    raised: list[Exception] = []

    def do() -> None:
        try:
            given.append(call())
        except Exception as error:
            # Raised outside the nursery, which would wrap it in a group.
            raised.append(error)
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, do)
        # Not by Trio's clock at first: in tests that jumps while a thread works.
        moment_s = min(_MOMENT_S, timeout_s)
        limiter = trio.CapacityLimiter(math.inf)
        if not await trio.to_thread.run_sync(
            over.wait, moment_s, abandon_on_cancel=True, limiter=limiter
        ):
            nursery.cancel_scope.deadline = trio.current_time() + timeout_s - moment_s
    for error in raised:
        raise error
    for value in given:
        return value
    raise trio.TooSlowError

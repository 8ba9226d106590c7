"""Work that a signal ends: it is cancelled, and this process leaves when its processes are gone."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")

LEAVE_WITHIN_S = 5.0
"""How long to wait for the end of the agent's processes; their guard ends them in any case."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def until_signal(
    work: Callable[[], Awaitable[T]],
    on_signal: Callable[[], None],
    *,
    leave: Callable[[int], object] = os._exit,
) -> T | signal.Signals:
    """Run `work` to its end; a signal cancels it.

    A result outranks a signal that came too late to prevent it. A signal that is ignored, such as
    SIGHUP under nohup(1), stays ignored.

    Args:
        work: The work.
        on_signal: Called at the first signal.
        leave: Ends the process with a shell's exit status for the signal. Called at a second
            signal, or when cancelled work has not ended after `LEAVE_WITHIN_S`.

    Returns:
        The result, or the signal that cancelled the work; it has ended then.
    """
    handled = [signum for signum in _ENDING_SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    received: list[signal.Signals] = []
    results: list[T] = []
    scope = trio.CancelScope()

    async def watch(arriving: AsyncIterator[int]) -> None:
        received.append(signal.Signals(await anext(arriving)))
        on_signal()
        scope.cancel()
        with trio.move_on_after(LEAVE_WITHIN_S):
            await anext(arriving)
        leave(128 + received[0])

    with trio.open_signal_receiver(*handled) as arriving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, arriving)
            with scope:
                results.append(await work())
            nursery.cancel_scope.cancel()
    return results[0] if results else received[0]

"""How commands run the event loop.

Trio is imported by the functions, after the fork server has been started: it would keep a copy.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from agent_dispatch.cli.shell import Shell

if TYPE_CHECKING:
    # For type checkers only: it imports what a refused command does not need.
    from agent_dispatch.run.service import Service

T = TypeVar("T")

LEAVE_WITHIN_S = 5.0
"""How long to wait for the end of the agent's processes; their guard ends them in any case."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_trio(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Call `trio.run`, but raise an error as itself and not in the groups of its nurseries.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    import trio

    try:
        return trio.run(function, *args)
    except BaseExceptionGroup as group:
        is_interrupt = group.subgroup(KeyboardInterrupt) is not None
        error: BaseException = KeyboardInterrupt() if is_interrupt else group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    # Here and not in the handler, so that it keeps its own context.
    raise error


def call_service(shell: Shell, call: "Callable[[Service], Awaitable[T]]") -> T:
    """Open the service, make the call and return its answer.

    It is for commands that show no progress and do not wait long.

    Raises:
        DispatchError: The call was refused.
    """
    with closing(shell.start_fork_server()) as fork_server:

        async def answer() -> T:
            async with shell.open_service(
                environ=shell.environ, fork_server=fork_server
            ) as service:
                return await call(service)

        return run_trio(answer)


async def until_signal(
    work: Callable[[], Awaitable[T]],
    on_signal: Callable[[], None] = lambda: None,
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
        The result; or the signal that cancelled the work, after the work has ended.
    """
    import trio

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


def status_after(ended: object) -> int:
    """The exit status after `until_signal` returned `ended`: 0, or 128 + n after signal n."""
    return 128 + ended if isinstance(ended, signal.Signals) else 0

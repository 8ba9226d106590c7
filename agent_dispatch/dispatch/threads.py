"""Where calls that wait for the file system go, so that the event loop need not."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Keep the event loop away from the file system.

    If cancelled, the call goes on unobserved: an edit of `agents.toml` is either whole or absent.
    """
    return await trio.to_thread.run_sync(call, *args, abandon_on_cancel=True)

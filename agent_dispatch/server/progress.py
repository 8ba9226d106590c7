"""Progress of a call on its way to the client: paced, never waited for, never silent for long.

Claude Code gives up on a call that is silent for long, and shows what it is told (measured with
2.1.330); a dispatched agent, on the other hand, can say hundreds of things a second.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from agent_dispatch.model.dispatch import OnProgress, Progress

logger = logging.getLogger(__name__)

Report = Callable[[float, str], Awaitable[None]]
"""Sends one notification: a number that grows, and a message."""

MIN_GAP_S = 0.1
KEEP_ALIVE_S = 8.0
MAX_MESSAGE_CHARS = 500


@asynccontextmanager
async def report_progress(report: Report, subject: str) -> AsyncIterator[OnProgress]:
    """Give a sink for the progress of one call; what was posted to it is sent while this is open.

    Args:
        report: Sends one notification; waiting there delays further ones only.
        subject: What the call does, for the time before anything is posted.
    """
    pacer = _Pacer(report, subject)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pacer.run)
        yield pacer.post
        nursery.cancel_scope.cancel()


class _Pacer:
    """A mailbox with one slot: the newest message wins, the others are counted."""

    def __init__(self, report: Report, subject: str) -> None:
        self._report = report
        self._last = subject
        self._unsent = 0
        self._posted = trio.Event()

    def post(self, progress: Progress) -> None:
        """The sink: takes a message and returns."""
        self._last = progress.message
        self._unsent += 1
        self._posted.set()

    async def run(self) -> None:
        """Send until cancelled. Failing to send ends the reporting, not the call."""
        started = trio.current_time()
        number = 0
        try:
            while True:
                with trio.move_on_after(KEEP_ALIVE_S - MIN_GAP_S):
                    await self._posted.wait()
                number += 1
                await self._report(number, self._take(trio.current_time() - started))
                await trio.sleep(MIN_GAP_S)
        except Exception:
            logger.exception("progress is no longer reported")

    def _take(self, elapsed_s: float) -> str:
        message = self._last.strip()
        if len(message) > MAX_MESSAGE_CHARS:
            message = f"{message[:MAX_MESSAGE_CHARS]}…"
        omitted, self._unsent = self._unsent - 1, 0
        self._posted = trio.Event()
        if omitted < 0:
            return f"{message} ({elapsed_s:.0f} s so far)"
        return f"{message} (+{omitted} before)" if omitted else message

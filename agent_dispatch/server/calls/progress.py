"""Sends the progress of a call to the client: neither too often nor too rarely.

Claude Code gives up on a call that is silent for long (measured with 2.1.330), and an agent can
report hundreds of things a second. Nothing waits for the client.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from agent_dispatch.core.stream.progress_text import with_seconds
from agent_dispatch.model.dispatch import OnProgress, Progress

logger = logging.getLogger(__name__)

Report = Callable[[float, str], Awaitable[None]]
"""Sends one notification: a growing number, and a message."""

MIN_GAP_S = 0.1
KEEP_ALIVE_S = 8.0
MAX_MESSAGE_CHARS = 500
FLUSH_S = 0.2
MAX_UNSENT = 100
"""If an agent reports more than a client reads, the oldest messages are dropped."""


@asynccontextmanager
async def report_progress(report: Report, subject: str) -> AsyncIterator[OnProgress]:
    """Yield a function that takes the progress of one call and returns at once.

    Messages are sent while the block runs; the rest at its end, before the answer.

    Args:
        report: Sends one notification; if it waits, that delays only further notifications.
        subject: The message until there is progress.
    """
    pacer = _Pacer(report, subject)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pacer.run)
        yield pacer.post
        nursery.cancel_scope.cancel()
    await pacer.flush()


class _Pacer:
    """The messages to send: all sentences, but only the newest of successive tool calls."""

    def __init__(self, report: Report, subject: str) -> None:
        self._report = report
        self._last = Progress(subject, stem=subject)
        self._last_at = trio.current_time()
        self._unsent: deque[Progress] = deque(maxlen=MAX_UNSENT)
        self._posted = trio.Event()
        self._number = 0
        self._failed = False

    def post(self, progress: Progress) -> None:
        """Add a message."""
        if progress.is_tool and self._unsent and self._unsent[-1].is_tool:
            self._unsent.pop()
        self._unsent.append(progress)
        self._posted.set()

    async def run(self) -> None:
        """Send until cancelled, or until it fails."""
        while not self._failed:
            with trio.move_on_after(KEEP_ALIVE_S - MIN_GAP_S):
                await self._posted.wait()
            await self._send()
            await trio.sleep(MIN_GAP_S)

    async def flush(self) -> None:
        """Send the rest, but not for long, because the answer waits for it."""
        with trio.move_on_after(FLUSH_S):
            while self._unsent and not self._failed:
                await self._send()

    async def _send(self) -> None:
        """Send one message. An error ends the reporting, not the call."""
        self._number += 1
        try:
            await self._report(self._number, self._take())
        except Exception:
            self._failed = True
            logger.exception("progress is no longer reported")

    def _take(self) -> str:
        """Return the oldest unsent message, or the last one again with the current duration."""
        if self._unsent:
            self._last, self._last_at = self._unsent.popleft(), trio.current_time()
            text = self._last.message
        else:
            run_s = self._last.run_s + trio.current_time() - self._last_at
            stem = self._last.stem
            text = with_seconds(stem, run_s) if stem else self._last.message
        if not self._unsent:
            self._posted = trio.Event()
        text = text.strip()
        return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}…"

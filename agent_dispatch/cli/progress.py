"""Live progress on stderr, which nothing ever waits for."""

import os
import threading
from collections import deque
from enum import Enum
from typing import TextIO

import trio

from agent_dispatch.cli.output import fit, is_plain_terminal, one_line
from agent_dispatch.cli.shell import Shell
from agent_dispatch.model.dispatch import Progress

_PACE_S = 0.1
_LOG_PACE_S = 1.0
_BURST_LINES = 50
_CLOSE_WITHIN_S = 0.2
_DEFAULT_COLUMNS = 80
_ERASE_REST = "\x1b[K"
"""ECMA-48 EL: also what the terminal echoed behind the line, such as ^C."""


class Style(Enum):
    """How progress is shown."""

    LINE = "line"
    """One line that is rewritten, with the seconds that went by."""
    STREAM = "stream"
    """A line for each message; of a burst the newest."""
    LOG = "log"
    """The newest message, at most once a second."""


def style_for(shell: Shell, *, stream: bool) -> Style:
    """Choose by what reads stderr, and by what was asked for."""
    if stream:
        return Style.STREAM
    return Style.LINE if is_plain_terminal(shell.stderr, shell.environ) else Style.LOG


class ProgressView:
    """Takes the progress of a dispatch and shows it.

    Writing happens in a thread: a reader of stderr that is stuck delays neither the dispatch nor
    its deadline, and one that is gone does not end it.
    """

    def __init__(self, stderr: TextIO, style: Style) -> None:
        """Show on `stderr`; nothing is written before `show` runs."""
        self._stderr = stderr
        self._style = style
        self._pending: deque[str] = deque(maxlen=_BURST_LINES if style is Style.STREAM else 1)
        self._latest = "Starting"
        self._news = trio.Event()
        self._started = trio.current_time()
        self._writing = threading.Lock()
        self._closed = False

    def on_progress(self, progress: Progress) -> None:
        """Note a message and return at once."""
        message = one_line(progress.message)
        if message and message != self._latest:
            self._latest = message
            self._pending.append(message)
            self._news.set()

    async def show(self) -> None:
        """Write what comes until cancelled."""
        pace_s = _LOG_PACE_S if self._style is Style.LOG else _PACE_S
        # A terminal sees the seconds go by; whatever keeps the lines need not.
        patience_s = 1 - pace_s if self._style is Style.LINE else float("inf")
        while True:
            self._news = trio.Event()
            if self._pending or self._style is Style.LINE:
                await trio.to_thread.run_sync(
                    self._write_due, self._elapsed_s(), abandon_on_cancel=True
                )
            await trio.sleep(pace_s)
            with trio.move_on_after(patience_s):
                await self._news.wait()

    def close(self) -> None:
        """Write what is left, take a rewritten line away, and be silent from now on."""
        if self._writing.acquire(timeout=_CLOSE_WITHIN_S):
            try:
                if self._style is Style.LINE:
                    self._put(f"\r{_ERASE_REST}")
                else:
                    self._put(self._take_lines(self._elapsed_s()))
            finally:
                self._writing.release()
        self._closed = True

    def _elapsed_s(self) -> int:
        return int(trio.current_time() - self._started)

    def _write_due(self, elapsed_s: int) -> None:
        # Taken from what is pending under the lock: a message is written here or by `close`.
        with self._writing:
            if self._style is Style.LINE:
                line = fit(f"{elapsed_s:>3} s  {self._latest}", _columns(self._stderr) - 1)
                self._put(f"\r{line}{_ERASE_REST}")
            else:
                self._put(self._take_lines(elapsed_s))

    def _take_lines(self, elapsed_s: int) -> str:
        messages = [self._pending.popleft() for _ in range(len(self._pending))]
        return "".join(f"[{elapsed_s:>3} s] {message}\n" for message in messages)

    def _put(self, text: str) -> None:
        if self._closed or not text:
            return
        try:
            self._stderr.write(text)
            self._stderr.flush()
        except OSError:
            # Nobody reads the progress any more. What was paid for is the answer.
            self._closed = True


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS

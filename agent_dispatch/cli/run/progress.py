"""Live progress on stderr; nothing ever waits for it."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import TextIO

import trio

from agent_dispatch.cli.output import fit, is_plain_terminal, one_line
from agent_dispatch.cli.shell import Shell
from agent_dispatch.model.dispatch import Progress

_PACE_S = 0.1
_LOG_PACE_S = 1.0
_BURST_LINES = 50
_MAX_AGENTS = 1000
_CLOSE_WITHIN_S = 0.2
_DEFAULT_COLUMNS, _DEFAULT_ROWS = 80, 24
_ERASE_REST = "\x1b[K"
"""ECMA-48 EL: also what the terminal echoed after the line, such as ^C."""
_ERASE_BELOW = "\x1b[J"
"""ECMA-48 ED."""


class Style(Enum):
    """How progress is shown."""

    LINE = "line"
    """A line for each running agent, rewritten in place, with the seconds since the start."""
    STREAM = "stream"
    """A line for each message; only the newest of a burst."""
    LOG = "log"
    """The newest message of each agent, at most once a second."""


def style_for(shell: Shell, *, stream: bool) -> Style:
    """Choose the style by the kind of stderr and by the option `--stream`."""
    if stream:
        return Style.STREAM
    return Style.LINE if is_plain_terminal(shell.stderr, shell.environ) else Style.LOG


class ProgressView:
    """Shows the progress of dispatches.

    It writes in a thread: a reader of stderr that is stuck delays neither the dispatch nor its
    deadline, and a closed stderr does not end it.
    """

    def __init__(self, stderr: TextIO, style: Style) -> None:
        """Show on `stderr`; nothing is written before `show` runs."""
        self._stderr = stderr
        self._style = style
        kept = _BURST_LINES if style is Style.STREAM else _MAX_AGENTS
        self._pending: deque[tuple[int | None, str]] = deque(maxlen=kept)
        self._latest: dict[int | None, str] = {}
        self._lines_shown = 0
        self._news = trio.Event()
        self._started = trio.current_time()
        self._writing = threading.Lock()
        self._silent = False
        self._closed = False

    def on_progress(self, progress: Progress) -> None:
        """Note a message and return at once."""
        message = one_line(progress.message)
        shown = one_line(progress.stem) or message
        if not message or shown == self._latest.get(progress.member):
            return
        self._latest[progress.member] = shown
        self._pending.append((progress.member, message))
        self._news.set()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Write nothing while the block runs, because something else uses the terminal."""
        self._finish_writing()
        self._silent = True
        try:
            yield
        finally:
            self._silent = False
            self._news.set()

    async def show(self) -> None:
        """Write new messages until cancelled."""
        pace_s = _LOG_PACE_S if self._style is Style.LOG else _PACE_S
        # A terminal shows the seconds go by; a file needs no such lines.
        patience_s = 1 - pace_s if self._style is Style.LINE else float("inf")
        while True:
            self._news = trio.Event()
            if self._pending or self._style is Style.LINE:
                elapsed_s = int(trio.current_time() - self._started)
                await trio.to_thread.run_sync(self._write_due, elapsed_s, abandon_on_cancel=True)
            await trio.sleep(pace_s)
            with trio.move_on_after(patience_s):
                await self._news.wait()

    def close(self) -> None:
        """Write pending messages, erase rewritten lines, and write nothing from now on."""
        self._finish_writing()
        self._closed = True

    def _finish_writing(self) -> None:
        if not self._writing.acquire(timeout=_CLOSE_WITHIN_S):
            return  # The reader of stderr is stuck.
        try:
            if self._style is Style.LINE:
                self._put(f"{self._to_first_line()}{_ERASE_BELOW}")
                self._lines_shown = 0
            else:
                self._put(self._take_lines())
        finally:
            self._writing.release()

    def _write_due(self, elapsed_s: int) -> None:
        # Under the lock, so that each message is written once: here or by `close`.
        with self._writing:
            if self._silent:
                return
            if self._style is Style.LINE:
                self._put(self._rewritten(elapsed_s))
            else:
                self._put(self._take_lines())

    def _rewritten(self, elapsed_s: int) -> str:
        columns, rows = _size(self._stderr)
        # The last ones, if there are more agents than the terminal has lines.
        messages = list(self._latest.values())[-(rows - 1) :] or ["Starting"]
        lines = [fit(f"{elapsed_s:>3} s  {message}", columns - 1) for message in messages]
        start = self._to_first_line()
        self._lines_shown = len(lines)
        return start + f"{_ERASE_REST}\n".join(lines) + _ERASE_REST

    def _to_first_line(self) -> str:
        above = self._lines_shown - 1
        return f"\r\x1b[{above}A" if above > 0 else "\r"

    def _take_lines(self) -> str:
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        if self._style is Style.LOG:
            newest = {member: place for place, (member, _) in enumerate(taken)}
            taken = [taken[place] for place in sorted(newest.values())]
        return "".join(f"{message}\n" for _, message in taken)

    def _put(self, text: str) -> None:
        if self._closed or not text:
            return
        try:
            self._stderr.write(text)
            self._stderr.flush()
        except OSError:
            # The reader of the progress is gone. The answer still counts.
            self._closed = True


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return _DEFAULT_COLUMNS, _DEFAULT_ROWS
    return size.columns or _DEFAULT_COLUMNS, max(size.lines, 2) if size.lines else _DEFAULT_ROWS

"""`watch` on a terminal: read keys, draw the screen, run the commands of the keys.

Built on rich, which renders and knows the width of characters. It comes with cyclopts; its `Live`
is imported in 40 to 130 ms (3 MB). Textual has more to offer, but runs on asyncio and takes 250 to
290 ms (another 7 MB).
"""

import contextlib
import os
import signal
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import trio
from rich.console import Console, Group
from rich.live import Live

from agent_dispatch.cli.event_loop import status_after, until_signal
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.follow import new_lines
from agent_dispatch.cli.output import one_line
from agent_dispatch.cli.shell import Shell
from agent_dispatch.cli.watch.command import LOOK_EVERY_S, Seen, Watcher
from agent_dispatch.cli.watch.keys import Command, CommandKind, View, follow, keys_in, press
from agent_dispatch.cli.watch.rows import Row, as_trees, matching
from agent_dispatch.cli.watch.screen import Scene, draw
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.message import SendOutcome
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.run.service import Service
from agent_dispatch.threads import in_thread

_KEY_BYTES = 1024
_CANCELLED: Mapping[CancelOutcome, str] = {
    CancelOutcome.CANCELLED: "cancelled",
    CancelOutcome.RUNNING: "still ending",
    CancelOutcome.ALREADY_TERMINAL: "it had ended before",
    CancelOutcome.NOT_FOUND: "there is no such job",
}
_SENT: Mapping[SendOutcome, str] = {
    SendOutcome.DELIVERED: "the agent has the message",
    SendOutcome.QUEUED: "the agent gets the message as soon as it can",
    SendOutcome.ALREADY_TERMINAL: "it has ended, so it takes no message",
    SendOutcome.NOT_FOUND: "there is no such job",
}
_MAX_TRANSCRIPT_LINES = 2_000


async def watch_terminal(
    shell: Shell,
    watcher: Watcher,
    service: Service,
    opened: str = "",
    *,
    beside: Callable[[], Awaitable[object]] | None = None,
) -> int:
    """Show jobs and obey keys until `q`, a signal, or the end of `beside`.

    The terminal is as it was when this returns, also if cancelled.

    Args:
        watcher: Looks at the jobs.
        service: Does what the keys ask for.
        opened: The job to begin with; empty for the list.
        beside: Something to do meanwhile, which is cancelled at the end.

    Returns:
        The exit status: 0, or 128 + n if signal n ended it.
    """
    screen = _Screen(shell, watcher, service, View(opened=opened, selected=opened))

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.run)
            if beside is not None:
                nursery.start_soon(screen.end_with, beside)
            await screen.left.wait()
            nursery.cancel_scope.cancel()

    with _keys_as_they_come(shell.stdin.fileno()), screen.live:
        ended_by = await until_signal(work)
    return status_after(ended_by)


class _Screen:
    """The state of the screen, and the tasks that update it."""

    def __init__(self, shell: Shell, watcher: Watcher, service: Service, view: View) -> None:
        self.left = trio.Event()
        """Set when the person quits."""
        self._input = shell.stdin.fileno()
        self._watcher = watcher
        self._service = service
        self._view = view
        self._seen = Seen((), None)
        self._transcripts: dict[str, list[str]] = {}
        self._look_now = trio.Event()
        no_color = bool(shell.environ.get("NO_COLOR"))
        self._console = Console(file=shell.stdout, no_color=no_color, highlight=False)
        self.live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    async def run(self) -> None:
        """Look, read keys and redraw until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            nursery.start_soon(self._follow_size)
            await trio.lowlevel.wait_readable(self._input)
            while data := os.read(self._input, _KEY_BYTES):
                for key in keys_in(data):
                    self._press(key, nursery)
                self._draw()
                await trio.lowlevel.wait_readable(self._input)
            self.left.set()  # The terminal is gone.

    async def end_with(self, beside: Callable[[], Awaitable[object]]) -> None:
        """Run `beside`, and leave when it ends."""
        await beside()
        self.left.set()

    def _press(self, key: str, nursery: trio.Nursery) -> None:
        rows = self._rows()
        questions = {item.id: item.question_id for item in self._seen.items if item.question_id}
        before = self._view.opened
        self._view, command = press(self._view, key, [row.item.id for row in rows], questions)
        if self._view.opened != before:
            self._seen = self._seen._replace(opened=None)
            self._look_now.set()
        if command is not None:
            nursery.start_soon(self._do, command)

    async def _do(self, command: Command) -> None:
        short = short_id(command.job_id)
        try:
            self._notice(await self._carry_out(command, short))
        except DispatchError as error:
            self._notice(one_line(str(error)))
        self._look_now.set()

    async def _carry_out(self, command: Command, short: str) -> str:
        match command.kind:
            case CommandKind.CANCEL:
                self._notice(f"Cancelling {short} …")
                outcome = await self._service.jobs.cancel(command.job_id, by="agent-dispatch watch")
                return f"Job {short}: {_CANCELLED[outcome]}."
            case CommandKind.ANSWER:
                verdict = Verdict.ALLOW if command.allow else Verdict.DENY
                self._notice(f"Answering {short} …")
                await self._service.jobs.answer(
                    command.job_id, verdict, AnsweredBy.TERMINAL, command.text
                )
                return f"Job {short}: {'allowed, once' if command.allow else 'denied'}."
            case CommandKind.SEND:
                self._notice(f"Sending to {short} …")
                sent = await self._service.jobs.send(command.job_id, command.text)
                return f"Job {short}: {_SENT[sent.outcome]}."
            case CommandKind.QUIT:
                self.left.set()
                return ""

    def _notice(self, text: str) -> None:
        self._view = self._view._replace(notice=text)
        self._draw()

    async def _look(self) -> None:
        while True:
            self._look_now = trio.Event()
            opened = self._view.opened
            try:
                self._seen = await in_thread(self._watcher.look, opened)
            except DispatchError as error:
                self._notice(one_line(str(error)))
            if (job := self._seen.opened) is not None:
                lines = self._transcripts.setdefault(job.id, [])
                lines += new_lines(lines, job.progress or ())
                del lines[:-_MAX_TRANSCRIPT_LINES]
            self._view = follow(self._view, [row.item.id for row in self._rows()])
            self._draw()
            with trio.move_on_after(LOOK_EVERY_S):
                await self._look_now.wait()

    async def _follow_size(self) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH) as changes:
            async for _ in changes:
                self._draw()

    def _rows(self) -> Sequence[Row]:
        return matching(as_trees(self._seen.items), self._view.filter)

    def _draw(self) -> None:
        width, height = self._console.size
        scene = Scene(
            rows=as_trees(self._seen.items) if self._view.opened else self._rows(),
            opened=self._seen.opened if self._view.opened else None,
            transcript=self._transcripts.get(self._view.opened, ()),
            now=time.time(),
            width=width,
            height=height,
        )
        self.live.update(Group(*draw(self._view, scene)), refresh=True)


@contextlib.contextmanager
def _keys_as_they_come(fd: int) -> Iterator[None]:
    """Read each key at once, without echo. Ctrl-C remains a signal, Ctrl-Z does not."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    mode = termios.tcgetattr(fd)
    # A stopped program would leave its screen behind.
    mode[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

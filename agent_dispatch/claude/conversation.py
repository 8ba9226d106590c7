"""One `claude -p` as a conversation: turns in, events out.

The prompt goes in as a line of stream-json on a pipe of its own, never in argv, so any text and
any size is safe, and `interrupt` travels on the same pipe. Events go to the transcript as they
are read; whoever waits is woken and looks at it.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import trio

from agent_dispatch.claude import guard
from agent_dispatch.claude.child import Child, open_child
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import Command
from agent_dispatch.core.events import ControlRequestEvent, Event, EventDecoder
from agent_dispatch.core.prompt import interrupt_line, refusal_line, user_line
from agent_dispatch.core.transcript import Transcript
from agent_dispatch.model.dispatch import OnProgress

LINGER_S = 2.0
"""How long claude may take to leave after its answer when nothing is left to wait for."""
INTERRUPT_S = 2.0
"""How long an interrupted claude may take to end its turn and leave. Measured with 2.1.330:
0.04 s; a SIGINT to the process group took up to 1.6 s."""
LAST_WORDS_S = 0.25
"""How long what it printed before its exit may be on its way."""
_MAX_REFUSALS = 1000


class Claude:
    """A running claude; made by `open_claude`."""

    def __init__(self, child: Child, transcript: Transcript) -> None:
        """Talk to `child`, whose output `transcript` sums up."""
        self._child = child
        self._transcript = transcript
        self._refusals = 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.exit_code

    @property
    def exited(self) -> bool:
        """It runs no more, or could not be started."""
        return self._child.exited

    @property
    def left_running(self) -> int:
        """Processes that it left behind and that were ended."""
        return self._child.left_running

    @property
    def stderr_tail(self) -> str:
        """The last 64 KiB that it wrote to stderr."""
        return self._child.stderr_tail

    @property
    def guard_lost(self) -> bool:
        """Its guard was killed, and it with it."""
        return self._child.guard_lost

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        return self._child.ended

    async def send_turn(self, prompt: str) -> None:
        """Give it a prompt; one that does not read any more says why by its events and exit."""
        await self._send(user_line(prompt))

    async def send_next_turn(self, prompt: str) -> None:
        """Give it one more prompt, once the turns are over that it began by itself meanwhile."""
        await self._until(lambda: not self._transcript.turn_open)
        self._transcript.expect_answer()
        await self._send(user_line(prompt))

    async def wait_for_answer(self) -> None:
        """Wait for the result of the turn, for its exit, or for an error it would only repeat."""
        await self._until(lambda: self._transcript.answered or self._transcript.fail_fast)

    async def finish_turn(self) -> None:
        """Wait for all that comes of a turn, after which another one may be given.

        Background tasks that it started, and the turns that follow on them, are waited for
        without a bound of our own.
        """
        await self.wait_for_answer()
        while not self.exited and not self._transcript.fail_fast:
            if not self._transcript.idle:
                await self._until(lambda: self._transcript.idle or self._transcript.fail_fast)
                continue
            if not self._transcript.had_tasks:
                return
            with trio.move_on_after(LINGER_S) as linger:
                await self._until(lambda: not self._transcript.idle)
            if linger.cancelled_caught:
                return
        with trio.move_on_after(LAST_WORDS_S if self.exited else 0):
            await self._child.wait_until(lambda: self._transcript.answered)

    async def wait_for_exit(self) -> None:
        """Wait until it runs no more."""
        await self._until(lambda: False)

    async def leave(self) -> None:
        """Let it leave after its answer, and wait for that.

        Background tasks that it started, and the turns that follow on them, are waited for
        without a bound of our own; else it has `LINGER_S` before it is told to end.
        """
        self._child.close_stdin()
        while not self._child.exited:
            if not self._transcript.idle:
                await self._until(lambda: self._transcript.idle)
                continue
            with trio.move_on_after(LINGER_S) as linger:
                await self._until(lambda: not self._transcript.idle)
            if linger.cancelled_caught:
                self._child.end(guard.END_ON_DEADLINE)
                await self._until(lambda: False)

    async def stop(self) -> None:
        """End it at its deadline: interrupt, then SIGTERM, then SIGKILL.

        An interrupted turn ends with a result of its own and a resumable transcript.
        """
        if self._transcript.turn_open:
            with trio.move_on_after(INTERRUPT_S):
                await self._send(interrupt_line("deadline"))
                await self._until(lambda: not self._transcript.turn_open)
                self._child.close_stdin()
                await self._until(lambda: False)
        self._child.end(guard.END_ON_DEADLINE)

    def end(self) -> None:
        """End it without a word: SIGTERM, then SIGKILL."""
        self._child.end(guard.END_ON_CANCEL)

    def refuse(self, asked: ControlRequestEvent) -> None:
        """Refuse what claude asks of its host; unanswered it would wait for ever."""
        # One that floods its host is not owed an answer to each.
        if self._refusals < _MAX_REFUSALS:
            self._refusals += 1
            self._child.start_soon(self._send, refusal_line(asked))

    async def _send(self, line: bytes) -> None:
        # Why it does not read any more is told by its events and its exit.
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._child.send(line)

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait until `reached`, or until it has exited."""
        await self._child.wait_until(lambda: self._child.exited or reached())


@contextlib.asynccontextmanager
async def open_claude(
    launcher: Launcher,
    command: Command,
    transcript: Transcript,
    *,
    on_progress: OnProgress,
    held_fds: Sequence[int] = (),
) -> AsyncIterator[Claude]:
    """Run claude for as long as the block runs; `transcript` is complete once it is left.

    Args:
        on_progress: Gets a line for each event worth one; must not wait.
        held_fds: Descriptors kept open until no process of it is left.

    Raises:
        ChildStartError: When the block is left: claude or its directory was not usable.
    """
    decoder = EventDecoder()

    def take(events: Iterable[Event]) -> None:
        for event in events:
            if (progress := transcript.add(event)) is not None:
                on_progress(progress)
            if isinstance(event, ControlRequestEvent):
                claude.refuse(event)

    def on_stdout(chunk: bytes) -> None:
        take(decoder.feed(chunk))

    async with open_child(launcher, command, on_stdout=on_stdout, held_fds=held_fds) as child:
        claude = Claude(child, transcript)
        yield claude
    take(decoder.finish())

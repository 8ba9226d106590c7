"""One `claude -p` that is spoken to: lines in, events out.

The prompt goes in as a line of stream-json on a pipe of its own, never in argv, so any text and
any size is safe, and `interrupt` travels on the same pipe. Events go to the transcript as they
are read; each one wakes the tasks that wait for it.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import trio

from agent_dispatch.claude.child import Child, open_child
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import Command
from agent_dispatch.core.stream.events import (
    CommandLifecycleEvent,
    ControlCancelRequestEvent,
    ControlRequestEvent,
    Event,
)
from agent_dispatch.core.stream.reader import EventDecoder
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.model.dispatch import OnProgress

ControlEvent = ControlRequestEvent | ControlCancelRequestEvent | CommandLifecycleEvent
OnControl = Callable[[Child, ControlEvent], object]
"""Takes what claude asks on its control pipe, and what becomes of user lines; must not wait. A
request without an answer would keep claude waiting for ever."""


async def say(child: Child, line: bytes) -> None:
    """Write a line to claude's stdin; its events and its exit tell why it does not read it."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await child.send(line)


@contextlib.asynccontextmanager
async def open_claude(
    launcher: Launcher,
    command: Command,
    transcript: Transcript,
    on_progress: OnProgress,
    held_fds: Sequence[int],
    on_control: OnControl,
) -> AsyncIterator[Child]:
    """Run claude for as long as the block runs; `transcript` is complete once it is left.

    Args:
        on_progress: Gets a line for each event worth one; must not wait.
        held_fds: Descriptors kept open until no process of it is left.
        on_control: Gets each request on the control pipe, each withdrawal of one, and what becomes
            of user lines.

    Raises:
        ChildStartError: When the block is left: claude or its directory was not usable.
    """
    decoder = EventDecoder()

    def take(events: Iterable[Event]) -> None:
        for event in events:
            for progress in transcript.add(event):
                on_progress(progress)
            if isinstance(event, ControlEvent):
                on_control(child, event)

    def on_stdout(chunk: bytes) -> None:
        take(decoder.feed(chunk))

    async with open_child(launcher, command, on_stdout=on_stdout, held_fds=held_fds) as child:
        yield child
    take(decoder.finish())

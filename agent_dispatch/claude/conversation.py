"""One `claude -p` in a conversation: lines in, events out.

The prompt is a line of stream-json on stdin, never an argument, so any text of any size is safe;
interrupts take the same way. Events go to the transcript while they are read, and each chunk wakes
the tasks that wait for the child.
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
"""Gets claude's control requests, and the life cycle of user lines; must not wait. Claude waits for
ever for the answer to a request."""


async def say(child: Child, line: bytes) -> None:
    """Write a line to claude's stdin. If claude has stopped reading, its exit will say why."""
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
    """Run claude for as long as the block runs; after it, `transcript` is complete.

    Args:
        on_progress: Gets the lines of progress that events give; must not wait.
        held_fds: Descriptors that the guard keeps open until the last process has ended.
        on_control: Gets each control request, each withdrawal of one, and the life cycle of user
            lines.

    Raises:
        ChildStartError: claude or its directory cannot be used. Raised when the block is left.
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

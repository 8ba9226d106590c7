"""Messages to the agent of a running job: written to its claude, and recorded.

A message comes by the job's mailbox and is written as a user line with an id of its own. During a
turn, Claude Code gives it to the model with the result of the next tool; after the last tool it
becomes a turn of its own. `command_lifecycle` events report each line (measured with 2.1.330):
`queued` when the line was read, `started` when the model gets it, then `completed` or `cancelled`.
"""

import time
import uuid
from collections.abc import Callable
from enum import Enum, auto

import trio

from agent_dispatch.claude.child import Child
from agent_dispatch.claude.conversation import say
from agent_dispatch.core.stream.events import CommandLifecycleEvent
from agent_dispatch.core.stream.stdin import message_line, withdrawal_line
from agent_dispatch.jobs.mailbox import Mail
from agent_dispatch.jobs.owner import Ownership
from agent_dispatch.model.message import Message, MessageBody


class _Fate(Enum):
    """How far a line has come on its way to the current claude."""

    UNWRITTEN = auto()
    WRITTEN = auto()
    """Claude has not reported that it read the line."""
    QUEUED = auto()
    STARTED = auto()
    OVER = auto()


_FATES = {
    "queued": _Fate.QUEUED,
    "started": _Fate.STARTED,
    "completed": _Fate.OVER,
    "cancelled": _Fate.OVER,
}


class _Entry:
    def __init__(self, line_id: str, message: Message) -> None:
        self.line_id = line_id
        self.message = message
        self.fate = _Fate.UNWRITTEN


class Messages:
    """The messages to one job; made with its `JobRun`."""

    def __init__(self, owned: Ownership, *, now: Callable[[], float] = time.time) -> None:
        """Record messages in the job of `owned`."""
        self._owned = owned
        self._now = now
        self._entries: list[_Entry] = []
        self._child: Child | None = None
        self._more = trio.Event()

    def take(self, mail: Mail, body: MessageBody) -> None:
        """Accept a message; it is written to claude as soon as one runs."""
        try:
            line_id = str(uuid.UUID(mail.id))
        except ValueError:  # Not sent by this program.
            return
        message = Message(id=mail.id, text=body.text, sent_at=mail.sent_at)
        self._entries.append(_Entry(line_id, message))
        self._note()
        self._more.set()
        if self._child is not None:
            self._child.tick()

    @property
    def unread(self) -> bool:
        """A message is on its way: claude has not reported that it read it."""
        return self._any(_Fate.UNWRITTEN, _Fate.WRITTEN)

    @property
    def at_work(self) -> bool:
        """Claude has a message that it has not completed."""
        return self._any(_Fate.QUEUED, _Fate.STARTED)

    def _any(self, *fates: _Fate) -> bool:
        return self._child is not None and any(entry.fate in fates for entry in self._entries)

    @property
    def delivered(self) -> int:
        """How many messages have reached the model."""
        return sum(entry.message.delivered_at is not None for entry in self._entries)

    def go_to(self, child: Child) -> None:
        """Write messages to this claude from now on, first those that no model has got."""
        if self._child is child:
            return
        for entry in self._entries:
            if entry.message.delivered_at is None:
                entry.fate = _Fate.UNWRITTEN
        self._child = child
        child.start_soon(self._write, child)

    async def _write(self, child: Child) -> None:
        while self._child is child:
            self._more = trio.Event()
            for entry in self._entries:
                if entry.fate is _Fate.UNWRITTEN and self._child is child:
                    entry.fate = _Fate.WRITTEN
                    await say(child, message_line(entry.message.text, entry.line_id))
            if not any(entry.fate is _Fate.UNWRITTEN for entry in self._entries):
                await self._more.wait()

    def stop(self) -> None:
        """Write no more lines: claude's stdin is being closed."""
        self._child = None
        self._more.set()

    def withdrawals(self) -> list[bytes]:
        """Return lines that withdraw the messages that claude has not begun.

        Otherwise it would begin a turn with them after it was interrupted.
        """
        fates = (_Fate.WRITTEN, _Fate.QUEUED)
        return [withdrawal_line(entry.line_id) for entry in self._entries if entry.fate in fates]

    def see(self, event: CommandLifecycleEvent) -> None:
        """Note the state that claude reports for a line."""
        fate = _FATES.get(event.state)
        for entry in self._entries:
            if entry.line_id == event.command_uuid and fate is not None:
                entry.fate = fate
                if event.state in ("started", "completed") and not entry.message.delivered_at:
                    entry.message = _delivered(entry.message, self._now())
                    self._note()

    def _note(self) -> None:
        self._owned.note(messages=[entry.message for entry in self._entries])


def _delivered(message: Message, at: float) -> Message:
    return Message(id=message.id, text=message.text, sent_at=message.sent_at, delivered_at=at)

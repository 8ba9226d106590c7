"""A fake claude that plays events in virtual time, to test the logic of the run loop."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import trio

from agent_dispatch.claude.child import Child
from agent_dispatch.claude.conversation import ControlEvent, OnControl
from agent_dispatch.core.command import Command
from agent_dispatch.core.stream.events import (
    AssistantEvent,
    BackgroundTask,
    CommandLifecycleEvent,
    ContentBlock,
    ControlRequestEvent,
    Event,
    Message,
    OtherEvent,
    ResultEvent,
    SystemEvent,
)
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.model.dispatch import OnProgress

SESSION = "11111111-2222-4333-8444-555555555555"
INIT = SystemEvent(subtype="init", session_id=SESSION)
TEXT = AssistantEvent(message=Message(content=(ContentBlock(type="text", text="thinking"),)))
DENIED = SystemEvent(subtype="permission_denied", tool_name="Bash", tool_use_id="t1")
AUTH_RETRY = SystemEvent(subtype="api_retry", error_status=401, attempt=1, max_retries=10)
ABORTED = ResultEvent(
    subtype="error_during_execution",
    is_error=True,
    num_turns=1,
    terminal_reason="aborted_tools",
    session_id=SESSION,
)

BOUNDARY = OtherEvent("boundary")
"""Stands for the moment between two tool calls."""


def answer(text: str) -> ResultEvent:
    return ResultEvent(
        subtype="success", is_error=False, result=text, num_turns=1, session_id=SESSION
    )


def tasks(count: int) -> SystemEvent:
    alive = tuple(BackgroundTask(task_id=str(number)) for number in range(count))
    return SystemEvent(subtype="background_tasks_changed", tasks=alive)


class FakeClaude:
    """Plays `(seconds before it, event)` pairs after the first prompt, then exits or hangs.

    A fake that hangs can get further prompts: for each it plays a script of `later`.
    """

    def __init__(
        self,
        *script: tuple[float, Event],
        then_hangs: bool = False,
        later: Sequence[Sequence[tuple[float, Event]]] = (),
        obeys_interrupt: bool = True,
        exit_code: int = 0,
        left_running: int = 0,
        tells_of_lines: bool = True,
    ) -> None:
        self._tells_of_lines = tells_of_lines
        self._scripts = [script, *later]
        self._then_hangs = then_hangs
        self._obeys_interrupt = obeys_interrupt
        self._will_exit_with = exit_code
        self.left_running = left_running
        self.guard_lost = False
        self.commands: list[Command] = []
        self.begun = trio.Event()
        """Set with the first command."""
        self.prompts: list[str] = []
        self.running = 0
        self.peak = 0
        self.ended_by: list[str] = []
        self.messages: list[str] = []
        """Lines that came during a turn; taken in at the next `BOUNDARY` of the script."""
        self.withdrawn: list[str] = []
        """The ids of those that were taken back."""
        self.replies: list[dict[str, Any]] = []
        """What came of its requests; it waits for each."""
        self.replied_after_s: list[float] = []

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        command: Command,
        transcript: Transcript,
        on_progress: OnProgress,
        held_fds: Sequence[int],
        on_control: OnControl,
    ) -> AsyncIterator[Child]:
        self.commands.append(command)
        self._began_at = trio.current_time()
        self.begun.set()
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            async with trio.open_nursery() as nursery:
                child = _Playing(self, transcript, on_progress, on_control, nursery)
                yield child
                nursery.cancel_scope.cancel()
            child.exited = child.ended = True
        finally:
            self.running -= 1


class _Playing(Child):
    """A child without a process: what is written to its stdin starts the next script."""

    def __init__(
        self,
        fake: FakeClaude,
        transcript: Transcript,
        on_progress: OnProgress,
        on_control: OnControl,
        nursery: trio.Nursery,
    ) -> None:
        super().__init__(cast("trio.lowlevel.FdStream", None), -1, nursery)
        self._fake = fake
        self._transcript = transcript
        self._on_progress = on_progress
        self._on_control = on_control
        self._scripts = iter(fake._scripts)
        self._queued: list[str] = []
        self.left_running = fake.left_running
        self.guard_lost = fake.guard_lost

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        line = json.loads(data)
        if "uuid" in line:
            self._fake.messages.append(line["message"]["content"])
            self._take_message(line["uuid"])
            return
        if line["type"] == "user":
            self._fake.prompts.append(line["message"]["content"])
            self.start_soon(self._play)
            return
        if line.get("request", {}).get("subtype") == "cancel_async_message":
            self._fake.withdrawn.append(line["request"]["message_uuid"])
            return
        if line["type"] == "control_response":
            self._fake.replies.append(line["response"]["response"])
            self._fake.replied_after_s.append(trio.current_time() - self._fake._began_at)
            self._replied.set()
            return
        self._fake.ended_by.append(line["request"]["subtype"])
        if self._fake._obeys_interrupt:
            self._add(ABORTED)
            self._exit(0)

    def close_stdin(self) -> None:
        if "close" not in self._fake.ended_by:
            self._fake.ended_by.append("close")

    def end(self, order: bytes) -> None:
        self._fake.ended_by.append("end")
        self._exit(143)

    def _take_message(self, line_id: str) -> None:
        if self._fake._tells_of_lines:
            self._tell("queued", line_id)
        self._queued.append(line_id)

    def _tell(self, state: str, line_id: str) -> None:
        self._add(CommandLifecycleEvent(command_uuid=line_id, state=state))

    async def _play(self) -> None:
        for delay_s, event in next(self._scripts):
            await trio.sleep(delay_s)
            if event == BOUNDARY and self._fake._tells_of_lines:
                started, self._queued = self._queued, []
                for state in ("started", "completed"):
                    for line_id in started:
                        self._tell(state, line_id)
                continue
            self._replied = trio.Event()
            self._add(event)
            if isinstance(event, ControlRequestEvent):
                await self._replied.wait()
        if not self._fake._then_hangs:
            self._exit(self._fake._will_exit_with)

    def _add(self, event: Event) -> None:
        for progress in self._transcript.add(event):
            self._on_progress(progress)
        if isinstance(event, ControlEvent):
            self._on_control(self, event)
        self.tick()

    def _exit(self, code: int) -> None:
        if not self.exited:
            self.exit_code = code
            self.exited = self.ended = True
            self.tick()

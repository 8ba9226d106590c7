"""A fake claude that plays events in virtual time, to test the logic of the run loop."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import trio

from agent_dispatch.core.command import Command
from agent_dispatch.core.event_types import (
    AssistantEvent,
    BackgroundTask,
    ContentBlock,
    Event,
    Message,
    ResultEvent,
    SystemEvent,
)
from agent_dispatch.core.transcript import Transcript
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
    ) -> None:
        self._scripts = [script, *later]
        self._then_hangs = then_hangs
        self._obeys_interrupt = obeys_interrupt
        self._will_exit_with = exit_code
        self.left_running = left_running
        self.stderr_tail = ""
        self.guard_lost = False
        self.exit_code: int | None = None
        self.commands: list[Command] = []
        self.begun = trio.Event()
        """Set with the first command."""
        self.prompts: list[str] = []
        self.running = 0
        self.peak = 0
        self.ended_by: list[str] = []

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        command: Command,
        transcript: Transcript,
        *,
        on_progress: OnProgress,
        held_fds: Sequence[int],
    ) -> AsyncIterator["_Playing"]:
        self.commands.append(command)
        self.begun.set()
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            async with trio.open_nursery() as nursery:
                yield _Playing(self, transcript, on_progress, nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.running -= 1


class _Playing:
    def __init__(
        self,
        fake: FakeClaude,
        transcript: Transcript,
        on_progress: OnProgress,
        nursery: trio.Nursery,
    ) -> None:
        self._fake = fake
        self._transcript = transcript
        self._on_progress = on_progress
        self._nursery = nursery
        self._scripts = iter(fake._scripts)
        self._exited = trio.Event()
        self._moved = trio.Event()
        self.left_running = fake.left_running
        self.stderr_tail = fake.stderr_tail
        self.guard_lost = fake.guard_lost

    @property
    def exit_code(self) -> int | None:
        return self._fake.exit_code

    @property
    def exited(self) -> bool:
        return self._exited.is_set()

    @property
    def tree_ended(self) -> bool:
        return self._exited.is_set()

    async def send_turn(self, prompt: str) -> None:
        self._fake.prompts.append(prompt)
        self._nursery.start_soon(self._play)

    async def send_next_turn(self, prompt: str) -> None:
        self._transcript.expect_answer()
        await self.send_turn(prompt)

    async def finish_turn(self) -> None:
        await self.wait_for_answer()
        while not (self._transcript.idle or self._transcript.fail_fast or self._exited.is_set()):
            await self._moved.wait()

    async def wait_for_exit(self) -> None:
        await self._exited.wait()

    async def wait_for_answer(self) -> None:
        while not (
            self._transcript.answered or self._transcript.fail_fast or self._exited.is_set()
        ):
            await self._moved.wait()

    async def leave(self) -> None:
        self._fake.ended_by.append("leave")
        await self._exited.wait()

    async def stop(self) -> None:
        self._fake.ended_by.append("stop")
        if self._fake._obeys_interrupt and self._transcript.turn_open:
            self._add(ABORTED)
        self._exit(143)

    def end(self) -> None:
        self._fake.ended_by.append("end")
        self._exit(143)

    async def _play(self) -> None:
        for delay_s, event in next(self._scripts):
            await trio.sleep(delay_s)
            self._add(event)
        if not self._fake._then_hangs:
            self._exit(self._fake._will_exit_with)

    def _add(self, event: Event) -> None:
        if (progress := self._transcript.add(event)) is not None:
            self._on_progress(progress)
        self._move()

    def _exit(self, code: int) -> None:
        self._fake.exit_code = code
        self._exited.set()
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

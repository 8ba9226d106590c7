"""One agent in a dialogue: its session, and the claude that has it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from agent_dispatch.claude.child import ChildStartError
from agent_dispatch.core.command import Command
from agent_dispatch.core.outcome import refused
from agent_dispatch.core.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.core.transcript import Transcript
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchResult, OnProgress
from agent_dispatch.run.one_run import Conversation, OpenClaude, not_started, report_on

_EXIT_S = 3.0
"""How long to wait for one that was stopped: the longest grace, with room for a loaded machine."""
_LEAVE_S = 2.0
"""How long one may take to leave when all is said. Measured with Claude Code 2.1.330: 0.1 s."""

Resume = Callable[[str], Awaitable[Command | DispatchResult]]
"""Makes the command that goes on with a session, or says why there can be none."""


class Speaker:
    """One of the two; it keeps one claude for all of its turns.

    Only if that has ended after an answer, or was stopped because of a background task that did
    not end, another one goes on with the session.
    """

    def __init__(self, agent: EffectiveAgent, command: Command, resume: Resume) -> None:
        """Speak for `agent`: `command` begins its session, `resume` goes on with it."""
        self.agent = agent
        self.first_session_id = command.session_id
        """The session that it begins."""
        self._next_command: Command | None = command
        self._resume = resume
        self._processes: list[_Process] = []

    @property
    def session_id(self) -> str | None:
        """Its session, once there is one to resume."""
        known = (process.session_id for process in self._processes)
        return next((session_id for session_id in known if session_id is not None), None)

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        return all(process.tree_ended for process in self._processes)

    @property
    def left_running(self) -> int:
        """How many processes it left behind."""
        return sum(process.left_running for process in self._processes)

    @property
    def answered(self) -> bool:
        """An answer to what it was asked last has arrived."""
        return self._processes[-1].transcript.answered

    async def prepare(
        self,
        stack: contextlib.AsyncExitStack,
        open_claude: OpenClaude,
        held_fds: Sequence[int],
        on_progress: OnProgress,
    ) -> DispatchResult | None:
        """Have a claude to speak to until `stack` is unwound, or say why there can be none.

        That it does not start is told by `report`.
        """
        if self._processes and not self._processes[-1].over:
            return None
        command = self._next_command or await self._goes_on()
        if isinstance(command, DispatchResult):
            return command
        process = _Process(command, is_resumed=self._next_command is None)
        self._next_command = None
        self._processes.append(process)
        await stack.enter_async_context(process.running(open_claude, held_fds, on_progress))
        return None

    async def _goes_on(self) -> Command | DispatchResult:
        if (session_id := self.session_id) is not None:
            return await self._resume(session_id)
        error = "Claude Code ended after its answer, and had named no session to go on with."
        return refused(self.agent.name, error)

    async def speak(self, prompt: str, deadline: float) -> Ending:
        """Have it answer, with all that follows on that, until `deadline` on Trio's clock."""
        return await self._processes[-1].speak(prompt, deadline)

    async def stop(self) -> None:
        """End its claude, whose time is up, and wait for that; what it has said stays said."""
        await self._processes[-1].stop()

    def report(self, ending: Ending, duration_ms: int, timeout_s: float) -> RunReport:
        """Report on the turn in hand."""
        return self._processes[-1].report(self.agent, ending, duration_ms, timeout_s)

    def next_turn(self) -> None:
        """Be done with the turn in hand."""
        self._processes[-1].transcript.next_turn()

    async def leave(self) -> None:
        """Let its claude leave; returns when it has, or does not."""
        for process in self._processes:
            await process.leave()

    def end(self) -> None:
        """End its claude at once."""
        for process in self._processes:
            process.end()


class _Process:
    """One claude of a speaker."""

    def __init__(self, command: Command, *, is_resumed: bool) -> None:
        self.transcript = Transcript()
        self._command = command
        self._claude: Conversation | None = None
        self._start_failure: StartFailure | None = None
        self._is_resumed = is_resumed
        self._prompts = 0
        self._stopped = False

    @property
    def over(self) -> bool:
        """It takes no more prompts."""
        return self._stopped or self._claude is None or self._claude.exited

    @property
    def session_id(self) -> str | None:
        return self.transcript.session_id

    @property
    def tree_ended(self) -> bool:
        return self._claude is None or self._claude.tree_ended

    @property
    def left_running(self) -> int:
        return 0 if self._claude is None else self._claude.left_running

    @contextlib.asynccontextmanager
    async def running(
        self, open_claude: OpenClaude, held_fds: Sequence[int], on_progress: OnProgress
    ) -> AsyncIterator[None]:
        """Run it for as long as the block runs; that it cannot be started is in its report."""
        try:
            async with open_claude(
                self._command, self.transcript, on_progress=on_progress, held_fds=held_fds
            ) as self._claude:
                yield
            return
        except ChildStartError as error:
            stage = StartStage(error.stage)
            self._start_failure = StartFailure(stage=stage, errno=error.errno, text=str(error))
        if self._claude is None:
            yield

    async def speak(self, prompt: str, deadline: float) -> Ending:
        claude = self._claude
        if claude is None:
            return Ending.START_FAILED
        self._prompts += 1
        with trio.CancelScope(deadline=deadline) as limit:
            if self._prompts == 1:
                await claude.send_turn(prompt)
            else:
                await claude.send_next_turn(prompt)
            await claude.finish_turn()
        if limit.cancelled_caught:
            return Ending.DEADLINE
        if self.transcript.fail_fast:
            self._stopped = True
            claude.end()
            return Ending.AUTH
        return Ending.EXITED

    async def stop(self) -> None:
        self._stopped = True
        if self._claude is not None:
            self.transcript.time_is_up()
            await self._claude.stop()
            with trio.move_on_after(_EXIT_S):
                await self._claude.wait_for_exit()

    def report(
        self, agent: EffectiveAgent, ending: Ending, duration_ms: int, timeout_s: float
    ) -> RunReport:
        program = self._command.argv[0]
        if self._start_failure is not None:
            return not_started(agent, timeout_s, self._start_failure, program)
        return report_on(
            self._claude,
            self.transcript.seen(),
            agent=agent,
            ending=ending,
            duration_ms=duration_ms,
            timeout_s=timeout_s,
            program=program,
            resumed=self.session_id if self._is_resumed else None,
        )

    async def leave(self) -> None:
        if self._claude is not None and not self.over:
            with trio.move_on_after(_LEAVE_S):
                await self._claude.leave()

    def end(self) -> None:
        if self._claude is not None:
            self._claude.end()

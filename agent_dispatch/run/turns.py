"""One claude and the turns that it is given: the loop of every run.

A dispatch is one turn, with stdin closed behind its answer; a dialogue puts several turns to each
of two. `core.turn_rules` says what a turn waits for. Leaving the block of `Turns.running` ends
every process of the run, so a cancellation needs no code here.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
import trio

from agent_dispatch.claude.child import Child, ChildStartError
from agent_dispatch.claude.conversation import say
from agent_dispatch.claude.guard import END_ON_CANCEL, END_ON_DEADLINE
from agent_dispatch.config.claude_settings import read_claude_settings
from agent_dispatch.core.command import Command
from agent_dispatch.core.outcome import classify
from agent_dispatch.core.prompt import interrupt_line, user_line
from agent_dispatch.core.report import Ending, RunReport, Seen, StartFailure, StartStage
from agent_dispatch.core.transcript import Transcript
from agent_dispatch.core.turn_rules import PATIENCE_S, Wait, next_wait
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchResult, OnProgress
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.threads import in_thread

OpenClaude = Callable[
    [Command, Transcript, OnProgress, Sequence[int]], AbstractAsyncContextManager[Child]
]
"""`claude.conversation.open_claude` with its launcher."""

_INTERRUPT_S = 2.0
"""How long an interrupted claude may take to end its turn and leave. Measured with 2.1.330:
0.04 s; a SIGINT to the process group took up to 1.6 s."""
_EXIT_S = 3.0
"""How long to wait for one that was stopped: the longest grace, with room for a loaded machine."""
_SETTINGS_S = 2.0
"""How long to read Claude Code's settings, which only explain a denial."""
_LEAVE_S = 2.0
"""How long one may take to leave when all is said. Measured with Claude Code 2.1.330: 0.1 s."""


def _nothing() -> None:
    """Do nothing."""


class TimeLimit:
    """How long a turn may take, counted from its start; it can be moved while the turn goes on."""

    def __init__(self, timeout_s: float, on_begin: Callable[[], object] = _nothing) -> None:
        """Allow `timeout_s` seconds; call `on_begin` when they begin."""
        self.scope = trio.CancelScope()
        self.has_begun = False
        self._timeout_s = timeout_s
        self._on_begin = on_begin

    @property
    def timeout_s(self) -> float:
        """Seconds from the start to the limit, as it is now."""
        return self._timeout_s

    @property
    def has_passed(self) -> bool:
        """The turn was told to end."""
        return self.scope.cancel_called

    def begin(self) -> None:
        """Start the clock."""
        self.has_begun = True
        self._began = trio.current_time()
        self.scope.deadline = self._began + self._timeout_s
        # Forget the callback: its object holds us, and the cycle would keep the answer in memory.
        on_begin, self._on_begin = self._on_begin, _nothing
        on_begin()

    def move_to(self, deadline: float) -> None:
        """Set the limit to this time of Trio's clock; only once it has begun."""
        self._timeout_s = deadline - self._began
        self.scope.deadline = deadline


class Turns:
    """One process of one agent, from its start to the report on its last turn."""

    def __init__(
        self,
        agent: EffectiveAgent,
        command: Command,
        run: JobRun,
        on_progress: OnProgress,
        *,
        resumed: str | None = None,
    ) -> None:
        """Prepare to run `command`.

        Args:
            agent: The agent it runs.
            command: Starts its claude.
            run: The job it belongs to.
            on_progress: Gets what the agent does.
            resumed: The session that `command` resumes.
        """
        self.transcript = Transcript()
        self.ending = Ending.CANCELLED
        """Why the current turn ended; before that, what a cancellation would make of it."""
        self._agent = agent
        self._command = command
        self._run = run
        self._on_progress = on_progress
        self._resumed = resumed
        self._child: Child | None = None
        self._start_failure: StartFailure | None = None
        self._limit = TimeLimit(agent.timeout_s)
        self._inherited: ClaudeSettings | None = None
        self._turns = 0
        self._is_stopped = False

    @property
    def over(self) -> bool:
        """It takes no more turns."""
        return self._is_stopped or self._child is None or self._child.exited

    @contextlib.asynccontextmanager
    async def running(
        self, open_claude: OpenClaude, held_fds: Sequence[int]
    ) -> AsyncIterator[None]:
        """Run it for as long as the block runs; a failure to start it goes into the report."""
        self._began = trio.current_time()
        held_fds = [*held_fds, *self._run.owned.held_fds]
        try:
            async with open_claude(
                self._command, self.transcript, self._on_progress, held_fds
            ) as self._child:
                self._run.children.append(self._child)
                yield
            return
        except ChildStartError as error:
            self._start_failure = StartFailure(
                stage=StartStage(error.stage), errno=error.errno, text=str(error)
            )
        if self._child is None:
            yield

    async def ask(self, prompt: str, limit: TimeLimit, *, is_last: bool) -> None:
        """Put a turn to it, and wait for all that comes of it, until `limit`.

        Args:
            prompt: What to say.
            limit: How long it may take; the process is ended then.
            is_last: No other turn follows: it leaves behind its answer.
        """
        if self._turns:
            self._began = trio.current_time()
        self._limit = limit
        self.ending = Ending.CANCELLED
        if (child := self._child) is None:
            self.ending = Ending.START_FAILED
            return
        limit.begin()
        with limit.scope:
            await self._say(child, prompt)
            self.ending = await self._see_through(child, is_last=is_last)
        if limit.scope.cancelled_caught:
            if is_last or not self.transcript.answered:
                self._run.mark_ending()
            await self._stop(child)
            self.ending = Ending.DEADLINE

    async def _say(self, child: Child, prompt: str) -> None:
        if self._turns:
            # The CLI may have begun a turn by itself meanwhile.
            await child.wait_until(lambda: child.exited or not self.transcript.turn_open)
            self.transcript.expect_answer()
        self._turns += 1
        await say(child, user_line(prompt))

    async def _see_through(self, child: Child, *, is_last: bool) -> Ending:
        def wait() -> Wait:
            return next_wait(self.transcript, exited=child.exited, is_last=is_last)

        def changed() -> bool:
            return wait() is not waiting

        while (waiting := wait()) in PATIENCE_S:
            if is_last and waiting is not Wait.ANSWER:
                child.close_stdin()
            with trio.move_on_after(PATIENCE_S[waiting]) as patience:
                await child.wait_until(changed)
            if patience.cancelled_caught:
                break
        if waiting is Wait.REFUSED:
            self._is_stopped = True
            child.end(END_ON_CANCEL)
            return Ending.AUTH
        if is_last and not child.exited:
            child.end(END_ON_DEADLINE)
            await child.wait_until(lambda: child.exited)
        return Ending.EXITED

    async def _stop(self, child: Child) -> None:
        """End it at its deadline: interrupt, then SIGTERM, then SIGKILL.

        An interrupted turn ends with a result of its own and a resumable transcript.
        """
        self._is_stopped = True
        self.transcript.time_is_up()
        if self.transcript.turn_open:
            with trio.move_on_after(_INTERRUPT_S):
                await say(child, interrupt_line("deadline"))
                await child.wait_until(lambda: child.exited or not self.transcript.turn_open)
                child.close_stdin()
                await child.wait_until(lambda: child.exited)
        child.end(END_ON_DEADLINE)
        with trio.move_on_after(_EXIT_S):
            await child.wait_until(lambda: child.exited)

    async def leave(self) -> None:
        """Let it leave when all is said; returns when it has, or does not."""
        if self._child is not None and not self.over:
            child = self._child
            child.close_stdin()
            with trio.move_on_after(_LEAVE_S):
                await child.wait_until(lambda: child.exited)

    def end(self) -> None:
        """End it at once; returns before it has ended."""
        if self._child is not None:
            self._child.end(END_ON_CANCEL)

    async def explain_denials(self) -> None:
        """Read Claude Code's own settings if a call was denied, so that the report names the rule.

        The turn is paid for, so neither a cancellation nor a disk that does not answer may cost its
        result.
        """
        if self._inherited is None and self.transcript.seen().denials:
            with trio.move_on_after(_SETTINGS_S, shield=True):
                self._inherited = await in_thread(
                    read_claude_settings, self._agent.directory, self._command.env
                )

    def report(self) -> RunReport:
        """Report on the turn in hand; of a last turn all is known once the block was left."""
        if self._start_failure is not None:
            return not_started(
                self._agent, self._limit.timeout_s, self._start_failure, self._command.argv[0]
            )
        child, ending = self._child, self.ending
        if child is not None and child.guard_lost and ending is Ending.EXITED:
            ending = Ending.GUARD_LOST
        return RunReport(
            agent=self._agent,
            ending=ending,
            duration_ms=round((trio.current_time() - self._began) * 1000),
            timeout_s=self._limit.timeout_s,
            seen=Seen() if child is None else self.transcript.seen(),
            inherited=self._inherited or ClaudeSettings(),
            resumed=self._resumed,
            exit_code=child.exit_code if child else None,
            stderr_tail=child.stderr_tail if child else "",
            program=self._command.argv[0],
        )

    def result(self, cancelled_by: str = "") -> DispatchResult:
        """Say what came of the turn in hand until now."""
        return classify(msgspec.structs.replace(self.report(), cancelled_by=cancelled_by))


def not_started(
    agent: EffectiveAgent, timeout_s: float, failure: StartFailure, program: str = "claude"
) -> RunReport:
    """Report on a run of which nothing was started."""
    return RunReport(
        agent=agent,
        ending=Ending.START_FAILED,
        duration_ms=0,
        timeout_s=timeout_s,
        start_failure=failure,
        program=program,
    )

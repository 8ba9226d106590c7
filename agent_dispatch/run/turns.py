"""One claude and its turns: the loop of every run.

A dispatch is one turn, and stdin is closed after its answer. A dialogue gives several turns to each
of two claudes. `core.stream.turn_rules` says what a turn waits for. Leaving the block of
`Turns.running` ends every process of the run, so a cancellation needs no code here.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import msgspec
import trio

from agent_dispatch.claude.child import Child, ChildStartError
from agent_dispatch.claude.conversation import ControlEvent, OnControl, say
from agent_dispatch.claude.guard import END_ON_CANCEL, END_ON_DEADLINE
from agent_dispatch.config.project.claude_settings import read_claude_settings
from agent_dispatch.core.command import Command
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.core.stream.events import CommandLifecycleEvent, ControlCancelRequestEvent
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.core.stream.stdin import interrupt_line, is_permission, refusal_line, user_line
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.core.stream.turn_rules import PATIENCE_S, Wait, next_wait
from agent_dispatch.model.claude_settings import ClaudeSettings
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchResult, OnProgress
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.threads import in_thread

OpenClaude = Callable[
    [Command, Transcript, OnProgress, Sequence[int], OnControl],
    AbstractAsyncContextManager[Child],
]
"""`claude.conversation.open_claude` with its launcher."""

_OPEN_STDIN = frozenset({Wait.ANSWER, Wait.WORK, Wait.READING})
"""While a last turn waits for these, subagents may ask for permission, and messages may arrive."""
_MAX_REQUESTS = 1000
"""Of one child."""
_INTERRUPT_S = 2.0
"""How long an interrupted claude may take to end its turn and leave. Measured with 2.1.330:
0.04 s; a SIGINT to the process group took up to 1.6 s."""
_KEEP_S = 6.0
"""The same if the session is to be kept, which may have to load first. Measured with 2.1.330: an
interruption after the first line ends the turn as soon as Claude Code has loaded, and the session
can be resumed."""
_EXIT_S = 3.0
"""How long to wait for a stopped claude: the longest grace, with room for a loaded machine."""
_SETTINGS_S = 2.0
"""How long to read Claude Code's settings, which only explain a denial."""
_LEAVE_S = 2.0
"""How long claude may take to exit after its last turn. Measured with 2.1.330: 0.1 s."""


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
        question_s: float = math.inf,
    ) -> None:
        """Prepare to run `command`.

        Args:
            agent: The agent it runs.
            command: Starts its claude.
            run: The job it belongs to.
            on_progress: Gets what the agent does.
            resumed: The session that `command` resumes.
            question_s: How long a permission question waits for a person, if the agent asks.
        """
        self.transcript = Transcript()
        self.ending = Ending.CANCELLED
        """Why the current turn ended; until then, how a cancellation would end it."""
        self._agent = agent
        self._command = command
        self._run = run
        self._on_progress = on_progress
        self._resumed = resumed
        self._question_s = question_s if agent.asks else None
        self._requests = 0
        self._child: Child | None = None
        self._start_failure: StartFailure | None = None
        self._limit = TimeLimit(agent.timeout_s)
        self._inherited: ClaudeSettings | None = None
        self._turns = 0
        # Until it has started, a cancellation reports that no time has gone by.
        self._began = trio.current_time()
        self._is_stopped = False
        self._interruption = trio.CancelScope()
        self.interrupted_by: str | None = None
        """Who called `interrupt`."""

    @property
    def has_started(self) -> bool:
        """Claude was started."""
        return self._child is not None

    @property
    def over(self) -> bool:
        """Claude takes no more turns."""
        return self._is_stopped or self._child is None or self._child.exited

    @contextlib.asynccontextmanager
    async def running(
        self, open_claude: OpenClaude, held_fds: Sequence[int]
    ) -> AsyncIterator[None]:
        """Run claude for as long as the block runs; a failed start goes into the report."""
        self._began = trio.current_time()
        held_fds = [*held_fds, *self._run.owned.held_fds]
        try:
            async with open_claude(
                self._command, self.transcript, self._on_progress, held_fds, self._on_control
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

    def _on_control(self, child: Child, event: ControlEvent) -> None:
        if isinstance(event, CommandLifecycleEvent):
            self._run.messages.see(event)
            return
        if isinstance(event, ControlCancelRequestEvent):
            self._run.questions.withdraw(child, event.request_id)
            return
        self._requests += 1
        if self._requests > _MAX_REQUESTS:
            return  # A child that sends too many requests gets no more answers.
        if is_permission(event):
            self._run.questions.ask(
                child,
                event,
                self._agent.name,
                patience_s=self._question_s,
                pause=self._limit.paused(),
                note=partial(self.transcript.note_decision, event.request.tool_use_id),
            )
        else:
            child.start_soon(say, child, refusal_line(event))

    async def ask(
        self, prompt: str, limit: TimeLimit, *, is_last: bool, goes_on: bool = False
    ) -> None:
        """Give claude a turn, and wait until the turn has ended or `limit` has passed.

        Args:
            prompt: The text of the turn.
            limit: How long it may take; then the process is ended.
            is_last: No other turn follows, so claude exits after its answer.
            goes_on: The turn continues the one before it, for its duration.
        """
        if self._turns and not goes_on:
            self._began = trio.current_time()
        self._limit = limit
        self._interruption = trio.CancelScope()
        self.ending = Ending.CANCELLED
        if (child := self._child) is None:
            self.ending = Ending.START_FAILED
            return
        limit.begin()
        with limit.scope:
            # An interruption in the middle of a line would spoil the next line.
            if self._turns:
                # The CLI may have begun a turn by itself meanwhile.
                await child.wait_until(lambda: child.exited or not self.transcript.turn_open)
                self.transcript.expect_answer()
            self._turns += 1
            await say(child, user_line(prompt))
            self._run.messages.go_to(child)
            with self._interruption:
                if self.interrupted_by is not None:
                    self._interruption.cancel()
                self.ending = await self._wait_for_end(child, is_last=is_last)
            if self._interruption.cancelled_caught:
                self._run.mark_ending()
                await self._stop(child, interrupt_s=_KEEP_S)
                self.ending = Ending.INTERRUPTED
        if limit.scope.cancelled_caught:
            if is_last or not self.transcript.answered:
                self._run.mark_ending()
            await self._stop(child)
            self.ending = Ending.DEADLINE
        # Messages that arrive between two turns go with the next one.
        self._run.messages.stop()

    def interrupt(self, by: str) -> None:
        """End the current turn and take no more; what was said until then is kept."""
        self.interrupted_by = by
        self._interruption.cancel()

    async def _wait_for_end(self, child: Child, *, is_last: bool) -> Ending:
        messages = self._run.messages

        def wait() -> Wait:
            return next_wait(
                self.transcript,
                exited=child.exited,
                is_last=is_last,
                has_message=messages.at_work,
                message_unread=messages.unread,
            )

        def changed() -> bool:
            return wait() is not waiting

        while (waiting := wait()) in PATIENCE_S:
            if is_last and waiting not in _OPEN_STDIN:
                messages.stop()
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

    async def _stop(self, child: Child, interrupt_s: float = _INTERRUPT_S) -> None:
        """End claude early: interrupt, then SIGTERM, then SIGKILL.

        An interrupted turn ends with a result of its own and a resumable transcript.
        """
        self._is_stopped = True
        self._run.messages.stop()
        self.transcript.time_is_up()
        if self.transcript.turn_open:
            with trio.move_on_after(interrupt_s):
                for line in self._run.messages.withdrawals():
                    await say(child, line)
                await say(child, interrupt_line("deadline"))
                await child.wait_until(lambda: child.exited or not self.transcript.turn_open)
                child.close_stdin()
                await child.wait_until(lambda: child.exited)
        child.end(END_ON_DEADLINE)
        with trio.move_on_after(_EXIT_S):
            await child.wait_until(lambda: child.exited)

    async def leave(self) -> None:
        """Let claude exit after its last turn; returns when it has, or after a bound."""
        if self._child is not None and not self.over:
            child = self._child
            child.close_stdin()
            with trio.move_on_after(_LEAVE_S):
                await child.wait_until(lambda: child.exited)

    def end(self) -> None:
        """End claude at once; returns before it has ended."""
        if self._child is not None:
            self._child.end(END_ON_CANCEL)

    async def explain_denials(self) -> None:
        """Read Claude Code's own settings if a call was denied, so that the report names the rule.

        The turn is paid for: neither a cancellation nor a disk that hangs may cost its result.
        """
        if self._inherited is None and self.transcript.seen().denials:
            with trio.move_on_after(_SETTINGS_S, shield=True):
                self._inherited = await in_thread(
                    read_claude_settings, self._agent.directory, self._command.env
                )

    def report(self) -> RunReport:
        """Report on the current turn; a last turn is complete once `running` was left."""
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
            job_id=self._run.owned.job.id,
            duration_ms=round((trio.current_time() - self._began) * 1000),
            timeout_s=self._limit.timeout_s,
            seen=Seen() if child is None else self.transcript.seen(),
            inherited=self._inherited or ClaudeSettings(),
            resumed=self._resumed,
            is_first_turn=self._turns <= 1,
            exit_code=child.exit_code if child else None,
            stderr_tail=child.stderr_tail if child else "",
            program=self._command.argv[0],
        )

    def result(self, cancelled_by: str = "") -> DispatchResult:
        """Return the result of the current turn, as far as it has come."""
        return classify(msgspec.structs.replace(self.report(), cancelled_by=cancelled_by))


def not_started(
    agent: EffectiveAgent, timeout_s: float, failure: StartFailure, program: str = "claude"
) -> RunReport:
    """Report on a run that could not be started."""
    return RunReport(
        agent=agent,
        ending=Ending.START_FAILED,
        duration_ms=0,
        timeout_s=timeout_s,
        start_failure=failure,
        program=program,
    )

"""One run of one agent: from the start of its claude to the report on it.

Leaving the block of `open_claude` ends every process of the run, so a cancellation needs no code
here but for the report on what was seen until then.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import msgspec
import trio

from agent_dispatch.claude.child import ChildStartError
from agent_dispatch.core.call_timeout import clamped_timeout_s
from agent_dispatch.core.command import Command
from agent_dispatch.core.outcome import cancelled
from agent_dispatch.core.prompt import build_prompt
from agent_dispatch.core.report import Ending, RunReport, Seen, StartFailure, StartStage
from agent_dispatch.core.transcript import Transcript
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchRequest, OnProgress, Progress
from agent_dispatch.run.keeper import Keeper
from agent_dispatch.run.time_limit import TimeLimit


class Conversation(Protocol):
    """What the run loop needs of a running claude; see `claude.conversation.Claude`."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    @property
    def exited(self) -> bool:
        """It runs no more, or could not be started."""
        ...

    @property
    def left_running(self) -> int:
        """How many processes it left behind."""
        ...

    @property
    def stderr_tail(self) -> str:
        """What it wrote to stderr last."""
        ...

    @property
    def guard_lost(self) -> bool:
        """Its guard was killed."""
        ...

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        ...

    async def send_turn(self, prompt: str) -> None:
        """Give it a prompt."""
        ...

    async def send_next_turn(self, prompt: str) -> None:
        """Give it one more prompt."""
        ...

    async def wait_for_answer(self) -> None:
        """Wait for a result, its exit, or an error it would only repeat."""
        ...

    async def finish_turn(self) -> None:
        """Wait for all that comes of a turn, after which another one may be given."""
        ...

    async def wait_for_exit(self) -> None:
        """Wait until it runs no more."""
        ...

    async def leave(self) -> None:
        """Let it leave after its answer."""
        ...

    async def stop(self) -> None:
        """End it at its deadline."""
        ...

    def end(self) -> None:
        """End it at once; returns before it has ended."""
        ...


class OpenClaude(Protocol):
    """Runs claude for as long as a block runs; see `claude.conversation.open_claude`."""

    def __call__(
        self,
        command: Command,
        transcript: Transcript,
        *,
        on_progress: OnProgress,
        held_fds: Sequence[int],
    ) -> AbstractAsyncContextManager[Conversation]:
        """Open a conversation; `transcript` is complete once the block is left."""
        ...


def effective_timeout_s(request: DispatchRequest, agent: EffectiveAgent) -> float:
    """Seconds that a run of `request` may take: the call's own, clamped, or the agent's."""
    if request.timeout_s is None:
        return agent.timeout_s
    return clamped_timeout_s(request.timeout_s)


class Run:
    """One claude from its start to the report on it."""

    def __init__(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        command: Command,
        on_progress: OnProgress,
        keeper: Keeper,
        limit: TimeLimit,
    ) -> None:
        self._request = request
        self._agent = agent
        self._command = command
        self._tell = on_progress
        self._keeper = keeper
        self._transcript = Transcript()
        self._limit = limit
        self.tree_ended = True
        """False once something was started, until nothing of it is left."""

    async def go(self, open_claude: OpenClaude, held_fds: Sequence[int]) -> RunReport:
        """Run it to its end; what is left of it on a cancellation ends with the block."""
        began = trio.current_time()
        claude: Conversation | None = None
        ending: Ending | None = None
        self._keeper.started()
        try:
            async with open_claude(
                self._command,
                self._transcript,
                on_progress=self._on_progress,
                held_fds=[*held_fds, *self._keeper.held_fds],
            ) as claude:
                self.tree_ended = False
                ending = await self._converse(claude)
                if not claude.tree_ended:
                    self._keeper.ending()
        except ChildStartError as error:
            failure = StartFailure(
                stage=StartStage(error.stage), errno=error.errno, text=str(error)
            )
            ending = Ending.START_FAILED
            return not_started(self._agent, self._limit.timeout_s, failure, self._command.argv[0])
        finally:
            if claude is not None:
                self.tree_ended = claude.tree_ended
            if ending is None:
                report = self._report(claude, Ending.CANCELLED, began)
                self._keeper.interrupted(partial(cancelled, report))
        return self._report(claude, ending, began)

    def _on_progress(self, progress: Progress) -> None:
        if self._transcript.session_id is not None:
            self._keeper.note_session(self._transcript.session_id)
        self._tell(progress)

    def _report(self, claude: Conversation | None, ending: Ending, began: float) -> RunReport:
        report = report_on(
            claude,
            self._transcript.seen(),
            agent=self._agent,
            ending=ending,
            duration_ms=round((trio.current_time() - began) * 1000),
            timeout_s=self._limit.timeout_s,
            program=self._command.argv[0],
            resumed=self._request.session_id,
        )
        return msgspec.structs.replace(
            report,
            response_format=self._request.response_format,
            json_schema=self._request.json_schema,
            left_running=claude.left_running if claude else 0,
        )

    async def _converse(self, claude: Conversation) -> Ending:
        self._limit.begin()
        with self._limit.scope:
            await claude.send_turn(build_prompt(self._request))
            await claude.wait_for_answer()
            if self._transcript.fail_fast:
                claude.end()
                return Ending.AUTH
            await claude.leave()
        if self._limit.scope.cancelled_caught:
            self._keeper.ending()
            self._transcript.time_is_up()
            await claude.stop()
            return Ending.DEADLINE
        return Ending.EXITED


def report_on(
    claude: Conversation | None,
    seen: Seen,
    *,
    agent: EffectiveAgent,
    ending: Ending,
    duration_ms: int,
    timeout_s: float,
    program: str,
    resumed: str | None,
) -> RunReport:
    """The report on what a claude did and how it ended; None if it was not even begun with."""
    lost = claude is not None and claude.guard_lost
    return RunReport(
        agent=agent,
        ending=Ending.GUARD_LOST if lost and ending is Ending.EXITED else ending,
        duration_ms=duration_ms,
        timeout_s=timeout_s,
        seen=seen,
        resumed=resumed,
        exit_code=claude.exit_code if claude else None,
        stderr_tail=claude.stderr_tail if claude else "",
        program=program,
    )


def not_started(
    agent: EffectiveAgent, timeout_s: float, failure: StartFailure, program: str = "claude"
) -> RunReport:
    """The report on a run of which nothing was started."""
    return RunReport(
        agent=agent,
        ending=Ending.START_FAILED,
        duration_ms=0,
        timeout_s=timeout_s,
        start_failure=failure,
        program=program,
    )

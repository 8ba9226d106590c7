"""The run loop: one request in, one result out. Every kind of dispatch goes through it.

A dispatch ends when the scope around it ends: leaving the block of `open_claude` ends every
process of the run. The deadline counts from the moment the agent is started, not while it waits
for a slot.
"""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from agent_dispatch.core import outcome
from agent_dispatch.core.command import (
    MARKER_VARIABLE,
    Command,
    RefusedValueError,
    build_command,
    current_depth,
)
from agent_dispatch.core.outcome import classify
from agent_dispatch.core.prompt import build_prompt, check_request
from agent_dispatch.core.report import Ending, RunReport, Seen, StartFailure, StartStage
from agent_dispatch.core.transcript import Transcript
from agent_dispatch.dispatch.program import check_directory, find_program
from agent_dispatch.dispatch.slots import Slots
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.process.child import ChildStartError

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 10.0, 7200.0
"""What a timeout given for one call is clamped to."""


class Conversation(Protocol):
    """What the run loop needs of a running claude; see `process.claude.Claude`."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
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

    async def wait_for_answer(self) -> None:
        """Wait for a result, its exit, or an error it would only repeat."""
        ...

    async def leave(self) -> None:
        """Let it leave after its answer."""
        ...

    async def stop(self) -> None:
        """End it at its deadline."""
        ...

    async def end(self) -> None:
        """End it at once."""
        ...


class OpenClaude(Protocol):
    """Runs claude for as long as a block runs; see `process.claude.open_claude`."""

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


class Dispatcher:
    """Runs requests against agents; made once per service."""

    def __init__(
        self,
        *,
        slots: Slots,
        open_claude: OpenClaude,
        environ: Mapping[str, str],
        claude: Sequence[str] | None = None,
    ) -> None:
        """Wire a dispatcher.

        Args:
            slots: The slots of this process's depth.
            environ: What agents inherit; also names the nesting depth and holds PATH.
            claude: The program and its first arguments; None looks for `claude` on PATH at each
                run, so an update of the CLI needs no restart.
        """
        self._slots = slots
        self._open_claude = open_claude
        self._environ = environ
        self._claude = claude

    async def dispatch(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: Settings,
        on_progress: OnProgress = ignore_progress,
    ) -> DispatchResult:
        """Run `request` with `agent` and say what came of it.

        If cancelled, no process of the run is left when `Cancelled` leaves this call.

        Args:
            on_progress: Called with the place in line and with what the agent does.

        Raises:
            InvalidRequestError: The request cannot be sent as it is.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        check_request(request)
        depth = current_depth(self._environ)
        if depth >= settings.max_dispatch_depth:
            return outcome.recursion_refused(agent.name, depth, settings.max_dispatch_depth)
        program = check_directory(agent.directory) or find_program(self._claude, self._environ)
        if isinstance(program, StartFailure):
            return classify(not_started(request, agent, program))
        try:
            command = self._build_command(request, agent, settings, program)
        except RefusedValueError as error:
            return outcome.refused(agent.name, str(error))

        def on_place(place: int) -> None:
            on_progress(Progress(f"Waiting for a free slot, place {place} in line"))

        async with self._slots.hold(settings.max_concurrency, on_place) as slot:
            run = _Run(request, agent, command, on_progress)
            slot.in_use = True
            try:
                return classify(await run.go(self._open_claude, slot.fd))
            finally:
                slot.in_use = not run.tree_ended

    def _build_command(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: Settings,
        program: Sequence[str],
    ) -> Command:
        outer = self._environ.get(MARKER_VARIABLE)
        token = secrets.token_hex(8)
        return build_command(
            program,
            agent,
            new_session=None if request.session_id else str(uuid.uuid4()),
            resume=request.session_id,
            environ=self._environ,
            depth=current_depth(self._environ),
            max_depth=settings.max_dispatch_depth,
            # A nested run carries the marks of those around it: whoever ends one of them finds it.
            marker=f"{outer}.{token}" if outer else token,
            timeout_s=effective_timeout_s(request, agent),
        )


def effective_timeout_s(request: DispatchRequest, agent: EffectiveAgent) -> float:
    """Seconds that a run of `request` may take: the call's own, clamped, or the agent's."""
    if request.timeout_s is None:
        return agent.timeout_s
    return min(max(request.timeout_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S)


class _Run:
    """One claude from its start to the report on it."""

    def __init__(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        command: Command,
        on_progress: OnProgress,
    ) -> None:
        self._request = request
        self._agent = agent
        self._command = command
        self._on_progress = on_progress
        self._transcript = Transcript()
        self._timeout_s = effective_timeout_s(request, agent)
        self.tree_ended = True
        """False once something was started, until nothing of it is left."""

    async def go(self, open_claude: OpenClaude, slot_fd: int) -> RunReport:
        """Run it to its end; what is left of it on a cancellation ends with the block."""
        began = trio.current_time()
        running = open_claude(
            self._command, self._transcript, on_progress=self._on_progress, held_fds=[slot_fd]
        )
        claude: Conversation | None = None
        ending = Ending.CANCELLED
        try:
            async with running as claude:
                self.tree_ended = False
                ending = await self._converse(claude)
        except ChildStartError as error:
            stage = StartStage(error.stage)
            failure = StartFailure(stage=stage, errno=error.errno, text=str(error))
            return not_started(self._request, self._agent, failure, self._command.argv[0])
        finally:
            if claude is not None:
                self.tree_ended = claude.tree_ended
        return RunReport(
            agent=self._agent,
            ending=Ending.GUARD_LOST if claude.guard_lost else ending,
            duration_ms=round((trio.current_time() - began) * 1000),
            timeout_s=self._timeout_s,
            seen=self._transcript.seen(),
            response_format=self._request.response_format,
            resumed=self._request.session_id,
            exit_code=claude.exit_code,
            stderr_tail=claude.stderr_tail,
            program=self._command.argv[0],
            left_running=claude.left_running,
        )

    async def _converse(self, claude: Conversation) -> Ending:
        with trio.move_on_after(self._timeout_s) as deadline:
            await claude.send_turn(build_prompt(self._request))
            await claude.wait_for_answer()
            if self._transcript.fail_fast:
                await claude.end()
                return Ending.AUTH
            await claude.leave()
        if deadline.cancelled_caught:
            await claude.stop()
            return Ending.DEADLINE
        return Ending.EXITED


def not_started(
    request: DispatchRequest, agent: EffectiveAgent, failure: StartFailure, program: str = "claude"
) -> RunReport:
    """The report on a run of which nothing was started."""
    return RunReport(
        agent=agent,
        ending=Ending.START_FAILED,
        duration_ms=0,
        timeout_s=effective_timeout_s(request, agent),
        seen=Seen(),
        response_format=request.response_format,
        resumed=request.session_id,
        start_failure=failure,
        program=program,
    )

"""A dialogue as it runs: two agents in turn, under one slot and one record.

Both work under the block that `Dialogue.go` opens: leaving it, by whatever way, ends every process
of the two.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence

import msgspec
import trio

from agent_dispatch.core.call_timeout import clamped_timeout_s
from agent_dispatch.core.dialogue import Exchange, Step, time_was_up, to_record
from agent_dispatch.core.outcome import classify
from agent_dispatch.core.report import Ending
from agent_dispatch.model.dialogue import DialogueRequest, Role
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, OnProgress, Progress
from agent_dispatch.run.keeper import Keeper
from agent_dispatch.run.one_run import OpenClaude
from agent_dispatch.run.speaker import Speaker

_MEMBERS: Mapping[Role, int] = {Role.RESPONDER: 0, Role.REQUESTER: 1}
"""As whose each line of progress is told."""


class Dialogue:
    """Two agents from the first word to the last."""

    def __init__(
        self,
        request: DialogueRequest,
        speakers: Mapping[Role, Speaker],
        on_progress: OnProgress,
        keeper: Keeper,
    ) -> None:
        """Let `speakers` talk about what is asked for.

        Args:
            request: As `check_dialogue` gave it.
            speakers: The two.
            on_progress: Gets whose turn it is.
            keeper: Told how it goes.
        """
        self._request = request
        self._speakers = speakers
        self._tell = on_progress
        self._keeper = keeper
        self._exchange = Exchange(request)
        self._in_hand: _Turn | None = None
        self._sessions: set[str] = set()
        self._began = self._ends_at = math.inf
        self._timeout_s = math.inf
        if request.timeout_s is not None:
            self._timeout_s = clamped_timeout_s(request.timeout_s)

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        return all(speaker.tree_ended for speaker in self._speakers.values())

    async def go(self, open_claude: OpenClaude, held_fds: Sequence[int]) -> DispatchResult:
        """Have it, and give what is to be recorded; if cancelled, nothing of it is left."""
        self._began = trio.current_time()
        self._ends_at = self._began + self._timeout_s
        self._keeper.started()
        said_all = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await self._talk(stack, open_claude, [*held_fds, *self._keeper.held_fds])
                    await self._leave()
                    if not self.tree_ended:
                        self._keeper.ending()
                finally:
                    # Both at once; their blocks are left one after the other.
                    for speaker in self._speakers.values():
                        speaker.end()
            said_all = True
        finally:
            if not said_all:
                self._keeper.interrupted(self._cancelled)
        return self._record(
            "Claude Code ended with its last answer, so it could not be asked further.",
            ErrorType.CLI_ERROR,
        )

    async def _talk(
        self, stack: contextlib.AsyncExitStack, open_claude: OpenClaude, held_fds: Sequence[int]
    ) -> None:
        while (step := self._exchange.next_step()) is not None:
            if trio.current_time() >= self._ends_at:
                self._exchange.stop(time_was_up(self._timeout_s), ErrorType.TIMEOUT)
                return
            speaker = self._speakers[step.role]
            message = f"Round {step.round}: {step.agent} ({step.role})"
            self._tell(Progress(message, member=_MEMBERS[step.role]))
            problem = await speaker.prepare(stack, open_claude, held_fds, self._listener(step.role))
            if problem is not None:
                self._exchange.fail(step, problem)
                return
            turn = self._in_hand = _Turn(step, speaker, self._ends_at, self._timeout_s)
            turn.ending = await speaker.speak(step.prompt, turn.deadline)
            if turn.ending is Ending.DEADLINE:
                if not speaker.answered:
                    self._keeper.ending()
                await speaker.stop()
            if not turn.result().success:
                # Reported when its process has ended and all that it said was read.
                return
            self._close_turn()

    def _listener(self, role: Role) -> OnProgress:
        """Give the sink for what one of the two does."""
        speaker = self._speakers[role]
        name = speaker.agent.name

        def on_progress(progress: Progress) -> None:
            session_id = speaker.session_id
            if session_id is not None and session_id not in self._sessions:
                self._sessions.add(session_id)
                self._tell(Progress(f"{name}: session {session_id}", member=_MEMBERS[role]))
                if role is Role.RESPONDER:
                    self._keeper.note_session(session_id)
            self._tell(Progress(f"{name}: {progress.message}", member=_MEMBERS[role]))

        return on_progress

    async def _leave(self) -> None:
        async with trio.open_nursery() as nursery:
            for speaker in self._speakers.values():
                nursery.start_soon(speaker.leave)

    def _close_turn(self, cancelled_by: str = "") -> None:
        """Take over what came of the turn in hand."""
        turn, self._in_hand = self._in_hand, None
        if turn is None:
            return
        result = turn.result(cancelled_by)
        if result.success:
            self._exchange.add(turn.step, result)
            turn.speaker.next_turn()
        else:
            self._exchange.fail(turn.step, result)

    def _cancelled(self, by: str) -> DispatchResult:
        self._close_turn(by)
        return self._record(f"Cancelled by {by}.", ErrorType.CANCELLED)

    def _record(self, error: str, error_type: ErrorType) -> DispatchResult:
        """Sum up; the error is for a dialogue that is not at its end."""
        self._close_turn()
        if self._exchange.next_step() is not None:
            self._exchange.stop(error, error_type)
        result = self._exchange.result(
            round((trio.current_time() - self._began) * 1000),
            sum(speaker.left_running for speaker in self._speakers.values()),
        )
        return to_record(self._request, result)


class _Turn:
    """A turn in hand."""

    def __init__(
        self, step: Step, speaker: Speaker, ends_at: float, whole_timeout_s: float
    ) -> None:
        self.step = step
        self.speaker = speaker
        self.ending = Ending.CANCELLED
        """Until it is known better."""
        self._began = trio.current_time()
        self._ends_all = ends_at < self._began + speaker.agent.timeout_s
        self.deadline = ends_at if self._ends_all else self._began + speaker.agent.timeout_s
        self._timeout_s = whole_timeout_s if self._ends_all else speaker.agent.timeout_s

    def result(self, cancelled_by: str = "") -> DispatchResult:
        """What came of it until now."""
        duration_ms = round((trio.current_time() - self._began) * 1000)
        report = self.speaker.report(self.ending, duration_ms, self._timeout_s)
        result = classify(msgspec.structs.replace(report, cancelled_by=cancelled_by))
        if self._ends_all and result.error_type is ErrorType.TIMEOUT:
            return msgspec.structs.replace(result, error=time_was_up(self._timeout_s))
        return result

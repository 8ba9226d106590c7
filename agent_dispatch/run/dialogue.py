"""A dialogue while it runs: a loop over two agents in turn, under one slot and one record."""

import contextlib
import math
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec
import trio

from agent_dispatch.core.command import Command
from agent_dispatch.core.dialogue.exchange import (
    Exchange,
    PlannedTurn,
    refused_dialogue,
    timeout_error,
)
from agent_dispatch.core.dialogue.record import dialogue_to_result
from agent_dispatch.core.money.shares import Share, join_shares, share_of
from agent_dispatch.core.next_step import more_time
from agent_dispatch.core.outcome.held import end_held_run, join_runs
from agent_dispatch.core.outcome.refusal import refused as turn_refused
from agent_dispatch.core.request.timeout import clamped_timeout_s
from agent_dispatch.model.dialogue import Role
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Progress
from agent_dispatch.model.next_step import CONTINUE
from agent_dispatch.run.accounts import capped
from agent_dispatch.run.limits import Held
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import DialoguePlan
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.run.turns import Turns
from agent_dispatch.run.usage_limit import (
    cancelled_while_held,
    reset_to_wait_for,
    wait_for_reset,
    with_cap_left,
)

_MEMBERS: Mapping[Role, int] = {Role.RESPONDER: 0, Role.REQUESTER: 1}
"""The member number of each in progress."""


class _CurrentTurn(NamedTuple):
    """A turn that goes on."""

    step: PlannedTurn
    turns: Turns
    ends_all: bool
    """Its time limit is that of the whole dialogue."""


class Dialogue:
    """Two agents, from the first turn to the last.

    Each keeps one claude for all of its turns. Another claude continues the session only if the
    first one exited after an answer, or was stopped because a background task did not end.
    """

    def __init__(self, plan: DialoguePlan, run: JobRun, parts: RunParts, *, max_holds: int) -> None:
        """Run `plan` as the job of `run`; wait at most `max_holds` times for a usage limit."""
        self._request = request = plan.request
        self._settings = plan.settings
        self._agents = {role: capped(agent, plan.settings) for role, agent in plan.agents.items()}
        self._run = run
        self._parts = parts
        self._exchange = Exchange(request)
        self._commands: dict[Role, Command] = {}
        """The commands that start the sessions; removed when they are used."""
        self._turns: dict[Role, Turns] = {}
        """The latest claude of each."""
        self._sessions: dict[Role, str] = {}
        self._shares: dict[Role, Share] = {}
        """The cost of each so far."""
        self._holds_left = max_holds
        self._before_hold: tuple[PlannedTurn, DispatchResult] | None = None
        """The current turn and its result before it was held."""
        self._current: _CurrentTurn | None = None
        self._paused_s = 0.0
        """How long the clock was paused by questions to people."""
        self._timeout_s = math.inf
        if request.timeout_s is not None:
            self._timeout_s = clamped_timeout_s(request.timeout_s)

    async def _command(self, role: Role, resume: str | None = None) -> Command | DispatchResult:
        share = self._shares.get(role)
        agent = with_cap_left(self._agents[role], None if share is None else share.cost_usd)
        return await self._parts.planner.command(
            agent,
            self._settings,
            timeout_s=agent.timeout_s,
            job=self._run.owned.job,
            resume=resume,
            beside=[other for name, other in self._agents.items() if name is not role],
            asks=agent.asks,
        )

    async def go(self) -> DispatchResult:
        """Run the dialogue and return its record; if cancelled, no process of it is left."""
        self._run.owned.note(agents=[self._request.requester, self._request.responder])
        for role in self._agents:
            command = await self._command(role)
            if isinstance(command, DispatchResult):
                return self._refused(command)
            self._commands[role] = command
        async with self._parts.admitted(
            self._run,
            self._settings,
            list(self._commands.values()),
            list(self._agents.values()),
            self._shares_of_agents,
        ) as held:
            return self._refused(held) if isinstance(held, DispatchResult) else await self._go(held)

    def _refused(self, result: DispatchResult) -> DispatchResult:
        return dialogue_to_result(self._request, refused_dialogue(self._request, result))

    async def _go(self, held: Held) -> DispatchResult:
        self._began = trio.current_time()
        self._run.cancelled = self._cancelled
        self._run.owned.note_started()
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._talk(stack, held)
                await self._leave()
                if not self._run.tree_ended:
                    self._run.mark_ending()
            finally:
                # Both at once, because their blocks are left one after the other.
                for turns in self._turns.values():
                    turns.end()
        return self._record(
            "Claude Code ended with its last answer, so it could not be asked further.",
            ErrorType.CLI_ERROR,
        )

    async def _talk(self, stack: contextlib.AsyncExitStack, held: Held) -> None:
        while (step := self._exchange.next_turn()) is not None:
            left_s = self._began + self._paused_s + self._timeout_s - trio.current_time()
            if left_s <= 0:
                longer = more_time(self._timeout_s)
                error = timeout_error(self._timeout_s)
                self._exchange.stop(error, ErrorType.TIMEOUT, [longer])
                return
            self._report(step.role, Progress(f"round {step.round}, as {step.role}"))
            timeout_s = self._agents[step.role].timeout_s
            ends_all, limit = left_s < timeout_s, TimeLimit(min(left_s, timeout_s))
            prompt = step.prompt
            while True:
                turns = self._turns.get(step.role)
                if turns is None or turns.over:
                    prepared = await self._next_claude(step.role)
                    if isinstance(prepared, DispatchResult):
                        self._fail(step, prepared)
                        return
                    turns = self._turns[step.role] = prepared
                    claude = turns.running(self._parts.open_claude, held.fds)
                    await stack.enter_async_context(claude)
                self._current = _CurrentTurn(step, turns, ends_all)
                await turns.ask(prompt, limit, is_last=False)
                self._paused_s += limit.paused_s
                await turns.explain_denials()
                turn_left_s = limit.left_s
                until = reset_to_wait_for(turns.report(), turns.result(), turn_left_s)
                if until is None or not self._holds_left:
                    break
                await self._hold(stack, held, until)
                prompt, limit = CONTINUE, TimeLimit(turn_left_s)
            if not turns.result().success:
                # Reported when its process has ended and all of its output was read.
                return
            self._close_turn()

    async def _hold(self, stack: contextlib.AsyncExitStack, held: Held, until: datetime) -> None:
        """Wait for a limit to reset, without a slot and without a claude."""
        self._holds_left -= 1
        began = trio.current_time()
        self._put_aside()
        try:
            await self._leave()
            for turns in self._turns.values():
                turns.end()
            await stack.aclose()
            self._turns.clear()
            async with held.without_slot():
                await wait_for_reset(self._run, until)
        finally:
            self._began += trio.current_time() - began

    async def _leave(self) -> None:
        """Let both claudes exit, at the same time."""
        async with trio.open_nursery() as nursery:
            for turns in self._turns.values():
                nursery.start_soon(turns.leave)

    def _put_aside(self) -> None:
        """Keep the result of the current turn until the turn goes on."""
        if self._current is not None:
            (step, turns, _), self._current = self._current, None
            result = turns.result()
            self._learn_session(step.role, turns.transcript.session_id)
            self._add_share(step.role, turns, result)
            self._before_hold = step, self._with_before_hold(step.role, result)

    def _with_before_hold(self, role: Role, result: DispatchResult) -> DispatchResult:
        before, self._before_hold = self._before_hold, None
        if before is None:
            return result
        return join_runs(before[1], result, self._agents[role].max_budget_usd)

    def _add_share(self, role: Role, turns: Turns, result: DispatchResult) -> None:
        share = share_of(turns.transcript.seen(), result)
        self._shares[role] = join_shares(self._shares.get(role), share)

    def _fail(self, step: PlannedTurn, failure: DispatchResult) -> None:
        """End the dialogue with a turn that was not begun, or could not go on."""
        before, self._before_hold = self._before_hold, None
        self._exchange.fail(step, failure if before is None else end_held_run(before[1], failure))

    async def _next_claude(self, role: Role) -> Turns | DispatchResult:
        resume = None
        command: Command | DispatchResult | None = self._commands.pop(role, None)
        if command is None:
            resume = self._sessions.get(role)
            if resume is None:
                error = (
                    "Claude Code ended after its answer, and had named no session to go on with."
                )
                return turn_refused(self._agents[role].name, error)
            command = await self._command(role, resume)
        if isinstance(command, DispatchResult):
            return command

        def on_progress(progress: Progress) -> None:
            self._learn_session(role, turns.transcript.session_id)
            self._report(role, progress)

        turns = Turns(
            self._agents[role],
            command,
            self._run,
            on_progress,
            resumed=resume,
            question_s=self._settings.question_seconds,
        )
        return turns

    def _shares_of_agents(self, result: DispatchResult) -> list[Share | None]:
        """Return the shares of the two, in the order of the agents; None: never started."""
        begun = {role for role, turns in self._turns.items() if turns.has_started}
        begun |= self._shares.keys()
        unknown = Share(error_type=result.error_type)
        return [self._shares.get(role, unknown) if role in begun else None for role in self._agents]

    def _learn_session(self, role: Role, session_id: str | None) -> None:
        if session_id is None or session_id in self._sessions.values():
            return
        self._sessions.setdefault(role, session_id)
        self._report(role, Progress(f"session {session_id}"))
        if role is Role.RESPONDER:
            self._run.owned.note(session_id=session_id)

    def _report(self, role: Role, progress: Progress) -> None:
        agent, member = self._agents[role].name, _MEMBERS[role]
        self._run.report(msgspec.structs.replace(progress, agent=agent, member=member))

    def _close_turn(self, cancelled_by: str = "") -> None:
        """Add the current turn to the dialogue."""
        if self._current is None:
            return
        (step, turns, ends_all), self._current = self._current, None
        result = turns.result(cancelled_by)
        self._add_share(step.role, turns, result)
        result = self._with_before_hold(step.role, result)
        if result.success:
            self._exchange.add(step, result)
            self._learn_session(step.role, turns.transcript.session_id)
            turns.transcript.next_turn()
            return
        if ends_all and result.error_type is ErrorType.TIMEOUT:
            error, longer = timeout_error(self._timeout_s), more_time(self._timeout_s)
            result = msgspec.structs.replace(result, error=error, next_steps=[longer])
        self._exchange.fail(step, result)

    def _cancelled(self, by: str) -> DispatchResult:
        self._close_turn(by)
        if self._before_hold is not None:
            step, before = self._before_hold
            agent = self._agents[step.role]
            self._fail(step, cancelled_while_held(agent, before.session_id, by))
        return self._record(f"Cancelled by {by}.", ErrorType.CANCELLED)

    def _record(self, error: str, error_type: ErrorType) -> DispatchResult:
        """Return the record; the error is for a dialogue that is not at its end."""
        self._close_turn()
        if self._exchange.next_turn() is not None:
            self._exchange.stop(error, error_type)
        result = self._exchange.result(
            round((trio.current_time() - self._began) * 1000),
            sum(child.left_running for child in self._run.children),
        )
        return dialogue_to_result(self._request, result)

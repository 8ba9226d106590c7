"""A dispatch while it runs: the turns of its claude, its checks, and its holds."""

from collections.abc import Sequence
from functools import partial

import msgspec

from agent_dispatch.core.money.shares import Share
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.report import RunReport, TreeChanges
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.core.text import scrubbed
from agent_dispatch.model.dispatch import DispatchResult, Progress
from agent_dispatch.model.next_step import CONTINUE
from agent_dispatch.run.accounts import capped
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.run.turns import Turns
from agent_dispatch.run.usage_limit import Holds
from agent_dispatch.run.verify import Verification


class Dispatch:
    """One dispatch, from its command to its result.

    One claude does the task and the repairs that a check asks for. Only after a hold at a usage
    limit, another claude continues the session.
    """

    def __init__(
        self, plan: Plan, limit: TimeLimit, run: JobRun, parts: RunParts, *, max_holds: int
    ) -> None:
        """Run `plan` within `limit`; wait at most `max_holds` times for a usage limit to reset."""
        self._plan = plan
        self._limit = limit
        self._run = run
        self._parts = parts
        self._holds = Holds(run, capped(plan.agent, plan.settings), max_holds)
        self._checks = Verification(plan.verify, plan.agent.verify_attempts, run, parts.launcher)
        self._turns: Turns | None = None
        """None while it is held."""
        self._changes: TreeChanges | None = None

    async def go(self) -> DispatchResult:
        """Run it to its end; if cancelled, no process of it is left."""
        run, prompt = self._run, self._plan.prompt
        turns = await self._next_claude(self._limit.timeout_s, self._plan.request.session_id)
        if isinstance(turns, DispatchResult):
            return turns
        async with self._parts.admitted(
            run, self._plan.settings, [self._command], [self._holds.agent], self._shares
        ) as held:
            if isinstance(held, DispatchResult):
                return held
            run.owned.note_started()
            self._watch = self._parts.work_trees.watch(self._command, run.nursery)
            while True:
                ended = await self._run_claude(turns, prompt, held.fds)
                result = await self._checked(turns, ended, held.fds)
                left_s = self._limit.left_s
                if (until := self._holds.until(ended, result, left_s)) is None:
                    return result
                self._turns = None
                run.interrupt = run.cancel
                async with held.without_slot():
                    await self._holds.wait(until, ended, result)
                turns = await self._next_claude(left_s, result.session_id)
                if isinstance(turns, DispatchResult):
                    return self._holds.stopped(turns)
                prompt, self._limit = CONTINUE, TimeLimit(left_s)

    async def _next_claude(self, timeout_s: float, resume: str | None) -> Turns | DispatchResult:
        """Prepare the next claude, or return why there can be none."""
        command = await self._parts.planner.command(
            self._holds.agent,
            self._plan.settings,
            timeout_s=timeout_s,
            job=self._run.owned.job,
            resume=resume,
            json_schema=self._plan.request.json_schema,
            asks=self._plan.agent.asks or self._run.owned.job.allow_once is not None,
        )
        if isinstance(command, DispatchResult):
            return command
        self._command = command
        self._turns = Turns(
            self._holds.agent,
            command,
            self._run,
            self._on_progress,
            resumed=resume,
            question_s=self._plan.settings.question_seconds,
        )
        return self._turns

    def _on_progress(self, progress: Progress) -> None:
        if self._turns is not None and self._turns.transcript.session_id is not None:
            self._run.owned.note(session_id=self._turns.transcript.session_id)
        self._run.report(progress)

    def _shares(self, result: DispatchResult) -> list[Share | None]:
        """Return its share of the cost; [None] if no claude was started."""
        turns = self._turns
        if turns is not None and not turns.has_started and not self._holds.has_held:
            return [None]
        return [self._holds.share(Seen() if turns is None else turns.transcript.seen(), result)]

    async def _run_claude(self, turns: Turns, prompt: str, fds: Sequence[int]) -> RunReport:
        """Give the task to one claude, and report on it when it has ended."""
        run, checks, watch = self._run, self._checks, self._watch
        run.cancelled = partial(self._cancelled, turns)
        run.interrupt = turns.interrupt
        await watch.may_start()
        async with turns.running(self._parts.open_claude, fds):
            await watch.may_act()
            await turns.ask(prompt, self._limit, is_last=not checks.may_repair)
            while checks.may_repair and (answered := self._repairable(turns)) is not None:
                self._changes = await watch.changes()
                if await self._check(answered, fds):
                    break
                self._limit = TimeLimit(self._limit.left_s)
                repair, is_last = checks.repair_prompt, not checks.may_repair
                await turns.ask(repair, self._limit, is_last=is_last, goes_on=True)
            await turns.leave()
            if not run.tree_ended:
                run.mark_ending()
        await turns.explain_denials()
        ended = self._report(turns, turns.interrupted_by or "")
        if ended.seen.calls is None:
            return ended
        if not checks.has_passed:
            # If this is cancelled, the answer is recorded without it.
            self._changes = await watch.changes()
        return msgspec.structs.replace(ended, changes=self._changes)

    def _repairable(self, turns: Turns) -> DispatchResult | None:
        """Return the result of a turn that succeeded, if another turn can follow it."""
        if turns.over or not turns.transcript.answered:
            return None
        result = classify(self._report(turns))
        return result if result.success else None

    async def _check(self, answered: DispatchResult, fds: Sequence[int]) -> bool:
        # A check may take minutes. If this process dies meanwhile, the answer is not lost.
        self._run.owned.note(answer=scrubbed(answered.result))
        return await self._checks.check(self._command, self._limit.left_s, fds)

    async def _checked(self, turns: Turns, ended: RunReport, fds: Sequence[int]) -> DispatchResult:
        """Return the result, once the last check has decided."""
        result = self._holds.joined(classify(ended))
        may_check = turns.transcript.answered and turns.interrupted_by is None
        if result.success and self._checks.is_due and may_check:
            await self._check(result, fds)
        return self._checks.applied(result)

    def _report(self, turns: Turns, cancelled_by: str = "") -> RunReport:
        return msgspec.structs.replace(
            turns.report(),
            response_format=self._plan.request.response_format,
            json_schema=self._plan.request.json_schema,
            messages=self._run.messages.delivered,
            left_running=sum(child.left_running for child in self._run.children),
            cancelled_by=cancelled_by,
        )

    def _cancelled(self, turns: Turns, by: str) -> DispatchResult:
        report = msgspec.structs.replace(self._report(turns, by), changes=self._changes)
        return self._checks.cancelled(self._holds.joined(classify(report)), by)

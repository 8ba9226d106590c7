"""Runs what was planned: under a record, within the limits, by turns of claude."""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from agent_dispatch.claude.program import RunProgram
from agent_dispatch.core.accounting import Share
from agent_dispatch.core.command import Command
from agent_dispatch.core.dialogue import as_dispatch, from_record
from agent_dispatch.core.outcome import classify
from agent_dispatch.core.report import RunReport, Seen, TreeChanges
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership, adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.event import TellEvent, ignore_event
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.model.next_step import CONTINUE
from agent_dispatch.run.accounts import Accounts, capped
from agent_dispatch.run.dialogue import Dialogue, not_begun
from agent_dispatch.run.holding import Holds
from agent_dispatch.run.housekeeping import Housekeeping
from agent_dispatch.run.lease import begin_from_afar, end_with_lease
from agent_dispatch.run.limits import Limits
from agent_dispatch.run.plan import Plan, Planner, plan_run
from agent_dispatch.run.run_job import JobRun, Work, run_job
from agent_dispatch.run.threads import in_thread
from agent_dispatch.run.turns import OpenClaude, TimeLimit, Turns
from agent_dispatch.run.verify import Verification
from agent_dispatch.run.work_tree import WorkTrees


class Runner:
    """Runs dispatches and dialogues; made once per service."""

    def __init__(
        self,
        *,
        store: JobStore,
        planner: Planner,
        limits: Limits,
        open_claude: OpenClaude,
        work_trees: WorkTrees,
        run_program: RunProgram,
        parent: str | None,
        tell: TellEvent = ignore_event,
    ) -> None:
        """Run what `planner` plans, within `limits`, recorded in `store` below the job `parent`.

        `tell` is told of permission questions, and of the ends of background jobs.
        """
        self._tell = tell
        self._store = store
        self._planner = planner
        self._limits = limits
        self._open_claude = open_claude
        self._work_trees = work_trees
        self._run_program = run_program
        self._parent = parent
        self._may_hold = False
        """It runs a background job, which may wait for a limit of the account to reset."""
        self._accounts = Accounts(store.ledger, planner.environ)
        self._calls: dict[str, Ownership] = {}
        """The calls that run in this process, by the ids of their jobs."""
        self._housekeeping = Housekeeping(store, limits.sessions.sweep)

    async def call(
        self,
        plan: Plan,
        ref: bool,
        on_progress: OnProgress,
        limit: TimeLimit | None = None,
        *,
        tree: str | None = None,
    ) -> DispatchResult:
        """Run one dispatch whose caller waits, under a record of its own.

        If cancelled, no process of the run is left, and its record says so.

        Args:
            plan: What to run.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            on_progress: Called with the job's id first, then with what happens.
            limit: How long the agent may take, if not as planned.
            tree: The tree of runs that it belongs to; None: it begins one.

        Raises:
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        work = partial(self._dispatch, plan, limit or TimeLimit(plan.timeout_s))
        return await self._recorded(plan.request, plan.settings, ref, tree, on_progress, work)

    async def dialogue(
        self,
        request: DialogueRequest,
        agents: dict[Role, EffectiveAgent],
        settings: Settings,
        on_progress: OnProgress,
        *,
        tree: str | None = None,
    ) -> DialogueResult:
        """Let two agents talk, under one record and one slot.

        If cancelled, no process of the two is left, and the record has what they said.

        Raises:
            DispatchError: As for `call`.
        """
        work = partial(self.run_dialogue, request, agents, settings)
        recorded = as_dispatch(request)
        return from_record(await self._recorded(recorded, settings, False, tree, on_progress, work))

    async def run_dialogue(
        self,
        request: DialogueRequest,
        agents: dict[Role, EffectiveAgent],
        settings: Settings,
        run: JobRun,
    ) -> DispatchResult:
        """Have a dialogue under the job of `run`; returns what is to be recorded."""
        agents = {role: capped(agent, settings) for role, agent in agents.items()}
        run.owned.note(agents=[request.requester, request.responder])
        max_holds = self._max_holds(settings)
        dialogue = Dialogue(request, agents, settings, run, self._planner, max_holds=max_holds)
        commands = await dialogue.prepare()
        if isinstance(commands, DispatchResult):
            return not_begun(request, commands)
        session_ids = [command.session_id for command in commands]
        async with self._limits.hold(
            run, settings.max_concurrency, session_ids, agents.values()
        ) as held:
            account = await self._accounts.book(
                run.owned.job, list(agents.values()), settings, dialogue.shares
            )
            if isinstance(account, DispatchResult):
                return not_begun(request, account)
            run.account = account
            return await dialogue.go(self._open_claude, held)

    async def background(
        self, job_id: str, fds: Sequence[int], joint_work: Callable[[Job], Work | None]
    ) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

        Args:
            job_id: The job.
            fds: Its descriptors.
            joint_work: Says what to do for the job, if it is not a dispatch.

        Raises:
            DispatchError: It cannot be run; its record says so.
        """
        async with adopt_job(self._store, job_id, fds) as owned:
            # A call from another machine has a worker too, but does not wait.
            self._may_hold = owned.job.kind is not JobKind.CALL

            async def work(run: JobRun) -> DispatchResult:
                if (joint := joint_work(owned.job)) is not None:
                    return await joint(run)
                await begin_from_afar(self._store, job_id)
                plan = plan_run(await self._planner.snapshot(), owned.job.request())
                return await self._dispatch(plan, TimeLimit(plan.timeout_s), run)

            await run_job(
                owned,
                work,
                ignore_progress,
                on_behalf_of="a signal to its worker",
                beside=partial(end_with_lease, self._store, job_id),
                tell=self._tell,
            )

    def _max_holds(self, settings: Settings) -> int:
        return settings.max_holds if self._may_hold and settings.hold_at_usage_limit else 0

    async def _recorded(
        self,
        request: DispatchRequest,
        settings: Settings,
        ref: bool,
        tree: str | None,
        on_progress: OnProgress,
        work: Work,
    ) -> DispatchResult:
        tidy = None
        if self._housekeeping.is_due:
            tidy = partial(self._housekeeping.run, settings)
        async with create_job(
            self._store, request, kind=JobKind.CALL, parent=self._parent, tree=tree, ref=ref
        ) as owned:
            self._calls[owned.job.id] = owned
            try:
                result = await run_job(
                    owned,
                    work,
                    on_progress,
                    on_behalf_of="its caller",
                    beside=tidy,
                    tell=self._tell,
                )
            finally:
                del self._calls[owned.job.id]
        is_kept = owned.job.ref or settings.call_retention_days > 0
        if not is_kept and await self._forget(owned.job.id):
            # The id fetches nothing from now on: the caller must get all of the answer now.
            return msgspec.structs.replace(result, job_id=None)
        return result

    async def tidy(self, settings: Settings) -> None:
        """Remove old records, if it is time; raises nothing but `Cancelled`."""
        if self._housekeeping.is_due:
            await self._housekeeping.run(settings)

    def keep_record(self, job_id: str) -> None:
        """Keep the record of a call that runs in this process until `gc`. Returns at once."""
        if (owned := self._calls.get(job_id)) is not None:
            owned.note(ref=True)

    async def _forget(self, job_id: str) -> bool:
        """Remove the record of a call; False if it stays, which is no reason to fail the call."""
        try:
            await in_thread(self._store.forget, job_id)
        except DispatchError:
            return False
        return True

    async def _dispatch(self, plan: Plan, limit: TimeLimit, run: JobRun) -> DispatchResult:
        """Run one turn of one agent."""
        request, settings = plan.request, plan.settings
        holds = Holds(run, capped(plan.agent, settings), self._max_holds(settings))

        async def command_for(timeout_s: float, resume: str | None) -> Command | DispatchResult:
            return await self._planner.command(
                holds.agent,
                settings,
                timeout_s=timeout_s,
                job=run.owned.job,
                resume=resume,
                json_schema=request.json_schema,
                asks=plan.agent.asks or run.owned.job.allow_once is not None,
            )

        def turns_of(command: Command, resumed: str | None) -> Turns:
            question_s = settings.question_seconds
            return Turns(
                holds.agent, command, run, on_progress, resumed=resumed, question_s=question_s
            )

        def on_progress(progress: Progress) -> None:
            if turns is not None and turns.transcript.session_id is not None:
                run.owned.note(session_id=turns.transcript.session_id)
            run.tell(progress)

        def report(turns: Turns, cancelled_by: str = "") -> RunReport:
            return msgspec.structs.replace(
                turns.report(),
                response_format=request.response_format,
                json_schema=request.json_schema,
                messages=run.messages.delivered,
                left_running=sum(child.left_running for child in run.children),
                cancelled_by=cancelled_by,
            )

        def may_go_on(turns: Turns) -> bool:
            answered = not turns.over and turns.transcript.answered
            return answered and classify(report(turns)).success

        def shares(result: DispatchResult) -> list[Share | None]:
            if turns is not None and not turns.has_started and not holds.has_held:
                return [None]
            return [holds.share(Seen() if turns is None else turns.transcript.seen(), result)]

        attempts = plan.agent.verify_attempts
        checks = Verification(plan.verify, attempts, run, self._run_program)
        turns: Turns | None = None
        command = await command_for(limit.timeout_s, request.session_id)
        if isinstance(command, DispatchResult):
            return command
        current = turns = turns_of(command, request.session_id)
        max_concurrency = plan.settings.max_concurrency
        async with self._limits.hold(
            run, max_concurrency, [command.session_id], [plan.agent]
        ) as held:
            account = await self._accounts.book(run.owned.job, [holds.agent], settings, shares)
            if isinstance(account, DispatchResult):
                return account
            run.account = account
            run.owned.note_started()
            watch = self._work_trees.watch(command, run.nursery)
            prompt = plan.prompt
            changes: TreeChanges | None = None
            while True:
                run.cancelled = partial(_cancelled, holds, checks, partial(report, current))
                run.interrupt = current.interrupt
                await watch.may_start()
                async with current.running(self._open_claude, held.fds):
                    await watch.may_act()
                    await current.ask(prompt, limit, is_last=not checks.may_repair)
                    while checks.may_repair and may_go_on(current):
                        changes = await watch.changes()
                        if await checks.check(command, limit.left_s, held.fds):
                            break
                        limit = TimeLimit(limit.left_s)
                        is_last = not checks.may_repair
                        prompt = checks.repair_prompt
                        await current.ask(prompt, limit, is_last=is_last, goes_on=True)
                    await current.leave()
                    if not run.tree_ended:
                        run.mark_ending()
                await current.explain_denials()
                ended = report(current, current.interrupted_by or "")
                if ended.seen.calls is not None:
                    # If cancelled, the answer is recorded at once, without this.
                    changes = changes if checks.has_passed else await watch.changes()
                    ended = msgspec.structs.replace(ended, changes=changes)
                result = holds.joined(classify(ended))
                may_check = current.transcript.answered and current.interrupted_by is None
                if result.success and checks.is_due and may_check:
                    await checks.check(command, limit.left_s, held.fds)
                result = checks.applied(result)
                left_s = limit.left_s
                if (until := holds.until(ended, result, left_s)) is None:
                    return result
                turns = None
                run.interrupt = run.cancel
                async with held.without_slot():
                    await holds.wait(until, ended, result)
                command = await command_for(left_s, result.session_id)
                if isinstance(command, DispatchResult):
                    return holds.stopped(command)
                current = turns = turns_of(command, result.session_id)
                prompt, limit = CONTINUE, TimeLimit(left_s)


def _cancelled(
    holds: Holds, checks: Verification, report: Callable[[str], RunReport], by: str
) -> DispatchResult:
    return checks.cancelled(holds.joined(classify(report(by))), by)

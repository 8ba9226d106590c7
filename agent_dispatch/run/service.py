"""The service: what the surfaces call, without their wire formats."""

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Unpack

import msgspec
import trio

from agent_dispatch.claude.conversation import open_claude as open_real_claude
from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.program import RunProgram, run_program
from agent_dispatch.config.paths import (
    config_path,
    jobs_path,
    require_named_config,
    with_absolute_paths,
)
from agent_dispatch.config.registry import ConfigSnapshot, Registry
from agent_dispatch.core import group_job
from agent_dispatch.core.command import current_depth
from agent_dispatch.core.dialogue.exchange import (
    as_dispatch,
    check_dialogue,
    dialogue_from_result,
    dialogue_request,
)
from agent_dispatch.core.outcome.refusal import refused_by, result_of_job
from agent_dispatch.core.questions import QuestionRow
from agent_dispatch.core.request.parallel import wrong_items
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.retention import Collected
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, settled, wait_until_over
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields, AgentSummary
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.event import TellEvent, ignore_event
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind, JobStatus, JobSummary
from agent_dispatch.model.message import Sending
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.model.question import AnsweredBy, PastQuestion, Question, Verdict
from agent_dispatch.model.replies import Answered, CacheCleared, CacheStats
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.run.accounts import tree_around
from agent_dispatch.run.agents import Looks
from agent_dispatch.run.background import Workers
from agent_dispatch.run.give_answer import give_answer
from agent_dispatch.run.limits import Limits
from agent_dispatch.run.notify import Notifier
from agent_dispatch.run.parallel import dispatch_parallel
from agent_dispatch.run.plan import Plan, Planner, plan_run
from agent_dispatch.run.run_job import JobRun, Work, nothing_begun
from agent_dispatch.run.runner import Runner
from agent_dispatch.run.send_message import send_message
from agent_dispatch.run.sessions import check_not_around, check_owner
from agent_dispatch.run.single_flight import SingleFlight
from agent_dispatch.run.turns import OpenClaude, TimeLimit
from agent_dispatch.run.work_tree import WorkTrees
from agent_dispatch.threads import DirectoryThreads, Pool, in_pool, in_thread

_CANCEL_PATIENCE_S = 10.0
"""How long a cancellation may take before its outcome is `running`: a ladder, with room."""
_WATCH_EVERY_S = 1.0
"""How often a waiter looks for new progress lines; they are written once a second at most."""


class Service:
    """What the MCP server and the CLI offer, without their wire formats.

    A call that is wrong raises a `DispatchError`; a run that went wrong is a `DispatchResult`. Each
    call reads the configuration anew, so agents can be added without a restart.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: JobStore,
        limits: Limits,
        open_claude: OpenClaude,
        run_program: RunProgram,
        workers: Workers,
        nursery: trio.Nursery,
        environ: Mapping[str, str],
        claude: Sequence[str] | None = None,
        tell: TellEvent = ignore_event,
    ) -> None:
        """Wire a service; `open_service` does it for real.

        Args:
            registry: The agents.
            store: The records.
            limits: The slots of this process's depth, and the locks of sessions.
            open_claude: Runs claude.
            run_program: Runs other programs for a run.
            workers: Start background jobs.
            nursery: Where runs live that several callers wait for.
            environ: What agents inherit; also names the nesting depth and holds PATH.
            claude: The program and its first arguments; None: `claude` on PATH.
            tell: Told of permission questions, and of the ends of background jobs.
        """
        self._registry = registry
        self._store = store
        self._workers = workers
        self._parent = environ.get(JOB_VARIABLE)
        self._tree = tree_around(environ)
        self._ids = IdSource()
        self._threads = DirectoryThreads()
        self._looks = Looks(registry, self._threads)
        self._planner = Planner(registry, environ, claude, self._threads)
        self._runner = Runner(
            store=store,
            planner=self._planner,
            limits=limits,
            open_claude=open_claude,
            work_trees=WorkTrees(run_program, self._threads),
            run_program=run_program,
            parent=self._parent,
            tell=tell,
        )
        self._flight = SingleFlight(nursery)
        self._is_nested = current_depth(environ) > 0

    # -- dispatches

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        ref: bool = False,
        fresh: bool = False,
        alone: bool = False,
    ) -> DispatchResult:
        """Give one task to one agent and wait for the answer.

        The same asked again is answered from the cache, and while it is under way, by that run.
        If cancelled, and no other caller waits for the run, no process of it is left, and its
        record says so.

        Args:
            request: What is asked of whom.
            on_progress: Called with the job's id first, then with what happens; returns at once.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            fresh: Run it whatever was asked before; its answer may be given to later calls.
            alone: Share it with no other call, before or after. That also holds for a request that
                resumes a session.

        Raises:
            UnknownAgentError: No such agent.
            UnusableAgentError: Its table in `agents.toml` is broken.
            ConfigError: `agents.toml` cannot be read.
            InvalidRequestError: The request cannot be sent as it is.
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        plan = plan_run(await self._planner.snapshot(), request)
        return await self._run(plan, on_progress, self._tree, ref=ref, fresh=fresh, alone=alone)

    async def plan(self, request: DispatchRequest) -> Plan:
        """Check a request, and say how it would be run; raises what `dispatch` raises for it."""
        plan = plan_run(await self._planner.snapshot(), request)
        await self._check_owner_of_session(request)
        return plan

    def kept_answer(self, plan: Plan) -> DispatchResult | None:
        """The answer to a question that was asked before, if it is in the cache."""
        if _is_own_run(plan):
            return None
        return self._flight.kept(plan)

    async def keep_answer(self, job: Job) -> None:
        """Put the answer of a call that a worker ran into the cache, if it may be given again."""
        if job.kind is not JobKind.CALL or job.resume_session_id is not None:
            return
        if job.result is None or job.completed_at is None:
            return
        plan = plan_run(await self._planner.snapshot(), job.request())
        if not _is_own_run(plan):
            self._flight.keep(plan, job.result, job.completed_at)

    async def _run(
        self,
        plan: Plan,
        on_progress: OnProgress,
        tree: str | None,
        *,
        ref: bool,
        fresh: bool = False,
        alone: bool = False,
    ) -> DispatchResult:
        request, settings = plan.request, plan.settings
        await self._check_owner_of_session(request)
        await check_not_around(self._store, self._parent, request.session_id)
        # Where no record of an ordinary call is kept, there is none that a ref could name.
        unnamed = ref and settings.call_retention_days == 0
        if alone or unnamed or _is_own_run(plan):
            return await self._runner.call(plan, ref, on_progress, tree=tree)
        start = partial(self._runner.call, plan, ref, tree=tree)
        if fresh:
            return await self._flight.fresh(plan, on_progress, start)
        result = await self._flight.dispatch(plan, on_progress, start)
        if not result.cached or result.job_id is None or await self.is_recorded(result.job_id):
            return result
        # The record is gone, so the caller must get all of the answer now.
        return msgspec.structs.replace(result, job_id=None)

    async def dispatch_detached(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        fresh: bool = False,
        alone: bool = False,
        summary_chars: int | None = None,
    ) -> DispatchResult:
        """Give one task to one agent as a background job, and wait for the answer.

        The cache and runs under way are asked first, as by `dispatch`. If cancelled, the job goes
        on; see `submit` for a cancellation before it was handed over.

        Args:
            request: What is asked of whom.
            on_progress: Called with the job's id first, then with what happens; returns at once.
            fresh: As in `dispatch`.
            alone: As in `dispatch`.
            summary_chars: Recorded: a reference with that many characters answers the call.

        Raises:
            DispatchError: As for `submit`.
        """
        plan = plan_run(await self._planner.snapshot(), request)
        await self._check_owner_of_session(plan.request)
        await check_not_around(self._store, self._parent, plan.request.session_id)

        async def start(report: OnProgress, _limit: TimeLimit) -> DispatchResult:
            # The worker keeps the time itself, from when its agent starts.
            fields = {"summary_chars": summary_chars}
            job = await self._to_worker(plan.request, JobKind.BACKGROUND, fields=fields)
            report(with_agent(job.agent, started_line(job.id), 0))
            return result_of_job(await self.wait(job.id, math.inf, report))

        if alone or _is_own_run(plan):
            return await start(on_progress, TimeLimit(plan.timeout_s))
        if fresh:
            return await self._flight.fresh(plan, on_progress, start)
        # The caller may be told the id in place of the answer.
        await self._flight.forget_unless(plan, self.is_recorded)
        return await self._flight.dispatch(plan, on_progress, start, outlives=True)

    async def _check_owner_of_session(self, request: DispatchRequest) -> None:
        """Refuse to resume the conversation of another agent; see `sessions.check_owner`."""
        await check_owner(self._store, request)

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        """Give several tasks to agents at once, and wait for all of the answers.

        Each is a dispatch like any other. If cancelled, all of them end.

        Args:
            members: What is asked of whom.
            aggregate: The agent that makes one answer of all; empty for none.
            on_progress: Called with what happens, labelled with whom it happens to.

        Raises:
            InvalidRequestError: An item is wrong; it is named, and nothing was started.
            UnknownAgentError: The agent that is to combine the answers is.
            ConfigError: `agents.toml` cannot be read.
        """
        snapshot = await self._planner.snapshot()
        plans = _plan_members(snapshot, members, aggregate)
        tree = self._tree or self._ids.next()

        async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
            # The request that combines the answers is made when they are there.
            plan = plans.get(member.request) or plan_run(snapshot, member.request)
            return await self._run(plan, report, tree, ref=member.ref, fresh=member.fresh)

        return await dispatch_parallel(members, aggregate, dispatch, on_progress)

    async def parallel_detached(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> Job:
        """Give several tasks to agents at once, as one background job, and wait for its end.

        The cache and runs under way are asked first, as by `parallel`. If cancelled, the job goes
        on; see `submit` for a cancellation before it was handed over.

        Returns:
            The job, whose members have records of their own.

        Raises:
            DispatchError: As for `parallel` and `submit`.
        """
        plans = _plan_members(await self._planner.snapshot(), members, aggregate)
        asked = [await self._with_known_job(member, plans[member.request]) for member in members]
        job = await self._to_worker(
            group_job.as_dispatch(asked, aggregate),
            JobKind.GROUP,
            fields={
                "agents": group_job.agents_of(asked, aggregate),
                "dispatches": asked,
                "aggregate": aggregate,
                "members": [member.job_id for member in asked if member.job_id] or None,
            },
        )
        on_progress(with_agent(job.agent, started_line(job.id), 0))
        ended = await self.wait(job.id, math.inf, on_progress)
        came = group_job.from_record(result_of_job(ended))
        if came is not None and ended.completed_at is not None:
            for member, result in zip(asked, came.individual_results, strict=True):
                plan = plans[member.request]
                is_ours = member.job_id is None and plan.agent.host is None
                if is_ours and plan.settings.cache.enabled:
                    self._flight.keep(plan, result, ended.completed_at)
        return ended

    async def _with_known_job(self, member: Member, plan: Plan) -> Member:
        """Name the job whose answer is that of a member, if it is kept or under way."""
        if member.fresh or not plan.settings.cache.enabled:
            return member
        await self._flight.forget_unless(plan, self.is_recorded)
        return msgspec.structs.replace(member, job_id=self._flight.known_job(plan))

    async def _run_group(self, run: JobRun) -> DispatchResult:
        """Run the dispatches of a group in the process that was made for it."""
        job, began = run.owned.job, trio.current_time()
        if self._store.origin is not None:
            self._store.origin.inherit(job)
        members = job.dispatches or []
        ids = {at: member.job_id for at, member in enumerate(members) if member.job_id}
        asked: dict[str, tuple[Question, ...]] = {}
        """What the members ask, by their jobs: the record of the group shows it, too."""

        def report(progress: Progress) -> None:
            at = progress.member
            if progress.job_id is not None and progress.questions is not None:
                asked[progress.job_id] = progress.questions
                waiting = sorted(chain(*asked.values()), key=lambda each: each.asked_at)
                run.owned.note(
                    question=waiting[0] if waiting else None, later_questions=waiting[1:] or None
                )
            if progress.job_id is not None and at is not None and at < len(members):
                ids.setdefault(at, progress.job_id)
                run.owned.note(members=[ids[known] for known in sorted(ids)])
            run.tell(progress)

        snapshot = await self._planner.snapshot()

        async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
            if member.job_id is not None and await self.is_recorded(member.job_id):
                known = result_of_job(await self.wait(member.job_id, math.inf, report))
                return msgspec.structs.replace(known, cached=True)
            plan = plan_run(snapshot, member.request)
            # Kept until `gc`, as the group refers to it.
            return await self._run(plan, report, job.tree, ref=True, fresh=member.fresh)

        run.cancelled = lambda by: group_job.cancelled(job.agent, list(ids.values()), by)
        run.owned.note_started()
        came = await dispatch_parallel(members, job.aggregate, dispatch, report)
        duration_ms = round((trio.current_time() - began) * 1000)
        return group_job.to_record(job.agent, came, duration_ms)

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """Let two agents talk about a topic until one says that it is settled.

        Both work under one slot and one record, each in one session. If cancelled, no process of
        the two is left, and the record has what they said.

        Args:
            request: Who is to talk about what.
            on_progress: Called with the job's id first, then with what happens.

        Raises:
            DispatchError: As for `dispatch`.
        """
        request = check_dialogue(request)
        snapshot = await self._planner.snapshot()
        agents = {
            Role.RESPONDER: snapshot.effective(request.responder),
            Role.REQUESTER: snapshot.effective(request.requester),
        }
        return await self._runner.dialogue(
            request, agents, snapshot.settings, on_progress, tree=self._tree
        )

    async def dialogue_detached(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """Let two agents talk as a background job, and wait for its end.

        If cancelled, the job goes on; see `submit` for a cancellation before it was handed over.

        Raises:
            DispatchError: As for `submit`.
        """
        request = check_dialogue(request)
        snapshot = await self._planner.snapshot()
        for name in (request.responder, request.requester):
            snapshot.effective(name)
        fields = {
            "agents": [request.requester, request.responder],
            "max_rounds": request.max_rounds,
        }
        job = await self._to_worker(as_dispatch(request), JobKind.BACKGROUND, fields=fields)
        on_progress(with_agent(job.agent, started_line(job.id), 0))
        return dialogue_from_result(result_of_job(await self.wait(job.id, math.inf, on_progress)))

    async def _run_dialogue(self, run: JobRun) -> DispatchResult:
        """Have the dialogue of a background job."""
        request = dialogue_request(run.owned.job)
        snapshot = await self._planner.snapshot()
        agents = {
            Role.RESPONDER: snapshot.effective(request.responder),
            Role.REQUESTER: snapshot.effective(request.requester),
        }
        return await self._runner.run_dialogue(request, agents, snapshot.settings, run)

    async def cache_stats(self) -> CacheStats:
        """How full the cache is and how often it helped."""
        return self._flight.stats((await self._planner.snapshot()).settings.cache)

    async def cache_clear(self) -> CacheCleared:
        """Forget all answers that are kept."""
        await trio.lowlevel.checkpoint()
        return CacheCleared(cleared=self._flight.clear())

    async def are_local(self, names: Sequence[str]) -> bool:
        """Whether a worker of this machine can reach all of these agents by itself."""
        await trio.lowlevel.checkpoint()
        return True

    async def settings(self) -> Settings:
        """Read the settings.

        Raises:
            ConfigError: `agents.toml` cannot be read.
        """
        return (await self._planner.snapshot()).settings

    # -- jobs

    async def submit(self, request: DispatchRequest) -> Job:
        """Start a background job; it goes on when this process ends.

        If cancelled, either no worker has it, and its record says that it was cancelled; or the
        job was handed over (`run.background`), and is returned as if nothing had happened.

        Raises:
            DispatchError: As for `dispatch`, and when no worker can be started: then the job is
                recorded as failed.
        """
        plan_run(await self._planner.snapshot(), request)
        await self._check_owner_of_session(request)
        return await self._to_worker(request, JobKind.BACKGROUND)

    async def _submit_allowed(self, request: DispatchRequest, allowed: PastQuestion) -> Job:
        """Start a background job, as `submit` does, in which one call is allowed once."""
        plan_run(await self._planner.snapshot(), request)
        await self._check_owner_of_session(request)
        fields = {"allow_once": allowed}
        return await self._to_worker(request, JobKind.BACKGROUND, fields=fields)

    async def submit_for_remote_caller(
        self,
        plan: Plan,
        *,
        job_id: str,
        kind: JobKind,
        ref: bool,
        lease_s: float,
        tree: str | None,
    ) -> Job:
        """Start a job for a caller on another machine, as `submit` does.

        Args:
            plan: What is asked of whom, from `plan`.
            job_id: The id that the caller made; there is no job of this id.
            kind: A call is a worker's job too, with a lease.
            ref: Its record is kept until `gc`.
            lease_s: How long the job goes on without its caller; 0: to its end.
            tree: The tree of runs that the caller belongs to.

        Raises:
            DispatchError: As for `submit`.
        """
        return await self._to_worker(
            plan.request, kind, ref=ref, job_id=job_id, lease_s=lease_s, tree=tree
        )

    async def _to_worker(
        self,
        request: DispatchRequest,
        kind: JobKind,
        *,
        ref: bool = False,
        job_id: str | None = None,
        lease_s: float | None = None,
        fields: Mapping[str, object] | None = None,
        tree: str | None = None,
    ) -> Job:
        async with create_job(
            self._store,
            request,
            kind=kind,
            parent=self._parent,
            tree=tree or self._tree,
            ref=ref,
            job_id=job_id,
            fields=fields,
        ) as owned:
            result = None
            try:
                if lease_s is not None:
                    await in_thread(self._store.submissions.prepare, owned.job.id, lease_s)
                await self._workers.start(owned)
            except DispatchError as error:
                result = refused_by(error, request.agent)
                raise
            except trio.Cancelled:
                result = nothing_begun(owned)("its submitter")
                raise
            finally:
                if result is not None:
                    # It is shielded and bounded itself.
                    await owned.finish(result)  # noqa: ASYNC102
            return owned.job

    async def answer(
        self, job_id: str, verdict: Verdict, by: AnsweredBy, question_id: str = ""
    ) -> Answered:
        """Give a person's answer to a permission question; see `give_answer`.

        Raises:
            InvalidRequestError: A dispatched agent tries to allow something.
        """
        if self._is_nested and verdict is Verdict.ALLOW:
            raise InvalidRequestError(
                "A dispatched agent does not allow itself anything: this process runs inside a"
                " dispatch (AGENT_DISPATCH_DEPTH is set). Answer from a shell of your own."
            )
        return await give_answer(
            self._store, self._submit_allowed, job_id, verdict, by, question_id
        )

    async def questions_elsewhere(self) -> tuple[list[QuestionRow], list[str]]:
        """The questions of our jobs on other machines, and the machines that cannot be reached."""
        await trio.lowlevel.checkpoint()
        return [], []

    async def may_ask(self) -> bool:
        """Whether some agent asks a person for permissions; no, if that cannot be read."""
        try:
            snapshot = await self._planner.snapshot()
        except DispatchError:
            return False
        agents = snapshot.config.agents.values()
        by_default = snapshot.settings.permission_prompts == "ask"
        return by_default or any(agent.permission_prompts == "ask" for agent in agents)

    async def run_handed_over(self, job_id: str, fds: Sequence[int]) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

        Raises:
            DispatchError: It cannot be run; its record says so.
        """
        await self._runner.background(job_id, fds, self._joint_work)

    def _joint_work(self, job: Job) -> Work | None:
        """What a worker does for a job of several agents; None for a dispatch."""
        if job.kind is JobKind.GROUP:
            return self._run_group
        return None if job.max_rounds is None else self._run_dialogue

    async def job(self, job_id: str) -> Job:
        """One job as it is now: a job whose owner died has ended, and says so.

        Raises:
            DispatchError: Not an id, no such job, or its record cannot be read.
        """
        return await settled(self._store, job_id)

    def keep_record(self, job_id: str) -> None:
        """Keep the record of a call until `gc`, as its client gave it up at its own time limit.

        It does nothing for a job that does not run in this process.
        """
        self._runner.keep_record(job_id)

    async def shown_id(self, job_id: str) -> str:
        """The id of a job as answers have it: with its host, if that is another machine."""
        await trio.lowlevel.checkpoint()
        return job_id

    async def is_recorded(self, job_id: str) -> bool:
        """Whether there is a record of that job, by which its answer can be fetched."""
        try:
            await in_thread(self._store.head, job_id)
        except DispatchError:
            return False
        return True

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """Wait until a job has ended, but not longer than `patience_s`; the status shows which.

        Wakes within milliseconds of the end, also of a sudden one.

        Args:
            job_id: The job.
            patience_s: Seconds; the job goes on if they do not suffice.
            on_progress: Called with new lines on what the agent does.

        Raises:
            DispatchError: As for `job`.
        """
        seen_at: float | None = None
        asked: tuple[Question, ...] = ()

        def tell(job: Job) -> None:
            nonlocal seen_at, asked
            if job.progress and job.progress_updated_at != seen_at:
                seen_at = job.progress_updated_at
                was, asked = asked, tuple(job.open_questions)
                changed = None if asked == was else asked
                job_id = None if changed is None else job.id
                on_progress(Progress(job.progress[-1], job_id, questions=changed))

        with trio.move_on_after(patience_s):
            return await wait_until_over(self._store, job_id, tell, _WATCH_EVERY_S)
        return await self.job(job_id)

    async def send(self, job_id: str, text: str) -> Sending:
        """Tell the agent of a job something while it works; see `send_message`.

        Raises:
            DispatchError: Not an id, not a message, or its record cannot be read.
        """
        return await send_message(self._store, job_id, text)

    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        """Cancel a job, wherever it runs; returns when its processes are gone.

        Args:
            job_id: The job.
            keep: Interrupt a run that has begun, and keep what its agent said.
            by: Who asks, for the end of a sentence.

        Raises:
            DispatchError: Not an id, or its record cannot be read.
        """
        return await cancel(self._store, job_id, by=by, patience_s=_CANCEL_PATIENCE_S, keep=keep)

    async def jobs(
        self,
        status: JobStatus | None = None,
        limit: int = 50,
        *,
        mine: bool = False,
        matches: Callable[[JobSummary], bool] | None = None,
    ) -> Listing:
        """The newest jobs, or the newest of one status, each settled.

        Args:
            status: Only jobs with this status.
            limit: The most jobs to list.
            mine: Only jobs of this client's session, or if that is not known, those that were
                started from the directory of this process.
            matches: Only jobs that it accepts.
        """
        matches = self._mine(matches) if mine else matches
        look = partial(self._store.lister.newest, status=status, limit=limit, matches=matches)
        return await in_pool(Pool.BULK, look)

    def _mine(self, matches: Callable[[JobSummary], bool] | None) -> Callable[[JobSummary], bool]:
        """Narrow down what `matches` accepts to the jobs of this client."""
        origin = self._store.origin

        def is_mine(row: JobSummary) -> bool:
            return origin is not None and origin.is_mine(row) and (not matches or matches(row))

        return is_mine

    async def gc(self, max_age_days: float = 7, *, dry_run: bool = False) -> Collected:
        """Remove jobs that ended before that, and what dead processes left."""
        return await in_pool(
            Pool.BULK, partial(self._store.retention.collect, max_age_days, dry_run=dry_run)
        )

    async def result(self, ref: str) -> DispatchResult:
        """The whole result of a job that has ended.

        Raises:
            DispatchError: As for `job`; or the job has not ended, or has no result.
        """
        job = await self.job(ref)
        if not job.status.is_terminal:
            raise JobNotEndedError(job)
        return result_of_job(job)

    # -- agents

    async def list_agents(self) -> list[AgentSummary]:
        """All configured agents, the broken ones with their problem."""
        return await self._looks.list_agents()

    async def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """One agent as it takes effect, with the first lines of its documents.

        Raises:
            DispatchError: No such agent, or its directory does not answer.
        """
        return await self._looks.inspect_agent(name, preview_lines)

    async def tidy(self) -> None:
        """Remove old records as the settings say; a broken configuration removes nothing."""
        try:
            settings = (await self._planner.snapshot()).settings
        except DispatchError:
            return  # Callers that need the configuration get the error.
        await self._runner.tidy(settings)

    async def require_config(self) -> None:
        """Refuse to go on if the environment names a configuration that does not exist.

        Raises:
            ConfigError: It does not exist.
        """
        if self._planner.environ.get("AGENT_DISPATCH_CONFIG"):
            check = partial(require_named_config, self._planner.environ)
            await self._threads.run("the configuration", check)

    async def add_agent(
        self, name: str, directory: str, *, by: ChangedBy, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Register a directory; empty and 0 mean that the setting is inherited.

        Raises:
            WideningError: A model asks for rights that are a person's to give.
        """
        add = partial(self._registry.add_agent, name, directory, by=by, **fields)
        return await self._threads.run(f"add {name}", add)

    async def update_agent(
        self, name: str, *, by: ChangedBy, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """Change what is not empty or 0; `none` and a negative budget clear the agent's own.

        Raises:
            WideningError: A model asks for rights that are a person's to give.
        """
        update = partial(self._registry.update_agent, name, by=by, **fields)
        return await self._threads.run(f"update {name}", update)

    async def add_remote_agent(
        self, name: str, host: str, directory: str, description: str = ""
    ) -> AgentChange:
        """Register a directory of another machine there, and link the agent here.

        Raises:
            DispatchError: The host refuses or cannot be reached, or the name is taken; nothing is
                written on this machine.
        """
        raise _no_hosts(host)

    async def check_host(self, host: str) -> list[dict[str, Any]]:
        """What `doctor` finds on another machine, over the very link that a run uses.

        Raises:
            DispatchError: There is no such host, or it cannot be reached.
        """
        raise _no_hosts(host)

    async def remove_agent(self, name: str) -> AgentChange:
        """Forget an agent; its directory stays as it is."""
        remove = partial(self._registry.remove_agent, name)
        return await self._threads.run(f"remove {name}", remove)


def _plan_members(
    snapshot: ConfigSnapshot, members: Sequence[Member], aggregate: str
) -> dict[DispatchRequest, Plan]:
    """Plan all that several tasks need, or refuse them with what is wrong with each."""
    if aggregate:
        snapshot.effective(aggregate)
    plans: dict[DispatchRequest, Plan] = {}
    problems = []
    for index, member in enumerate(members):
        try:
            plans[member.request] = plan_run(snapshot, member.request)
        except DispatchError as error:
            problems.append(f"dispatches[{index}]: {error}")
    if problems:
        raise wrong_items(problems)
    return plans


class JobNotEndedError(DispatchError):
    """The result of a job was asked for that has none yet."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            f"Job {job.id} is {job.status}: its result is not there yet.",
            NextStep(kind=StepKind.WAIT, job_id=job.id),
        )


def _is_own_run(plan: Plan) -> bool:
    """Whether a run answers its own call and no other."""
    resumes = plan.request.session_id is not None
    # Of an agent on another host, the call alone says here that it is verified.
    verifies = plan.verify is not None or plan.request.verify
    return resumes or verifies or not plan.settings.cache.enabled


def _no_hosts(host: str) -> DispatchError:
    return DispatchError(f"This process has no way to other machines, such as {host}.")


@contextlib.asynccontextmanager
async def open_service(
    *,
    environ: Mapping[str, str],
    fork_server: ForkServer | None,
    claude: Sequence[str] | None = None,
    registry: Registry | None = None,
    open_claude: OpenClaude | None = None,
    make: Callable[..., Service] = Service,
) -> AsyncIterator[Service]:
    """Wire a service for as long as the block runs.

    Args:
        environ: Where configuration and jobs are, what agents inherit, and the nesting depth.
        fork_server: Forks guards and workers; None starts each the slow way.
        claude: The program to run in place of `claude` on PATH, with its first arguments.
        registry: The agents, in place of the file that `environ` names.
        open_claude: Runs claude, in place of the real one.
        make: Makes the service; takes what `Service` takes.

    Raises:
        ConfigError: `environ` names a configuration file that cannot be used.
    """
    environ = with_absolute_paths(environ)
    registry = registry or Registry(config_path(environ), environ=environ)
    jobs = jobs_path(environ, registry.path)
    launcher = Launcher(fork_server)
    notifier = Notifier(registry, environ)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield make(
                registry=registry,
                store=JobStore(jobs, on_end=notifier.job_ended, origin=Origin(environ)),
                limits=Limits(jobs, current_depth(environ)),
                open_claude=open_claude or partial(open_real_claude, launcher),
                run_program=partial(run_program, launcher),
                workers=Workers(fork_server, environ, claude),
                nursery=nursery,
                environ=environ,
                claude=claude,
                tell=notifier.tell,
            )
        except Exception as error:
            # Raised outside the nursery, which would wrap it in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure

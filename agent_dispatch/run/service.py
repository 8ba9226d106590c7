"""The service: what the surfaces call, without their wire formats.

It decides where a call goes. What concerns an agent or a job on another host goes to that host
(`remote.caller`), which runs a service of its own. On this machine, a dispatch goes to the cache, a
run that is going on, a new run or a worker.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from agent_dispatch.config.paths import require_named_config
from agent_dispatch.config.registry import Registry
from agent_dispatch.core import group_job
from agent_dispatch.core.command import current_depth
from agent_dispatch.core.dialogue.record import as_dispatch, dialogue_from_result
from agent_dispatch.core.outcome.refusal import result_of_job
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchRequest,
    DispatchResult,
    Member,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.event import OnEvent
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.model.question import PastQuestion
from agent_dispatch.model.replies import CacheCleared, CacheStats
from agent_dispatch.remote.caller.hosts import Hosts
from agent_dispatch.run.accounts import tree_around
from agent_dispatch.run.agents import Agents
from agent_dispatch.run.background import Workers
from agent_dispatch.run.dialogue_across_hosts import dialogue_across_hosts
from agent_dispatch.run.jobs import Jobs
from agent_dispatch.run.parallel import dispatch_parallel, run_group
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import Plan, plan_dialogue, plan_members, plan_run
from agent_dispatch.run.resume_checks import check_session_agent, check_session_not_around
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.runner import Runner
from agent_dispatch.run.single_flight import SingleFlight
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.threads import DirectoryThreads


class Service:
    """What the MCP server and the CLI offer, without their wire formats.

    It starts dispatches; `jobs` reaches those that were started, `agents` what is configured.

    A call that is wrong raises a `DispatchError`; a run that went wrong is a `DispatchResult`. Each
    call reads the configuration anew, so agents can be added without a restart.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: JobStore,
        hosts: Hosts,
        parts: RunParts,
        threads: DirectoryThreads,
        workers: Workers,
        nursery: trio.Nursery,
        environ: Mapping[str, str],
        on_event: OnEvent,
    ) -> None:
        """Wire a service; `open_service` makes its parts.

        Args:
            nursery: Where shared runs live.
            environ: Of this process: its nesting depth, and the job and tree around it.
            on_event: Gets permission questions, and the ends of background jobs.
        """
        self._store = store
        self._hosts = hosts
        self.workers = workers
        """Starts background jobs; `submit` checks the request first."""
        self._parent = environ.get(JOB_VARIABLE)
        self._tree = tree_around(environ)
        self._ids = IdSource()
        self._environ = environ
        self._threads = threads
        self._planner = parts.planner
        self._runner = Runner(store=store, parts=parts, parent=self._parent, on_event=on_event)
        self._flight = SingleFlight(nursery)
        self.jobs = Jobs(store, hosts, self._submit_allowed, is_nested=current_depth(environ) > 0)
        self.agents = Agents(registry, self._planner, hosts, self._threads)

    # -- dispatches

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        """Give one task to one agent and wait for the answer.

        An identical request is answered from the cache, or by a run that is going on. If
        cancelled, and no other caller waits for the run, no process of it is left, and its record
        says so.

        Args:
            on_progress: Gets the job's id first, then what happens; must return at once.
            options: How to answer. A request that resumes a session is always `alone`.

        Raises:
            UnknownAgentError: No such agent.
            UnusableAgentError: Its table in `agents.toml` is broken.
            ConfigError: `agents.toml` cannot be read.
            InvalidRequestError: The request cannot be sent as it is.
            JobStoreError: The job cannot be recorded; nothing was started.
            LimitsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        plan = plan_run(await self._planner.snapshot(), request)
        return await self._dispatch_planned(plan, on_progress, self._tree, options)

    async def plan(self, request: DispatchRequest) -> Plan:
        """Check a request and plan its run, as `dispatch` does."""
        plan = plan_run(await self._planner.snapshot(), request)
        await check_session_agent(self._store, self._hosts.remote_jobs, plan)
        return plan

    def kept_answer(self, plan: Plan) -> DispatchResult | None:
        """Return the answer to an identical earlier request, if it is in the cache."""
        return self._flight.kept(plan)

    async def keep_answer(self, job: Job) -> None:
        """Cache the answer of a call that a worker ran, if later calls may get it."""
        if job.kind is not JobKind.CALL or job.resume_session_id is not None:
            return
        if job.result is None or job.completed_at is None:
            return
        plan = plan_run(await self._planner.snapshot(), job.request())
        self._flight.keep(plan, job.result, job.completed_at)

    async def _dispatch_planned(
        self,
        plan: Plan,
        on_progress: OnProgress,
        tree: str | None,
        options: CallOptions,
    ) -> DispatchResult:
        """Give a planned dispatch to its host, or to a new or shared run on this machine."""
        await check_session_agent(self._store, self._hosts.remote_jobs, plan)
        if plan.agent.host is not None:
            fresh = options.fresh or options.alone
            return await self._hosts.call(
                plan.agent, plan.request, on_progress, ref=options.ref, fresh=fresh, tree=tree
            )
        await check_session_not_around(self._store, self._parent, plan.request.session_id)
        if options.ref and plan.settings.call_retention_days == 0:
            # Records of other calls are not kept, so a ref needs a run of its own.
            options = msgspec.structs.replace(options, alone=True)
        start = partial(self._runner.call, plan, ref=options.ref, tree=tree)
        result = await self._flight.answer(plan, on_progress, start, options)
        if not result.cached or result.job_id is None or await self.jobs.is_recorded(result.job_id):
            return result
        # The record is gone, so the caller must get the whole answer now.
        return msgspec.structs.replace(result, job_id=None)

    async def dispatch_detached(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        """Give one task to one agent as a background job, and wait for the answer.

        The cache and runs that are going on are asked first, as by `dispatch`. If cancelled, the
        job goes on; `submit` says what happens if it had not been handed over yet.

        Raises:
            DispatchError: As for `submit`.
        """
        plan = await self.plan(request)
        if plan.agent.host is not None:
            job = await self._hosts.submit(plan.agent, plan.request, tree=self._tree)
            return result_of_job(await self._follow(job, on_progress))
        await check_session_not_around(self._store, self._parent, plan.request.session_id)

        async def start(report: OnProgress, _limit: TimeLimit) -> DispatchResult:
            # The worker keeps the time itself, from when its agent starts.
            fields = {"summary_chars": options.summary_chars}
            job = await self.workers.submit(plan.request, fields=fields)
            return result_of_job(await self._follow(job, report))

        if not (options.alone or options.fresh):
            # The caller may get the id in place of the answer.
            await self._flight.forget_unless(plan, self.jobs.is_recorded)
        return await self._flight.answer(plan, on_progress, start, options, outlives=True)

    async def _follow(self, job: Job, on_progress: OnProgress) -> Job:
        """Report the id of a background job, and wait for its end."""
        on_progress(with_agent(job.agent, started_line(job.id), 0))
        return await self.jobs.wait(job.id, math.inf, on_progress)

    # -- several agents

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        """Give several tasks to agents at once, and wait for all of the answers.

        Each is a dispatch like any other. If cancelled, all of them end.

        Args:
            aggregate: The agent that combines the answers into one; empty for none.
            on_progress: Gets what happens, labelled with the member that it is about.

        Raises:
            InvalidRequestError: It names each task that is wrong; nothing was started.
            UnknownAgentError: There is no agent `aggregate`.
            ConfigError: `agents.toml` cannot be read.
        """
        snapshot = await self._planner.snapshot()
        plans = plan_members(snapshot, members, aggregate)
        tree = self._tree or self._ids.next()

        async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
            # The request that combines the answers is not planned before they are there.
            plan = plans.get(member.request) or plan_run(snapshot, member.request)
            options = CallOptions(ref=member.ref, fresh=member.fresh)
            return await self._dispatch_planned(plan, report, tree, options)

        return await dispatch_parallel(members, aggregate, dispatch, on_progress)

    async def parallel_detached(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> Job:
        """Give several tasks to agents at once, as one background job, and wait for its end.

        The cache and runs that are going on are asked first, as by `parallel`. If cancelled, the
        job goes on; `submit` says what happens if it had not been handed over yet.

        Returns:
            The job, whose members have records of their own.

        Raises:
            DispatchError: As for `parallel` and `submit`.
        """
        plans = plan_members(await self._planner.snapshot(), members, aggregate)
        members = [await self._with_known_job(member, plans[member.request]) for member in members]
        job = await self.workers.submit(
            group_job.as_dispatch(members, aggregate),
            JobKind.GROUP,
            fields={
                "agents": group_job.agents_of(members, aggregate),
                "dispatches": members,
                "aggregate": aggregate,
                "members": [member.job_id for member in members if member.job_id] or None,
            },
        )
        ended = await self._follow(job, on_progress)
        outcome = group_job.from_record(result_of_job(ended))
        if outcome is not None and ended.completed_at is not None:
            for member, result in zip(members, outcome.individual_results, strict=True):
                plan = plans[member.request]
                if member.job_id is None and plan.agent.host is None:
                    self._flight.keep(plan, result, ended.completed_at)
        return ended

    async def _with_known_job(self, member: Member, plan: Plan) -> Member:
        """Name the job that answers a member already: from the cache, or by a run going on."""
        if member.fresh or not plan.is_shareable:
            return member
        await self._flight.forget_unless(plan, self.jobs.is_recorded)
        return msgspec.structs.replace(member, job_id=self._flight.known_job(plan))

    async def _run_group(self, run: JobRun) -> DispatchResult:
        """Run the dispatches of a group in its worker."""
        job, snapshot = run.owned.job, await self._planner.snapshot()
        if self._store.origin is not None:
            self._store.origin.inherit(job)

        async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
            if member.job_id is not None and await self.jobs.is_recorded(member.job_id):
                known = result_of_job(await self.jobs.wait(member.job_id, math.inf, report))
                return msgspec.structs.replace(known, cached=True)
            plan = plan_run(snapshot, member.request)
            # Kept until `gc`, because the record of the group refers to it.
            options = CallOptions(ref=True, fresh=member.fresh)
            return await self._dispatch_planned(plan, report, job.tree, options)

        return await run_group(run, dispatch)

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """Let two agents talk about a topic until one says that it is settled.

        Both work under one slot and one record, each in one session. If cancelled, no process of
        the two is left, and the record has what they said. If one of them is on another host, each
        turn is a job of its own.

        Raises:
            DispatchError: As for `dispatch`.
        """
        plan = plan_dialogue(await self._planner.snapshot(), request)
        if not plan.is_local:
            dispatch = partial(self.dispatch, options=CallOptions(alone=True))
            return await dialogue_across_hosts(plan.request, dispatch, on_progress)
        return dialogue_from_result(await self._runner.call(plan, on_progress, tree=self._tree))

    async def dialogue_detached(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """Let two agents talk as a background job, and wait for its end.

        If cancelled, the job goes on; `submit` says what happens if it had not been handed over
        yet. A dialogue with an agent on another host ends with this call.

        Raises:
            DispatchError: As for `submit`.
        """
        plan = plan_dialogue(await self._planner.snapshot(), request)
        if not plan.is_local:
            dispatch = partial(self.dispatch, options=CallOptions(alone=True))
            return await dialogue_across_hosts(plan.request, dispatch, on_progress)
        fields = {
            "agents": [plan.request.requester, plan.request.responder],
            "max_rounds": plan.request.max_rounds,
        }
        job = await self.workers.submit(as_dispatch(plan.request), fields=fields)
        return dialogue_from_result(result_of_job(await self._follow(job, on_progress)))

    # -- background jobs

    async def submit(self, request: DispatchRequest) -> Job:
        """Start a background job; it goes on when this process ends.

        If cancelled, either no worker has it, and its record says that it was cancelled; or a
        worker has it, and this call returns normally.

        Raises:
            DispatchError: As for `dispatch`; or no worker can be started, and the job is recorded
                as failed.
        """
        plan = await self.plan(request)
        if plan.agent.host is not None:
            return await self._hosts.submit(plan.agent, plan.request, tree=self._tree)
        return await self.workers.submit(request)

    async def _submit_allowed(self, request: DispatchRequest, allowed: PastQuestion) -> Job:
        """Start a background job in which one call is allowed once."""
        await self.plan(request)
        return await self.workers.submit(request, fields={"allow_once": allowed})

    async def run_handed_over(self, job_id: str, fds: Sequence[int]) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

        Raises:
            DispatchError: It cannot be run; its record says so.
        """
        await self._runner.run_handed_over(job_id, fds, self._run_group)

    # -- cache and records

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache is and how often it helped."""
        return self._flight.stats((await self.settings()).cache)

    async def cache_clear(self) -> CacheCleared:
        """Forget all answers that are kept."""
        await trio.lowlevel.checkpoint()
        return CacheCleared(cleared=self._flight.clear())

    def keep_record(self, job_id: str) -> None:
        """Keep the record of a call until `gc`, because its client gave up at its own time limit.

        Does nothing for a job that does not run in this process.
        """
        self._runner.keep_record(job_id)

    async def tidy(self) -> None:
        """Remove old records as the settings say; a broken configuration removes nothing."""
        try:
            settings = await self.settings()
        except DispatchError:
            return  # Callers that need the configuration get the error.
        await self._runner.housekeeping.run_if_due(settings)

    # -- configuration

    async def settings(self) -> Settings:
        """Read the settings.

        Raises:
            ConfigError: `agents.toml` cannot be read.
        """
        return (await self._planner.snapshot()).settings

    async def require_config(self) -> None:
        """Refuse to go on if the environment names a configuration that does not exist.

        Raises:
            ConfigError: It does not exist.
        """
        if self._environ.get("AGENT_DISPATCH_CONFIG"):
            check = partial(require_named_config, self._environ)
            await self._threads.run("the configuration", check)

    async def may_ask(self) -> bool:
        """Whether some agent asks a person for permissions; false if that cannot be read."""
        try:
            snapshot = await self._planner.snapshot()
        except DispatchError:
            return False
        agents = snapshot.config.agents.values()
        by_default = snapshot.settings.permission_prompts == "ask"
        return by_default or any(agent.permission_prompts == "ask" for agent in agents)

    async def are_local(self, names: Sequence[str]) -> bool:
        """Whether all of these agents are on this machine, as one worker for them needs."""
        agents = (await self._planner.snapshot()).config.agents
        return all(name not in agents or agents[name].host is None for name in names)

    async def check_host(self, host: str) -> list[dict[str, Any]]:
        """Run `doctor` on another machine, over the same link that a run uses.

        Raises:
            DispatchError: There is no such host, or it cannot be reached.
        """
        return await self._hosts.check(host)

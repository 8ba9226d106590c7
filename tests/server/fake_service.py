"""A service that answers at once, or as the task says, and records the requests."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from agent_dispatch.core.request.checks import check_message
from agent_dispatch.errors import UnknownAgentError
from agent_dispatch.jobs.errors import JobNotEndedError, UnknownJobError
from agent_dispatch.jobs.ids import check_job_id
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.jobs.retention import Collected
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentSummary
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dialogue import (
    DialogueRequest,
    DialogueResult,
    DialogueTurn,
    Role,
)
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobKind, JobStatus, JobSummary, new_job, summarise
from agent_dispatch.model.message import Sending, SendOutcome
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.model.replies import CacheCleared, CacheStats
from agent_dispatch.run.agents import Agents
from agent_dispatch.run.jobs import Jobs
from agent_dispatch.run.service import Service

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
CONFIG = "/home/user/.config/agent-dispatch/agents.toml"


@dataclass
class FakeService(Service, Jobs, Agents):
    """Knows one agent, `infra`, and one job at a time."""

    description: str = "Infrastructure agent"
    calls: list[tuple[str, object]] = field(default_factory=list)
    requests: list[DispatchRequest] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    running: trio.Event = field(default_factory=trio.Event)
    kept: Job | None = None
    over: trio.Event = field(default_factory=trio.Event)
    """Set when the kept job has ended."""
    used_settings: Settings = field(default_factory=Settings)
    warnings: list[str] = field(default_factory=list)
    combined: str = "all is well"

    def __post_init__(self) -> None:
        self.jobs = self.agents = self

    async def require_config(self) -> None:
        # Nothing is named, so there is nothing to look at.
        return

    async def tidy(self) -> None:
        # There are no records.
        return

    async def shown_id(self, job_id: str) -> str:
        await trio.lowlevel.checkpoint()
        return job_id

    async def summaries(self) -> list[AgentSummary]:
        await trio.lowlevel.checkpoint()
        return [
            AgentSummary(
                name="infra",
                directory="/home/user/infra",
                description=self.description,
                healthy=True,
                has_claude_md=True,
                has_mcp_config=False,
                allowed_tools=[],
            )
        ]

    async def inspect(self, name: str, preview_lines: int = 40) -> AgentDetails:
        await trio.lowlevel.checkpoint()
        self._check(name)
        self.calls.append(("inspect_agent", preview_lines))
        return AgentDetails(
            name=name,
            directory="/home/user/infra",
            description=self.description,
            healthy=True,
            has_claude_md=True,
            has_mcp_config=False,
            stacks=["Python"],
            timeout=300,
            instructions="i" * 5000,
            claude_md_preview="# Infra\n",
        )

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        self._check(request.agent)
        self.calls.append(("dispatch", (options.ref, options.fresh or options.alone)))
        self.requests.append(request)
        verb, _, rest = request.task.partition(" ")
        match verb:
            case "sleep":
                await trio.sleep(float(rest))
            case "forever":
                on_progress(Progress("begun"))
                await self._run_until_cancelled(clean_up_s=0.01)
            case "stubborn":
                on_progress(Progress("begun"))
                await self._run_until_cancelled(clean_up_s=30)
            case "progress":
                for number in range(int(rest)):
                    on_progress(Progress(f"step {number}"))
                    await trio.lowlevel.checkpoint()
            case "chatter":
                while True:
                    on_progress(Progress("still at it"))
                    await trio.sleep(0.02)
            case "bug":
                raise ZeroDivisionError("by \ud800 zero")
            case "group":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._fail_when_cancelled)
                    await trio.sleep_forever()
            case "big":
                return DispatchResult(
                    agent="infra", success=True, result="ä" * int(rest), job_id=JOB_ID
                )
            case "noise":
                print("noise on stdout", flush=True)  # noqa: T201
                os.write(1, b"more noise\n")
                return DispatchResult(
                    agent="infra", success=True, result=f"stdin: {os.read(0, 100)!r}"
                )
            case "json":
                return DispatchResult(
                    agent="infra", success=True, result="null", parsed_result=None
                )
            case "denied":
                return DispatchResult(
                    agent="infra",
                    success=False,
                    result="",
                    error="Bash was denied",
                    error_type=ErrorType.PERMISSION,
                    denied_tools=["Bash"],
                )
            case _:
                await trio.lowlevel.checkpoint()
        return DispatchResult(
            agent="infra", success=True, result=f"did: {request.task}", num_turns=1
        )

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        self.calls.append(("parallel", aggregate))
        results = [await self.dispatch(member.request, on_progress) for member in members]
        combined = DispatchResult(
            agent=aggregate, success=True, result=self.combined, job_id=JOB_ID
        )
        return ParallelResult(
            individual_results=results, aggregated=combined if aggregate else None
        )

    async def cache_stats(self) -> CacheStats:
        await trio.lowlevel.checkpoint()
        return CacheStats(
            enabled=True, size=1, max_size=1000, ttl=300, hits=1, misses=3, hit_rate=0.25
        )

    async def cache_clear(self) -> CacheCleared:
        await trio.lowlevel.checkpoint()
        return CacheCleared(cleared=1)

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        self._check(request.responder)
        self.calls.append(("dialogue", request))
        on_progress(Progress("Round 1: infra (responder)"))
        verb, _, rest = request.topic.partition(" ")
        await trio.sleep(float(rest) if verb == "sleep" else 0)
        turn = DialogueTurn(
            agent=request.responder, role=Role.RESPONDER, round=1, message=request.topic
        )
        return DialogueResult(
            resolved=True,
            rounds=1,
            total_cost_usd=0.02,
            total_duration_ms=12,
            final_answer=request.topic,
            conversation=[turn],
            sessions={"infra": "s"},
            job_id=JOB_ID,
        )

    async def submit(self, request: DispatchRequest) -> Job:
        await trio.lowlevel.checkpoint()
        self._check(request.agent)
        self.requests.append(request)
        self.kept = new_job(JOB_ID, request, 1730000000.0, kind=JobKind.BACKGROUND)
        return self.kept

    async def settings(self) -> Settings:
        await trio.lowlevel.checkpoint()
        return self.used_settings

    async def dispatch_detached(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        job = await self.submit(request)
        on_progress(Progress(f"Job {job.id}", job.id))
        await self.over.wait()
        assert self.kept is not None
        assert self.kept.result is not None
        return self.kept.result

    async def are_local(self, names: Sequence[str]) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    def keep_record(self, job_id: str) -> None:
        self.calls.append(("keep_record", job_id))

    async def get(self, job_id: str) -> Job:
        await trio.lowlevel.checkpoint()
        check_job_id(job_id)
        if self.kept is None or self.kept.id != job_id:
            raise UnknownJobError(job_id)
        return self.kept

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        job = await self.get(job_id)
        self.calls.append(("wait", patience_s))
        if not job.status.is_terminal:
            for line in job.progress or ():
                on_progress(Progress(line))
            await trio.sleep(patience_s)
        return job

    async def send(self, job_id: str, text: str) -> Sending:
        await trio.lowlevel.checkpoint()
        check_job_id(job_id)
        check_message(text)
        if self.kept is None or self.kept.id != job_id:
            return Sending(job_id=job_id, outcome=SendOutcome.NOT_FOUND)
        if not self.kept.status.is_terminal:
            self.calls.append(("send", text))
            return Sending(job_id=job_id, outcome=SendOutcome.DELIVERED)
        step = NextStep(kind=StepKind.ASK, agent=self.kept.agent, session_id="5e55", task=text)
        return Sending(job_id=job_id, outcome=SendOutcome.ALREADY_TERMINAL, next_step=step)

    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        if keep:
            self.calls.append(("cancel", "keep"))
        await trio.lowlevel.checkpoint()
        check_job_id(job_id)
        self.calls.append(("cancel", (job_id, by)))
        if self.kept is None or self.kept.id != job_id:
            return CancelOutcome.NOT_FOUND
        if self.kept.status.is_terminal:
            return CancelOutcome.ALREADY_TERMINAL
        return CancelOutcome.CANCELLED

    async def newest(
        self,
        status: JobStatus | None = None,
        limit: int = 50,
        *,
        mine: bool = False,
        matches: Callable[[JobSummary], bool] | None = None,
    ) -> Listing:
        await trio.lowlevel.checkpoint()
        self.calls.append(("jobs", (status, limit)))
        return Listing([summarise(self.kept)] if self.kept else [], self.warnings)

    async def gc(self, max_age_days: float = 7, *, dry_run: bool = False) -> Collected:
        await trio.lowlevel.checkpoint()
        self.calls.append(("gc", (max_age_days, dry_run)))
        return Collected([JOB_ID] if self.kept else [], 0, self.warnings)

    async def result(self, ref: str) -> DispatchResult:
        job = await self.get(ref)
        if job.result is None:
            raise JobNotEndedError(job)
        return job.result

    async def add(self, name: str, directory: str, **settings: object) -> AgentChange:
        await trio.lowlevel.checkpoint()
        self.calls.append(("add_agent", settings))
        return AgentChange(agent=name, action="added", directory=directory, config=CONFIG)

    async def update(self, name: str, **settings: object) -> AgentChange:
        await trio.lowlevel.checkpoint()
        self._check(name)
        self.calls.append(("update_agent", settings))
        return AgentChange(agent=name, action="updated", config=CONFIG)

    async def remove(self, name: str) -> AgentChange:
        await trio.lowlevel.checkpoint()
        self._check(name)
        return AgentChange(agent=name, action="removed", config=CONFIG)

    def _check(self, name: str) -> None:
        if name != "infra":
            raise UnknownAgentError(name, available=["infra"])

    async def _run_until_cancelled(self, clean_up_s: float) -> None:
        self.running.set()
        try:
            await trio.sleep_forever()
        finally:
            self.events.append("cancelled")
            with trio.CancelScope(shield=True):
                await trio.sleep(clean_up_s)
            self.events.append("cleaned up")

    async def _fail_when_cancelled(self) -> None:
        self.running.set()
        try:
            await trio.sleep_forever()
        finally:
            self.events.append("cancelled")
            raise ZeroDivisionError("while being cancelled")

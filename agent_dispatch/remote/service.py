"""The service in front of the local one: it sends to a host what concerns that host."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Unpack

import msgspec
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.hosts import link_agent, remote_directory, require_free_name
from agent_dispatch.config.paths import jobs_path, with_absolute_paths
from agent_dispatch.core.dialogue.exchange import Exchange, check_dialogue, timeout_error
from agent_dispatch.core.next_step import more_time, on_host
from agent_dispatch.core.outcome.refusal import refused, result_of_job
from agent_dispatch.core.questions import QuestionRow
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.jobs.retention import Collected
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.agent import AgentChange, AgentDetails, AgentFields
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobStatus, JobSummary
from agent_dispatch.model.message import Sending
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.model.replies import Answered
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.remote.caller.client import Hosts
from agent_dispatch.remote.caller.remote_jobs import at_host, with_remote_jobs
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.service import JobNotEndedError, Service, open_service
from agent_dispatch.threads import Pool, in_pool, in_thread

_ADD_S = 30.0


class Routed(Service):
    """The local service, and through it those of the hosts."""

    def __init__(self, hosts: Hosts, **parts: Any) -> None:
        """Send to `hosts` what concerns them; `parts` are those of the local service."""
        super().__init__(**parts)
        self._hosts = hosts

    # -- dispatches

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
        if plan.agent.host is None:
            return await super()._run(plan, on_progress, tree, ref=ref, fresh=fresh, alone=alone)
        await self._check_owner_of_session(plan.request)
        return await self._hosts.call(
            plan.agent,
            await self._as_sent(plan.request),
            on_progress,
            ref=ref,
            fresh=fresh or alone,
            tree=tree,
        )

    async def submit(self, request: DispatchRequest) -> Job:
        """As `Service.submit`, on the host of the agent."""
        plan = await self.plan(request)
        if plan.agent.host is None:
            return await super().submit(request)
        return await self._hosts.submit(
            plan.agent, await self._as_sent(plan.request), tree=self._tree
        )

    async def dispatch_detached(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        fresh: bool = False,
        alone: bool = False,
        summary_chars: int | None = None,
    ) -> DispatchResult:
        """As `Service.dispatch_detached`, as a background job on the host of the agent."""
        plan = await self.plan(request)
        if plan.agent.host is None:
            return await super().dispatch_detached(
                request, on_progress, fresh=fresh, alone=alone, summary_chars=summary_chars
            )
        job = await self.submit(request)
        on_progress(with_agent(job.agent, started_line(job.id), 0))
        return result_of_job(await self.wait(job.id, math.inf, on_progress))

    async def are_local(self, names: Sequence[str]) -> bool:
        """As `Service.are_local`: the processes of a worker are on this machine."""
        agents = (await self._planner.snapshot()).config.agents
        return all(name not in agents or agents[name].host is None for name in names)

    async def _as_sent(self, request: DispatchRequest) -> DispatchRequest:
        """The request as a host gets it: it does not know groups, so the context goes along."""
        if not request.group:
            return request
        snapshot = await self._planner.snapshot()
        shared = snapshot.shared_context(request.group, request.agent)
        context = "\n\n".join(filter(None, (shared, request.context)))
        return msgspec.structs.replace(request, group="", context=context)

    async def _check_owner_of_session(self, request: DispatchRequest) -> None:
        """As for the local service; a conversation stays on its host."""
        if request.session_id is not None:
            note = await in_thread(self._hosts.remote_jobs.of_session, request.session_id)
            if note is not None:
                agent = (await self._planner.snapshot()).effective(request.agent)
                if (agent.host, agent.name) != (note.host, note.agent):
                    raise InvalidRequestError(
                        f"Session {request.session_id} belongs to agent {note.agent!r} on host"
                        f" {note.host!r} (job {note.shown_id}), not to {request.agent!r}; nothing"
                        " was started. Resume it with that agent, or leave the session out."
                    )
                return
        await super()._check_owner_of_session(request)

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """As `Service.dialogue`; if one of the two is elsewhere, each turn is a job of its own."""
        request = check_dialogue(request)
        snapshot = await self._planner.snapshot()
        agents = [snapshot.effective(name) for name in (request.responder, request.requester)]
        if all(agent.host is None for agent in agents):
            return await super().dialogue(request, on_progress)
        return await self._turn_by_turn(request, on_progress)

    async def dialogue_detached(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        """As `Service.dialogue_detached`; one with an agent elsewhere ends with this call."""
        checked = check_dialogue(request)
        snapshot = await self._planner.snapshot()
        agents = [snapshot.effective(name) for name in (checked.responder, checked.requester)]
        if all(agent.host is None for agent in agents):
            return await super().dialogue_detached(request, on_progress)
        return await self._turn_by_turn(checked, on_progress)

    async def _turn_by_turn(
        self, request: DialogueRequest, on_progress: OnProgress
    ) -> DialogueResult:
        began, exchange = trio.current_time(), Exchange(request)
        sessions: dict[Role, str] = {}
        job_id: str | None = None
        while (step := exchange.next_turn()) is not None:
            left_s: float | None = None
            if request.timeout_s is not None:
                left_s = began + request.timeout_s - trio.current_time()
                if left_s <= 0:
                    longer = more_time(request.timeout_s)
                    exchange.stop(timeout_error(request.timeout_s), ErrorType.TIMEOUT, [longer])
                    break
            on_progress(with_agent(step.agent, Progress(f"round {step.round}, as {step.role}"), 0))
            asked = DispatchRequest(
                agent=step.agent,
                task=step.prompt,
                timeout_s=left_s,
                session_id=sessions.get(step.role),
                words_only=True,
            )
            result = await self.dispatch(asked, on_progress, alone=True)
            job_id = result.job_id or job_id
            if not result.success:
                exchange.fail(step, result)
                break
            exchange.add(step, result)
            if result.session_id is not None:
                sessions[step.role] = result.session_id
        ended = exchange.result(round((trio.current_time() - began) * 1000))
        return msgspec.structs.replace(ended, job_id=job_id)

    # -- jobs

    async def job(self, job_id: str) -> Job:
        """As `Service.job`."""
        if (place := await self._hosts.place_of(job_id)) is None:
            return await super().job(job_id)
        return await self._hosts.job(place)

    async def shown_id(self, job_id: str) -> str:
        """As `Service.shown_id`."""
        with suppress(DispatchError):
            if (place := await self._hosts.place_of(job_id)) is not None:
                return place.shown_id
        return job_id

    async def is_recorded(self, job_id: str) -> bool:
        """As `Service.is_recorded`; what a host keeps is not asked for."""
        if await self._hosts.place_of(job_id) is None:
            return await super().is_recorded(job_id)
        return True

    async def wait(
        self, job_id: str, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """As `Service.wait`, through any cut."""
        if (place := await self._hosts.place_of(job_id)) is None:
            return await super().wait(job_id, patience_s, on_progress)
        return await self._hosts.wait(place, patience_s, on_progress)

    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        """As `Service.cancel`."""
        if (place := await self._hosts.place_of(job_id)) is None:
            return await super().cancel(job_id, by=by, keep=keep)
        return await self._hosts.cancel(place, by, keep=keep)

    async def send(self, job_id: str, text: str) -> Sending:
        """As `Service.send`."""
        if (place := await self._hosts.place_of(job_id)) is None:
            return await super().send(job_id, text)
        args = {"job_id": place.id, "text": text}
        sending = msgspec.convert(await self._hosts.ask(place.host, "send", args), Sending)
        step = sending.next_step
        if step is not None and place.note is not None:
            step = on_host(step, place.host, place.note.agent, place.shown_id)
        return msgspec.structs.replace(sending, job_id=place.shown_id, next_step=step)

    async def answer(
        self, job_id: str, verdict: Verdict, by: AnsweredBy, question_id: str = ""
    ) -> Answered:
        """As `Service.answer`."""
        if (place := await self._hosts.place_of(job_id)) is None:
            return await super().answer(job_id, verdict, by, question_id)
        if verdict is Verdict.ALLOW and self._is_nested:
            raise InvalidRequestError("A dispatched agent cannot allow anything.")
        args = {"job_id": place.id, "verdict": verdict, "by": by, "question_id": question_id}
        answered = msgspec.convert(await self._hosts.ask(place.host, "answer", args), Answered)
        return msgspec.structs.replace(answered, job_id=at_host(answered.job_id, place.host))

    async def questions_elsewhere(self) -> tuple[list[QuestionRow], list[str]]:
        """As `Service.questions_elsewhere`."""
        return await self._hosts.questions()

    async def result(self, ref: str) -> DispatchResult:
        """As `Service.result`."""
        if (place := await self._hosts.place_of(ref)) is None:
            return await super().result(ref)
        job = await self._hosts.job(place)
        if not job.status.is_terminal:
            raise JobNotEndedError(job)
        if job.unreachable_since is not None:
            raise DispatchError(
                f"Host {place.host} cannot be reached, and the answer of job {job.id} is there. It"
                f" is {job.status} as far as is known. Ask again later."
            )
        if job.result is None:
            return refused(job.agent, job.error or "", job.error_type or ErrorType.CLI_ERROR)
        return job.result

    async def jobs(
        self,
        status: JobStatus | None = None,
        limit: int = 50,
        *,
        mine: bool = False,
        matches: Callable[[JobSummary], bool] | None = None,
    ) -> Listing:
        """As `Service.jobs`, with what was last known of those elsewhere; contacts nobody."""
        listing = await super().jobs(status, limit, mine=mine, matches=matches)
        is_listed = self._mine(matches) if mine else matches

        def is_wanted(row: JobSummary) -> bool:
            return status in (None, row.status) and (is_listed is None or is_listed(row))

        return await in_pool(
            Pool.BULK, with_remote_jobs, listing, self._hosts.remote_jobs, limit, is_wanted
        )

    async def gc(self, max_age_days: float = 7, *, dry_run: bool = False) -> Collected:
        """As `Service.gc`; old notes go as well, and nothing of a host."""
        collected = await super().gc(max_age_days, dry_run=dry_run)
        if not dry_run:
            await in_pool(Pool.BULK, self._hosts.remote_jobs.clean, max_age_days)
        return collected

    # -- agents

    async def add_agent(
        self, name: str, directory: str, *, by: ChangedBy, **fields: Unpack[AgentFields]
    ) -> AgentChange:
        """As `Service.add_agent`; `HOST:DIRECTORY` is added on that host."""
        if (place := remote_directory(directory)) is None:
            return await super().add_agent(name, directory, by=by, **fields)
        given = [key for key, value in fields.items() if value and key != "description"]
        if given:
            raise InvalidRequestError(
                f"{', '.join(given)}: what an agent may do is set on its own host. Leave it out."
            )
        return await self.add_remote_agent(name, *place, fields.get("description", ""))

    async def inspect_agent(self, name: str, preview_lines: int = 40) -> AgentDetails:
        """As `Service.inspect_agent`; asks the host of the agent."""
        agent = await self._remote(name)
        if agent is None or agent.host is None:
            return await super().inspect_agent(name, preview_lines)
        there = agent.agent or agent.name
        args = {"name": there, "preview_lines": preview_lines}
        value = await self._hosts.ask(agent.host, "inspect", args, patience_s=5)
        details = msgspec.convert(value, AgentDetails)
        await self._hosts.saw(agent.host, there, healthy=details.healthy, problem=details.problem)
        return msgspec.structs.replace(details, name=name, host=agent.host)

    async def _remote(self, name: str) -> EffectiveAgent | None:
        """The agent of this name, if it is on a host and can be asked for."""
        snapshot = await self._planner.snapshot()
        configured = snapshot.config.agents.get(name)
        return None if configured is None or configured.host is None else snapshot.effective(name)

    async def add_remote_agent(
        self, name: str, host: str, directory: str, description: str = ""
    ) -> AgentChange:
        """Register a directory of a host as an agent there, and link it here.

        Raises:
            DispatchError: The host refuses or cannot be reached, or the name is taken here;
                nothing is written on this machine.
        """
        file = self._registry.file
        await in_thread(require_free_name, file, name)
        args = {"name": name, "directory": directory, "description": description}
        value: dict[str, Any] = await self._hosts.ask(host, "add", args, patience_s=_ADD_S)
        said = description or str(value.get("description") or "")
        change = await in_thread(partial(link_agent, file, name, host, description=said))
        return msgspec.structs.replace(change, directory=value.get("directory"))

    async def check_host(self, host: str) -> list[dict[str, Any]]:
        """What `doctor` finds on a host, over the very link that a run uses.

        Raises:
            DispatchError: There is no such host, or it cannot be reached.
        """
        checks: list[dict[str, Any]] = await self._hosts.ask(host, "doctor")
        return checks


def open_routed(
    *,
    environ: Mapping[str, str],
    fork_server: ForkServer | None,
    claude: Sequence[str] | None = None,
) -> AbstractAsyncContextManager[Service]:
    """Open the service as `open_service` does, and add the hosts of the configuration."""
    environ = with_absolute_paths(environ)

    def make(**parts: Any) -> Service:
        registry = parts["registry"]
        hosts = Hosts(
            registry=registry,
            store=parts["store"],
            jobs=str(jobs_path(environ, registry.path)),
            launcher=Launcher(fork_server),
            environ=environ,
            nursery=parts["nursery"],
        )
        return Routed(hosts, **parts)

    return open_service(environ=environ, fork_server=fork_server, claude=claude, make=make)

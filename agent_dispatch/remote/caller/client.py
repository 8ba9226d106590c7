"""The caller's side of jobs on other machines: note, submit, follow through any cut, translate.

The host owns the job. This side makes its id, notes it before anything is sent, and keeps what was
last known. `unreachable` says how this process sees the host; it is never the end of a job.
"""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.hosts import (
    AgentSeen,
    Sightings,
    host_named,
    link_agent,
    require_free_name,
)
from agent_dispatch.config.registry import Registry
from agent_dispatch.core.next_step import on_host
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.core.questions import QuestionRow
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.agent import AgentChange, AgentDetails
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobKind, new_job
from agent_dispatch.model.ledger import LedgerLine
from agent_dispatch.model.message import Sending
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.model.replies import Answered
from agent_dispatch.remote.caller.connection import Connection, LinkLostError
from agent_dispatch.remote.caller.followed_job import FIRST_CONTACT_S, FollowedJob, Stage
from agent_dispatch.remote.caller.link import Link, UnreachableError
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs, at_host, split_id
from agent_dispatch.remote.caller.translate import job_here, read_job, result_here, wrong_answer
from agent_dispatch.remote.frames import (
    Accepted,
    AnyFrame,
    Ask,
    Cancel,
    Cancelled,
    End,
    Event,
    Frame,
    Submit,
    Told,
)
from agent_dispatch.threads import in_own_thread, in_thread

_CANCEL_S = 3.0
"""How long a call that is cancelled waits for its host to say so; its lease ends it otherwise."""
_ASK_S = 30.0
"""How long a host may take to answer a question about its files."""
_ADD_S = 30.0
"""How long to try to reach a host that is to get an agent."""
_INSPECT_S = 5.0
_LOOK_AGAIN_S = 5.0
_PAUSE_S = (0.02, 0.2)
_NOTIFY_S = 1.0
_KEEP_NOTES_DAYS = 30.0
"""How long it is known here where a job is; `gc` forgets sooner."""
_ASKED_S = 7 * 86_400.0


class Place(NamedTuple):
    """Where a job is."""

    id: str
    """As its host knows it."""
    host: str
    note: RemoteJob | None

    @property
    def shown_id(self) -> str:
        """As callers here read it."""
        return at_host(self.id, self.host)


class Hosts:
    """The hosts of one configuration, as one process sees them."""

    def __init__(
        self,
        *,
        registry: Registry,
        store: JobStore,
        jobs: str,
        launcher: Launcher,
        environ: Mapping[str, str],
        nursery: trio.Nursery,
        on_end: Callable[[Job], object],
    ) -> None:
        """Know the hosts of `registry`; none is contacted yet.

        Args:
            registry: The configuration.
            store: This machine's jobs, for its ledger.
            jobs: The jobs directory, where notes are kept.
            launcher: Starts ssh under guards.
            environ: Of ssh, and of this process.
            nursery: Where links live; leaving it ends our calls.
            on_end: Called in a thread when the end of a job is first seen here.
        """
        self._registry = registry
        self._store = store
        self.remote_jobs = RemoteJobs(jobs)
        self._launcher = launcher
        self._environ = environ
        self._nursery = nursery
        self._ids = IdSource()
        self._links: dict[str, Link] = {}
        self._is_tidy = False
        self._sightings = Sightings.of(environ, registry.path)
        self._on_end = on_end

    # -- finding

    async def place_of(self, text: str) -> Place | None:
        """Say where a job is; None: on this machine, as far as is known.

        Raises:
            UnknownJobError: It is on another host than the id says, or on none that is known.
        """
        job_id, host = split_id(text)
        note = await in_thread(self.remote_jobs.read, job_id)
        if host is None:
            return None if note is None else Place(job_id, note.host, note)
        if note is not None and note.host != host:
            raise UnknownJobError(text)
        config = await in_thread(self._registry.load)
        if host not in config.hosts:
            raise UnknownJobError(text)
        return Place(job_id, host, note)

    async def _link(self, name: str) -> Link:
        host = host_named(await in_thread(self._registry.load), name)
        link = self._links.get(name)
        if link is None or link.host != host:
            link = self._links[name] = Link(
                name,
                host,
                launcher=self._launcher,
                environ=self._environ,
                nursery=self._nursery,
            )
        return link

    # -- jobs

    async def call(
        self,
        agent: EffectiveAgent,
        request: DispatchRequest,
        on_progress: OnProgress,
        *,
        ref: bool,
        fresh: bool,
        tree: str | None,
    ) -> DispatchResult:
        """Run a task on the host of its agent and wait for the answer.

        If cancelled, the host ends the job: at once if it can be reached, else with its lease.

        Raises:
            DispatchError: The host refused the call, or it cannot be noted.
        """
        link = await self._link(agent.host or "")
        followed, place = await self._note(
            link, agent, request, JobKind.CALL, ref=ref, fresh=fresh, tree=tree
        )
        on_progress(with_agent(agent.name, started_line(place.shown_id), 0))

        def on_event(event: Event) -> None:
            if followed.is_new_event(event.seq):
                on_progress(Progress(event.line))

        try:
            answer = await self._follow(link, followed, on_event)
        except UnreachableError as error:
            return await self._unreachable(agent, followed, place, error)
        except DispatchError:
            if followed.stage is not Stage.ACCEPTED:
                await in_thread(self.remote_jobs.remove, place.id)  # noqa: ASYNC120  # a cancellation outranks it
            raise
        except trio.Cancelled:
            with trio.move_on_after(_CANCEL_S, shield=True):
                await self._cancel_on_the_way_out(link, place)
            raise
        if isinstance(answer, Accepted):
            await in_thread(self.remote_jobs.remove, place.id)
            result = msgspec.convert(answer.result, DispatchResult)
            return result_here(result, agent.name, link.name)
        job = await self._learned(place, answer)
        return job.result or refused(agent.name, job.error or "", job.error_type or ErrorType.LOST)

    async def submit(
        self, agent: EffectiveAgent, request: DispatchRequest, *, tree: str | None
    ) -> Job:
        """Start a background job on the host of its agent.

        Raises:
            UnreachableError: The host cannot be reached; the error names the job.
            DispatchError: The host refused the job, or it cannot be noted.
        """
        link = await self._link(agent.host or "")
        followed, place = await self._note(
            link, agent, request, JobKind.BACKGROUND, ref=False, fresh=True, tree=tree
        )
        try:
            answer = await self._follow(link, followed, lambda event: None)
        except UnreachableError as error:
            result = await self._unreachable(agent, followed, place, error)  # noqa: ASYNC120  # a cancellation outranks it
            raise DispatchError(result.error or "", *(result.next_steps or ())) from error
        except DispatchError:
            await in_thread(self.remote_jobs.remove, place.id)  # noqa: ASYNC120  # a cancellation outranks it
            raise
        assert isinstance(answer, Accepted)
        if answer.result is not None:
            # Refused before there was a job, because of how deeply it is nested.
            await in_thread(self.remote_jobs.remove, place.id)
            result = msgspec.convert(answer.result, DispatchResult)
            raise DispatchError(f"on {link.name}: {result.error}")
        note = await in_thread(self.remote_jobs.read, place.id)
        assert note is not None
        return job_here(note.job, place.shown_id, place.host, agent.name)

    async def _note(
        self,
        link: Link,
        agent: EffectiveAgent,
        request: DispatchRequest,
        kind: JobKind,
        *,
        ref: bool,
        fresh: bool,
        tree: str | None,
    ) -> tuple[FollowedJob, Place]:
        """Make the id of a job and note it, before anything is sent."""
        there = agent.agent or agent.name
        job = new_job(self._ids.next(), request, time.time(), kind=kind, ref=ref)
        if (origin := self._store.origin) is not None:
            job = msgspec.structs.replace(job, **origin.fields())
        note = RemoteJob(
            id=job.id, host=link.name, agent=agent.name, noted_at=job.created_at, job=job
        )
        await in_own_thread(self.remote_jobs.create, note)
        if not self._is_tidy:
            self._is_tidy = True
            self._nursery.start_soon(in_thread, self.remote_jobs.clean, _KEEP_NOTES_DAYS)
        lease_s = link.host.lease_seconds
        submit = Submit(
            n=0,
            id=job.id,
            request=msgspec.to_builtins(msgspec.structs.replace(request, agent=there)),
            kind=kind,
            lease_s=lease_s if kind is JobKind.CALL else 0,
            ref=ref,
            fresh=fresh,
            tree=tree or "",
        )
        followed = FollowedJob(submit, job.id, trio.current_time(), lease_s)
        return followed, Place(job.id, link.name, note)

    async def _follow(
        self, link: Link, followed: FollowedJob, on_event: Callable[[Event], object]
    ) -> Accepted | Job:
        """Go through all cuts to the end of a call, or until a background job is accepted.

        Returns:
            The job as its host has it; or what the host said when it accepted a background job,
            or answered without a job.

        Raises:
            UnreachableError: It cannot be reached for longer than the caller waits.
            DispatchError: The host refused it.
        """
        while True:
            connection = await link.connection(followed.gives_up_at)
            try:
                with connection.events(followed.job_id, on_event):
                    answer = await connection.ask(followed.next_frame)
                    if isinstance(answer, Accepted):
                        followed.accepted()
                        if answer.result is not None or followed.is_background:
                            return answer
                        answer = await connection.ask(followed.next_frame)
            except LinkLostError:
                followed.cut(trio.current_time())
                # Pause: a host that cuts every link at once must not keep us busy.
                await trio.sleep(random.uniform(*_PAUSE_S))
                continue
            if isinstance(answer, End):
                followed.ended()
                return read_job(answer.job)
            raise wrong_answer(link.name, answer)

    async def _unreachable(
        self,
        agent: EffectiveAgent,
        followed: FollowedJob,
        place: Place,
        error: UnreachableError,
    ) -> DispatchResult:
        """Answer a call whose host cannot be reached."""
        steps: list[NextStep] = list(error.next_steps)
        if followed.stage is Stage.NOTED:
            told = f"{error}\nThe task was not sent, and will not be."
            await in_thread(self.remote_jobs.withdraw, place.id, told)
        else:
            lease_s = 0.0 if followed.is_background else followed.lease_s
            goes_on = (
                f"ends there {lease_s:g} s after it was cut off, if it runs"
                if lease_s
                else "goes on there if it was accepted"
            )
            told = f"{error}\nJob {place.shown_id} {goes_on}."
            steps.append(NextStep(kind=StepKind.WAIT, job_id=place.shown_id))
            await in_thread(self.remote_jobs.miss, place.id)
        result = refused(agent.name, told, ErrorType.UNREACHABLE, steps)
        return msgspec.structs.replace(result, job_id=place.shown_id)

    async def _cancel_on_the_way_out(self, link: Link, place: Place) -> None:
        """Tell the host that a call was cancelled, if a link is up; else its lease ends it."""
        connection = link.open_connection
        if connection is None:
            return
        with suppress(LinkLostError):
            await connection.ask(lambda n: Cancel(n=n, id=place.id, by="its caller"))
            status = await self._asked(connection, link, "status", {"job_id": place.id})
            await self._learned(place, read_job(status))

    async def job(self, place: Place) -> Job:
        """A job as it is now; what was last known of it, if its host cannot be reached.

        Raises:
            DispatchError: Its host does not know it, or cannot be reached and never was.
        """
        if place.note is not None and place.note.is_withdrawn:
            return self._last_known(place.note)
        try:
            value = await self.ask(place.host, "status", {"job_id": place.id})
        except UnknownJobError:
            raise await self._unknown(place) from None
        except UnreachableError:
            note = await in_thread(self.remote_jobs.miss, place.id)  # noqa: ASYNC120  # a cancellation outranks it
            if note is None:
                raise
            return self._last_known(note)
        return await self._learned(place, read_job(value))

    async def _unknown(self, place: Place) -> UnknownJobError:
        """Keep that the host does not know a job, and give the error that says so."""
        if place.note is not None and not place.note.job.status.is_terminal:
            said = f"Host {place.host} does not know this job: it never arrived, or was removed."
            await in_thread(self.remote_jobs.withdraw, place.id, said)
        return UnknownJobError(place.shown_id)

    async def wait(
        self, place: Place, patience_s: float, on_progress: OnProgress = ignore_progress
    ) -> Job:
        """Wait for the end of a job through all cuts, for at most `patience_s` seconds.

        Raises:
            DispatchError: As for `job`.
        """
        if place.note is not None and place.note.is_withdrawn:
            return self._last_known(place.note)
        link = await self._link(place.host)
        followed = FollowedJob(None, place.id, trio.current_time(), patience_s)

        def on_event(event: Event) -> None:
            if followed.is_new_event(event.seq):
                on_progress(Progress(event.line))

        with trio.move_on_after(patience_s):
            while True:
                try:
                    ended = await self._follow(link, followed, on_event)
                except UnknownJobError:
                    raise await self._unknown(place) from None
                except UnreachableError:
                    # Not an error yet: the host may be back before the time has passed.
                    await trio.sleep(_LOOK_AGAIN_S)
                    continue
                assert isinstance(ended, Job)
                return await self._learned(place, ended)
        if link.open_connection is not None:
            return await self.job(place)
        note = await in_thread(self.remote_jobs.miss, place.id)
        if note is None:
            raise UnreachableError(place.host, link.reason)
        return self._last_known(note)

    async def cancel(self, place: Place, by: str, *, keep: bool) -> CancelOutcome:
        """Have a job cancelled by its host.

        Raises:
            DispatchError: The host cannot be reached.
        """
        answer = await self._on_link(
            place.host, lambda n: Cancel(n=n, id=place.id, by=by, keep=keep), FIRST_CONTACT_S
        )
        if not isinstance(answer, Cancelled):
            raise wrong_answer(place.host, answer)
        with suppress(DispatchError):
            await self.job(place)
        return CancelOutcome(answer.outcome)

    async def questions(self) -> tuple[list[QuestionRow], list[str]]:
        """The questions of our jobs elsewhere, and the hosts that could not be reached for them."""
        noted = await in_thread(lambda: [*self.remote_jobs.all()])
        agents = {note.shown_id: note.agent for note in noted}
        # A job that ended may still be asked about: its call can be allowed later.
        recent = time.time() - _ASKED_S
        hosts = {
            note.host
            for note in noted
            if not note.is_withdrawn and (not note.job.status.is_terminal or note.noted_at > recent)
        }
        found: list[QuestionRow] = []
        problems: list[str] = []

        async def ask(host: str) -> None:
            try:
                rows = msgspec.convert(await self.ask(host, "questions"), list[QuestionRow])
            except DispatchError as error:
                problems.append(str(error))
                return
            for row in rows:
                shown = at_host(row.job_id, host)
                if shown in agents:
                    found.append(msgspec.structs.replace(row, job_id=shown, agent=agents[shown]))

        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(ask, host)
        return found, problems

    async def send(self, place: Place, text: str) -> Sending:
        """Have its host give a message to the agent of a job.

        Raises:
            DispatchError: The host refuses it, or cannot be reached.
        """
        args = {"job_id": place.id, "text": text}
        sending = msgspec.convert(await self.ask(place.host, "send", args), Sending)
        step = sending.next_step
        if step is not None and place.note is not None:
            step = on_host(step, place.host, place.note.agent, place.shown_id)
        return msgspec.structs.replace(sending, job_id=place.shown_id, next_step=step)

    async def answer(
        self, place: Place, verdict: Verdict, by: AnsweredBy, question_id: str
    ) -> Answered:
        """Have its host answer a permission question of a job.

        Raises:
            DispatchError: The host refuses it, or cannot be reached.
        """
        args = {"job_id": place.id, "verdict": verdict, "by": by, "question_id": question_id}
        answered = msgspec.convert(await self.ask(place.host, "answer", args), Answered)
        return msgspec.structs.replace(answered, job_id=at_host(answered.job_id, place.host))

    # -- agents

    async def inspect_agent(
        self, agent: EffectiveAgent, host: str, preview_lines: int
    ) -> AgentDetails:
        """Ask its host for an agent as it takes effect, and keep for listings if it is healthy.

        Raises:
            DispatchError: The host does not know it, or cannot be reached.
        """
        there = agent.agent or agent.name
        args = {"name": there, "preview_lines": preview_lines}
        details = msgspec.convert(
            await self.ask(host, "inspect", args, patience_s=_INSPECT_S), AgentDetails
        )
        seen = {there: AgentSeen(healthy=details.healthy, problem=details.problem)}
        await in_thread(self._sightings.note, host, seen)
        return msgspec.structs.replace(details, name=agent.name, host=host)

    async def add_agent(
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
        value: dict[str, Any] = await self.ask(host, "add", args, patience_s=_ADD_S)
        said = description or str(value.get("description") or "")
        change = await in_thread(partial(link_agent, file, name, host, description=said))
        return msgspec.structs.replace(change, directory=value.get("directory"))

    # -- asking

    async def ask(
        self, host: str, what: str, args: Mapping[str, Any] | None = None, patience_s: float = 0
    ) -> Any:
        """Ask a host a question of `remote.stub`; give its answer.

        Args:
            host: The host.
            what: The question.
            args: Its arguments.
            patience_s: How long to try again if it cannot be reached; there is one try at least.

        Raises:
            UnreachableError: It cannot be reached.
            DispatchError: What the host says is wrong with the question.
        """
        answer = await self._on_link(
            host, lambda n: Ask(n=n, what=what, args=dict(args or {})), patience_s
        )
        if not isinstance(answer, Told):
            raise wrong_answer(host, answer)
        return answer.value

    async def _on_link(
        self, host: str, question: Callable[[int], Frame], patience_s: float
    ) -> AnyFrame:
        link = await self._link(host)
        until = trio.current_time() + patience_s
        while True:
            connection = await link.connection(until)
            try:
                with trio.fail_after(_ASK_S):
                    return await connection.ask(question)
            except LinkLostError:
                if trio.current_time() >= until:
                    raise UnreachableError(host, "the link was cut.") from None
            except trio.TooSlowError:
                raise UnreachableError(host, f"it did not answer for {_ASK_S:g} s.") from None

    async def _asked(
        self, connection: Connection, link: Link, what: str, args: Mapping[str, Any]
    ) -> Any:
        answer = await connection.ask(lambda n: Ask(n=n, what=what, args=dict(args)))
        if not isinstance(answer, Told):
            raise wrong_answer(link.name, answer)
        return answer.value

    async def _learned(self, place: Place, job: Job) -> Job:
        """Keep what is known of a job now, enter its cost once, and give it as it reads here."""
        note = place.note
        here = job_here(job, place.shown_id, place.host, job.agent if note is None else note.agent)
        if await in_thread(self._learn, place, job):
            with trio.move_on_after(_NOTIFY_S):
                # Abandoned after that: the command goes on, and has a bound of its own.
                await in_thread(self._on_end, here)
        return here

    def _learn(self, place: Place, job: Job) -> bool:
        """Keep what is known; whether this is the first process here that sees the job ended."""
        self.remote_jobs.learn(place.id, job)
        result = job.result
        if place.note is None or not job.status.is_terminal:
            return False
        if not self.remote_jobs.claim_entry(place.id):
            return False
        if result is None or result.duration_ms is None:
            return True
        line = LedgerLine(
            at=time.time(),
            job_id=place.shown_id,
            agent=place.note.agent,
            caller=job.caller or None,
            session_id=result.session_id,
            tree=job.tree or place.id,
            cost_usd=result.cost_usd,
            duration_ms=result.duration_ms,
            success=result.success,
            error_type=result.error_type,
            host=place.host,
        )
        # It is booked and recorded on its host; here it is a copy for this machine's view.
        with suppress(DispatchError):
            self._store.ledger.settle([], [line], Settings())
        return True

    def _last_known(self, note: RemoteJob) -> Job:
        job = job_here(note.job, note.shown_id, note.host, note.agent)
        return msgspec.structs.replace(job, unreachable_since=note.unreachable_since)

"""The service: wires configuration, jobs, slots and the run loop, and is what the surfaces call."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import msgspec
import trio

from agent_dispatch.claude.conversation import open_claude
from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.file import config_path, jobs_path, with_absolute_paths
from agent_dispatch.config.registry import Registry
from agent_dispatch.core import outcome
from agent_dispatch.core.command import current_depth
from agent_dispatch.core.dialogue import agent_of_session, check_dialogue
from agent_dispatch.core.parallel import wrong_items
from agent_dispatch.core.prompt import check_request
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.owner import adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.answer import CacheCleared, CacheStats
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    ignore_progress,
)
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind
from agent_dispatch.model.parallel import Member, ParallelResult
from agent_dispatch.run.agent_service import AgentService
from agent_dispatch.run.background import Workers
from agent_dispatch.run.calls import Calls
from agent_dispatch.run.dispatcher import Dispatcher
from agent_dispatch.run.job_service import JobService
from agent_dispatch.run.parallel import dispatch_parallel
from agent_dispatch.run.run_job import nothing_begun, run_recorded
from agent_dispatch.run.sessions import Sessions
from agent_dispatch.run.single_flight import Sharing
from agent_dispatch.run.slots import Slots
from agent_dispatch.run.threads import in_thread


class Service(JobService, AgentService):
    """What the MCP server and the CLI offer, without their wire formats.

    Calls that are wrong raise a `DispatchError`. Each call reads the configuration anew, so
    agents can be added without a restart.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        dispatcher: Dispatcher,
        store: JobStore,
        workers: Workers,
        nursery: trio.Nursery,
        parent: str | None = None,
    ) -> None:
        """Wire a service; `open_service` does it for real.

        Args:
            registry: The agents.
            dispatcher: The run loop.
            store: The records.
            workers: Start background jobs.
            nursery: Where runs live that several callers wait for.
            parent: The job inside whose agent this process runs.
        """
        JobService.__init__(self, store)
        AgentService.__init__(self, registry)
        self._dispatcher = dispatcher
        self._workers = workers
        self._parent = parent
        self._calls = Calls(dispatcher, store, parent)
        self._sharing = Sharing(nursery)

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        ref: bool = False,
        fresh: bool = False,
    ) -> DispatchResult:
        """Give one task to one agent and wait for the answer.

        The same asked again is answered from the cache, and while it is under way, by that run.
        If cancelled, and nobody else waits for the run, no process of it is left, and its record
        says so.

        Args:
            request: What is asked of whom.
            on_progress: Called with the job's id first, then with what happens.
            ref: The caller gets the id in place of the answer: keep the record until `gc`.
            fresh: Run it whatever was asked before; so does a request that resumes a session.

        Raises:
            UnknownAgentError: No such agent.
            UnusableAgentError: Its table in `agents.toml` is broken.
            ConfigError: `agents.toml` cannot be read.
            InvalidRequestError: The request cannot be sent as it is.
            JobStoreError: The job cannot be recorded; nothing was started.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        agent, settings = self._look_up(request)
        await self._check_owner_of_session(request)
        await self._check_session(request.session_id)
        start = partial(self._calls.run, request, agent, settings, ref)
        # Where no record of an ordinary call is kept, there is none that a ref could name.
        unnamed = ref and settings.call_retention_days == 0
        if fresh or unnamed or request.session_id is not None or not settings.cache.enabled:
            return await start(on_progress)
        result = await self._sharing.dispatch(request, agent, settings.cache, on_progress, start)
        if not result.cached or result.job_id is None or await self.is_recorded(result.job_id):
            return result
        # There is nothing to fetch by it any more: the caller must get all of the answer now.
        return msgspec.structs.replace(result, job_id=None)

    async def _check_owner_of_session(self, request: DispatchRequest) -> None:
        """Refuse to go on with the conversation of another agent, as far as records tell whose.

        It would go on in this agent's directory, with its rights.
        """
        if (session_id := request.session_id) is None:
            return

        def is_of(job: Job) -> bool:
            return agent_of_session(job, session_id) is not None

        job = await in_thread(self._store.find, session_id.lower(), is_of)
        owner = None if job is None else agent_of_session(job, session_id)
        if job is not None and owner is not None and owner != request.agent:
            raise InvalidRequestError(
                f"Session {session_id} belongs to agent {owner!r} (job {job.id}), not to"
                f" {request.agent!r}; nothing was started. Resume it with agent {owner!r}, or leave"
                " the session out, to begin a new conversation."
            )

    async def _check_session(self, session_id: str | None) -> None:
        """Refuse to wait for a conversation that itself waits, inside its agent, for this call."""
        job_id = self._parent
        while session_id is not None and job_id is not None:
            try:
                job = await in_thread(self._store.read, job_id)
            except DispatchError:
                return  # Not to be seen from here: the run's own deadline ends the wait.
            if (job.session_id or "").lower() == session_id.lower():
                raise InvalidRequestError(
                    f"Session {session_id} is the conversation in which this call is made (job"
                    f" {job.id}), so it cannot answer before this call has ended. Leave session_id"
                    " out, to ask in a new conversation."
                )
            job_id = job.parent

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
        if aggregate:
            self._registry.effective(aggregate)
        problems = []
        for index, member in enumerate(members):
            failure = self._try_look_up(member.request)
            if isinstance(failure, DispatchError):
                problems.append(f"dispatches[{index}]: {failure}")
        if problems:
            raise wrong_items(problems)

        async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
            return await self.dispatch(member.request, report, ref=member.ref)

        return await dispatch_parallel(members, aggregate, dispatch, on_progress)

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
            InvalidRequestError: The request cannot be sent as it is.
            UnknownAgentError: One of the two is not configured.
            UnusableAgentError: Its table in `agents.toml` is broken.
            ConfigError: `agents.toml` cannot be read.
            JobStoreError: The job cannot be recorded; nothing was started.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        request = check_dialogue(request)
        agents = {
            Role.RESPONDER: self._registry.effective(request.responder),
            Role.REQUESTER: self._registry.effective(request.requester),
        }
        settings = self._registry.load().settings
        return await self._calls.dialogue(request, agents, settings, on_progress)

    async def cache_stats(self) -> CacheStats:
        """How full the cache is and how often it helped."""
        return self._sharing.stats(self._registry.load().settings.cache)

    async def cache_clear(self) -> CacheCleared:
        """Forget all answers that are kept."""
        return CacheCleared(cleared=self._sharing.clear())

    async def submit(self, request: DispatchRequest) -> Job:
        """Start a background job; it goes on whatever becomes of this process.

        If cancelled, either no worker has it, and its record says that it was cancelled; or the
        job was handed over (`run.background`), and is returned as if nothing had happened.

        Raises:
            DispatchError: As for `dispatch`, and when no worker can be started: then the job is
                recorded as failed.
        """
        self._look_up(request)
        await self._check_owner_of_session(request)
        async with create_job(
            self._store, request, kind=JobKind.BACKGROUND, parent=self._parent
        ) as owned:
            result = None
            try:
                await self._workers.start(owned)
            except DispatchError as error:
                result = outcome.refused(request.agent, str(error))
                raise
            except trio.Cancelled:
                result = nothing_begun(owned)("its submitter")
                raise
            finally:
                if result is not None:
                    # It is shielded and bounded itself.
                    await owned.finish(result)  # noqa: ASYNC102
            return owned.job

    async def run_handed_over(self, job_id: str, fds: Sequence[int]) -> None:
        """Run a job whose descriptors this process was given: the worker's part of `submit`.

        Raises:
            DispatchError: It cannot be run; its record says so.
        """
        async with adopt_job(self._store, job_id, fds) as owned:
            found = self._try_look_up(owned.job.request())
            if isinstance(found, DispatchError):
                await owned.finish(outcome.refused(owned.job.agent, str(found)))
                raise found
            agent, settings = found
            work = partial(self._dispatcher.dispatch, owned.job.request(), agent, settings)
            await run_recorded(owned, work, ignore_progress, on_behalf_of="a signal to its worker")

    def _look_up(self, request: DispatchRequest) -> tuple[EffectiveAgent, Settings]:
        check_request(request)
        # Not in a thread: one stat() tells that the file has not changed, and nothing else is
        # looked at.
        return self._registry.effective(request.agent), self._registry.load().settings

    def _try_look_up(
        self, request: DispatchRequest
    ) -> tuple[EffectiveAgent, Settings] | DispatchError:
        try:
            return self._look_up(request)
        except DispatchError as error:
            return error


@contextlib.asynccontextmanager
async def open_service(
    *,
    environ: Mapping[str, str],
    fork_server: ForkServer | None,
    claude: Sequence[str] | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[Service]:
    """Wire a service for as long as the block runs.

    Args:
        environ: Where configuration and jobs are, what agents inherit, and the nesting depth.
        fork_server: Forks guards and workers; None starts each the slow way.
        claude: The program to run in place of `claude` on PATH, with its first arguments.
        registry: The agents, in place of the file that `environ` names.

    Raises:
        ConfigError: `environ` names a configuration file that cannot be used.
    """
    environ = with_absolute_paths(environ)
    registry = registry or Registry(config_path(environ), environ=environ)
    jobs = jobs_path(environ, registry.path)
    store = JobStore(jobs)
    dispatcher = Dispatcher(
        slots=Slots(jobs / "slots", current_depth(environ)),
        sessions=Sessions(jobs / "sessions"),
        open_claude=partial(open_claude, Launcher(fork_server)),
        environ=environ,
        claude=claude,
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield Service(
                registry=registry,
                dispatcher=dispatcher,
                store=store,
                workers=Workers(fork_server, environ, claude),
                nursery=nursery,
                parent=environ.get(JOB_VARIABLE),
            )
        except Exception as error:
            # Raised outside the nursery, which would wrap it in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure

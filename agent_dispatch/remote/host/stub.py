"""The surface for callers on other machines: frames on stdin and stdout of `_remote`.

It owns no job: each is a worker's, under the id that its caller made, so this process may be
killed at any moment and another one goes on. While bytes of the caller arrive it renews the leases
of that caller's calls. EOF proves nothing, as a dead caller and a cut connection look alike: only
`bye` ends the calls at once.
"""

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial

import msgspec
import trio

import agent_dispatch
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.core.command import DEPTH_VARIABLE
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.errors import DispatchError, InvalidRequestError, UnknownAgentError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.ids import is_time_ordered
from agent_dispatch.jobs.remote_callers import EventReader, Submission
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, settled, wait_until_over
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind
from agent_dispatch.remote.frames import (
    Accepted,
    AnyFrame,
    Ask,
    Attach,
    Bye,
    Cancel,
    Cancelled,
    End,
    Event,
    Failed,
    Frame,
    Hello,
    Submit,
    Told,
)
from agent_dispatch.remote.handshake import common_protocol, greeting
from agent_dispatch.remote.host.methods import Answers, Doctor, Rights
from agent_dispatch.remote.this_host import CHAIN_VARIABLE, boot_id, host_id, user_name
from agent_dispatch.remote.wire import Wire, dead_after_s
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.service import Service
from agent_dispatch.threads import in_own_thread, in_thread

logger = logging.getLogger(__name__)

MAX_LEASE_S = 3600.0
_RENEW_EVERY_S = 0.5
_EVENTS_EVERY_S = 0.25
_CHUNK_BYTES = 64 * 1024
_ADMIT_S = 30.0
"""Longer than the lock of a submission, the disk and the start of a worker take together."""
_BYE_S = 15.0
"""How long the calls of a caller that leaves may take to end; their workers go on with it."""

OpenService = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Service]]
"""Opens a service with this environment, as `run.service.open_service` does."""


async def serve(
    stdin: int,
    stdout: int,
    nonce: str,
    *,
    environ: Mapping[str, str],
    open_service: OpenService,
    rights: Rights,
    doctor: Doctor,
) -> None:
    """Serve one caller until it says `bye`, is silent for too long, or closes its end.

    Args:
        stdin: Where its frames come from; closed in the end, like `stdout`.
        stdout: Where ours go.
        nonce: The greeting repeats it.
        environ: Of the runs.
        open_service: Opens the service.
        rights: What the caller may do.
        doctor: Checks the installation.
    """
    hello = Hello(
        version=agent_dispatch.__version__,
        host_id=host_id(environ),
        boot=boot_id(),
        user=user_name(),
        max_lease_s=MAX_LEASE_S,
    )
    async with trio.lowlevel.FdStream(stdin) as reads, trio.lowlevel.FdStream(stdout) as writes:
        with suppress(trio.BrokenResourceError):
            await writes.send_all(greeting(nonce, hello))
            async with trio.open_nursery() as nursery:
                stub = _Stub(writes, nursery, hello.host_id, environ, open_service, rights, doctor)
                await stub.run(reads)
                nursery.cancel_scope.cancel()


class _Stub:
    """One caller."""

    def __init__(
        self,
        writes: trio.lowlevel.FdStream,
        nursery: trio.Nursery,
        own_id: str,
        environ: Mapping[str, str],
        open_service: OpenService,
        rights: Rights,
        doctor: Doctor,
    ) -> None:
        self._wire = Wire(writes.send_all, self._on_frame, dead_s=dead_after_s(MAX_LEASE_S))
        self._nursery = nursery
        self._own_id = own_id
        self._environ = environ
        self._open_service = open_service
        self._rights = rights
        self._doctor = doctor
        self._store = JobStore(jobs_path(environ, config_path(environ)))
        self._is_in_chain = False
        self._service: Service | DispatchError | None = None
        self._opened = trio.Event()
        self._leases: dict[str, float] = {}
        """The calls of this caller that go on, and how long each does without it."""
        self._leaving = trio.CancelScope()
        self._is_ending_calls = False

    async def run(self, reads: trio.lowlevel.FdStream) -> None:
        """Serve until the caller is gone."""
        with self._leaving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew_leases)
                nursery.start_soon(self._watch)
                while chunk := await reads.receive_some(_CHUNK_BYTES):
                    self._wire.feed(chunk)
                self._leave()
                await trio.sleep_forever()

    async def _watch(self) -> None:
        # The caller has stopped reading.
        with suppress(trio.BrokenResourceError):
            await self._wire.run()
        self._leave()

    def _leave(self) -> None:
        """Leave, once the calls have ended that the caller wants ended."""
        if not self._is_ending_calls:
            self._leaving.cancel()

    def _on_frame(self, frame: AnyFrame) -> None:
        match frame:
            case Hello():
                self._hear_hello(frame)
            case Submit(n=n):
                self._nursery.start_soon(self._answer, n, partial(self._submit, frame))
            case Attach(n=n):
                self._nursery.start_soon(self._answer, n, partial(self._attach, frame))
            case Cancel(n=n):
                self._nursery.start_soon(self._answer, n, partial(self._cancel, frame))
            case Ask(n=n):
                self._nursery.start_soon(self._answer, n, partial(self._tell, frame))
            case Bye():
                self._is_ending_calls = True
                self._nursery.start_soon(self._end_calls, frame)
            case _:
                self._wire.post(Failed(n=0, error="a host does not take frames of this kind"))

    def _hear_hello(self, hello: Hello) -> None:
        if common_protocol(hello) is None or self._opened.is_set() or self._service is not None:
            self._wire.post(Failed(n=0, error="no common protocol", kind="protocol"))
            return
        self._wire.dies_after(max(hello.dead_s, 0.5))
        self._is_in_chain = self._own_id in hello.chain
        environ = {
            **self._environ,
            DEPTH_VARIABLE: str(max(hello.depth, 0)),
            CHAIN_VARIABLE: ",".join(word for word in hello.chain if word.isalnum()),
        }
        self._nursery.start_soon(self._keep_service, environ)

    async def _keep_service(self, environ: Mapping[str, str]) -> None:
        async with AsyncExitStack() as stack:
            try:
                self._service = await stack.enter_async_context(self._open_service(environ))
            except DispatchError as error:
                self._service = error
            self._opened.set()
            await trio.sleep_forever()

    async def _open(self) -> Service:
        await self._opened.wait()
        if isinstance(self._service, DispatchError):
            raise self._service
        assert self._service is not None
        return self._service

    async def _answer(self, n: int, work: Callable[[], Awaitable[Frame]]) -> None:
        try:
            self._wire.post(await work())
        except DispatchError as error:
            self._wire.post(failure(n, error))
        except Exception as bug:
            logger.exception("bug in agent-dispatch: a question from another machine failed")
            told = f"Bug in agent-dispatch: {bug!r}. The traceback is on its stderr."
            self._wire.post(Failed(n=n, error=told, kind="bug"))

    # -- jobs

    async def _submit(self, frame: Submit) -> Frame:
        service = await self._open()
        try:
            request = msgspec.convert(frame.request, DispatchRequest)
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"The request cannot be read: {error}.") from error
        self._rights.require_agent(request.agent)
        if self._is_in_chain:
            said = (
                "This host is in the chain of hosts that the dispatch came through, so it was"
                " refused. Do the task here instead of dispatching it."
            )
            return _answered(frame, refused(request.agent, said, ErrorType.RECURSION))
        is_call = frame.kind == JobKind.CALL
        # Whatever has changed here since then, a job that was taken is not refused afterwards.
        job, again = await self._taken_before(frame), True
        if job is None:
            plan = _as_the_host_says(
                await service.plan(msgspec.structs.replace(request, model="", effort="")), request
            )
            if is_call and not frame.fresh and (kept := service.kept_answer(plan)) is not None:
                return _answered(frame, kept)
            # A cut does not withdraw a submission: finish taking it, as the caller asks again.
            with trio.fail_after(_ADMIT_S, shield=True):
                job, again = await self._admit(service, frame, plan)
        if is_call and frame.lease_s and not job.status.is_terminal:
            self._leases[job.id] = min(frame.lease_s, MAX_LEASE_S)
        return Accepted(n=frame.n, id=job.id, status=job.status, again=again)

    async def _taken_before(self, frame: Submit) -> Job | None:
        """The job that the same submission made before, if it did."""
        if not await in_thread(self._store.submissions.knows, frame.id):
            return None
        lock = await self._lock(frame)
        try:
            return await self._known(frame.id)
        finally:
            os.close(lock)

    async def _lock(self, frame: Submit) -> int:
        told = msgspec.json.encode([frame.request, frame.kind, frame.ref], order="sorted")
        submission = Submission(hashlib.sha256(told).hexdigest(), self._rights.caller)
        return await in_own_thread(self._store.submissions.take, frame.id, submission)

    async def _admit(self, service: Service, frame: Submit, plan: Plan) -> tuple[Job, bool]:
        """Take a job, once: the same submission again finds the job of the first one."""
        lock = await self._lock(frame)
        try:
            if (job := await self._known(frame.id)) is not None:
                return job, True
            lease_s = min(frame.lease_s, MAX_LEASE_S) if frame.kind == JobKind.CALL else 0
            kind = JobKind.CALL if frame.kind == JobKind.CALL else JobKind.BACKGROUND
            job = await service.submit_for_remote_caller(
                plan,
                job_id=frame.id,
                kind=kind,
                ref=frame.ref,
                lease_s=lease_s,
                tree=frame.tree if is_time_ordered(frame.tree) else None,
            )
            return job, False
        finally:
            os.close(lock)

    async def _known(self, job_id: str) -> Job | None:
        """The job of this id, if there is one that was begun or still can be."""
        try:
            job = await settled(self._store, job_id)
        except UnknownJobError:
            await in_thread(self._store.retention.forget_unbegun, job_id)
            return None
        if job.error_type is ErrorType.LOST and not await in_thread(
            self._store.submissions.has_begun, job_id
        ):
            # The process that took it died before a worker had it: nothing of it ever ran.
            await in_thread(self._store.retention.forget_unbegun, job_id)
            return None
        return job

    async def _attach(self, frame: Attach) -> Frame:
        service = await self._open()
        await self._require_job(frame.id)
        if frame.lease_s:
            lease = self._store.submissions.lease(frame.id)
            self._leases[frame.id] = lease_s = min(frame.lease_s, MAX_LEASE_S)
            await in_thread(lease.write, lease_s)
        events = EventReader(self._store.submissions.events_path(frame.id), frame.after)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_events, frame.id, events)
                job = await wait_until_over(self._store, frame.id)
                nursery.cancel_scope.cancel()
            # The last events, from the open file: its name may be gone.
            self._post_events(frame.id, await in_thread(events.read))
        finally:
            events.close()
            self._leases.pop(frame.id, None)
        if job.result is not None:
            # The answer is given even if the configuration is broken by now.
            with suppress(DispatchError):
                await service.keep_answer(job)
        return End(n=frame.n, id=job.id, job=msgspec.to_builtins(job))

    async def _send_events(self, job_id: str, events: EventReader) -> None:
        while True:
            # Not abandoned: the reader is used again, and closed, after this.
            self._post_events(job_id, await trio.to_thread.run_sync(events.read))
            await trio.sleep(_EVENTS_EVERY_S)

    def _post_events(self, job_id: str, events: Sequence[tuple[int, str]]) -> None:
        for seq, line in events:
            self._wire.post(Event(id=job_id, seq=seq, line=line))

    async def _cancel(self, frame: Cancel) -> Frame:
        service = await self._open()
        await self._rights.require_own(self._store, frame.id)
        by = frame.by or "a caller on another machine"
        result = await service.jobs.cancel(frame.id, by=by, keep=frame.keep)
        if result is CancelOutcome.NOT_FOUND:
            # Its submission may still be on the way: it must not begin then.
            await in_thread(self._store.submissions.bury, frame.id)
            result = await service.jobs.cancel(frame.id, by=by)
        return Cancelled(n=frame.n, outcome=result)

    async def _require_job(self, job_id: str) -> None:
        await self._rights.require_own(self._store, job_id)
        await in_thread(self._store.head, job_id)

    async def _renew_leases(self) -> None:
        """Renew the leases for as long as bytes come."""
        seen = self._wire.heard_bytes
        while True:
            await trio.sleep(_RENEW_EVERY_S)
            if self._wire.heard_bytes != seen and self._leases:
                seen = self._wire.heard_bytes
                # The run goes on after a disk error, and the next bytes try again.
                with suppress(OSError):
                    await in_thread(self._write_leases, dict(self._leases))

    def _write_leases(self, leases: Mapping[str, float]) -> None:
        for job_id, lease_s in leases.items():
            self._store.submissions.lease(job_id).write(lease_s)

    async def _end_calls(self, bye: Bye) -> None:
        """End what the caller leaves behind, and leave."""
        ids = [job_id for job_id in self._leases if bye.end is None or job_id in bye.end]
        if ids:
            service = await self._open()
            with trio.move_on_after(_BYE_S):
                async with trio.open_nursery() as nursery:
                    for job_id in ids:
                        nursery.start_soon(self._end_call, service, job_id)
        self._leaving.cancel()

    async def _end_call(self, service: Service, job_id: str) -> None:
        # Its lease ends it if this cannot.
        with suppress(DispatchError):
            await service.jobs.cancel(job_id, by="its caller")

    # -- everything else

    async def _tell(self, frame: Ask) -> Frame:
        service = await self._open()
        answers = Answers(service, self._store, self._rights, self._doctor)
        value = await answers.to(frame.what, frame.args)
        return Told(n=frame.n, value=msgspec.to_builtins(value))


def _answered(frame: Submit, result: DispatchResult) -> Accepted:
    """Answer at once, without a job."""
    status = "done" if result.success else "failed"
    return Accepted(n=frame.n, id=frame.id, status=status, result=msgspec.to_builtins(result))


def _as_the_host_says(plan: Plan, asked: DispatchRequest) -> Plan:
    """Plan a run as this host's file says: a caller may only shorten the time of the agent.

    Raises:
        InvalidRequestError: The caller wants another model or effort than the file has.
    """
    agent = plan.agent
    for key, wanted, own in (
        ("model", asked.model, agent.model),
        ("effort", asked.effort, agent.effort),
    ):
        if wanted.strip() not in ("", own):
            raise InvalidRequestError(
                f"{key} of agent {agent.name!r} is {own or 'not set'} in the file of its host, and"
                " a caller on another machine cannot choose another one. Leave it out."
            )
    if plan.timeout_s <= plan.agent.timeout_s:
        return plan
    request = msgspec.structs.replace(plan.request, timeout_s=None)
    return msgspec.structs.replace(plan, request=request)


def failure(n: int, error: DispatchError) -> Failed:
    """Tell a wrong call as a value."""
    kind = {UnknownJobError: "unknown_job", UnknownAgentError: "unknown_agent"}.get(type(error), "")
    steps = [msgspec.to_builtins(step) for step in error.next_steps]
    return Failed(n=n, error=str(error), kind=kind, steps=steps)

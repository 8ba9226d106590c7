"""The surface for a caller on another machine: frames on stdin and stdout of `_remote`.

This process owns no job (see `caller_jobs`). While bytes of the caller arrive, it renews the leases
of that caller's calls. EOF proves nothing, because a dead caller and a cut link look alike: only
`bye` ends the calls at once.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import NamedTuple

import msgspec
import trio

import agent_dispatch
from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.core.command import DEPTH_VARIABLE
from agent_dispatch.errors import DispatchError, UnknownAgentError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.remote.frames import (
    DEAD_S,
    AnyFrame,
    Ask,
    Attach,
    Bye,
    Cancel,
    Failed,
    Frame,
    Hello,
    Submit,
    Told,
)
from agent_dispatch.remote.handshake import common_protocol, greeting
from agent_dispatch.remote.host.caller_jobs import MAX_LEASE_S, CallerJobs
from agent_dispatch.remote.host.methods import Doctor, Methods
from agent_dispatch.remote.host.rights import Rights
from agent_dispatch.remote.this_host import CHAIN_VARIABLE, boot_id, host_id, user_name
from agent_dispatch.remote.wire import Wire
from agent_dispatch.run.service import Service

logger = logging.getLogger(__name__)

_RENEW_EVERY_S = 0.5
_SHORTEST_DEAD_S = 0.5
_CHUNK_BYTES = 64 * 1024

OpenService = Callable[[Mapping[str, str]], AbstractAsyncContextManager[Service]]
"""Opens a service with this environment, as `run.open_service` does."""


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
        stdin: Where its frames arrive. Closed in the end, like `stdout`.
        stdout: Where to send frames.
        nonce: Repeated in the greeting.
        environ: The environment of its jobs.
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
        try:
            await writes.send_all(greeting(nonce, hello))
        except trio.BrokenResourceError:
            return  # The caller is gone already.
        async with trio.open_nursery() as nursery:
            stub = _Stub(writes, nursery, hello.host_id, environ, open_service, rights, doctor)
            await stub.run(reads)
            nursery.cancel_scope.cancel()


class _Handlers(NamedTuple):
    """What answers the requests of a caller, once the service is open."""

    jobs: CallerJobs
    methods: Methods


class _Stub:
    """Serves one caller."""

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
        self._wire = Wire(writes.send_all, self._on_frame, dead_s=DEAD_S)
        self._nursery = nursery
        self._own_id = own_id
        self._environ = environ
        self._open_service = open_service
        self._rights = rights
        self._doctor = doctor
        self._has_hello = False
        self._opened = trio.Event()
        """The service was opened, or could not be."""
        self._handlers: _Handlers | DispatchError | None = None
        self._leaving = trio.CancelScope()
        self._is_ending_calls = False

    async def run(self, reads: trio.lowlevel.FdStream) -> None:
        """Serve until the caller is gone."""
        with self._leaving:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew_leases)
                nursery.start_soon(self._run_wire)
                # A broken stream is like EOF: sshd may use sockets, which can be reset.
                with suppress(trio.BrokenResourceError):
                    while chunk := await reads.receive_some(_CHUNK_BYTES):
                        self._wire.feed(chunk)
                self._leave()
                await trio.sleep_forever()

    async def _run_wire(self) -> None:
        await self._wire.run()
        self._leave()

    def _leave(self) -> None:
        """Leave, unless calls are being ended: that leaves when it is done."""
        if not self._is_ending_calls:
            self._leaving.cancel()

    def _on_frame(self, frame: AnyFrame) -> None:
        match frame:
            case Hello():
                self._on_hello(frame)
            case Submit() | Attach() | Cancel() | Ask():
                self._nursery.start_soon(self._answer, frame)
            case Bye():
                self._is_ending_calls = True
                self._nursery.start_soon(self._end_calls, frame)
            case _:
                self._wire.post(Failed(n=0, error="a host does not take frames of this kind"))

    def _on_hello(self, hello: Hello) -> None:
        if common_protocol(hello) is None or self._has_hello:
            self._wire.post(Failed(n=0, error="no common protocol", kind="protocol"))
            return
        self._has_hello = True
        self._wire.dead_s = max(hello.dead_s, _SHORTEST_DEAD_S)
        self._nursery.start_soon(self._keep_open, hello)

    async def _keep_open(self, hello: Hello) -> None:
        """Open the service for a caller, and keep it open."""
        environ = {
            **self._environ,
            DEPTH_VARIABLE: str(max(hello.depth, 0)),
            CHAIN_VARIABLE: ",".join(word for word in hello.chain if word.isalnum()),
        }
        store = JobStore(jobs_path(environ, config_path(environ)))
        async with AsyncExitStack() as stack:
            try:
                service = await stack.enter_async_context(self._open_service(environ))
            except DispatchError as error:
                self._handlers = error
            else:
                self._handlers = _Handlers(
                    CallerJobs(
                        service,
                        store,
                        self._rights,
                        self._wire.post,
                        is_in_chain=self._own_id in hello.chain,
                    ),
                    Methods(service, store, self._rights, self._doctor),
                )
            self._opened.set()
            await trio.sleep_forever()

    async def _answer(self, frame: Submit | Attach | Cancel | Ask) -> None:
        await self._opened.wait()
        try:
            self._wire.post(await self._answer_to(frame))
        except DispatchError as error:
            self._wire.post(_failed(frame.n, error))
        except Exception as bug:
            logger.exception("bug in agent-dispatch: a request from another machine failed")
            text = f"Bug in agent-dispatch: {bug!r}. The traceback is on its stderr."
            self._wire.post(Failed(n=frame.n, error=text, kind="bug"))

    async def _answer_to(self, frame: Submit | Attach | Cancel | Ask) -> Frame:
        if isinstance(self._handlers, DispatchError):
            raise self._handlers
        assert self._handlers is not None
        jobs, methods = self._handlers
        match frame:
            case Submit():
                return await jobs.submit(frame)
            case Attach():
                return await jobs.attach(frame)
            case Cancel():
                return await jobs.cancel(frame)
            case Ask(n=n, what=name, args=args):
                return Told(n=n, value=msgspec.to_builtins(await methods.call(name, args)))

    async def _renew_leases(self) -> None:
        """Renew the leases for as long as bytes arrive."""
        heard_bytes = 0
        while True:
            await trio.sleep(_RENEW_EVERY_S)
            if self._wire.heard_bytes != heard_bytes and isinstance(self._handlers, _Handlers):
                heard_bytes = self._wire.heard_bytes
                await self._handlers.jobs.renew_leases()

    async def _end_calls(self, bye: Bye) -> None:
        """End the calls that the caller wants ended, and leave."""
        # Without an open service there is no call yet.
        if isinstance(self._handlers, _Handlers):
            await self._handlers.jobs.end_calls(bye.end)
        self._leaving.cancel()


def _failed(n: int, error: DispatchError) -> Failed:
    """Report a refusal as a value."""
    kind = {UnknownJobError: "unknown_job", UnknownAgentError: "unknown_agent"}.get(type(error), "")
    steps = [msgspec.to_builtins(step) for step in error.next_steps]
    return Failed(n=n, error=str(error), kind=kind, steps=steps)

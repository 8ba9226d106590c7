"""The link to one host: one process, started when it is needed, and again after each cut.

All callers in this process share it. A link that is idle for a minute is closed. A failure that
will not pass, such as a refused key, is reported at once. After any other failure the link tries
again for as long as the caller of `connection` says.
"""

import random
import secrets
import shutil
from collections.abc import Mapping

import trio

import agent_dispatch
from agent_dispatch.claude.child import Child, ChildStartError, open_child
from agent_dispatch.claude.find_claude import SYSTEM_FOLDERS
from agent_dispatch.claude.guard import END_NOW
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import MARKER_VARIABLE, Command, current_depth
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import HostConfig
from agent_dispatch.model.next_step import NextStep, run
from agent_dispatch.remote.caller.connection import Connection
from agent_dispatch.remote.caller.diagnosis import HANDSHAKE_S, Attempt, Failure, diagnose
from agent_dispatch.remote.caller.ssh import argv_to, probe, to_try_by_hand
from agent_dispatch.remote.frames import Bye, Hello, encode
from agent_dispatch.remote.handshake import Greeting, common_protocol
from agent_dispatch.remote.this_host import chain
from agent_dispatch.remote.wire import dead_after_s

IDLE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 5.0
_LEAVE_S = 1.0
_FAREWELL = "\n" + encode(Bye()).decode() + "\n"
"""The guard sends it if this process is gone. The first line feed ends an unfinished frame."""


class UnreachableError(DispatchError):
    """A host cannot be reached; the message has the last lines of ssh, the steps what to try."""

    def __init__(self, host: str, reason: str, *steps: NextStep) -> None:
        super().__init__(f"Host {host} cannot be reached: {reason}", *steps)


class Link:
    """The link to one host, for all callers of one process."""

    def __init__(
        self,
        name: str,
        host: HostConfig,
        *,
        launcher: Launcher,
        environ: Mapping[str, str],
        nursery: trio.Nursery,
    ) -> None:
        """Prepare a link; nothing is started yet.

        Args:
            name: The host's name in the configuration.
            host: How to reach it.
            launcher: Starts the process, under a guard that says `bye` when we are gone.
            environ: The environment of ssh and of this process. It has our depth, and the hosts
                that we came through.
            nursery: Where the link lives. Leaving it ends the link, and with it our calls.
        """
        self.name = name
        self.host = host
        self._launcher = launcher
        self._environ = environ
        self._nursery = nursery
        self._connecting = trio.Lock()
        self._connection: Connection | None = None
        self._failure: Failure | None = None
        self._was_reached = False

    @property
    def open_connection(self) -> Connection | None:
        """The connection, if one is up now."""
        connection = self._connection
        return None if connection is None or connection.is_lost else connection

    @property
    def reason(self) -> str:
        """Why the last attempt to connect failed."""
        return "it does not answer." if self._failure is None else self._failure.reason

    async def connection(self, gives_up_at: float) -> Connection:
        """Return a connection that is up; make one if there is none.

        Args:
            gives_up_at: On Trio's clock, when to stop trying. There is at least one attempt.

        Raises:
            UnreachableError: The host cannot be reached until then, or for a reason that stays.
        """
        if (connection := self.open_connection) is not None:
            return connection
        with trio.move_on_at(max(gives_up_at, trio.current_time() + HANDSHAKE_S + 1)):
            async with self._connecting:
                return await self._connect(gives_up_at)
        raise UnreachableError(self.name, self.reason, run(to_try_by_hand(self.host)))

    async def _connect(self, gives_up_at: float) -> Connection:
        pause_s = _FIRST_PAUSE_S
        while True:
            if (connection := self.open_connection) is not None:
                return connection
            # After a cut, a shared connection of ssh may be dead, and new ones over it hang.
            is_retry = self._failure is not None or self._was_reached
            outcome = await self._nursery.start(self._session, is_retry)
            if isinstance(outcome, Connection):
                self._connection, self._failure, self._was_reached = outcome, None, True
                return outcome
            assert isinstance(outcome, Failure)
            self._failure = outcome
            left_s = gives_up_at - trio.current_time()
            if outcome.is_final or left_s <= 0:
                raise UnreachableError(self.name, outcome.reason, *outcome.steps)
            await trio.sleep(min(random.uniform(pause_s / 2, pause_s), left_s))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _session(  # noqa: ASYNC114  # only this module starts it
        self, is_retry: bool, task_status: trio.TaskStatus[Connection | Failure]
    ) -> None:
        """Run one process from its start to its end; report the connection or the failure."""
        nonce = secrets.token_hex(16)
        greeting = Greeting(nonce)
        connection: Connection | None = None

        def on_stdout(chunk: bytes) -> None:
            if connection is None:
                greeting.feed(chunk)
            else:
                connection.wire.feed(chunk)

        try:
            async with open_child(
                self._launcher,
                self._command(nonce, is_retry),
                on_stdout=on_stdout,
                farewell=_FAREWELL,
            ) as child:
                with trio.move_on_after(HANDSHAKE_S) as handshake:
                    await child.wait_until(lambda: greeting.is_over or child.exited)
                if greeting.hello is not None and common_protocol(greeting.hello) is not None:
                    connection = self._open(child)
                    connection.wire.feed(greeting.rest)
                    task_status.started(connection)
                    await self._keep_open(connection, child)
                else:
                    child.end(END_NOW)
            attempt = Attempt(
                hello=greeting.hello,
                noise=greeting.noise,
                stderr=child.stderr_tail,
                timed_out=handshake.cancelled_caught,
                exit_code=child.exit_code,
            )
        except ChildStartError as error:
            attempt = Attempt(start_error=str(error))
        if connection is None:
            failure = diagnose(attempt, self.name, self.host, was_reached=self._was_reached)
            task_status.started(failure)

    def _command(self, nonce: str, is_retry: bool) -> Command:
        argv = argv_to(self.host, probe(self.host.program, nonce), is_retry=is_retry)
        environ = {**self._environ, MARKER_VARIABLE: f"link.{nonce}"}
        argv[0] = _find(argv[0], environ)
        return Command(tuple(argv), "/", environ)

    def _open(self, child: Child) -> Connection:
        dead_s = dead_after_s(self.host.lease_seconds)
        connection = Connection(child.send, dead_s=dead_s)
        connection.wire.post(
            Hello(
                version=agent_dispatch.__version__,
                depth=current_depth(self._environ),
                chain=chain(self._environ),
                dead_s=dead_s,
            )
        )
        return connection

    async def _keep_open(self, connection: Connection, child: Child) -> None:
        """Serve a connection until it is dead or idle, or its process has exited."""
        wire = connection.wire
        try:
            async with trio.open_nursery() as nursery:

                async def until_dead() -> None:
                    await wire.run()
                    # No farewell: it could arrive after another link has taken over our calls.
                    child.end(END_NOW)
                    nursery.cancel_scope.cancel()

                async def until_idle() -> None:
                    # Requests come and go; only a full minute without any counts.
                    while connection.idle_s < IDLE_S:  # noqa: ASYNC110
                        await trio.sleep(IDLE_S - connection.idle_s)
                    wire.post(Bye(end=[]))
                    connection.end()
                    with trio.move_on_after(_LEAVE_S):
                        await wire.flushed()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(until_dead)
                nursery.start_soon(until_idle)
                await child.wait_until(lambda: child.exited)
                nursery.cancel_scope.cancel()
        finally:
            # Fail the requests now: ending the process takes a while.
            connection.end()


def _find(program: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program, or its name if it is nowhere: the start then reports it."""
    path = ":".join((environ.get("PATH", ""), *SYSTEM_FOLDERS))
    return shutil.which(program, path=path) or program

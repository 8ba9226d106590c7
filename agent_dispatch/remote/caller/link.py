"""The way to one host: one process, made when it is needed, and made again when it is cut.

All callers of this process share it. A link that is idle for a minute is closed. A
failure that waiting does not cure, such as a refused key, is reported at once. After any other
failure the link tries again for as long as the caller of `connection` says.
"""

import contextlib
import random
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

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
from agent_dispatch.remote.caller.ssh import argv_to, probe, to_try_by_hand
from agent_dispatch.remote.frames import (
    MISSING,
    PROTOCOL,
    AnyFrame,
    Bye,
    Event,
    Frame,
    Greeting,
    Hello,
    NoGreetingError,
    common_protocol,
    dead_after_s,
    encode,
)
from agent_dispatch.remote.this_host import chain
from agent_dispatch.remote.wire import Wire

HANDSHAKE_S = 15.0
"""By our own clock: a process that hangs after a cut ignores its own time limits."""
IDLE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 5.0
_FAREWELL = "\n" + encode(Bye()).decode() + "\n"
"""What the guard says for us: the first line feed ends a frame that we had begun."""
_SHOWN_LINES = 3
_LEAVE_S = 1.0
_KILLED = 128
"""A larger exit status of a shell or container tool means that a signal ended the command."""

_FOR_GOOD = (
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Permission denied",
    "Too many authentication failures",
    "Bad configuration option",
    "Bad owner or permissions",
    "terminating, ",
)
"""Messages of ssh after which no second try can help."""
_ONCE_REACHED_IT_PASSES = ("Could not resolve hostname",)
_PASSING = (
    "Connection refused",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "kex_exchange_identification",
    "ssh_exchange_identification",
    "mux_client",
)


class UnreachableError(DispatchError):
    """A host cannot be reached; says why, in the last words of ssh, and what to try."""

    def __init__(self, host: str, reason: str, *steps: NextStep) -> None:
        super().__init__(f"Host {host} cannot be reached: {reason}", *steps)
        self.host = host


class LinkLostError(Exception):
    """The link was cut before the answer came."""


class Connection:
    """A link that is up; made by `Link`."""

    def __init__(self, hello: Hello) -> None:
        """Be the link to the host that said `hello`."""
        self.hello = hello
        self.lost = trio.Event()
        """The link is gone."""
        self._idle_since = trio.current_time()
        self.wire: Wire
        self._n = 0
        self._waiting: dict[int, _Question] = {}
        self._listeners: dict[str, list[Callable[[Event], object]]] = {}

    async def ask(self, question: Callable[[int], Frame]) -> AnyFrame:
        """Send the frame that `question` makes of a number, and wait for its answer.

        Raises:
            LinkLostError: There will be none on this link.
        """
        if self.lost.is_set():
            raise LinkLostError
        self._n += 1
        n, waiting = self._n, _Question(trio.Event(), [])
        self._waiting[n] = waiting
        self.wire.post(question(n))
        try:
            await waiting.answered.wait()
        finally:
            del self._waiting[n]
            self._idle_since = trio.current_time()
        if not waiting.answer:
            raise LinkLostError
        return waiting.answer[0]

    @contextlib.contextmanager
    def events(self, job_id: str, on_event: Callable[[Event], object]) -> Iterator[None]:
        """Have `on_event` called with the events of a job for as long as the block runs."""
        listeners = self._listeners.setdefault(job_id, [])
        listeners.append(on_event)
        try:
            yield
        finally:
            listeners.remove(on_event)
            if not listeners:
                self._listeners.pop(job_id, None)

    @property
    def idle_s(self) -> float:
        """How long nobody has waited for an answer."""
        return 0 if self._waiting else trio.current_time() - self._idle_since

    def on_frame(self, frame: AnyFrame) -> None:
        """Take what the host says."""
        if isinstance(frame, Event):
            for listener in self._listeners.get(frame.id, ()):
                listener(frame)
        elif (waiting := self._waiting.get(getattr(frame, "n", 0))) is not None:
            waiting.answer.append(frame)
            waiting.answered.set()

    def end(self) -> None:
        """Tell all waiting calls that no more answers will come."""
        self.lost.set()
        for waiting in self._waiting.values():
            waiting.answered.set()


class _Question(NamedTuple):
    answered: trio.Event
    answer: list[AnyFrame]


class _Failure(NamedTuple):
    """Why there is no link."""

    reason: str
    is_final: bool
    steps: tuple[NextStep, ...]


class Link:
    """The way to one host, for all callers of one process."""

    def __init__(
        self,
        name: str,
        host: HostConfig,
        *,
        launcher: Launcher,
        environ: Mapping[str, str],
        nursery: trio.Nursery,
    ) -> None:
        """Know the way; nothing is started yet.

        Args:
            name: The host's name in the configuration.
            host: How to get there.
            launcher: Starts the process, under a guard that says `bye` when we are gone.
            environ: Of ssh, and of us: our depth and the hosts that we came through.
            nursery: Where the link lives; leaving it ends the link, and with it our calls.
        """
        self.name = name
        self.host = host
        self._launcher = launcher
        self._environ = environ
        self._nursery = nursery
        self._connecting = trio.Lock()
        self._connection: Connection | None = None
        self._failure: _Failure | None = None
        self._was_reached = False

    @property
    def open_connection(self) -> Connection | None:
        """The link, if one is up now."""
        connection = self._connection
        return None if connection is None or connection.lost.is_set() else connection

    @property
    def reason(self) -> str:
        """Why there was no link when one was wanted last."""
        return "it does not answer." if self._failure is None else self._failure.reason

    async def connection(self, gives_up_at: float) -> Connection:
        """Give a link that is up; make one if there is none.

        Args:
            gives_up_at: On Trio's clock, when to stop trying; there is at least one try.

        Raises:
            UnreachableError: There is none, for a reason that stays, or until then.
        """
        if (connection := self.open_connection) is not None:
            return connection
        until = max(gives_up_at, trio.current_time() + HANDSHAKE_S + 1)
        with trio.move_on_at(until):
            async with self._connecting:
                return await self._connect(gives_up_at)
        raise UnreachableError(self.name, self.reason, run(to_try_by_hand(self.host)))

    async def _connect(self, gives_up_at: float) -> Connection:
        pause_s = _FIRST_PAUSE_S
        while True:
            if (connection := self.open_connection) is not None:
                return connection
            # After a cut, a shared connection of ssh may be dead, and make new ones hang.
            is_retry = self._failure is not None or self._was_reached
            outcome = await self._nursery.start(self._session, is_retry)
            if isinstance(outcome, Connection):
                self._connection, self._failure, self._was_reached = outcome, None, True
                return outcome
            assert isinstance(outcome, _Failure)
            self._failure = outcome
            left_s = gives_up_at - trio.current_time()
            if outcome.is_final or left_s <= 0:
                raise UnreachableError(self.name, outcome.reason, *outcome.steps)
            await trio.sleep(min(random.uniform(pause_s / 2, pause_s), left_s))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _session(  # noqa: ASYNC114  # only this module starts it
        self, is_retry: bool, task_status: trio.TaskStatus[Connection | _Failure]
    ) -> None:
        """Be one process from its start to its end; tell how its handshake went."""
        greeted = _Handshake()
        connection: Connection | None = None
        started: list[Child] = []
        try:
            async with open_child(
                self._launcher,
                self._command(greeted.nonce, is_retry),
                on_stdout=greeted.feed,
                farewell=_FAREWELL,
            ) as child:
                started.append(child)
                with trio.move_on_after(HANDSHAKE_S):
                    await child.wait_until(lambda: greeted.is_over or child.exited)
                if greeted.hello is not None and common_protocol(greeted.hello) is not None:
                    connection = Connection(greeted.hello)
                    await self._talk(child, connection, greeted, task_status)
                else:
                    child.end(END_NOW)
        except ChildStartError as error:
            greeted.start_error = str(error)
        finally:
            if connection is not None:
                connection.end()
        if connection is None:
            task_status.started(self._failure_of(started[0] if started else None, greeted))

    def _command(self, nonce: str, is_retry: bool) -> Command:
        argv = argv_to(self.host, probe(self.host.program, nonce), is_retry=is_retry)
        environ = dict(self._environ)
        environ[MARKER_VARIABLE] = f"link.{nonce}"
        argv[0] = _find(argv[0], environ)
        return Command(tuple(argv), "/", environ)

    async def _talk(  # noqa: ASYNC114  # part of `_session`
        self,
        child: Child,
        connection: Connection,
        greeted: "_Handshake",
        task_status: trio.TaskStatus[Connection | _Failure],
    ) -> None:
        dead_s = dead_after_s(self.host.lease_seconds)
        wire = connection.wire = Wire(child.send, connection.on_frame, dead_s=dead_s)
        wire.post(
            Hello(
                version=agent_dispatch.__version__,
                depth=current_depth(self._environ),
                chain=chain(self._environ),
                dead_s=dead_s,
            )
        )
        greeted.hand_over(wire)
        async with trio.open_nursery() as nursery:

            async def until_dead() -> None:
                # The process no longer reads: it is about to exit.
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await wire.run()
                # Without a farewell: it could arrive when another link has taken over our calls.
                child.end(END_NOW)
                nursery.cancel_scope.cancel()

            async def until_idle() -> None:
                # Uses come and go; only a time without any counts.
                while connection.idle_s < IDLE_S:  # noqa: ASYNC110
                    await trio.sleep(IDLE_S - connection.idle_s)
                wire.post(Bye(end=[]))
                connection.end()
                with trio.move_on_after(_LEAVE_S):
                    await wire.flushed()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_dead)
            nursery.start_soon(until_idle)
            task_status.started(connection)
            await child.wait_until(lambda: child.exited)
            nursery.cancel_scope.cancel()
        # Before the process is ended, which takes its time.
        connection.end()

    def _failure_of(self, child: Child | None, greeted: "_Handshake") -> _Failure:
        """Say why there is no link, and whether another try may help."""
        by_hand = (run(to_try_by_hand(self.host)),)
        if greeted.start_error:
            return _Failure(f"{greeted.start_error}.", True, by_hand)
        if greeted.hello is not None:
            return _Failure(
                f"it speaks protocol {greeted.hello.proto} (version {greeted.hello.version}), and"
                f" this version {agent_dispatch.__version__} speaks {PROTOCOL}.",
                True,
                (run(f"agent-dispatch hosts install {self.name}"),),
            )
        noise, said = greeted.noise, "" if child is None else child.stderr_tail
        if MISSING in noise:
            missing = self.host.program or "agent-dispatch"
            return _Failure(
                f"there is no {missing} there.",
                True,
                (run(f"agent-dispatch hosts install {self.name}"),),
            )
        last = [line.strip() for line in said.splitlines() if line.strip()][-_SHOWN_LINES:]
        if child is None or not child.exited:
            last.append(f"it did not greet within {HANDSHAKE_S:g} s.")
        elif not last:
            last.append(f"its command ended with status {child.exit_code} without a greeting.")
        if noise and not said.strip():
            last.append(f"It said: {noise[-500:]}")
        return _Failure("\n".join(last), self._stays(said, child), by_hand)

    def _stays(self, said: str, child: Child | None) -> bool:
        if any(words in said for words in _FOR_GOOD):
            return True
        if any(words in said for words in _ONCE_REACHED_IT_PASSES):
            return not self._was_reached
        status = None if child is None or not child.exited else child.exit_code
        if status is None or status < 0 or status > _KILLED:
            return False  # Silent, or killed; ssh exits with 255 after any failure of its own.
        # A container that starts anew answers by its tool's own words.
        return not self._was_reached and not any(words in said for words in _PASSING)


class _Handshake:
    """What the process says before frames, and who gets its bytes then."""

    def __init__(self) -> None:
        self.nonce = secrets.token_hex(16)
        self.hello: Hello | None = None
        self.start_error = ""
        self._search = Greeting(self.nonce)
        self._rest = b""
        self._failed = False
        self._wire: Wire | None = None

    @property
    def is_over(self) -> bool:
        return self.hello is not None or self._failed

    @property
    def noise(self) -> str:
        return self._search.noise

    def feed(self, chunk: bytes) -> None:
        if self._wire is not None:
            self._wire.feed(chunk)
        elif self.hello is not None:
            self._rest += chunk
        elif not self._failed:
            try:
                found = self._search.feed(chunk)
            except NoGreetingError:
                self._failed = True
            else:
                if found is not None:
                    self.hello, self._rest = found

    def hand_over(self, wire: Wire) -> None:
        """Give all bytes to `wire` from now on."""
        self._wire = wire
        if self._rest:
            wire.feed(self._rest)


def _find(program: str, environ: Mapping[str, str]) -> str:
    """The path of a program; its own name if it is nowhere, so that the start says so."""
    path = ":".join((environ.get("PATH", ""), *SYSTEM_FOLDERS))
    return shutil.which(program, path=path) or program

"""One guarded child: its pipes, its end, and whatever it left behind.

The child's tree ends when the block that opened it ends, however it ends: `open_child` asks the
guard, and should this process die instead, the guard sees EOF on the lifeline. Completion is the
exit of the child, not EOF on its pipes, which a stray process may hold open.
"""

import contextlib
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Self, TypeVarTuple

import trio

from agent_dispatch.claude import guard
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.process_tree import kill_marked
from agent_dispatch.core.command import MARKER_VARIABLE, Command

STDERR_TAIL_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_FIRST_WORD_S = 5.0
"""How long a guard may take to say that it is up. It needs milliseconds, so after this time its
fork server is stopped or stuck. This does not bound how long the agent's program takes to load."""
_EMPTY_TIMEOUT_S = 3.0
"""How long to wait for the last process of a tree once it was told to end: the longest grace and
the sweep, with room for a loaded machine. A process the kernel cannot end is left to the guard."""
_DRAIN_IDLE_S = 0.25
"""How long the pipes may be silent, after the child's exit, before they count as read."""
_DRAIN_TIMEOUT_S = 2.0
"""The same for a stranger that holds a pipe and goes on writing."""
_SWEEP_S = 3.0
"""How long to look through all processes for one that lost its guard: /proc may stand still for a
process that the kernel is stuck in. A look that takes longer goes on unobserved."""
_GONE_S = 1.0
"""How long the descriptors of a request take to be closed when nobody is left to carry it out."""
_FINISH_S = _EMPTY_TIMEOUT_S + _GONE_S + _SWEEP_S + _DRAIN_TIMEOUT_S + 1.0
"""How long leaving a child's block may take: the sum of the bounds of its steps."""

Sink = Callable[[bytes], object]
Ts = TypeVarTuple("Ts")


class ChildStartError(Exception):
    """The child was not started; nothing of it runs."""

    def __init__(self, errno: int, stage: str) -> None:
        stage, _, detail = stage.partition(" ")
        super().__init__(f"{os.strerror(errno)} {detail}".rstrip())
        self.errno = errno
        self.stage = stage
        """`fork`, `chdir` or `exec`."""


class Child:
    """A running child; made by `open_child`."""

    def __init__(self, stdin: trio.lowlevel.FdStream, lifeline: int, nursery: trio.Nursery) -> None:
        """Own the write ends of the child's stdin and of its guard's lifeline."""
        self._stdin = stdin
        self._nursery = nursery
        self._sending = trio.Lock()
        self._lifeline = lifeline
        self._stderr = bytearray()
        self.is_guarded = False
        """A guard runs, with the descriptors of the run."""
        self.pid: int | None = None
        """None until it runs."""
        self.exit_code: int | None = None
        """None while it runs, and when its guard was killed; negative for a signal."""
        self.left_running = 0
        """Processes that outlived the child and were ended."""
        self.exited = False
        """It runs no more, or could not be started, or its guard is gone."""
        self.ended = False
        """Nothing is left of the tree, or the guard is gone."""
        self.guard_lost = False
        """The guard was killed; the child died with it."""
        self.start_error: ChildStartError | None = None
        self.moved = trio.Event()
        """Set, and replaced by a new one, after each chunk of output and each step of the guard."""

    @property
    def stderr_tail(self) -> str:
        """The last 64 KiB of stderr; what is not UTF-8 is replaced."""
        return bytes(self._stderr[-STDERR_TAIL_BYTES:]).decode(errors="replace")

    async def send(self, data: bytes) -> None:
        """Write to the child's stdin.

        If cancelled, part of `data` may have been written.

        Raises:
            trio.BrokenResourceError: The child has stopped reading.
            trio.ClosedResourceError: `close_stdin` was called.
        """
        async with self._sending:
            await self._stdin.send_all(data)

    def start_soon(self, call: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run something beside the child; cancelled when the child's block is left."""
        self._nursery.start_soon(call, *args)

    def close_stdin(self) -> None:
        """Let the child read EOF. May be called twice."""
        self._stdin.close()

    def end(self, order: bytes) -> None:
        """Tell the guard to end the tree: one of `guard.END_ON_CANCEL` and its kin."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._lifeline, order)

    def tick(self) -> None:
        """Wake the tasks that wait for `moved`."""
        self.moved.set()
        self.moved = trio.Event()

    def on_stderr(self, chunk: bytes) -> None:
        """Keep the tail."""
        self._stderr += chunk
        if len(self._stderr) > 2 * STDERR_TAIL_BYTES:
            del self._stderr[:-STDERR_TAIL_BYTES]

    def on_status(self, line: str) -> None:
        """Take note of a line of the guard's; see `claude.guard`."""
        match line.split(maxsplit=2):
            case ["up"]:
                self.is_guarded = True
            case ["start", pid]:
                self.pid = int(pid)
            case ["fail", number, stage]:
                self.start_error = ChildStartError(int(number), stage)
                self.exited = True
            case ["exit", code]:
                self.exit_code = int(code)
                self.exited = True
            case ["done", count]:
                self.left_running = int(count)
                self.ended = True
            case _:
                raise ValueError(f"the guard says {line!r}, which is none of its lines")

    def on_status_end(self) -> None:
        """The guard is gone; if it did not say `done` before, it was killed."""
        if self.start_error is None and self.pid is None:
            self.start_error = ChildStartError(
                errno.EAGAIN, "fork (its guard was killed, or `ulimit -n` is too low for it)"
            )
        self.guard_lost = not self.ended and self.start_error is None
        self.exited = self.ended = True

    def never_started(self) -> None:
        """Nothing of it was started, and nothing will be."""
        self.exited = self.ended = True

    async def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until `reached`, asked after each step."""
        while not reached():
            await self.moved.wait()


@contextlib.asynccontextmanager
async def open_child(
    launcher: Launcher,
    command: Command,
    *,
    on_stdout: Sink,
    on_stderr: Sink | None = None,
    held_fds: Sequence[int] = (),
    farewell: str = "",
) -> AsyncIterator[Child]:
    """Run `command` under a guard for as long as the block runs.

    Leaving the block, by whatever way, ends the tree: SIGTERM, 0.6 s later SIGKILL, unless the
    child has exited before. The block is left when the tree is empty; waiting for that is bounded.

    The block begins before the child runs: what it sends to stdin is there when the child starts.

    Args:
        on_stdout: Called with each chunk, in order, also while the tree is being ended; a chunk
            is not a line. Must not wait.
        on_stderr: The same for stderr; None keeps its tail.
        held_fds: Descriptors that the guard keeps open until the tree is empty.
        farewell: What the guard writes to the child's stdin when it is to end the child, also when
            this process is gone; the child has `guard.FAREWELL_S` to leave then. Such a child
            leads to another place: what it starts is not ours, and is left alone.

    Raises:
        ChildStartError: When the block is left: the program or directory was not usable, or
            nothing could be forked.
    """
    with _Pipes() as pipes:
        async with trio.open_nursery() as nursery:
            child = Child(pipes.stdin, pipes.lifeline, nursery)
            readers = _Readers(nursery, child)
            # No checkpoint from here to the `try`: whatever was started has an end.
            try:
                await _start(launcher, command, pipes, child, held_fds, farewell)
                readers.watch(pipes.status, _StatusLines(child).feed, child.on_status_end)
                readers.drain(pipes.stdout, on_stdout)
                readers.drain(pipes.stderr, on_stderr or child.on_stderr)
                nursery.start_soon(_expect_first_word, launcher, child)
                yield child
            finally:
                if farewell:
                    # The child reads EOF after it.
                    child.close_stdin()
                with trio.move_on_after(_FINISH_S, shield=True):
                    await _finish(launcher, child, command, readers, is_tree=not farewell)
                readers.stop()
                nursery.cancel_scope.cancel()
        # Outside the nursery, which would wrap it in a group.
        if child.start_error is not None:
            raise child.start_error


class _Pipes:
    """The five pipes of a child: our ends as streams, the guard's until they are handed over."""

    def __init__(self) -> None:
        self._ours = contextlib.ExitStack()
        self.theirs: list[int] = []
        try:
            self.stdin = self._stream(we_write=True)
            self.stdout = self._stream(we_write=False)
            self.stderr = self._stream(we_write=False)
            read, self.lifeline = os.pipe()
            self._ours.callback(os.close, self.lifeline)
            self.theirs.append(read)
            os.set_blocking(self.lifeline, False)
            self.status = self._stream(we_write=False)
        except OSError as error:
            self.__exit__()
            raise ChildStartError(error.errno or 0, "fork") from error

    def _stream(self, *, we_write: bool) -> trio.lowlevel.FdStream:
        read, write = os.pipe()
        own, other = (write, read) if we_write else (read, write)
        self.theirs.append(other)
        stream = trio.lowlevel.FdStream(own)
        self._ours.callback(stream.close)
        return stream

    def close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close_theirs()
        self._ours.close()


class _Readers:
    """Reads pipes in a nursery, unmoved by cancellation, until told to stop."""

    def __init__(self, nursery: trio.Nursery, child: Child) -> None:
        self._nursery = nursery
        self._child = child
        self._scopes: list[trio.CancelScope] = []
        self._draining = 0

    def watch(self, stream: trio.lowlevel.FdStream, sink: Sink, at_end: Callable[[], None]) -> None:
        """Read to EOF or `stop`, and call `at_end` then."""
        # Without a deadline: `stop` is called after the last step of the end, which has one.
        scope = trio.CancelScope(shield=True)
        self._scopes.append(scope)
        self._nursery.start_soon(self._read, stream, sink, at_end, scope)

    def drain(self, stream: trio.lowlevel.FdStream, sink: Sink) -> None:
        """The same for a pipe that `drained` waits for."""
        self._draining += 1
        self.watch(stream, sink, self._drained_one)

    async def _read(
        self,
        stream: trio.lowlevel.FdStream,
        sink: Sink,
        at_end: Callable[[], None],
        scope: trio.CancelScope,
    ) -> None:
        with scope:
            while chunk := await stream.receive_some(_CHUNK_BYTES):
                sink(chunk)
                self._child.tick()
        at_end()
        self._child.tick()

    def _drained_one(self) -> None:
        self._draining -= 1

    async def drained(self) -> None:
        """Wait for EOF, or until nothing has come for a while."""
        if not self._draining:
            return
        with trio.move_on_after(_DRAIN_TIMEOUT_S):
            while self._draining:
                with trio.move_on_after(_DRAIN_IDLE_S) as idle:
                    await self._child.moved.wait()
                if idle.cancelled_caught:
                    return

    def stop(self) -> None:
        for scope in self._scopes:
            scope.cancel()


class _StatusLines:
    """Splits what the guard tells into lines."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._child.on_status(line.decode(errors="replace"))


async def _start(
    launcher: Launcher,
    command: Command,
    pipes: _Pipes,
    child: Child,
    held_fds: Sequence[int],
    farewell: str,
) -> None:
    request = {
        # For the agent's process: the guard need not take it apart.
        "program": json.dumps([command.argv, command.cwd, command.env]),
        "marker": command.env[MARKER_VARIABLE],
    }
    try:
        if farewell:
            request["farewell"] = farewell
            held_fds = [pipes.stdin.fileno(), *held_fds]
        await launcher.start(request, [*pipes.theirs, *held_fds])
    except OSError as error:
        child.start_error = ChildStartError(error.errno or 0, "fork")
    except trio.Cancelled:
        child.never_started()
        raise
    finally:
        pipes.close_theirs()


async def _expect_first_word(launcher: Launcher, child: Child) -> None:
    """Do not wait for a start until the deadline of the run, which may be hours away."""
    with trio.move_on_after(_FIRST_WORD_S) as patience:
        await child.wait_until(lambda: child.is_guarded or child.exited)
    if patience.cancelled_caught:
        child.start_error = ChildStartError(errno.ETIMEDOUT, "fork")
        child.exited = True
        launcher.give_up()
        child.tick()


async def _finish(
    launcher: Launcher, child: Child, command: Command, readers: _Readers, *, is_tree: bool
) -> None:
    """End the tree if it does not end by itself, and read what it still says."""
    if not child.exited:
        child.end(guard.END_ON_CANCEL)
    if not child.ended:
        with trio.move_on_after(_EMPTY_TIMEOUT_S) as patience:
            await child.wait_until(lambda: child.ended)
        if patience.cancelled_caught and child.pid is None and child.start_error is None:
            child.start_error = ChildStartError(errno.ETIMEDOUT, "fork")
            # It may lie unread in the socket of a fork server that was stopped, with our pipes and
            # the locks of the run.
            launcher.give_up()
            with trio.move_on_after(_GONE_S):
                await child.wait_until(lambda: child.ended)
    is_unknown = child.guard_lost or (child.start_error is not None and child.exit_code is None)
    if is_tree and is_unknown:
        # However the guard ended, nothing of the run may be left.
        child.left_running += await _sweep(command.env[MARKER_VARIABLE])
    await readers.drained()


async def _sweep(marker: str) -> int:
    """End what bears the mark of a run; how many processes that were, as far as it is known."""
    with trio.move_on_after(_SWEEP_S):
        # A limiter of its own: a look that never returns must not take a thread from others.
        return await trio.to_thread.run_sync(
            kill_marked, marker, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
    return 0

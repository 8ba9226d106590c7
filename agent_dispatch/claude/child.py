"""One guarded child, from its start to the end of its last process.

The child's tree ends with the block that opened it: `open_child` asks the guard to end it. If this
process dies instead, the guard reads EOF on the lifeline. A child is complete when it exits, not at
EOF on its pipes, which another process may hold open.
"""

import contextlib
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVarTuple

import trio

from agent_dispatch.claude import guard
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.pipes import DRAIN_TIMEOUT_S, Pipes, Readers, Sink
from agent_dispatch.claude.process_tree import kill_marked
from agent_dispatch.core.command import MARKER_VARIABLE, Command

STDERR_TAIL_BYTES = 64 * 1024
_EMPTY_TIMEOUT_S = 3.0
"""How long a tree may take to end after the guard was told: the longest grace and the sweep, with
room for a loaded machine. After that, the guard alone waits for the rest."""
_SWEEP_S = 3.0
"""How long to search all processes for those that lost their guard. /proc may hang at a process
that hangs in the kernel; then the search goes on unobserved."""
_GONE_S = 1.0
"""How long the kernel takes to close the descriptors of a fork server that was ended."""
_FINISH_S = _EMPTY_TIMEOUT_S + _GONE_S + _SWEEP_S + DRAIN_TIMEOUT_S + 1.0
"""How long leaving a child's block may take: the sum of the bounds of its steps."""

Ts = TypeVarTuple("Ts")


class ChildStartError(Exception):
    """The child was not started; nothing of it runs."""

    def __init__(self, errno: int, stage: str, detail: str = "") -> None:
        super().__init__(f"{os.strerror(errno)} {detail}".rstrip())
        self.errno = errno
        self.stage = stage
        """`fork`, `chdir` or `exec`."""


class Child:
    """A running child; made by `open_child`."""

    def __init__(self, stdin: trio.lowlevel.FdStream, lifeline: int, nursery: trio.Nursery) -> None:
        """Use the write ends of the child's stdin and of its guard's lifeline.

        Args:
            stdin: The caller's to close.
            lifeline: The caller's to close.
            nursery: Runs tasks beside the child; cancelled when the child's block is left.
        """
        self._stdin = stdin
        self._nursery = nursery
        self._sending = trio.Lock()
        self._lifeline = lifeline
        self._stderr = bytearray()
        self._status = b""
        self.is_guarded = False
        """A guard runs, with the descriptors of the run."""
        self.pid: int | None = None
        """None until it runs."""
        self.exit_code: int | None = None
        """None while it runs, and when its guard was killed; negative for a signal."""
        self.left_running = 0
        """Processes that outlived the child and were ended."""
        self.exited = False
        """It has exited, could not be started, or its guard is gone."""
        self.ended = False
        """No process of the tree is left, or the guard is gone."""
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
        """Run a task beside the child; it is cancelled when the child's block is left."""
        self._nursery.start_soon(call, *args)

    def close_stdin(self) -> None:
        """Let the child read EOF. Safe to call twice."""
        self._stdin.close()

    def end(self, order: bytes) -> None:
        """Tell the guard to end the tree: `guard.END_ON_CANCEL`, `END_ON_DEADLINE` or `END_NOW`."""
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

    def on_status(self, chunk: bytes) -> None:
        """Take what the guard writes to the status pipe."""
        *lines, self._status = (self._status + chunk).split(b"\n")
        for line in lines:
            self._on_status_line(line.decode(errors="replace"))

    def _on_status_line(self, line: str) -> None:
        match line.split(maxsplit=3):
            case ["up"]:
                self.is_guarded = True
            case ["start", pid]:
                self.pid = int(pid)
            case ["fail", number, stage, *detail]:
                self.start_error = ChildStartError(int(number), stage, *detail)
                self.exited = True
            case ["exit", code]:
                self.exit_code = int(code)
                self.exited = True
            case ["done", count]:
                self.left_running = int(count)
                self.ended = True
            case _:
                raise ValueError(f"unknown line on the status pipe of a guard: {line!r}")

    def on_status_end(self) -> None:
        """The guard is gone; if it has not said `done`, it was killed."""
        if self.start_error is None and self.pid is None:
            self.start_error = ChildStartError(
                errno.EAGAIN, "fork", "(its guard was killed, or `ulimit -n` is too low for it)"
            )
        self.guard_lost = not self.ended and self.start_error is None
        self.exited = self.ended = True

    def never_started(self) -> None:
        """Nothing was started, and nothing will be."""
        self.exited = self.ended = True

    async def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until `reached` returns true; it is called after each step."""
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

    Leaving the block ends the tree: SIGTERM, and 0.6 s later SIGKILL, unless the child has exited
    already. Leaving waits until the tree is empty, for at most `_FINISH_S`.

    The block begins before the child runs, so the child finds on its stdin what was sent early.

    Args:
        on_stdout: Called with each chunk, in order, also while the tree is being ended; a chunk
            is not a line. Must not wait.
        on_stderr: The same for stderr; None keeps its tail.
        held_fds: Descriptors that the guard keeps open until the tree is empty.
        farewell: The guard writes this to the child's stdin before it ends the child, even if this
            process is gone; the child then has `guard.FAREWELL_S` to exit. A child with a farewell
            runs something on another machine, so what it starts is left alone.

    Raises:
        ChildStartError: The program or directory cannot be used, or nothing could be forked.
            Raised when the block is left.
    """
    with _open_pipes() as pipes:
        async with trio.open_nursery() as nursery:
            child = Child(pipes.stdin, pipes.lifeline, nursery)
            readers = Readers(nursery, child.tick)
            # No checkpoint between here and the `try`, so whatever was started is ended.
            try:
                await _start(launcher, command, pipes, child, held_fds, farewell)
                readers.watch(pipes.status, child.on_status, child.on_status_end)
                readers.drain(pipes.stdout, on_stdout)
                readers.drain(pipes.stderr, on_stderr or child.on_stderr)
                nursery.start_soon(_expect_first_word, launcher, child)
                yield child
            finally:
                if farewell:
                    # The child reads EOF after the farewell.
                    child.close_stdin()
                with trio.move_on_after(_FINISH_S, shield=True):
                    await _finish(launcher, child, command, readers, is_tree=not farewell)
                readers.stop()
                nursery.cancel_scope.cancel()
        # Outside the nursery, which would wrap it in a group.
        if child.start_error is not None:
            raise child.start_error


def _open_pipes() -> Pipes:
    try:
        return Pipes()
    except OSError as error:
        raise ChildStartError(error.errno or 0, "fork") from error


async def _start(
    launcher: Launcher,
    command: Command,
    pipes: Pipes,
    child: Child,
    held_fds: Sequence[int],
    farewell: str,
) -> None:
    request = {
        # JSON within JSON: only the agent's process decodes it.
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
    """Give up a start early: the deadline of the run may be hours away.

    This does not bound how long the agent's program takes to load.
    """
    if not await launcher.is_ready(
        lambda: child.wait_until(lambda: child.is_guarded or child.exited)
    ):
        child.start_error = ChildStartError(errno.ETIMEDOUT, "fork")
        child.exited = True
        child.tick()


async def _finish(
    launcher: Launcher, child: Child, command: Command, readers: Readers, *, is_tree: bool
) -> None:
    """End the tree if it does not end by itself, and read the rest of its output."""
    if not child.exited:
        child.end(guard.END_ON_CANCEL)
    if not child.ended:
        with trio.move_on_after(_EMPTY_TIMEOUT_S) as patience:
            await child.wait_until(lambda: child.ended)
        if patience.cancelled_caught and child.pid is None and child.start_error is None:
            child.start_error = ChildStartError(errno.ETIMEDOUT, "fork")
            # The request may lie unread in the socket of a stopped fork server, together with our
            # pipes and the locks of the run.
            launcher.give_up()
            with trio.move_on_after(_GONE_S):
                await child.wait_until(lambda: child.ended)
    is_unknown = child.guard_lost or (child.start_error is not None and child.exit_code is None)
    if is_tree and is_unknown:
        # The guard may have left processes behind.
        child.left_running += await _sweep(command.env[MARKER_VARIABLE])
    await readers.drained()


async def _sweep(marker: str) -> int:
    """Kill the processes with the marker of a run; return how many, or 0 if that takes too long."""
    with trio.move_on_after(_SWEEP_S):
        # A limiter of its own: a search that never returns must not keep a thread from others.
        return await trio.to_thread.run_sync(
            kill_marked, marker, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
    return 0

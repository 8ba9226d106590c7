"""Starts guards and workers: through the fork server, or with a new Python where there is none."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

import agent_dispatch
from agent_dispatch.claude import frames
from agent_dispatch.claude.fork_server import GUARD, KIND, ForkServer
from agent_dispatch.threads import in_own_thread

GUARD_PROGRAM = (
    *(sys.executable, "-I", "-S", "-c"),
    """
import sys
sys.path.append(sys.argv.pop(1))
from agent_dispatch.claude.guard import main
main(sys.argv[1:])
""",
    str(Path(agent_dispatch.__file__).parents[1]),
)
"""The slow way to a guard: takes about ten times as long as a fork."""
_LOOK_AFTER_S = 3.0
"""How long a fork server may take before we look whether it is stopped. It needs a millisecond."""
_LOOKS = 10
"""How often we look. A server that still runs after all of them hangs too. One that forks a hundred
workers at once on two processors needs up to a third of that time."""
_SLOW_START_S = 30.0
"""How long a new Python may take to start, on a loaded machine."""


class Launcher:
    """Starts processes of one kind for one owner; made once, shared by all of its runs."""

    def __init__(
        self, server: ForkServer | None, kind: str = GUARD, program: Sequence[str] = GUARD_PROGRAM
    ) -> None:
        """Use `server`, which stays the caller's to close.

        Args:
            server: None to start a new Python for each request.
            kind: The kind of the requests.
            program: The command for a new Python. Its arguments are the numbers of the request's
                descriptors. Its stdin is the request as JSON, with `open_files`, the soft limit to
                set, if we may have raised ours. It forks and exits at once.
        """
        self._server = server
        self._kind = kind
        self._program = program
        self._sending = trio.Lock()

    async def start(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Start a process for `request`; the caller may close `fds` afterwards.

        The process reports on one of the descriptors. EOF there without a report means that it was
        killed, or did not get its descriptors.

        If cancelled before the request is begun, nothing was started. After that, the request is
        sent to its end, as `is_ready` bounds it, and a new Python is waited for, for at most
        `_SLOW_START_S`; then this returns normally, and the process may have been started.

        Raises:
            OSError: It cannot be started in either way.
        """
        if not await self._ask_server(frames.encode({**request, KIND: self._kind}, fds)):
            # Not abandoned: once the caller has closed `fds`, their numbers may mean other files.
            await trio.to_thread.run_sync(self._start_slowly, request, fds)

    async def is_ready(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something that the fork server does, itself or in a fork.

        A stopped server is given up at the first look. A server that runs is only slow, so it gets
        all looks.

        Args:
            wait: Returns when it is done. It is cancelled for each look, and called again.

        Returns:
            False if it was not done.
        """
        for _ in range(_LOOKS):
            with trio.move_on_after(_LOOK_AFTER_S):
                await wait()
                return True
            server = self._server
            if server is None or server.sock is None:
                continue
            if not await in_own_thread(server.is_running):
                break
        self.give_up()
        return False

    def give_up(self) -> None:
        """Kill a fork server that does not answer; from now on, new Pythons are started."""
        if self._server is not None:
            if self._server.sock is not None:
                trio.lowlevel.notify_closing(self._server.sock)
            self._server.give_up()

    async def _ask_server(self, frame: frames.Frame) -> bool:
        """Send a request; False if there is no fork server, or it does not read."""
        async with self._sending:
            server = self._server
            while server is not None and (sock := server.sock) is not None:
                try:
                    if frame.send_some(sock):
                        return True
                except BlockingIOError:
                    # Once a part is sent, the rest must follow, or no later request can be read.
                    with trio.CancelScope(shield=frame.is_begun):
                        await self.is_ready(partial(_wait_writable, sock))
                except (BrokenPipeError, ConnectionResetError):
                    server.close()
        return False

    def _start_slowly(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        if self._server is not None:
            request = {**request, "open_files": self._server.open_files}
        try:
            subprocess.run(
                [*self._program, *map(str, fds)],
                input=json.dumps(request).encode(),
                pass_fds=fds,
                start_new_session=True,
                check=True,
                timeout=_SLOW_START_S,
            )
        except subprocess.SubprocessError as error:
            raise OSError(f"{self._program} did not start: {error}") from error


async def _wait_writable(sock: socket.socket) -> None:
    """Wait until the fork server reads, or another task has given it up."""
    # It may have been given up between two looks.
    if sock.fileno() == -1:
        return
    with contextlib.suppress(trio.ClosedResourceError):
        await trio.lowlevel.wait_writable(sock)

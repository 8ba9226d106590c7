"""Start a guard or a worker: by the fork server, or the slow way where there is none."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

import agent_dispatch
from agent_dispatch.claude import frames
from agent_dispatch.claude.fork_server import GUARD, KIND, ForkServer

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
_TAKE_S = 3.0
"""How long a fork server may leave a request unread. It reads within a millisecond, so one that
takes this long is stopped or stuck, and is given up."""
_SLOW_START_S = 30.0
"""How long the slow way may take: to start Python on a loaded machine, with room."""


class Launcher:
    """Starts processes of one kind for one owner; made once, shared by all of its runs."""

    def __init__(
        self, server: ForkServer | None, kind: str = GUARD, program: Sequence[str] = GUARD_PROGRAM
    ) -> None:
        """Use `server`, which stays the caller's to close.

        Args:
            server: None always goes the slow way.
            kind: Which of the server's entries.
            program: The slow way. It gets the numbers of its descriptors as arguments and the
                request as JSON on stdin, with `open_files`, the soft limit to set, if we may have
                raised ours. It ends at once, having forked itself away.
        """
        self._server = server
        self._kind = kind
        self._program = program
        self._sending = trio.Lock()

    async def start(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Start a process for `request`; the caller may close `fds` afterwards.

        What becomes of it has to be told on one of them: EOF there without a word means that it
        was killed, or did not get its descriptors.

        If cancelled, nothing was started. A request that is half sent by then is sent to its end,
        for at most `_TAKE_S`, and has been started if that succeeds; the slow way is not cut off
        either, for at most `_SLOW_START_S`. Returns without `Cancelled` then.

        Raises:
            OSError: It cannot be started in either way.
        """
        if not await self._ask_server(frames.encode({**request, KIND: self._kind}, fds)):
            # Not abandoned: the caller closes `fds`, and their numbers may be other files' then.
            await trio.to_thread.run_sync(self._start_slowly, request, fds)

    def give_up(self) -> None:
        """End a fork server that left a request unanswered; the slow way is taken from now on."""
        if self._server is not None:
            if self._server.sock is not None:
                trio.lowlevel.notify_closing(self._server.sock)
            self._server.give_up()

    async def _ask_server(self, frame: frames.Frame) -> bool:
        """Send a request; False if there is no fork server that takes it."""
        async with self._sending:
            server = self._server
            while server is not None and (sock := server.sock) is not None:
                try:
                    if frame.send_some(sock):
                        return True
                except BlockingIOError:
                    if not await _is_writable(sock, shield=frame.is_begun):
                        self.give_up()
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


async def _is_writable(sock: socket.socket, *, shield: bool) -> bool:
    """Wait until the fork server reads; False if it does not for `_TAKE_S`.

    Args:
        sock: The owner's end.
        shield: Part of a request was sent: half of one would be the end of all that follow.
    """
    with trio.move_on_after(_TAKE_S, shield=shield):
        # Closed: another task has given it up.
        with contextlib.suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(sock)
        return True
    return False

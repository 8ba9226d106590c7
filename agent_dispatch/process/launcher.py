"""Start a guard: by the spawner, or the slow way where there is none."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

import trio

from agent_dispatch.process import guard
from agent_dispatch.process.spawner import Frame, Spawner


class Launcher:
    """Starts guards for one owner; made once, shared by all of its runs."""

    def __init__(self, spawner: Spawner | None) -> None:
        """Use `spawner`, which stays the caller's to close; None always goes the slow way."""
        self._spawner = spawner
        self._sending = trio.Lock()

    async def start_guard(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Start a guard for `request`; the caller may close `fds` afterwards.

        What becomes of it is told on the status pipe, which is one of `fds`: EOF there without
        `ready` means that nothing was started. A cancellation does not interrupt it half-way.

        Raises:
            OSError: A guard cannot be started in either way.
        """
        with trio.CancelScope(shield=True):
            if not await self._ask_spawner(Frame(request, fds)):
                await trio.to_thread.run_sync(_start_slowly, request, fds)

    async def _ask_spawner(self, frame: Frame) -> bool:
        async with self._sending:
            while self._spawner is not None and (sock := self._spawner.sock) is not None:
                try:
                    if frame.send_some(sock):
                        return True
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
                except (BrokenPipeError, ConnectionResetError):
                    self._spawner.close()
        return False


def _start_slowly(request: Mapping[str, object], fds: Sequence[int]) -> None:
    """Start the guard as a program of its own: about ten times as long as a fork."""
    try:
        # Returns as soon as the guard has forked itself away from us.
        subprocess.run(
            [sys.executable, "-I", "-S", guard.__file__, *map(str, fds)],
            input=json.dumps(request).encode(),
            pass_fds=fds,
            start_new_session=True,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise OSError(f"the guard did not start: {error}") from error

"""Start a guard, or another process of ours: by a spawner, or the slow way where there is none."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

import trio

from agent_dispatch.process import frames, guard
from agent_dispatch.process.spawner import Spawner

GUARD_PROGRAM = (sys.executable, "-I", "-S", guard.__file__)
"""The slow way to a guard: about ten times as long as a fork."""


class Launcher:
    """Starts processes of one kind for one owner; made once, shared by all of its runs."""

    def __init__(self, spawner: Spawner | None, program: Sequence[str] = GUARD_PROGRAM) -> None:
        """Use `spawner`, which stays the caller's to close.

        Args:
            spawner: None always goes the slow way.
            program: The slow way: gets the numbers of its descriptors as arguments and the
                request as JSON on stdin, with `open_files`, the soft limit to set, if we may have
                raised ours; and ends at once, having forked itself away.
        """
        self._spawner = spawner
        self._program = program
        self._sending = trio.Lock()

    async def start(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Start a process for `request`; the caller may close `fds` afterwards.

        What becomes of it has to be told on one of them: EOF there without a word means that it
        was killed, or did not get its descriptors. A cancellation does not interrupt it half-way.

        Raises:
            OSError: It cannot be started in either way.
        """
        with trio.CancelScope(shield=True):
            if not await self._ask_spawner(frames.encode(request, fds)):
                await trio.to_thread.run_sync(self._start_slowly, request, fds)

    async def _ask_spawner(self, frame: frames.Frame) -> bool:
        async with self._sending:
            while self._spawner is not None and (sock := self._spawner.sock) is not None:
                try:
                    if frame.send_some(sock):
                        self._spawner.sent()
                        return True
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
                except (BrokenPipeError, ConnectionResetError):
                    self._spawner.close()
        return False

    def _start_slowly(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        if self._spawner is not None:
            request = {**request, "open_files": self._spawner.open_files}
        try:
            subprocess.run(
                [*self._program, *map(str, fds)],
                input=json.dumps(request).encode(),
                pass_fds=fds,
                start_new_session=True,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise OSError(f"{self._program} did not start: {error}") from error

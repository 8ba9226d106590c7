"""Every process that descends from programs of one test, however it detached itself."""

import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import trio

_TOKEN = "AGENT_DISPATCH_TEST_TOKEN"


class Census:
    """Counts the processes that were started with its mark in their environment, and below them.

    The environment is inherited, so one that changed session, group and parent is found too.
    """

    def __init__(self) -> None:
        token = uuid.uuid4().hex
        self.mark = {_TOKEN: token}
        """Belongs into the environment of what is to be counted."""
        self._entry = f"{_TOKEN}={token}".encode()

    def alive(self) -> dict[int, str]:
        """The living ones: pid to command line."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            # Gone meanwhile, or another user's: not one of ours.
            with suppress(OSError):
                if self._entry in (proc / "environ").read_bytes().split(b"\0"):
                    arguments = (proc / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(proc.name)] = arguments.decode(errors="replace")[:200]
        return found

    async def nothing_left(self, within_s: float) -> None:
        """Wait until none is alive, or fail with those that are."""
        left = self.alive()
        with trio.move_on_after(within_s):
            # They are not children of this process: their death raises no event here.
            while left:  # noqa: ASYNC110
                await trio.sleep(0.02)
                left = self.alive()
        assert left == {}

    def sweep(self) -> None:
        """Kill what a failed test left behind."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

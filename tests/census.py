"""Finds every process that descends from a test's programs, however it detached itself."""

import os
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import trio

MARK = "AGENT_DISPATCH_TEST_TOKEN"
"""The environment variable that marks the processes of one test."""


class Census:
    """Counts the processes that have its mark in their environment.

    The environment is inherited, so a process that changed session, group and parent is found too.
    """

    def __init__(self) -> None:
        token = uuid.uuid4().hex
        self.mark = {MARK: token}
        """Add this to the environment of programs to count."""
        self._entry = f"{MARK}={token}".encode()

    def alive(self) -> dict[int, str]:
        """The living processes: command lines by pid."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            # It has ended meanwhile, or is another user's, so it is not ours.
            with suppress(OSError):
                if self._entry in (proc / "environ").read_bytes().split(b"\0"):
                    arguments = (proc / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(proc.name)] = arguments.decode(errors="replace")[:200]
        return found

    async def nothing_left(self, within_s: float) -> None:
        """Wait until no process is alive, or fail and list those that are."""
        with trio.move_on_after(within_s):
            # What is found may have started others before it ended.
            while left := self.alive():
                async with trio.open_nursery() as nursery:
                    for pid in left:
                        nursery.start_soon(_wait_for_end, pid)
        assert self.alive() == {}

    def sweep(self) -> None:
        """Kill the processes that a failed test left behind."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def _wait_for_end(pid: int) -> None:
    """Wait for the end of a process, which need not be a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)

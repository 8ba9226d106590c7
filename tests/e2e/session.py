"""A person's session with the real CLI, on a pseudo-terminal."""

import json
import os
import pty
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyte
import trio

from tests.e2e.world import World

_SERVER = "mcp__agent-dispatch"
_COLUMNS, _ROWS = 120, 40


class Session:
    """An interactive session on a pseudo-terminal."""

    def __init__(self, process: trio.Process, fd: int, columns: int, rows: int) -> None:
        self.process = process
        self._fd = fd
        self.screen = pyte.Screen(columns, rows)
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def text(self) -> str:
        """What a person would see."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    async def show(self) -> None:
        """Keep the screen up to date."""
        stream = pyte.ByteStream(self.screen)
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                stream.feed(os.read(self._fd, 65536))
            except OSError:  # EIO: nobody has the terminal open.
                return
            self._changed.unpark_all()

    async def wait_for(self, *texts: str) -> None:
        """Wait until the screen shows all of the texts."""
        while not all(text in self.text for text in texts):
            await self._changed.park()

    async def press_until_gone(self, keys: str, text: str) -> None:
        """Press a key until the screen shows something else: a new form ignores keys at first."""
        while text in self.text:
            os.write(self._fd, keys.encode())
            with trio.move_on_after(1):
                while text in self.text:
                    await self._changed.park()


@asynccontextmanager
async def session(
    world: World,
    project: Path,
    *arguments: str,
    columns: int = _COLUMNS,
    rows: int = _ROWS,
) -> AsyncIterator[Session]:
    """Run the CLI on a terminal; killed at the end of the block."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (rows, columns))
    try:
        process = await trio.lowlevel.open_process(
            [*world.place.prefix, "claude", f"--allowedTools={_SERVER}", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=project,
            env={**world.environ, "TERM": "xterm-256color"},
            pass_fds=world.place.pass_fds,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    shown = Session(process, ours, columns, rows)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shown.show)
            try:
                yield shown
            except BaseException:
                print(shown.text)  # noqa: T201  # shown with the failure
                raise
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(ours)


def settle_in(world: World, project: Path) -> None:
    """Answer the questions of a first start, as a person did long ago."""
    path = world.home / ".claude.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    state |= {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": [world.environ["ANTHROPIC_API_KEY"][-20:]]},
    }
    state.setdefault("projects", {})[str(project)] = trusted
    path.write_text(json.dumps(state))

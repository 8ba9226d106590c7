"""A session of a person with the real CLI: a dispatch becomes a task that outlives the session."""

import json
import os
import pty
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyte
import pytest
import trio

from tests.e2e.messages_api import (
    ApiRequest,
    Held,
    MessagesApi,
    Reply,
    answer,
    bash,
    dispatch,
)
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

_SERVER = "mcp__agent-dispatch"
_COLUMNS, _ROWS = 120, 40


class Session:
    """An interactive session on a pseudo-terminal."""

    def __init__(self, process: trio.Process, fd: int) -> None:
        self.process = process
        self._fd = fd
        self.screen = pyte.Screen(_COLUMNS, _ROWS)
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
async def session(world: World, project: Path, *arguments: str) -> AsyncIterator[Session]:
    """Run the CLI on a terminal; killed at the end of the block."""
    ours, theirs = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            [*world.place.prefix, "claude", f"--allowedTools={_SERVER}", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=project,
            env={**world.environ, "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS)},
            pass_fds=world.place.pass_fds,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    shown = Session(process, ours)
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


def is_server(pid: int, command: str) -> bool:
    """Whether this is a server, and none of the processes that are forked for it."""
    is_forked = Path(f"/proc/{pid}/comm").read_text().startswith("dispatch-")
    return command.rstrip().endswith(" serve") and not is_forked


async def test_a_session_that_is_resumed_is_woken_with_the_answer(
    world: World, api: MessagesApi
) -> None:
    assert (await world.product("init")).exit_code == 0
    await world.add_agent("infra")
    project = world.project("backend")
    settle_in(world, project)
    may_answer = trio.Event()

    def decide(request: ApiRequest) -> Reply:
        newest = request.newest
        if "task-notification" in newest:
            return answer("so it is")
        if request.tool_results:
            return answer("I am told later")
        if "take your time, agent" in newest:
            return Held(may_answer, answer("forty-two"))
        if "ask the agent" in newest and request.tools:
            return dispatch("infra", "take your time, agent")
        return answer("as you wish")

    api.decide = decide
    with trio.fail_after(120):
        async with session(world, project, "ask the agent") as first:
            told = await api.wait_for(lambda request: bool(request.tool_results))
            assert "task" in told.tool_results[0]
            servers = [pid for pid, said in world.alive().items() if is_server(pid, said)]
            assert servers
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
            first.process.kill()
        [session_id] = [
            path.stem for path in (world.home / ".claude" / "projects").glob("*backend/*.jsonl")
        ]
        may_answer.set()
        async with session(world, project, "--resume", session_id):
            woken = await api.wait_for(lambda request: "task-notification" in request.newest)
    assert "forty-two" in woken.newest
    await world.nothing_left(within_s=10)


async def test_a_call_without_a_permission_is_allowed_in_the_form_and_runs(
    world: World, api: MessagesApi
) -> None:
    assert (await world.product("init")).exit_code == 0
    infra = await world.add_agent("infra", "--permission-mode", "manual")
    done = await world.product("update", "infra", "--permission-prompts", "ask")
    assert done.exit_code == 0, done
    project = world.project("backend")
    settle_in(world, project)

    def decide(request: ApiRequest) -> Reply:
        newest = request.newest
        if "task-notification" in newest:
            return answer("so it is")
        if "inner-output" in newest:
            return answer("the agent has touched it")
        if request.tool_results:
            return answer("I am told later")
        if "touch it, agent" in newest:
            return bash("touch proof && echo inner-output")
        if "ask the agent" in newest and request.tools:
            return dispatch("infra", "touch it, agent")
        return answer("as you wish")

    api.decide = decide
    with trio.fail_after(120):
        async with session(world, project, "ask the agent") as shown:
            await shown.wait_for("touch proof", "Accept")
            await shown.press_until_gone("\r", "Accept")
            woken = await api.wait_for(lambda request: "task-notification" in request.newest)
    assert "the agent has touched it" in woken.newest
    assert (infra / "proof").exists()
    await world.nothing_left(within_s=10)

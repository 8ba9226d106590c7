"""A server in a separate process, driven line by line."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests import warm

REPOSITORY = Path(__file__).parents[2]
PRODUCT, FAKE = "agent_dispatch", "tests.server.serve_fake"
"""Modules that serve, the second with a fake service."""
COMMAND = [sys.executable, "-m", FAKE]
LEAVE_S = 3.0 if "PYTEST_XDIST_WORKER" in os.environ else 0.45
"""What Claude Code leaves a server between its first signal and SIGKILL: 0.45 s.

Tests that run beside others share the processors, so they only check that it leaves.
"""

MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "init",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}

Message = dict[str, Any]


class Server:
    """The client's end of one served process."""

    def __init__(self, process: trio.Process | warm.WarmProcess) -> None:
        self.process = process
        self.stderr = ""
        """The server's stderr so far; complete after `wait_exit`."""
        self.modern = False
        self._unread = bytearray()
        self._stderr_grew = trio.lowlevel.ParkingLot()
        self._stderr_ended = trio.Event()

    async def say(self, *messages: Message) -> None:
        """Send messages, one per line."""
        await self.say_raw(b"".join(json.dumps(m).encode() + b"\n" for m in messages))

    async def say_raw(self, data: bytes) -> None:
        """Send raw bytes."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(data)

    async def hear(self) -> Message:
        """The server's next message."""
        assert self.process.stdout is not None
        while (end := self._unread.find(b"\n")) < 0:
            chunk = await self.process.stdout.receive_some()
            assert chunk, f"the server closed its end: {self.stderr}"
            self._unread += chunk
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        message: Message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    async def hear_answer(self, request_id: object) -> Message:
        """The answer to one request; earlier messages are dropped."""
        while (message := await self.hear()).get("id") != request_id:
            pass
        return message

    async def shake_hands(self, *, modern: bool = False) -> None:
        """Open the connection in one of the eras."""
        self.modern = modern
        if modern:
            await self.say(self.request("init", "server/discover"))
        else:
            await self.say(INITIALIZE, INITIALIZED)
        assert "result" in await self.hear_answer("init")

    def request(self, request_id: object, method: str, **params: object) -> Message:
        """A request in the form of the era."""
        if self.modern:
            params["_meta"] = {**MODERN_META, **params.get("_meta", {})}  # type: ignore[dict-item]  # a test's own
        return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}

    def dispatch(self, request_id: object, task: str, **params: object) -> Message:
        """A call of `dispatch`."""
        arguments = {"agent": "infra", "task": task}
        return self.request(
            request_id, "tools/call", name="dispatch", arguments=arguments, **params
        )

    async def wait_exit(self) -> tuple[int, float]:
        """The exit status, and the seconds from now to the exit."""
        started = trio.current_time()
        status = await self.process.wait()
        took_s = trio.current_time() - started
        await self._stderr_ended.wait()
        return status, took_s

    async def wait_stderr(self, text: str) -> None:
        """Wait until the server has written `text` to stderr."""
        while text not in self.stderr:
            await self._stderr_grew.park()

    async def collect_stderr(self) -> None:
        """Read stderr to its end."""
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.stderr += chunk.decode()
            self._stderr_grew.unpark_all()
        self._stderr_ended.set()


@asynccontextmanager
async def serving(
    *args: str,
    module: str = FAKE,
    command: Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
) -> AsyncIterator[Server]:
    """A server process that is always ended at the end of the block.

    Args:
        args: The arguments of the server.
        module: What is run, in a process that has imported everything already.
        command: Run this in a new process instead; for tests of how a server starts.
        env: The environment, besides PATH.
        stdin: A descriptor, PIPE or DEVNULL.
        stdout: A descriptor, PIPE or DEVNULL.
    """
    environ = {"PATH": "/usr/bin:/bin", **(env or {})}
    with trio.fail_after(20):
        if command is None:
            process: trio.Process | warm.WarmProcess
            process = warm.start(module, *args, env=environ, stdin=stdin, stdout=stdout)
        else:
            process = await trio.lowlevel.open_process(
                [*command, *args],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd=REPOSITORY,
                env=environ,
            )
        server = Server(process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.collect_stderr)
                yield server
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for stream in (process.stdin, process.stdout, process.stderr):
                    if stream is not None:
                        await stream.aclose()

"""The environment of one test: a clean home, project directories, and programs started in it."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests import warm
from tests.census import Census
from tests.e2e.mcp_client import McpClient
from tests.e2e.network import Place

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_ONE_SERVICE = Path(__file__).with_name("one_service.py")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Its standard output as one JSON value, or a failure that shows both outputs."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"not JSON on stdout: {self!r}") from None

    def result(self) -> dict[str, Any]:
        """The last `result` event of a stream that the bare CLI printed."""
        events = [json.loads(line) for line in self.stdout.splitlines()]
        results = [event for event in events if event["type"] == "result"]
        assert results, f"no result event: {self!r}"
        last: dict[str, Any] = results[-1]
        return last


class World(Census):
    """A clean environment: a separate home, PATH and, if allowed, network."""

    def __init__(self, root: Path, *, claude: Path, place: Place, api_url: str) -> None:
        super().__init__()
        self.root = root
        self.home = root / "home"
        self.home.mkdir()
        programs = root / "bin"
        programs.mkdir()
        (programs / "claude").symlink_to(claude)
        # Short, because the CLI makes sockets in it and their names have a limit.
        scratch = root / "t"
        scratch.mkdir()
        self._place = place
        self.environ = {
            "HOME": str(self.home),
            "PATH": f"{programs}:{_SYSTEM_PATH}",
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            **self.mark,
            # Allows the CLI to bypass permissions as root; tests in containers often run as root.
            "IS_SANDBOX": "1",
            "ANTHROPIC_API_KEY": "sk-test-only-for-the-loopback",
            "ANTHROPIC_BASE_URL": api_url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }

    @property
    def place(self) -> Place:
        """The network that its programs are started in."""
        return self._place

    def project(self, name: str, *, claude_md: str = "") -> Path:
        """Make a project directory for an agent."""
        directory = self.root / name
        directory.mkdir()
        (directory / "CLAUDE.md").write_text(claude_md or f"The project {name}.\n")
        return directory

    async def add_agent(self, name: str, *options: str) -> Path:
        """Make a project directory and register it."""
        directory = self.project(name)
        added = await self.product("add", name, str(directory), *options)
        assert added.exit_code == 0, added
        return directory

    @staticmethod
    def product_command(*arguments: str) -> list[str]:
        """The command line of one command of the product."""
        return [sys.executable, "-m", "agent_dispatch", *arguments]

    async def product(self, *arguments: str, stdin: str = "") -> Finished:
        """Run one command of the product to its end, in a fork of a warm process."""
        done = await warm.run(
            "agent_dispatch",
            *arguments,
            env=self.environ,
            cwd=self.home,
            stdin=stdin.encode(),
            namespaces=self._place.namespaces,
        )
        return Finished(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[McpClient]:
        """A server that runs beside the test, after its handshake."""
        process = warm.start(
            "agent_dispatch",
            "serve",
            # Inherited, so that pytest shows it with a failure and no pipe fills up.
            stderr=None,
            cwd=self.home,
            env=self.environ,
            namespaces=self._place.namespaces,
        )
        try:
            client = McpClient(process)
            await client.initialize()
            yield client
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def dispatch_each(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out requests one after the other through the service, as its callers do."""
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = await self.run(sys.executable, str(_ONE_SERVICE), stdin=lines)
        assert done.exit_code == 0, done
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def claude(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Finished:
        """Run the bare CLI to its end."""
        return await self.run("claude", *arguments, stdin=stdin, cwd=cwd)

    async def run(
        self,
        *command: str,
        stdin: str = "",
        cwd: Path | None = None,
    ) -> Finished:
        """Run a program to its end; returns its exit status and outputs, also if it fails."""
        done = await trio.run_process(
            [*self._place.prefix, *command],
            stdin=stdin.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=cwd or self.home,
            env=self.environ,
            pass_fds=self._place.pass_fds,
        )
        return Finished(
            exit_code=done.returncode, stdout=done.stdout.decode(), stderr=done.stderr.decode()
        )

    @asynccontextmanager
    async def started(self, *command: str, cwd: Path | None = None) -> AsyncIterator[trio.Process]:
        """A program that runs beside the test, with pipes; killed at the end of the block."""
        process = await trio.lowlevel.open_process(
            [*self._place.prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Inherited, so that pytest shows it with a failure and no pipe fills up.
            stderr=None,
            cwd=cwd or self.home,
            env=self.environ,
            pass_fds=self._place.pass_fds,
        )
        try:
            yield process
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


class Witness:
    """A shell command that reports its start, and whose end can be awaited.

    It holds the writing end of a FIFO, and so do all processes that it starts. End of file means
    that all of them have ended, however they detached themselves.
    """

    def __init__(self, path: Path, *, seconds: int = 600) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.command = f"exec 3>{path}; echo begun >&3; sleep {seconds}"

    async def begun(self) -> None:
        """Wait until the command runs."""
        await trio.lowlevel.wait_readable(self._fd)
        assert os.read(self._fd, 100) == b"begun\n"

    async def ended(self) -> None:
        """Wait until the command, which has begun, and all processes below it have ended."""
        await trio.lowlevel.wait_readable(self._fd)
        assert os.read(self._fd, 100) == b""

    def close(self) -> None:
        """Close the reading end."""
        os.close(self._fd)

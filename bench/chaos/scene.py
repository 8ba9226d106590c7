"""The place of one chaos run: a separate installation, its server and its processes."""

import fcntl
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from agent_dispatch.claude.process_tree import kill_marked
from agent_dispatch.model.job import JOB_VARIABLE
from bench.chaos.agents import script
from tests.faults.house import PRODUCT, House
from tests.warm import WarmProcess

_SMALL_PIPE_BYTES = 4096
_QUIET_LOOKS = 5
_TOLD_ID = re.compile(r" · started · job ([0-9a-f]{8})$")
_HANGING = """
import os, threading
scandir = os.scandir
def hang(path="."):
    if str(path) == {path!r}:
        threading.Event().wait()
    return scandir(path)
os.scandir = hang
"""
"""Each of our processes loads this, but agents do not. One directory then never answers."""
_HUNG_TIMEOUT_S = 2


@dataclass(frozen=True, kw_only=True)
class Process:
    """A living process of the scene."""

    pid: int
    name: str
    """Its own name: `dispatch-guard`, `dispatch-work`, `dispatch-fork`, or the program's."""
    is_agent: bool
    """Whether it is a scripted claude or a process that one forked."""
    job_id: str
    """The job of the agent in which it runs, if any."""


class Scene(House):
    """An installation that belongs to one run."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Set up `directory`, which exists and is empty."""
        super().__init__(directory, script(directory, limit), settings=f"max_concurrency = {limit}")
        self.directory = directory
        with self.config.open("a") as config:
            config.write(f'[agents.web]\ndirectory = "{directory / "project"}"\n')
            hung = directory / "hung"
            config.write(f'[agents.hung]\ndirectory = "{hung}"\ntimeout = {_HUNG_TIMEOUT_S}\n')
        hung.mkdir()
        modules = directory / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(_HANGING.format(path=str(hung)))
        self.environ["PYTHONPATH"] = str(modules)
        self._claude_path = str(self._claude).encode()
        self._token = next(f"{name}={value}" for name, value in self.mark.items())
        self.swept = 0
        """How many processes `sweep` had to kill."""
        self.said = directory / "said"
        """The stderr of the servers."""

    def processes(self) -> list[Process]:
        """All living processes, including those that cleared their environment."""
        return list(self._look_at(proc for proc in Path("/proc").glob("[0-9]*")))

    def _look_at(self, procs: Iterable[Path]) -> Iterator[Process]:
        token, variable = self._token.encode(), f"{JOB_VARIABLE}=".encode()
        for proc in procs:
            with suppress(OSError):  # It has ended meanwhile, or is another user's.
                arguments = (proc / "cmdline").read_bytes()
                environ = (proc / "environ").read_bytes().split(b"\0")
                is_agent = self._claude_path in arguments
                if is_agent or token in environ:
                    jobs = [entry for entry in environ if entry.startswith(variable)]
                    yield Process(
                        pid=int(proc.name),
                        name=(proc / "comm").read_text().strip(),
                        is_agent=is_agent,
                        job_id=jobs[0].decode().partition("=")[2] if jobs else "",
                    )

    def alive(self) -> dict[int, str]:
        """The living processes: a description by pid."""
        return {
            process.pid: f"{process.name}{' of an agent' if process.is_agent else ''}"
            for process in self.processes()
        }

    def agents(self) -> list[int]:
        """The living processes of agents."""
        return [process.pid for process in self.processes() if process.is_agent]

    def named(self, name: str) -> list[int]:
        """Our own processes with this name."""
        return [p.pid for p in self.processes() if p.name == name and not p.is_agent]

    async def command(self, *arguments: str) -> str:
        """The stdout of a command of the product, and its stderr."""
        beside = ("sh", "-c", f'exec "$@" 2>>{self.said}', "sh")
        done = await trio.run_process(
            [*beside, *PRODUCT, *arguments], capture_stdout=True, env=self.environ, check=False
        )
        return done.stdout.decode()

    async def gone(self, living: Callable[[], Collection[object]], within_s: float) -> bool:
        """Wait until all of these processes have ended; False if that takes too long."""
        with trio.move_on_after(within_s):
            # One look may miss a process that forks and exits every few milliseconds.
            quiet_looks = 0
            while quiet_looks < _QUIET_LOOKS:
                quiet_looks = 0 if living() else quiet_looks + 1
                await trio.sleep(0.005)
            return True
        return False

    def sweep(self) -> None:
        """Kill all remaining processes, even those that fork faster than they can be listed."""
        self.swept = kill_marked(self._token) + signal_all(self.agents(), signal.SIGKILL)

    def sweep_escaped(self) -> None:
        """Kill the processes that nothing else can find."""
        signal_all(self.agents(), signal.SIGKILL)

    @asynccontextmanager
    async def served(self, file_blocks: int | None) -> AsyncIterator["Client"]:
        """A server after its handshake, and a client that reads its output.

        Args:
            file_blocks: The largest file that it and its agents may write; None: any size.
        """
        limit = "" if file_blocks is None else f"ulimit -f {file_blocks}; "
        loosely = ("sh", "-c", f'{limit}umask 000; exec "$@" 2>>{self.said}', "sh")
        async with self.serving(*loosely) as mcp, trio.open_nursery() as nursery:
            client = Client(mcp.process, self.directory)
            nursery.start_soon(client.read)
            yield client
            nursery.cancel_scope.cancel()


class Client:
    """Talks to one server: sends requests without waiting, and keeps the answers."""

    def __init__(self, process: trio.Process | WarmProcess, directory: Path) -> None:
        """Use a server after its handshake; its records are somewhere below `directory`."""
        self.process = process
        self._directory = directory
        self.asked: dict[int, str] = {}
        """The tool of each request that has no answer yet."""
        self.answers: dict[int, Any] = {}
        """The answer of the tool by request; a text if it was an error."""
        self.acknowledged: set[str] = set()
        """Ids of jobs that the server named."""
        self.is_reading = True
        self._last_id = 1000
        self._sending = trio.Lock()
        self._may_read = trio.Event()
        self._may_read.set()
        self._silences = 0
        self._moved = trio.Event()

    @property
    def is_up(self) -> bool:
        """Whether the server still runs."""
        return self.process.returncode is None

    async def post(self, tool: str, **arguments: object) -> int | None:
        """Call a tool; returns the id of the request, or None if the server no longer reads."""
        self._last_id += 1
        request = self._last_id
        parameters = {"name": tool, "arguments": arguments, "_meta": {"progressToken": request}}
        self.asked[request] = tool
        if await self._send({"id": request, "method": "tools/call", "params": parameters}):
            return request
        del self.asked[request]
        return None

    async def withdraw(self, request: int) -> None:
        """Cancel a request, which then needs no answer."""
        self.asked.pop(request, None)
        parameters = {"requestId": request}
        await self._send({"method": "notifications/cancelled", "params": parameters})

    async def answered(self) -> None:
        """Wait until every request has its answer, or no more answers can arrive."""
        while self.is_reading and not self.asked.keys() <= self.answers.keys():
            await self._moved.wait()

    async def answer_to(self, request: int) -> Any:
        """Wait for the answer to a request, which is a text if it is an error.

        Raises:
            EOFError: The server has ended.
        """
        while request not in self.answers:
            if not self.is_reading:
                raise EOFError("the server has ended")
            await self._moved.wait()
        return self.answers[request]

    def forget(self) -> None:
        """Drop all answers so far."""
        for request in list(self.answers):
            del self.answers[request]
            self.asked.pop(request, None)
        self.acknowledged.clear()

    async def hang_up(self) -> None:
        """Close the server's stdin: no more requests will follow."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def close_reading_end(self) -> None:
        """Close the reading end."""
        assert self.process.stdout is not None
        self._end()
        await self.process.stdout.aclose()

    @asynccontextmanager
    async def not_reading(self) -> AsyncIterator[None]:
        """Stop reading, so that the server's output piles up."""
        if not self.is_reading:  # The reading end is closed already.
            yield
            return
        assert isinstance(self.process.stdout, trio.lowlevel.FdStream)
        fcntl.fcntl(self.process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _SMALL_PIPE_BYTES)
        if not self._silences:
            self._may_read = trio.Event()
        self._silences += 1
        try:
            yield
        finally:
            self._silences -= 1
            if not self._silences:
                self._may_read.set()

    async def read(self) -> None:
        """Read until the server or we close the pipe."""
        assert self.process.stdout is not None
        buffer = b""
        try:
            while self.is_reading and (chunk := await self.process.stdout.receive_some()):
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
                self._moved.set()
                self._moved = trio.Event()
                await self._may_read.wait()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass  # We closed it.
        self._end()

    def _end(self) -> None:
        self.is_reading = False
        self._moved.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("method") == "notifications/progress":
            text = message["params"]["message"]
            if told := _TOLD_ID.search(text):
                # The message has the end of the id; without a record it stays that end.
                records = self._directory.rglob(f"*{told[1]}.json")
                self.acknowledged.add(next((path.stem for path in records), told[1]))
        elif "id" in message:
            self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        result = message.get("result")
        if result is None:
            answer: Any = message["error"]["message"]
        else:
            answer = json.loads("".join(block["text"] for block in result["content"]))
            if result.get("isError"):
                answer = answer["error"]
        self.answers[message["id"]] = answer
        self.acknowledged.update(row["job_id"] for row in rows(answer) if "job_id" in row)

    async def _send(self, message: dict[str, Any]) -> bool:
        assert self.process.stdin is not None
        line = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
        try:
            async with self._sending:
                await self.process.stdin.send_all(line.encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True


def rows(answer: object) -> Iterator[dict[str, Any]]:
    """All objects in an answer, including nested ones."""
    if isinstance(answer, dict):
        yield answer
        for value in answer.values():
            yield from rows(value)
    elif isinstance(answer, list):
        for value in answer:
            yield from rows(value)


def signal_all(pids: Iterable[int], signum: int) -> int:
    """Signal processes; returns how many of them still existed."""
    reached = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
            reached += 1
    return reached

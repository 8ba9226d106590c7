"""How things are measured: a client of MCP servers, and what `/proc` says of their processes.

Everything is driven from outside, over pipes and command lines; nothing of the product is imported.
"""

import json
import math
import os
import resource
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from bench.cpu import CpuMeter, why_not_counted

ANSWER_S = 60.0
"""How long one answer may take before the measurement is given up."""

_TOKEN = "AGENT_DISPATCH_BENCH_TOKEN"
_CLIENT = {"name": "bench", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}

_P = ParamSpec("_P")


class RefusedError(Exception):
    """The server answered a request with an error."""


class Tree:
    """All processes that descend from one program, found by a variable in their environment.

    So helpers that left its session, or lost their parent, are counted too.
    """

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment to start the program with."""
        return {**base, _TOKEN: self._token}

    def pids(self) -> list[int]:
        """The processes that live now."""
        return [int(proc.name) for proc in self._processes()]

    def pids_of(self, program: str) -> list[int]:
        """Those of them that run `program`, be it a script."""
        return [pid for pid in self.pids() if program in _arguments(pid)[:3]]

    def memory_mib(self) -> tuple[float, float]:
        """Resident and proportional memory, all processes together."""
        return memory_mib(self.pids())

    def threads(self) -> int:
        """Threads, all processes together."""
        return sum(len(list((proc / "task").iterdir())) for proc in self._processes())

    def wake_ups(self) -> int:
        """How often its threads went to sleep so far."""
        total = 0
        for proc in self._processes():
            for status in proc.glob("task/*/status"):
                for line in status.read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
        return total

    def kill(self) -> None:
        """End what is left of it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[Path]:
        entry = f"{_TOKEN}={self._token}".encode()
        for proc in Path("/proc").glob("[0-9]*"):
            # Gone meanwhile, or another user's: not one of ours.
            with suppress(OSError):
                if entry in (proc / "environ").read_bytes().split(b"\0"):
                    yield proc


def memory_mib(pids: Iterable[int]) -> tuple[float, float]:
    """Resident and proportional memory of processes, together."""
    rss = pss = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Rss":
                    rss += int(value.split()[0])
                elif name == "Pss":
                    pss += int(value.split()[0])
    return rss / 1024, pss / 1024


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


class Server:
    """One MCP server over stdio, driven in lock step."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], *, pass_fds: Sequence[int] = ()
    ) -> None:
        self.tree = Tree()
        self._buffer = b""
        self._next_id = 0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.tree.environ(environ),
            cwd=environ["HOME"],
            pass_fds=pass_fds,
        )
        self.pid = self._process.pid
        self._meter = None if why_not_counted() else CpuMeter(self.pid)
        self.exit_s = math.nan
        """How long it took to leave after its stdin was closed."""

    def cpu_s(self) -> float:
        """CPU seconds so far of the server and of all that descends from it, the dead included.

        Not a number where the machine does not let us count.
        """
        return math.nan if self._meter is None else self._meter.seconds()

    def initialize(self) -> list[Any]:
        """Open as clients of the older protocol do, and list the tools."""
        parameters = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": _CLIENT,
        }
        self.request("initialize", parameters)
        self._send({"method": "notifications/initialized"})
        return self._tools({})

    def discover(self) -> list[Any]:
        """Open as Claude Code does: ask what is there, fall back to the handshake; list tools."""
        try:
            self.request("server/discover", {"_meta": _META}, "server-discover-probe-1")
        except RefusedError:
            return self.initialize()
        return self._tools({"_meta": _META})

    def request(self, method: str, parameters: object, request_id: int | str | None = None) -> Any:
        """Send one request and wait for its answer."""
        sent = self.post(method, parameters, request_id)
        return self.answers([sent])[sent]

    def call(self, tool: str, arguments: object, *, watched: bool = False) -> Any:
        """Call a tool; its answer, decoded from the text. `watched` asks for progress."""
        parameters: dict[str, object] = {"name": tool, "arguments": arguments}
        if watched:
            parameters["_meta"] = {"progressToken": 1}
        return answer_of(self.request("tools/call", parameters))

    def post_call(self, tool: str, arguments: object) -> int | str:
        """Call a tool without waiting; the id of the request, for `answers`."""
        return self.post("tools/call", {"name": tool, "arguments": arguments})

    def post(
        self, method: str, parameters: object, request_id: int | str | None = None
    ) -> int | str:
        """Send one request without waiting; its id."""
        if request_id is None:
            self._next_id += 1
            request_id = self._next_id
        self._send({"id": request_id, "method": method, "params": parameters})
        return request_id

    def answers(self, request_ids: Iterable[int | str]) -> dict[int | str, Any]:
        """Wait for the answers to requests, in whatever order; notifications are dropped."""
        return dict(self.each_answer(request_ids))

    def each_answer(self, request_ids: Iterable[int | str]) -> Iterator[tuple[int | str, Any]]:
        """The same one by one, as they come."""
        missing = set(request_ids)
        while missing:
            message = json.loads(self._line())
            if "method" in message or message["id"] not in missing:
                continue
            if "error" in message:
                raise RefusedError(message["error"]["message"])
            missing.remove(message["id"])
            yield message["id"], message["result"]

    def close_stdin(self) -> None:
        """Let it read the end of its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        """Close its stdin and wait until it has left."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begun = time.perf_counter()
        self._process.stdin.close()
        try:
            self._process.wait(timeout=ANSWER_S)
            self.exit_s = time.perf_counter() - begun
        finally:
            self._process.kill()
            self._process.stdout.close()
            if self._meter is not None:
                self._meter.close()

    def _tools(self, parameters: object) -> list[Any]:
        tools: list[Any] = self.request("tools/list", parameters)["tools"]
        return tools

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([fd], [], [], ANSWER_S)[0]:
                raise TimeoutError(f"no answer in {ANSWER_S:.0f} s")
            chunk = os.read(fd, 1 << 20)
            if not chunk:
                raise EOFError("the server has gone")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def answer_of(result: Any) -> Any:
    """What a tool answered, decoded from the text of its result."""
    text = "".join(block["text"] for block in result["content"])
    if result.get("isError"):
        raise RefusedError(text)
    return json.loads(text)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, closed when the block ends."""
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True, kw_only=True)
class Took:
    """What one program needed from start to end."""

    wall_s: float
    cpu_s: float


def run(command: Sequence[str], environ: Mapping[str, str], *, stdin: bytes = b"") -> Took:
    """Run a program to its end, and fail with what it said if it fails."""
    cpu_s = children_cpu_s()
    begun = time.perf_counter()
    done = subprocess.run(
        command, input=stdin, env=environ, cwd=environ["HOME"], capture_output=True, check=False
    )
    wall_s = time.perf_counter() - begun
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {said[-2000:]}")
    return Took(wall_s=wall_s, cpu_s=children_cpu_s() - cpu_s)


def children_cpu_s() -> float:
    """CPU seconds of all children that this process has reaped."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(action: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> float:
    """The seconds that one call takes."""
    begun = time.perf_counter()
    action(*args, **kwargs)
    return time.perf_counter() - begun

"""How things are measured: a client of MCP servers, and programs run to their end.

Everything is driven from outside, over pipes and command lines; nothing of the product is imported.
"""

import json
import math
import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

from bench.cpu import CpuMeter, why_not_counted
from bench.processes import Tree
from tests.e2e.network import Place

ANSWER_S = 60.0
"""How long one answer may take before the measurement is given up."""

_CLIENT = {"name": "bench", "version": "1"}
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}

_P = ParamSpec("_P")

HERE = Place()
"""The network of this machine."""

Watch = Callable[[], object]
WATCH_EVERY_S = 0.05
"""How often somebody who watches while answers are awaited gets to look."""


class RefusedError(Exception):
    """The server answered a request with an error."""


class Server:
    """One MCP server over stdio, driven in lock step."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        place: Place = HERE,
        *,
        open_files: int | None = None,
    ) -> None:
        """Start it, in `place`; `open_files`: with that soft limit of open files."""
        self.tree = Tree()
        self._buffer = bytearray()
        self._next_id = 0
        self._watch_at = 0.0
        self._unclaimed: dict[int | str, Any] = {}
        self.tools: frozenset[str] = frozenset()
        """What it offers; known once it was opened."""
        self._process = subprocess.Popen(
            [*place.prefix, *_with_open_files(open_files), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.tree.environ(environ),
            cwd=environ["HOME"],
            pass_fds=place.pass_fds,
        )
        self.pid = self._process.pid
        self._meter = None if why_not_counted() else CpuMeter(self.pid)
        self.received_bytes = 0
        """How much it has written so far."""
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
        sent = self.post_call(tool, arguments, watched=watched)
        return answer_of(self.answers([sent])[sent])

    def post_call(self, tool: str, arguments: object, *, watched: bool = False) -> int | str:
        """Call a tool without waiting; the id of the request, for `answers`."""
        parameters: dict[str, object] = {"name": tool, "arguments": arguments}
        if watched:
            # A token of its own, as each request that is under way must have.
            parameters["_meta"] = {"progressToken": self._next_id + 1}
        return self.post("tools/call", parameters)

    def post(
        self, method: str, parameters: object, request_id: int | str | None = None
    ) -> int | str:
        """Send one request without waiting; its id."""
        if request_id is None:
            self._next_id += 1
            request_id = self._next_id
        self._send({"id": request_id, "method": method, "params": parameters})
        return request_id

    def answers(
        self, request_ids: Iterable[int | str], watch: Watch | None = None
    ) -> dict[int | str, Any]:
        """Wait for the answers to requests, in whatever order.

        Answers to others are kept until they are asked for; notifications are dropped.
        """
        return dict(self.each_answer(request_ids, watch))

    def each_answer(
        self, request_ids: Iterable[int | str], watch: Watch | None = None
    ) -> Iterator[tuple[int | str, Any]]:
        """The same one by one, as they come; `watch` is called now and then meanwhile."""
        missing = set(request_ids)
        for request_id in missing & self._unclaimed.keys():
            missing.remove(request_id)
            yield request_id, _result(self._unclaimed.pop(request_id))
        while missing:
            message = json.loads(self._line(watch))
            if "method" in message:
                continue
            if message["id"] in missing:
                missing.remove(message["id"])
                yield message["id"], _result(message)
            else:
                self._unclaimed[message["id"]] = message

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
        self.tools = frozenset(tool["name"] for tool in tools)
        return tools

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()

    def _line(self, watch: Watch | None = None) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        give_up_at = time.monotonic() + ANSWER_S
        wait_s = ANSWER_S if watch is None else WATCH_EVERY_S
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if watch is not None and time.monotonic() >= self._watch_at:
                watch()
                self._watch_at = time.monotonic() + WATCH_EVERY_S
            if not select.select([fd], [], [], wait_s)[0]:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"no answer in {ANSWER_S:.0f} s")
                continue
            chunk = os.read(fd, 1 << 20)
            if not chunk:
                raise EOFError("the server has gone")
            self._buffer += chunk
            self.received_bytes += len(chunk)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _with_open_files(limit: int | None) -> list[str]:
    return [] if limit is None else ["/bin/sh", "-c", f'ulimit -Sn {limit}; exec "$@"', "sh"]


def _result(message: Any) -> Any:
    if "error" in message:
        raise RefusedError(message["error"]["message"])
    return message["result"]


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

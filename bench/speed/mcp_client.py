"""A client of MCP servers, and programs run to their end.

The product is driven from outside, over pipes and command lines; nothing of it is imported.
"""

import json
import math
import os
import resource
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, Self

from bench.processes import CpuMeter, Tree, why_not_counted
from tests.e2e.network import Place

ANSWER_S = 60.0
"""The measurement fails if one answer takes longer."""
WATCH_EVERY_S = 0.05
"""The interval in which a `watch` function is called while answers are awaited."""

_CLIENT = {"name": "bench", "version": "1"}
_META: dict[str, object] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_OLDER = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _CLIENT}

_P = ParamSpec("_P")
HERE = Place()
"""The network of this machine."""

RequestId = int | str
Watch = Callable[[], object]


class RefusedError(Exception):
    """The server answered a request with an error."""


class Server:
    """One MCP server over stdio; closed at the end of a `with` block."""

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        place: Place = HERE,
        *,
        open_files: int | None = None,
    ) -> None:
        """Start it in `place`, with `open_files` as its soft limit of descriptors."""
        if open_files is not None:
            command = ["/bin/sh", "-c", f'ulimit -Sn {open_files}; exec "$@"', "sh", *command]
        self.tree = Tree()
        self.tools: frozenset[str] = frozenset()
        """The names of its tools; known once the connection is open."""
        self.received_bytes = 0
        self.exit_s = math.nan
        """The time from the end of its stdin to its exit."""
        self._buffer = bytearray()
        self._next_id = 0
        self._watch_at = 0.0
        self._unclaimed: dict[RequestId, Any] = {}
        self._meta: dict[str, object] = {}
        """The metadata that the protocol requires in each call."""
        self.started_at = time.perf_counter()
        self._process = subprocess.Popen(
            [*place.prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.tree.environ(environ),
            cwd=environ["HOME"],
            pass_fds=place.pass_fds,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self._meter = None if why_not_counted() else CpuMeter(self.pid)

    def age_s(self) -> float:
        """The seconds since it was started."""
        return time.perf_counter() - self.started_at

    def cpu_s(self) -> float:
        """CPU seconds so far of the server and its descendants; NaN if they cannot be counted."""
        return math.nan if self._meter is None else self._meter.seconds()

    def initialize(self) -> list[Any]:
        """Open the connection with the older protocol's handshake; return the tools."""
        self.request("initialize", _OLDER)
        self._send({"method": "notifications/initialized"})
        return self._list_tools({})

    def discover(self) -> list[Any]:
        """Open the connection as Claude Code does: discover first, else the handshake."""
        try:
            self.request("server/discover", {"_meta": _META}, "server-discover-probe-1")
        except RefusedError:
            return self.initialize()
        self._meta = _META
        return self._list_tools({"_meta": _META})

    def _list_tools(self, parameters: object) -> list[Any]:
        tools: list[Any] = self.request("tools/list", parameters)["tools"]
        self.tools = frozenset(tool["name"] for tool in tools)
        return tools

    def request(self, method: str, parameters: object, request_id: RequestId | None = None) -> Any:
        """Send one request and wait for its answer."""
        sent = self.post(method, parameters, request_id)
        return self.answers([sent])[sent]

    def call(self, tool: str, arguments: object, *, watched: bool = False) -> Any:
        """Call a tool and decode its answer; `watched` asks for progress."""
        sent = self.post_call(tool, arguments, watched=watched)
        return answer_of(self.answers([sent])[sent])

    def post_call(self, tool: str, arguments: object, *, watched: bool = False) -> RequestId:
        """Call a tool without waiting; returns the id of the request, for `answers`."""
        # Concurrent requests need different tokens.
        meta = self._meta | ({"progressToken": self._next_id + 1} if watched else {})
        parameters: dict[str, object] = {"name": tool, "arguments": arguments}
        if meta:
            parameters["_meta"] = meta
        return self.post("tools/call", parameters)

    def post(
        self, method: str, parameters: object, request_id: RequestId | None = None
    ) -> RequestId:
        """Send one request without waiting; returns its id."""
        if request_id is None:
            self._next_id += 1
            request_id = self._next_id
        self._send({"id": request_id, "method": method, "params": parameters})
        return request_id

    def answers(
        self, request_ids: Iterable[RequestId], watch: Watch | None = None
    ) -> dict[RequestId, Any]:
        """Wait for the answers to requests, in any order.

        Answers to other requests are kept for later; notifications are dropped.
        """
        return dict(self.each_answer(request_ids, watch))

    def each_answer(
        self, request_ids: Iterable[RequestId], watch: Watch | None = None
    ) -> Iterator[tuple[RequestId, Any]]:
        """Yield the answers as they arrive; `watch` is called from time to time."""
        missing = set(request_ids)
        for request_id in missing & self._unclaimed.keys():
            missing.remove(request_id)
            yield request_id, _result(self._unclaimed.pop(request_id))
        while missing:
            message = json.loads(self._read_line(watch))
            if "method" in message:
                continue
            if message["id"] in missing:
                missing.remove(message["id"])
                yield message["id"], _result(message)
            else:
                self._unclaimed[message["id"]] = message

    def close_stdin(self) -> None:
        """End its stdin without waiting for its exit."""
        self._stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End its stdin and wait for its exit."""
        begun = time.perf_counter()
        self._stdin.close()
        try:
            self._process.wait(timeout=ANSWER_S)
            self.exit_s = time.perf_counter() - begun
        finally:
            self._process.kill()
            self._stdout.close()
            if self._meter is not None:
                self._meter.close()

    def _send(self, message: dict[str, object]) -> None:
        self._stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._stdin.flush()

    def _read_line(self, watch: Watch | None) -> bytes:
        give_up_at = time.monotonic() + ANSWER_S
        wait_s = ANSWER_S if watch is None else WATCH_EVERY_S
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if watch is not None and time.monotonic() >= self._watch_at:
                watch()
                self._watch_at = time.monotonic() + WATCH_EVERY_S
            if not select.select([self._stdout], [], [], wait_s)[0]:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"no answer in {ANSWER_S:.0f} s")
                continue
            chunk = os.read(self._stdout.fileno(), 1 << 20)
            if not chunk:
                raise EOFError("the server has ended")
            self._buffer += chunk
            self.received_bytes += len(chunk)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _result(message: Any) -> Any:
    if "error" in message:
        raise RefusedError(message["error"]["message"])
    return message["result"]


def answer_of(result: Any) -> Any:
    """A tool's answer, decoded from the text of its result."""
    text = "".join(block["text"] for block in result["content"])
    if result.get("isError"):
        raise RefusedError(text)
    return json.loads(text)


def run_s(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Run a program to its end; returns the seconds it took.

    Raises:
        RuntimeError: It failed; the text has its output.
    """
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        env=environ,
        cwd=environ["HOME"],
        capture_output=True,
        check=False,
    )
    took_s = time.perf_counter() - begun
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}): {output[-2000:]}")
    return took_s


def children_cpu_s() -> float:
    """CPU seconds of all children that this process has reaped."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(action: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> float:
    """The seconds that one call takes."""
    begun = time.perf_counter()
    action(*args, **kwargs)
    return time.perf_counter() - begun

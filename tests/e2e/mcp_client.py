"""A client of our server that sends raw lines, one request at a time."""

import json
from collections.abc import Sequence
from typing import Any

import trio

from tests.warm import WarmProcess


class McpClient:
    """Drives one `agent-dispatch serve` over its pipes."""

    def __init__(self, process: trio.Process | WarmProcess) -> None:
        self.process = process
        self.progress: list[str] = []
        """The messages of all progress notifications so far."""
        self._buffer = b""
        self._last_id = 0

    async def initialize(self) -> None:
        """Do the handshake of the protocol of 2025-11-25."""
        await self.request(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "e2e", "version": "1"},
            },
        )
        await self._send({"method": "notifications/initialized"})

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and decode its one text as JSON."""
        return json.loads(await self.call_text(tool, **arguments))

    async def call_text(self, tool: str, **arguments: Any) -> str:
        """Call a tool and return its one text."""
        parameters = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
        result = await self.request("tools/call", parameters)
        [block] = result["content"]
        text: str = block["text"]
        return text

    async def request(self, method: str, parameters: dict[str, Any]) -> Any:
        """Send a request and wait for its result."""
        [result] = await self.answers([await self.post(method, parameters)])
        return result

    async def exchange(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer, a result or an error."""
        request_id = await self.post(method, parameters)
        while (message := await self._receive()).get("id") != request_id:
            pass
        return message

    async def answers(self, request_ids: Sequence[int]) -> list[Any]:
        """Wait for the results of requests; returns them in the order of the ids."""
        results: dict[int, Any] = {}
        while len(results) < len(request_ids):
            message = await self._receive()
            if message.get("method") == "notifications/progress":
                self.progress.append(message["params"]["message"])
            elif message.get("id") in request_ids:
                assert "error" not in message, message
                results[message["id"]] = message["result"]
        return [results[request_id] for request_id in request_ids]

    async def post(self, method: str, parameters: dict[str, Any]) -> int:
        """Send a request without waiting for its answer."""
        self._last_id += 1
        await self._send({"id": self._last_id, "method": method, "params": parameters})
        return self._last_id

    async def notify(self, method: str, parameters: dict[str, Any]) -> None:
        """Send a notification, which has no answer."""
        await self._send({"method": method, "params": parameters})

    async def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        line = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
        await self.process.stdin.send_all(line.encode())

    async def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            chunk = await self.process.stdout.receive_some()
            assert chunk, "the server closed its output"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

"""Calls of tools without the MCP library."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.caller import Caller
from agent_dispatch.server.calls.envelope import Envelope
from agent_dispatch.server.calls.pending import PendingCalls
from agent_dispatch.server.calls.toolbox import Toolbox
from agent_dispatch.server.tools.catalogue import TOOLS
from agent_dispatch.server.tools.tool import Tool
from tests.server.fake_service import FakeService


async def _ignore(_number: float, _message: str) -> None:
    await trio.lowlevel.checkpoint()


async def call(tool: str, service: Service | None = None, /, **arguments: object) -> Envelope:
    return await call_with(tool, arguments, service)


async def call_with(
    tool: str,
    arguments: object,
    service: Service | None = None,
    *,
    report: Callable[[float, str], Awaitable[None]] = _ignore,
    tools: Sequence[Tool[Any]] = TOOLS,
) -> Envelope:
    service = service or FakeService()
    async with trio.open_nursery() as nursery:
        pending = PendingCalls(nursery, service)
        reply = await Toolbox(service, tools).call(tool, arguments, report, Caller(), pending)
        nursery.cancel_scope.cancel()
    assert isinstance(reply, Envelope)
    return reply


def error_in(envelope: Envelope) -> str:
    assert envelope.is_error
    assert envelope.structured is None
    content = json.loads(envelope.text)
    assert list(content) == ["error"]
    return str(content["error"])

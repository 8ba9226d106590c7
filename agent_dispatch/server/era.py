"""One pipe, two protocol eras: when a client has chosen.

The library lets the first request choose, so a client that probes with `server/discover` could not
fall back to `initialize`. Here a request that only asks what there is gets a connection of its own
to the server, and chooses nothing; the first one that means it gets the connection that stays.
"""

from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.shared.message import SessionMessage
from mcp_types import PROTOCOL_VERSION_META_KEY, JSONRPCRequest
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_dispatch.server.transport import (
    MessageReader,
    MessageWriter,
    ReplayReader,
    Unanswered,
)
from agent_dispatch.server.wire import LineReader, Outbox

_PROBES = frozenset(
    {
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "server/discover",
        "tools/list",
    }
)
_MAX_EARLY_NOTIFICATIONS = 8


async def serve_messages(
    server: Server[Any],
    reader: MessageReader,
    lines: LineReader,
    outbox: Outbox,
    unanswered: Unanswered,
) -> None:
    """Serve the client until it goes."""
    options = server.create_initialization_options()

    async def until_answered() -> SessionMessage:
        await unanswered.wait_none()
        raise anyio.EndOfStream

    early: list[SessionMessage] = []
    while True:
        try:
            message = await reader.receive()
        except anyio.EndOfStream:
            return
        writer = MessageWriter(lines, outbox, unanswered)
        if not isinstance(message.message, JSONRPCRequest):
            early = [*early, message][:_MAX_EARLY_NOTIFICATIONS]
        elif _chooses(message.message):
            await server.run(ReplayReader([*early, message], reader.receive), writer, options)
            return
        else:
            await server.run(ReplayReader([message], until_answered), writer, options)


def _chooses(request: JSONRPCRequest) -> bool:
    """Whether the pipe keeps the era of this request."""
    if request.method == "initialize":
        return True
    meta = (request.params or {}).get("_meta")
    version = meta.get(PROTOCOL_VERSION_META_KEY) if isinstance(meta, dict) else None
    # What is refused for its version, or for coming before `initialize`, chooses nothing.
    return version in MODERN_PROTOCOL_VERSIONS and request.method not in _PROBES
